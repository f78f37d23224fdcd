# SPDX-License-Identifier: Apache-2.0
"""Two PLY files per pair, ``<name>_source.ply`` and ``<name>_target.ply``, which any viewer opens.

With truth the source's vertices have more properties: ``flow_x, flow_y, flow_z``, ``valid`` and, where known,
``dynamic``, ``ground``, ``flow_class``. A PLY file does not say what x, y and z are: read it with ``?axes=``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.atomic import whole_path
from vision3d.contracts import WriterSpec
from vision3d.types.clouds import CloudPair, FlowTruth
from vision3d.writers._files import file_name, require_rows


def write(name: str, sample: CloudPair, truth: FlowTruth | None, folder: Path) -> list[Path]:
    """Both files; raises DataError when the truth does not fit the pair."""
    require_rows(sample, truth)
    columns: dict[str, NDArray[Any]] = {}
    if truth is not None:
        columns = {f"flow_{axis}": truth.flow[:, i] for i, axis in enumerate("xyz")}
        masks = {"valid": truth.valid, "dynamic": truth.dynamic, "ground": truth.ground, "flow_class": truth.classes}
        columns |= {key: mask.astype(np.uint8) for key, mask in masks.items() if mask is not None}
    stem = file_name(name)
    note = f"axes {sample.axes}, {sample.dt_s:.9g} s to the target"
    source, target = folder / f"{stem}_source.ply", folder / f"{stem}_target.ply"
    write_ply(source, sample.source, columns, note)
    write_ply(target, sample.target, {}, f"axes {sample.axes}")
    return [source, target]


def write_ply(path: Path, points: NDArray[np.float32], columns: dict[str, NDArray[Any]], comment: str) -> None:
    """Binary PLY of points (N, 3) with further float32 or uint8 vertex properties, each (N,)."""
    fields = {axis: points[:, i] for i, axis in enumerate("xyz")} | columns
    kinds = {key: "u1" if values.dtype == np.uint8 else "<f4" for key, values in fields.items()}
    table = np.zeros(len(points), dtype=list(kinds.items()))
    for key, values in fields.items():
        table[key] = values
    words = {"u1": "uchar", "<f4": "float"}
    lines = ["ply", "format binary_little_endian 1.0", f"comment {comment}", f"element vertex {len(points)}"]
    lines += [f"property {words[kind]} {key}" for key, kind in kinds.items()]
    with whole_path(path) as temporary:
        temporary.write_bytes("\n".join([*lines, "end_header", ""]).encode("ascii") + table.tobytes())


SPEC = WriterSpec(
    name="ply",
    summary="two .ply files per pair, with the flow as vertex properties; opened by any viewer",
    samples="CloudPair",
    write=write,
)
