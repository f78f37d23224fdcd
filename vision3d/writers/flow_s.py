# SPDX-License-Identifier: Apache-2.0
"""Folders with ``pc1.npy`` and ``pc2.npy``, camera axes: the "s" layout that many scene flow codes train on.

``pc2`` is ``source + flow``, row by row, because that is what the layout means; the target as it was scanned is not
kept. So a pair needs a flow for every point, and as many points in both clouds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vision3d.atomic import whole_path
from vision3d.contracts import WriterSpec
from vision3d.errors import DataError
from vision3d.types.clouds import CloudPair, FlowTruth
from vision3d.writers._files import file_name, in_axes, require_rows


def write(name: str, sample: CloudPair, truth: FlowTruth | None, folder: Path) -> list[Path]:
    """``<name>/pc1.npy`` and ``<name>/pc2.npy``.

    Raises:
        DataError: there is no truth, points without it, or clouds of different size.
    """
    if truth is None:
        raise DataError(name, "has no true flow, which flow-s is made of: write npz, ply or bin instead")
    require_rows(sample, truth)
    if len(sample.source) != len(sample.target):
        raise DataError(
            name,
            f"flow-s keeps a row per point in both clouds; these have {len(sample.source)} and {len(sample.target)}: "
            "write npz instead",
        )
    lacking = int((~truth.valid).sum())
    if lacking:
        raise DataError(name, f"{lacking} of {len(truth.valid)} points have no valid flow: write npz instead")
    pair, known = in_axes(sample, truth, "camera")
    flow = truth.flow if known is None else known.flow
    paths = []
    for file, points in (("pc1.npy", pair.source), ("pc2.npy", pair.source + flow)):
        path = folder / file_name(name) / file
        with whole_path(path) as temporary:
            np.save(temporary, points.astype(np.float32), allow_pickle=False)
        paths.append(path)
    return paths


SPEC = WriterSpec(
    name="flow-s",
    summary="folders with pc1.npy and pc2.npy = pc1 + flow, camera axes; needs true flow at every point",
    samples="CloudPair",
    write=write,
)
