# SPDX-License-Identifier: Apache-2.0
"""Submissions to the Argoverse 2 scene flow challenges, from results whose pairs are named ``<log>/<stamp in ns>``.

Version 1 (2023): ``<log>/<stamp>.feather`` with ``flow_tx_m, flow_ty_m, flow_tz_m`` (float16) and ``is_dynamic``
(bool), a row per point of the official mask; the flow holds the sensor's motion.

Version 2 (2024): ``<log>/<0000000000, 0000000005, ...>.feather``, every fifth pair of a log numbered from its first,
with ``is_valid`` (bool) and the flow (float16), a row per point of the sweep; ``metadata.json`` says whether any labels
of the data set were used. The flow is *without* the sensor's motion, in the first sweep's frame, as the labels of that
challenge are.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scene_flow.export.flow_feather import FLOW_COLUMNS, arrow, table_bytes
from vision3d.atomic import whole_file
from vision3d.errors import DataError, UserError
from vision3d.types import FlowResult

Version = Literal[1, 2]
STEP = 5  # official scoring looks at every fifth pair
FRAME_S = 0.1
DYNAMIC_M = 0.05
SUPERVISED = "Is Supervised?"
_NAME = re.compile(r"(?P<log>[^/]+)/(?P<stamp>\d+)")
# Every zip of the same flow is the same file: no clock, no umask.
_DATE = (1980, 1, 1, 0, 0, 0)


def write_submission(
    path: str | Path,
    results: Sequence[FlowResult],
    version: Version,
    supervised: bool,
    masks: str | Path | None = None,
) -> Path:
    """Write the zip of a submission; atomic, one result in memory at a time, the same bytes for the same flow.

    Args:
        results: of pairs of the ``av2`` reader; may be read lazily. For version 2 all pairs of each log, of which
            every fifth is taken, or (``every=5``) these only.
        supervised: whether the method saw labels of Argoverse 2; the leaderboard asks (version 2).
        masks: the official masks for version 1, a zip or folder of ``<log>/<stamp>.feather``, each one column of bool.
            Without it every point of a sweep is written, which the server refuses.

    Raises:
        UserError: a pair's name says no log and stamp, its result has no flow, or the sensor's motion is not known.
        DataError: a mask is missing or has another number of points.
        MissingExtraError: pyarrow is not installed.
    """
    path = Path(path)
    arrow()
    names = [results[i].name for i in range(len(results))]
    entries = _entries(names, version)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        if version == 2:
            _put(archive, "metadata.json", json.dumps({SUPERVISED: supervised}, indent=4).encode())
        for entry, index in sorted(entries.items()):
            result = results[index]
            mask = None if masks is None else _mask(Path(masks), result.name)
            _put(archive, entry, table_bytes(_table(result, version, mask)))
    return path


def _entries(names: Sequence[str], version: Version) -> dict[str, int]:
    """File in the zip -> position of its result."""
    logs: dict[str, list[tuple[int, int]]] = {}
    for i, name in enumerate(names):
        match = _NAME.fullmatch(name)
        if match is None:
            raise UserError(f"pair '{name}' is not named <log>/<stamp in ns>: submissions need data of the reader av2")
        logs.setdefault(match["log"], []).append((int(match["stamp"]), i))
    entries: dict[str, int] = {}
    for log, pairs in logs.items():
        pairs.sort()
        if version == 1:
            entries |= {f"{log}/{stamp}.feather": i for stamp, i in pairs}
            continue
        step = _step(log, [stamp for stamp, _ in pairs])
        entries |= {
            f"{log}/{position * step:010d}.feather": i
            for position, (_, i) in enumerate(pairs)
            if position * step % STEP == 0
        }
    return entries


def _step(log: str, stamps_ns: list[int]) -> int:
    """How many sweeps lie between consecutive pairs: 1 or 5, told by the clock; single sweeps may be missing."""
    if len(stamps_ns) == 1:
        return STEP
    gap_s = float(np.median(np.diff(stamps_ns))) * 1e-9
    for step in (1, STEP):
        if abs(gap_s - step * FRAME_S) < 0.5 * FRAME_S:
            return step
    raise UserError(
        f"log {log}: pairs start {gap_s:.2f} s apart; a submission needs all pairs (0.1 s) or every fifth (0.5 s)"
    )


def _table(result: FlowResult, version: Version, mask: NDArray[np.bool_] | None) -> Any:
    """The rows of one file."""
    if result.status != "ok" or result.flow is None:
        raise UserError(f"{result.name} has no flow ({result.reason or result.status}); the server refuses gaps")
    if result.axes != "lidar":
        raise UserError(f"{result.name} is in {result.axes} axes, Argoverse 2 in lidar axes")
    T, points = result.T_target_source, result.points
    if T is None or points is None:
        raise UserError(f"{result.name}: the sensor's motion is not known; run with --ego.mode given or icp")
    p = points.astype(np.float64)
    residual = result.flow - (p @ T[:3, :3].T + T[:3, 3] - p)
    rows = slice(None) if mask is None else mask
    if mask is not None and len(mask) != len(p):
        raise DataError(result.name, f"its mask has {len(mask)} rows, its sweep {len(p)} points")
    # A residual is a vector at the second sweep; the labels of version 2 are in the first sweep's frame.
    flow = result.flow if version == 1 else residual @ T[:3, :3]
    columns: dict[str, NDArray[Any]] = {} if version == 1 else {"is_valid": np.ones(len(p), dtype=bool)[rows]}
    columns |= {name: flow[rows, i].astype(np.float16) for i, name in enumerate(FLOW_COLUMNS)}
    if version == 1:
        said = result.dynamic
        columns["is_dynamic"] = (np.linalg.norm(residual, axis=1) > DYNAMIC_M if said is None else said)[rows]
    return arrow().table(columns)


def _mask(masks: Path, name: str) -> NDArray[np.bool_]:
    """(N,) points of a sweep that are scored, from the official masks."""
    pa, entry = arrow(), f"{name}.feather"
    try:
        if masks.is_dir():
            table = pa.feather.read_table(masks / entry, memory_map=False)
        else:
            with zipfile.ZipFile(masks) as archive:
                table = pa.feather.read_table(io.BytesIO(archive.read(entry)))
    except (FileNotFoundError, KeyError):
        raise DataError(masks, f"holds no {entry}") from None
    except (OSError, zipfile.BadZipFile, pa.ArrowException) as error:
        raise DataError(masks, f"{entry} cannot be read: {str(error).partition(chr(10))[0]}") from None
    if table.num_columns != 1:
        raise DataError(masks, f"{entry} has {table.num_columns} columns; a mask has one")
    return np.asarray(table.column(0).to_numpy(), dtype=bool)


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)
