# SPDX-License-Identifier: Apache-2.0
"""Boxes like cars, sampled independently in two scans: some of them move in between, exactly as told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry.se3 import from_rt, rotvec_to_rotation, transform

Float = NDArray[np.float64]
SIZE = (4.2, 1.8, 1.5)


@dataclass(frozen=True)
class Move:
    """A box's motion between the scans: a shift, and a turn about its centre."""

    box: int
    shift: tuple[float, float]
    turn_deg: float = 0.0


@dataclass(frozen=True)
class Boxes:
    """Both clouds, the flow of every source point, and the box that it lies on."""

    source: NDArray[np.float32]
    target: NDArray[np.float32]
    flow: Float
    box: NDArray[np.int64]


def boxes(moves: Sequence[Move] = (), count: int = 5, per_box: int = 1000, seed: int = 0) -> Boxes:
    """``count`` boxes in two rows along x, 8 m apart each way, every one with points of its own in each scan."""
    rng = np.random.default_rng(seed)
    poses = [from_rt(np.eye(3), [8.0 * (k // 2) - 8, 8.0 * (k % 2) - 4, 0.0]) for k in range(count)]
    after = [T.copy() for T in poses]
    for move in moves:
        T = after[move.box]
        R = rotvec_to_rotation([0.0, 0.0, np.deg2rad(move.turn_deg)])
        after[move.box] = from_rt(R @ T[:3, :3], T[:3, 3] + [*move.shift, 0.0])
    first, second = ([_surface(rng, per_box) for _ in range(count)] for _ in range(2))
    source = [transform(T, p) for T, p in zip(poses, first)]
    moved = [transform(T, p) for T, p in zip(after, first)]
    target = [transform(T, p) for T, p in zip(after, second)]
    return Boxes(
        source=np.concatenate(source).astype(np.float32),
        target=rng.permutation(np.concatenate(target)).astype(np.float32),
        flow=np.concatenate(moved) - np.concatenate(source),
        box=np.repeat(np.arange(count), per_box),
    )


def _surface(rng: np.random.Generator, count: int) -> Float:
    """Points evenly over a box's sides and roof."""
    x, y, z = SIZE
    areas = np.array([y * z, y * z, x * z, x * z, x * y])
    side = rng.choice(5, count, p=areas / areas.sum())
    points = rng.uniform(-0.5, 0.5, (count, 3))
    axis = np.array([0, 0, 1, 1, 2])[side]
    points[np.arange(count), axis] = np.array([-0.5, 0.5, -0.5, 0.5, 0.5])[side]
    return points * SIZE
