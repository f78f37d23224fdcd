# SPDX-License-Identifier: Apache-2.0
"""KITTI's ``.bin`` files, two per pair: float32 x, y, z and an intensity of 0.

With truth a third file, ``<name>_flow.bin``: float32 flow x, y, z and 1 where it is valid. The files do not say what x,
y and z are: read them with ``?axes=``.
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
    """``<name>_source.bin``, ``<name>_target.bin`` and with truth ``<name>_flow.bin``."""
    require_rows(sample, truth)
    stem = file_name(name)
    tables: dict[str, tuple[NDArray[np.float32], Any]] = {
        "source": (sample.source, 0.0),
        "target": (sample.target, 0.0),
    }
    if truth is not None:
        tables["flow"] = (truth.flow, truth.valid)
    paths = []
    for part, (columns, last) in tables.items():
        table = np.zeros((len(columns), 4), dtype="<f4")
        table[:, :3], table[:, 3] = columns, last
        path = folder / f"{stem}_{part}.bin"
        with whole_path(path) as temporary:
            temporary.write_bytes(table.tobytes())
        paths.append(path)
    return paths


SPEC = WriterSpec(
    name="bin",
    summary="KITTI .bin files: source, target and, with truth, flow; float32 with four columns",
    samples="CloudPair",
    write=write,
)
