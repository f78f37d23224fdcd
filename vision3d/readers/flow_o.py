# SPDX-License-Identifier: Apache-2.0
"""The "o" data of scene flow: ``.npz`` files with occlusion, the preparation of FlowNet3D.

- FlyingThings3D: ``TRAIN*.npz`` and ``TEST*.npz`` with ``points1, points2, flow, valid_mask1`` (colours are not read).
  Their x points right and y down; both are negated. Splits: train, test. Errors count only where ``valid_mask1`` is 1.
  One file with NaN and eleven in which no point is visible twice are left out, as published.
- KITTI (``kitti_rm_ground``): ``.npz`` files with ``pos1, pos2, gt``, ground removed by hand. The axes are reordered to
  (1, 2, 0), points not nearer than 35 m are dropped, and of the sorted files the first 150 are read, as published;
  ``?scenes=200`` reads more.

Point counts, ground and crop differ from the "s" data: results on the two belong into different tables.
``points=2048&seed=0`` draws that many rows from each cloud, independently. Axes: camera.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.cameras import Camera
from vision3d.readers._common import require_split
from vision3d.readers._flow_kitti import MAX_DEPTH_M
from vision3d.readers._flow_pairs import (
    Float32,
    PairReader,
    PairRecord,
    Truth,
    array_names,
    as_cloud,
    check_pairs,
    drawn,
    load_arrays,
)
from vision3d.readers._source import bounded, one_root, parse_source, score
from vision3d.types.clouds import CloudPair, FlowTruth

CAMERA = Camera("PINHOLE", 960, 540, (1050.0, 1050.0, 480.0, 270.0))  # this preparation puts the centre at w/2, h/2
HALF_TURN = np.array([-1, -1, 1], dtype=np.float32)
KITTI_SCENES = 150
WITH_NAN = {"TRAIN_C_0140_left_0006-0"}
ALL_OCCLUDED = {
    "TRAIN_A_0364_left_0008-0",
    "TRAIN_A_0364_left_0009-0",
    "TRAIN_A_0658_left_0014-0",
    "TRAIN_B_0053_left_0009-0",
    "TRAIN_B_0053_left_0011-0",
    "TRAIN_B_0424_left_0011-0",
    "TRAIN_B_0609_right_0010-0",
    "TEST_A_0149_right_0013-0",
    "TEST_A_0149_right_0012-0",
    "TEST_A_0123_right_0009-0",
    "TEST_A_0123_right_0008-0",
}
FLYING_KEYS = ("points1", "points2", "flow", "valid_mask1")
KITTI_KEYS = ("pos1", "pos2", "gt")

OPTIONS = {
    "points": bounded(int, 0, 10_000_000),
    "seed": bounded(int, 0, 2**32 - 1),
    "scenes": bounded(int, 1, 1_000_000),
}


class FlowOReader(PairReader):
    """The files of one folder in order of their names."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, OPTIONS)
        root = one_root(
            source, _is_prepared, "FlowNet3D preparation (TRAIN*.npz, TEST*.npz, or .npz with pos1, pos2, gt)"
        )
        self.flying = _is_flying(root)
        self.points, self.seed = options.get("points", 0), options.get("seed", 0)
        notes = []
        if self.flying:
            if config.split not in ("all", "train", "test"):
                raise ConfigError(f"FlyingThings3D_o has the splits train, test and all, not '{config.split}'")
            prefixes = {"train": ("TRAIN",), "test": ("TEST",), "all": ("TRAIN", "TEST")}[config.split]
            found = [path for prefix in prefixes for path in sorted(root.glob(f"{prefix}*.npz"))]
            files = [path for path in found if path.stem not in WITH_NAN | ALL_OCCLUDED]
            if not files:
                raise DataError(root, f"has no file of the split '{config.split}'")
            if len(files) < len(found):
                notes.append(f"{len(found) - len(files)} files with NaN or without a visible point are left out")
        else:
            require_split(config, "KITTI_o")
            found = sorted(root.glob("*.npz"))
            files = found[: options.get("scenes", KITTI_SCENES)]
            if len(files) < len(found):
                notes.append(f"the first {len(files)} of {len(found)} scenes, as published; ?scenes=N reads more")
        records = [PairRecord(path.stem, (path,)) for path in files]
        super().__init__("flyingthings3d-o" if self.flying else "kitti-o", records, config, notes)

    def _read(self, record: PairRecord) -> tuple[CloudPair, Truth]:
        path = record.files[0]
        arrays = load_arrays(path)
        keys = FLYING_KEYS if self.flying else KITTI_KEYS
        missing = [key for key in keys if key not in arrays]
        if missing:
            raise DataError(path, f"has no array {missing[0]}; it holds {', '.join(arrays) or 'none'}")
        first, second, flow = (as_cloud(arrays[key], path, key) for key in keys[:3])
        if len(flow) != len(first):
            raise DataError(path, f"{keys[2]} has {len(flow)} rows for {len(first)} points")
        if self.flying:
            first, second, flow = (array * HALF_TURN for array in (first, second, flow))
            valid = _mask(arrays["valid_mask1"], len(first), path)
        else:
            first, second, flow, valid = _kitti(first, second, flow, path)
        rows = drawn(len(first), self.points, self.seed, record.name, 0)
        others = drawn(len(second), self.points, self.seed, record.name, 1)
        camera = CAMERA if self.flying else None
        source, target = first[rows], second[others]
        pair = CloudPair(record.name, source, target, axes="camera", dt_s=0.1, camera=camera)
        known = FlowTruth(flow[rows], valid[rows], source, axes="camera", dt_s=0.1, camera=camera)
        return pair, lambda: known


def _kitti(
    first: Float32, second: Float32, flow: Float32, path: Path
) -> tuple[Float32, Float32, Float32, NDArray[np.bool_]]:
    first, second, flow = (np.ascontiguousarray(array[:, [1, 2, 0]]) for array in (first, second, flow))
    near, near_2 = first[:, 2] < MAX_DEPTH_M, second[:, 2] < MAX_DEPTH_M
    if not near.any() or not near_2.any():
        raise DataError(path, "leaves no point within 35 m in one of its frames")
    return first[near], second[near_2], flow[near], np.ones(int(near.sum()), dtype=bool)


def _mask(values: NDArray[Any], count: int, path: Path) -> NDArray[np.bool_]:
    if values.size != count:
        raise DataError(path, f"valid_mask1 has {values.size} entries for {count} points")
    valid = values.reshape(-1) > 0.5
    if not valid.any():
        raise DataError(path, "no point is visible in both frames (valid_mask1 is all 0)")
    return valid


def _is_flying(folder: Path) -> bool:
    return any(next(folder.glob(f"{prefix}_*.npz"), None) is not None for prefix in ("TRAIN", "TEST"))


def _is_prepared(folder: Path) -> bool:
    return _is_flying(folder) or _holds_kitti(folder)


def _holds_kitti(folder: Path) -> bool:
    first = next(folder.glob("*.npz"), None)
    return first is not None and set(KITTI_KEYS) <= set(array_names(first))


def match(source: str) -> float:
    return score(source, _is_prepared, 0.95)


def check(source: str) -> list[str]:
    return check_pairs(FlowOReader, source)


SPEC = ReaderSpec(
    name="flow-o",
    summary="prepared pairs with occlusion in .npz files: FlyingThings3D_o, KITTI_o (FlowNet3D's preparation)",
    samples="CloudPair",
    match=match,
    open=FlowOReader,
    card="flyingthings3d-o",
    check=check,
)
