# SPDX-License-Identifier: Apache-2.0
"""``bodies:fragments``: real clouds out of which parts are cut that then move rigidly, each in its own way.

The two clouds are disjoint halves of the real points, so that none is in both. Nothing is hidden or uncovered: a part
leaves a hole where it was. Files hold (N, 3) points in a camera's axes as OpenCV has them (x right, y down, z forward).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vision3d.errors import DataError
from vision3d.geometry.se3 import from_rt, invert, rotvec_to_rotation
from vision3d.readers import _bodies_shapes as shapes
from vision3d.readers._bodies_scan import Draw, World, true_flow
from vision3d.readers._bodies_shapes import Body
from vision3d.types.clouds import CloudPair, FlowTruth
from vision3d.types.frames import Float

LEAST_POINTS = 500
LEAST_PART = 30
TRIES = 10
DEGREES_PER_M = 20.0  # how far the sensor turns at most for a shift of a metre: rooms are small


@dataclass(frozen=True)
class FragmentsConfig:
    """How parts are cut and moved.

    Attributes:
        folder: of the ``.npy`` files.
        objects: fewest and most parts; one for which no place is found is left out.
        speed_m, turn_deg: the most that a part shifts and turns, about any axis.
        still: share of the parts that stay.
        ego_m: the most that the sensor shifts.
    """

    folder: Path
    objects: tuple[int, int]
    speed_m: float
    turn_deg: float
    still: float
    ego_m: float


def fragment_files(folder: Path) -> list[Path]:
    """The files of a folder that hold clouds, by name.

    Raises:
        DataError: there is no such folder, a file is not a plain array, or none holds a cloud.
    """
    if not folder.is_dir():
        raise DataError(folder, "no such folder; fragments=FOLDER takes one with .npy clouds of shape (N, 3)")
    files = []
    for path in sorted(folder.glob("*.npy")):
        array = _load(path)
        if array.ndim == 2 and array.shape[1] == 3 and len(array) >= LEAST_POINTS and array.dtype.kind == "f":
            files.append(path)
    if not files:
        raise DataError(folder, f"holds no .npy cloud of shape (N, 3) with {LEAST_POINTS} points or more")
    return files


def fragments_pair(
    name: str, config: FragmentsConfig, draw: Draw, rngs: tuple[Generator, Generator, Generator]
) -> tuple[CloudPair, FlowTruth]:
    """A pair and its truth.

    Args:
        rngs: of the cut and the motions, of the source's noise, and of the target's.
    """
    layout = rngs[0]
    files = fragment_files(config.folder)
    points = _cloud(files[layout.integers(len(files))])
    points = points @ rotvec_to_rotation(np.array([0.0, layout.uniform(-0.4, 0.4), 0.0])).T
    part = cut(points, int(layout.integers(config.objects[0], config.objects[1] + 1)), layout)
    bodies = [Body((), np.eye(4), np.eye(4))]
    for index in range(1, int(part.max()) + 1):
        body = Body((), from_rt(np.eye(3), points[part == index].mean(axis=0)), np.eye(4))
        turn = shapes.random_rotation(layout, np.radians(config.turn_deg))
        shift = shapes.random_direction(layout) * config.speed_m * layout.random()
        bodies.append(body if layout.random() < config.still else shapes.moved(body, turn, shift))
    step = layout.uniform(0, config.ego_m)
    ego = from_rt(
        shapes.random_rotation(layout, np.radians(DEGREES_PER_M) * step), shapes.random_direction(layout) * step
    )
    world = World(bodies, invert(ego))
    halves = np.array_split(layout.permutation(len(points)), 2)
    rows = [half[: count or None] for half, count in zip(halves, (draw.points, draw.target_points), strict=True)]
    motions = world.motions()[part[rows[1]]]
    there = np.einsum("nij,nj->ni", motions[:, :3, :3], points[rows[1]]) + motions[:, :3, 3]
    source, target = (
        (cloud + rng.normal(0, 1, cloud.shape) * draw.noise_m).astype(np.float32)
        for cloud, rng in zip((points[rows[0]], there), rngs[1:], strict=True)
    )
    pair = CloudPair(name, source, target, axes="camera")
    return pair, true_flow(pair, world, part[rows[0]])


def cut(points: Float, count: int, rng: Generator) -> NDArray[np.int32]:
    """(N,) which part each point is in, 0 being what is left over: parts are balls, half of them cut by a plane."""
    part = np.zeros(len(points), dtype=np.int32)
    spread = float(np.sqrt(points.var(axis=0).sum()))
    for _ in range(count):
        for _ in range(TRIES):
            center = points[rng.integers(len(points))]
            offset = points - center
            inside = np.linalg.norm(offset, axis=1) < spread * rng.uniform(0.25, 0.6)
            if rng.random() < 0.5:
                inside &= offset @ shapes.random_direction(rng) > 0
            inside &= part == 0
            if inside.sum() >= LEAST_PART:
                part[inside] = part.max() + 1
                break
    return part


@lru_cache(maxsize=4)
def _cloud(path: Path) -> Float:
    """(N, 3) finite points, x left, y up, z forward."""
    points = np.asarray(_load(path), dtype=np.float64)
    return points[np.isfinite(points).all(axis=1)] * (-1.0, -1.0, 1.0)


def _load(path: Path) -> NDArray[np.float64]:
    """The array of a file, not yet read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise DataError(path, "is no .npy file of numbers") from None
