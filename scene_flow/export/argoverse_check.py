# SPDX-License-Identifier: Apache-2.0
"""What the Argoverse 2 servers would refuse in a submission, found before the upload."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scene_flow.export.argoverse import STEP, SUPERVISED
from scene_flow.export.flow_feather import FLOW_COLUMNS, arrow

_FILE = re.compile(r"[^/]+/(?P<stem>[^/]+)\.feather")
# A car at 300 km/h, met head-on by another, changes place by 17 m in a tenth of a second.
_LARGEST_M = 20.0
_METADATA = "metadata.json"


def check_submission(path: str | Path, expected: Mapping[str, int] | None = None) -> list[str]:
    """Problems of a submission, one line each; empty when all is well. Which version it is, its metadata tells.

    Args:
        path: a zip, or the folder that was zipped.
        expected: what the organisers ask for, as their JSON files hold it. Version 1: ``<log>/<stamp>.feather`` -> rows
            (``test_submission_format.json`` of av2-api). Version 2: log -> pairs in it, of which every fifth is
            submitted (``av2_test_sizes.json`` of SceneFlowZoo). Without it, missing files and rows are not seen.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow()
    path = Path(path)
    try:
        names, read = _contents(path)
    except (OSError, zipfile.BadZipFile) as error:
        return [f"{path}: cannot be read: {error}"]
    version = 2 if _METADATA in names else 1
    problems = [f"{name}: is in the archive more than once" for name, n in Counter(names).items() if n > 1]
    files = sorted(set(names) - {_METADATA})
    if version == 2:
        problems += _metadata_problems(read(_METADATA))
    if not files:
        problems.append(f"{path}: holds no .feather file")
    rows: dict[str, int] = {}
    for name in files:
        match = _FILE.fullmatch(name)
        if match is None:
            problems.append(f"{name}: is not <log>/<name>.feather")
            continue
        if not match["stem"].isdigit() or (version == 2 and len(match["stem"]) != 10):
            kind = "the sweep's time in ns" if version == 1 else "ten digits, 0000000000, 0000000005, ..."
            problems.append(f"{name}: its name must be {kind}")
        found, rows[name] = _table_problems(read(name), version)
        problems += [f"{name}: {problem}" for problem in found]
    problems += _sequence_problems(rows) if version == 2 else []
    return problems + _missing(rows, version, expected)


def _contents(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The files' names, and how to read one."""
    if path.is_dir():
        names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        return names, lambda name: (path / name).read_bytes()
    archive = zipfile.ZipFile(path)
    return [name for name in archive.namelist() if not name.endswith("/")], archive.read


def _metadata_problems(data: bytes) -> list[str]:
    try:
        metadata = json.loads(data)
    except ValueError as error:
        return [f"{_METADATA}: is not JSON: {error}"]
    if not isinstance(metadata, dict) or not isinstance(metadata.get(SUPERVISED), bool):
        return [f'{_METADATA}: must hold "{SUPERVISED}": true or false']
    return []


def _table_problems(data: bytes, version: int) -> tuple[list[str], int]:
    """Problems of one file, and its number of rows."""
    pa = arrow()
    try:
        table = pa.feather.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        return [f"is not a Feather file: {str(error).partition(chr(10))[0]}"], 0
    flag = "is_dynamic" if version == 1 else "is_valid"
    wanted = {*FLOW_COLUMNS, flag}
    have = set(table.column_names)
    problems = [f"has no column {name}" for name in sorted(wanted - have)]
    problems += [f"has a column {name} too many" for name in sorted(have - wanted)]
    if flag in have and not pa.types.is_boolean(table.schema.field(flag).type):
        problems.append(f"{flag} is {table.schema.field(flag).type}, not bool")
    for name in sorted(set(FLOW_COLUMNS) & have):
        kind = table.schema.field(name).type
        if not (pa.types.is_float16(kind) or (version == 2 and pa.types.is_floating(kind))):
            problems.append(f"{name} is {kind}, not float16")
            continue
        values: Any = table[name].to_numpy()
        bad, far = int((~np.isfinite(values)).sum()), int((np.abs(values.astype(np.float64)) > _LARGEST_M).sum())
        if bad:
            problems.append(f"{name} holds {bad} numbers that are not finite")
        elif far:
            problems.append(f"{name} holds {far} motions above {_LARGEST_M:g} m in a tenth of a second")
    if flag == "is_valid" and flag in have and not problems and not np.all(table[flag].to_numpy()):
        problems.append("is_valid is false for some points: a scored point must have a flow")
    return problems + ([] if table.num_rows else ["has no rows"]), table.num_rows


def _sequence_problems(rows: Mapping[str, int]) -> list[str]:
    """Numbers of version 2 must run 0, 5, 10, ... in each log."""
    logs: dict[str, list[str]] = {}
    for name in rows:
        log, _, stem = name.removesuffix(".feather").rpartition("/")
        logs.setdefault(log, []).append(stem)
    problems = []
    for log, stems in sorted(logs.items()):
        right = [f"{STEP * i:010d}" for i in range(len(stems))]
        if sorted(stems) != right and all(stem.isdigit() for stem in stems):
            wrong = next(stem for stem in sorted(stems) if stem not in right)
            problems.append(f"{log}: files must be numbered 0, 5, 10, ... without a gap; {wrong} is not in the row")
    return problems


def _missing(rows: Mapping[str, int], version: int, expected: Mapping[str, int] | None) -> list[str]:
    if expected is None:
        return []
    if version == 1:
        problems = [f"{name}: is missing" for name in expected if name not in rows]
        problems += [f"{name}: is not asked for" for name in rows if name not in expected]
        return problems + [
            f"{name}: has {rows[name]} rows, must have {n} (the points of the official mask)"
            for name, n in expected.items()
            if name in rows and rows[name] != n
        ]
    wanted = {f"{log}/{i:010d}.feather" for log, n in expected.items() for i in range(0, n, STEP)}
    problems = [f"{name}: is missing" for name in sorted(wanted - set(rows))]
    return problems + [f"{name}: is not asked for" for name in sorted(set(rows) - wanted)]
