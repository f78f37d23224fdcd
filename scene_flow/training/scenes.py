# SPDX-License-Identifier: Apache-2.0
"""A pair and its truth as the network learns them: camera axes, the ground and the sensor's motion taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scene_flow.motion import transformed
from vision3d.types import CloudPair, FlowTruth

Bool = NDArray[np.bool_]
Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

# (x, y, z)_camera = (y, z, x)_lidar: x left, y up, z forward.
_CAMERA_FROM_LIDAR = [1, 2, 0]
_SCALES = (0.9, 1.1)
_FEWEST = 32  # networks look at the 32 nearest points, and SCTN at the 32 nearest voxels


@dataclass(frozen=True)
class Scene:
    """One pair to learn from, camera axes, every number finite.

    Attributes:
        source, target: (N, 3) and (M, 3) float32 metres.
        flow: (N, 3) float32 metres, zero where it is not known.
        valid: (N,) points whose flow is known.
    """

    source: Float32
    target: Float32
    flow: Float32
    valid: Bool

    @property
    def usable(self) -> bool:
        """Whether there is anything to learn: 32 points in either cloud, and one whose flow is known."""
        return min(len(self.source), len(self.target)) >= _FEWEST and bool(self.valid.any())

    def fills_voxels(self, voxel_size_m: float) -> bool:
        """Whether either cloud fills 32 voxels of this edge, counted from the origin as SCTN does."""
        clouds = (np.floor(cloud / np.float64(voxel_size_m)) for cloud in (self.source, self.target))
        return all(len(np.unique(cells, axis=0)) >= _FEWEST for cells in clouds)


def scene_of(
    pair: CloudPair,
    truth: FlowTruth,
    source_ground: Bool | None = None,
    target_ground: Bool | None = None,
    T_target_source: Float | None = None,
) -> Scene:
    """The scene that is left without ground and without the sensor's motion.

    With ``T_target_source`` the source is moved into the target's frame and the flow is what remains to be found:
    ``source + flow`` and ``moved source + remaining flow`` are the same points. Points that are not finite are left
    out; a flow that is not finite counts as not known.

    Args:
        source_ground, target_ground: (N,) and (M,) points to leave out, or None.
        T_target_source: (4, 4) the sensor's motion, or None to leave it in.
    """
    source = np.asarray(pair.source, dtype=np.float32)
    target = np.asarray(pair.target, dtype=np.float32)
    with np.errstate(invalid="ignore"):  # infinite coordinates, left out below
        moved = transformed(source, T_target_source)
    flow = np.asarray(truth.flow, dtype=np.float32) - (moved - source)
    valid = np.asarray(truth.valid, dtype=bool) & np.isfinite(flow).all(axis=1)
    flow = np.where(valid[:, None], flow, np.float32(0))
    kept = _kept(moved, source_ground)
    moved, target = moved[kept], target[_kept(target, target_ground)]
    flow, valid = flow[kept], valid[kept]
    if pair.axes == "lidar":
        moved, target, flow = (array[:, _CAMERA_FROM_LIDAR] for array in (moved, target, flow))
    return Scene(*(np.ascontiguousarray(array) for array in (moved, target, flow, valid)))


def scene_as_known(pair: CloudPair, truth: FlowTruth) -> Scene:
    """:func:`scene_of` with the ground and the motion that the pair itself knows; what it does not know stays in."""
    return scene_of(pair, truth, pair.source_ground, pair.target_ground, pair.T_target_source)


def scene_untouched(pair: CloudPair, truth: FlowTruth) -> Scene:
    """:func:`scene_of` with everything left in."""
    return scene_of(pair, truth)


def draw(scene: Scene, points: int, rng: np.random.Generator, augment: str = "none") -> Scene:
    """``points`` of each cloud, drawn independently: without repetition where there are enough, else every point once
    and then some again.

    Args:
        augment: as in :class:`scene_flow.training.config.TrainConfig`.
    """
    rows, others = _rows(len(scene.source), points, rng), _rows(len(scene.target), points, rng)
    source, target, flow = scene.source[rows], scene.target[others], scene.flow[rows]
    if augment != "none":
        A = _augmentation(augment, rng)
        source, target, flow = source @ A.T, target @ A.T, flow @ A.T
    return Scene(source, target, flow, scene.valid[rows])


def _kept(points: Float32, ground: Bool | None) -> Any:
    finite = np.isfinite(points).all(axis=1)
    return finite if ground is None else finite & ~ground


def _rows(count: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if count >= wanted:
        return rng.choice(count, wanted, replace=False)
    return np.concatenate([rng.permutation(count), rng.choice(count, wanted - count)])


def _augmentation(augment: str, rng: np.random.Generator) -> Float32:
    """(3, 3) a turn about the vertical (y), and for ``all`` a mirror image at half of the draws and a scale."""
    angle = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(angle), np.sin(angle)
    A = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    if augment == "all":
        A = A @ np.diag([rng.choice([-1.0, 1.0]), 1, 1]) * rng.uniform(*_SCALES)
    return A.astype(np.float32)
