# SPDX-License-Identifier: Apache-2.0
"""OpenSceneFlow's ``.h5`` logs: one file per pair, in it a group for each scan, named by its time in nanoseconds.

Its tools want the vehicle's motion, so a pair without one cannot be written. Meta-classes become one Argoverse 2
category each (CAR a regular vehicle, and so on; 255 a sign), so they are read back as they were. Their index,
``index_total.pkl``, is not written: OpenSceneFlow's ``create_reading_index`` makes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.atomic import whole_path
from vision3d.contracts import WriterSpec
from vision3d.errors import DataError, MissingExtraError
from vision3d.geometry.se3 import invert
from vision3d.types.clouds import CloudPair, FlowTruth
from vision3d.writers._files import file_name, in_axes, require_rows

# Argoverse 2 label indices that stand for our meta-classes: none, regular vehicle, truck, pedestrian, bicyclist; sign.
CATEGORY_OF_CLASS = (0, 19, 25, 17, 4)
EXCLUDED = 21
# Where the stamp is not known: a date of today's length, so that the unit of the names can be told.
FIRST_NS = 1_000_000_000_000_000_000


def write(name: str, sample: CloudPair, truth: FlowTruth | None, folder: Path) -> list[Path]:
    """``<name>.h5``.

    Raises:
        DataError: the sensor's motion is not known, or the truth does not fit the pair.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingExtraError(".h5 logs need the package h5py: pip install 'vision3d[h5]'") from None
    require_rows(sample, truth)
    pair, known = in_axes(sample, truth, "lidar")
    T = pair.T_target_source
    if T is None and known is not None:
        T = known.T_target_source
    if T is None:
        raise DataError(name, "the sensor's motion is not known, which .h5 logs hold: give poses, or write npz instead")
    first = pair.stamp_ns or FIRST_NS
    second = first + max(round(pair.dt_s * 1e9), 1)
    ground = pair.source_ground if pair.source_ground is not None or known is None else known.ground
    now = _scan(pair.source, np.eye(4), ground)
    then = _scan(pair.target, invert(T), pair.target_ground)
    if known is not None:
        now |= {
            "flow": known.flow.astype(np.float32),
            "flow_is_valid": known.valid,
            "ego_motion": (T if known.T_target_source is None else known.T_target_source).astype(np.float32),
        }
        if known.classes is not None:
            table = np.full(256, EXCLUDED, dtype=np.uint8)
            table[: len(CATEGORY_OF_CLASS)] = CATEGORY_OF_CLASS
            now["flow_category_indices"] = table[known.classes]
    path = folder / f"{file_name(name)}.h5"
    with whole_path(path) as temporary, h5py.File(temporary, "w") as file:
        for stamp, arrays in ((first, now), (second, then)):
            group = file.create_group(str(stamp))
            for key, values in arrays.items():
                group.create_dataset(key, data=values, track_times=False)
    return [path]


def _scan(
    points: NDArray[np.float32], T_world_vehicle: NDArray[np.float64], ground: NDArray[np.bool_] | None
) -> dict[str, Any]:
    return {
        "lidar": points.astype(np.float32),
        "pose": T_world_vehicle.astype(np.float32),
        "ground_mask": np.zeros(len(points), dtype=bool) if ground is None else ground,
    }


SPEC = WriterSpec(
    name="openflow",
    summary="OpenSceneFlow .h5 logs, one per pair; needs the sensor's motion",
    samples="CloudPair",
    write=write,
    extras=("h5:h5py",),
)
