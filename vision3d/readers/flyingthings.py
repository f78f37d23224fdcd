# SPDX-License-Identifier: Apache-2.0
"""The FlyingThings3D subset as its authors publish it: disparity, its change, flow and occlusions become clouds.

Left view, into the future. With d = |disparity| a pixel (u, v) is the point x = -(u - cx) / d, y = -(v - cy) / d,
z = 1050 / d (camera axes; the baseline of 1 is the data set's unit). The second frame uses the pixel plus its flow and
the disparity plus its change. Pixels that either occlusion mask marks are left out, as are points not nearer than 35 m
in both frames. This gives what the prepared "s" data hold, of which ``flow-s`` reads copies. Options after '?':
``points=8192&seed=0`` draws that many points from each cloud, independently. Splits: train, val.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.cameras import Camera
from vision3d.readers._flow_images import read_flo, read_pfm
from vision3d.readers._flow_kitti import kept_points
from vision3d.readers._flow_pairs import PairReader, PairRecord, Truth, check_pairs, drawn
from vision3d.readers._images import read_image
from vision3d.readers._source import bounded, one_root, parse_source, score
from vision3d.types.clouds import CloudPair, FlowTruth

FOCAL_PX, CENTER_PX = 1050.0, (479.5, 269.5)
SPLITS = ("train", "val")
# Folders below a split, and the files' suffixes.
PARTS = (
    ("disparity/left", ".pfm"),
    ("disparity_change/left/into_future", ".pfm"),
    ("flow/left/into_future", ".flo"),
    ("disparity_occlusions/left", ".png"),
    ("flow_occlusions/left/into_future", ".png"),
)

OPTIONS = {"points": bounded(int, 0, 10_000_000), "seed": bounded(int, 0, 2**32 - 1)}


class FlyingThingsReader(PairReader):
    """Frames that have flow into the future, in order of their numbers."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, OPTIONS)
        if config.split not in ("all", *SPLITS):
            raise ConfigError(f"FlyingThings3D has the splits train, val and all, not '{config.split}'")
        root = one_root(source, _is_subset, "FlyingThings3D subset (train/ or val/ with disparity/left, flow/left)")
        self.points, self.seed = options.get("points", 0), options.get("seed", 0)
        records = []
        for split in SPLITS if config.split == "all" else (config.split,):
            # The last frame of a sequence has disparity but no flow into the future.
            for flow in sorted((root / split / PARTS[2][0]).glob("*.flo")):
                files = tuple(root / split / folder / f"{flow.stem}{suffix}" for folder, suffix in PARTS)
                missing = next((path for path in files if not path.is_file()), None)
                problem = None if missing is None else DataError(missing, "no such file")
                records.append(PairRecord(f"{split}/{flow.stem}", files, problem=problem))
        if not records:
            raise DataError(root, f"holds no flow/left/into_future/*.flo of split '{config.split}'")
        super().__init__("flyingthings3d", records, config)

    def _read(self, record: PairRecord) -> tuple[CloudPair, Truth]:
        disparity, change = read_pfm(record.files[0]), read_pfm(record.files[1])
        flow = read_flo(record.files[2])
        hidden = [read_image(path).max(axis=2) > 0 for path in record.files[3:]]
        for path, other in zip(record.files[1:], (change, flow, *hidden)):
            if other.shape[:2] != disparity.shape:
                raise DataError(path, f"is of size {other.shape[1::-1]}, the disparity {disparity.shape[::-1]}")
        first_px = np.abs(disparity.astype(np.float64))
        second_px = np.abs(disparity.astype(np.float64) + change)
        use = ~(hidden[0] | hidden[1]) & (first_px > 0) & (second_px > 0)
        v, u = np.nonzero(use)
        uv = np.stack([u, v], axis=1).astype(np.float64)
        first, second = point(uv, first_px[use]), point(uv + flow[use], second_px[use])
        keep = kept_points(first, second, ground=True)
        if not keep.any():
            raise DataError(record.files[0], "leaves no point within 35 m that is seen in both frames")
        rows = drawn(int(keep.sum()), self.points, self.seed, record.name, 0)
        others = drawn(int(keep.sum()), self.points, self.seed, record.name, 1)
        source, target = first[keep][rows].astype(np.float32), second[keep][others].astype(np.float32)
        height, width = disparity.shape
        camera = Camera("PINHOLE", width, height, (FOCAL_PX, FOCAL_PX, *CENTER_PX))
        pair = CloudPair(record.name, source, target, axes="camera", dt_s=0.1, camera=camera)
        moved = (second - first)[keep][rows].astype(np.float32)
        known = FlowTruth(moved, np.ones(len(source), dtype=bool), source, axes="camera", dt_s=0.1, camera=camera)
        return pair, lambda: known


def point(uv_px: NDArray[np.float64], disparity_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) points, camera axes, of pixels (N, 2) with positive disparity (N,)."""
    offset = (np.array(CENTER_PX) - uv_px) / disparity_px[:, None]
    return np.column_stack([offset, FOCAL_PX / disparity_px])


def _is_subset(folder: Path) -> bool:
    return any((folder / split / PARTS[2][0]).is_dir() for split in SPLITS)


def match(source: str) -> float:
    return score(source, _is_subset, 0.95)


def check(source: str) -> list[str]:
    return check_pairs(FlyingThingsReader, source)


SPEC = ReaderSpec(
    name="flyingthings",
    summary="FlyingThings3D subset as published (disparity, change, flow, occlusions), as pairs of clouds",
    samples="CloudPair",
    match=match,
    open=FlyingThingsReader,
    card="flyingthings3d",
    check=check,
)
