# SPDX-License-Identifier: Apache-2.0
"""Clouds to measure the engine on: a furnished room and a LiDAR's sweep, both made here, and files of points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision3d.errors import UserError

Points = NDArray[np.float64]


def room(voxel_m: float = 0.05, seed: int = 0) -> Tensor:
    """(N, 4) int32 sites (b, z, y, x) of the surfaces of a furnished room, shuffled; N is about 111,000 at 5 cm."""
    rng = np.random.default_rng(seed)
    boxes = [((0.0, 0.0, 0.0), (9.6, 7.2, 2.8))]
    for _ in range(9):
        size = rng.uniform((0.4, 0.4, 0.4), (1.6, 1.2, 1.4))
        corner = rng.uniform((0.3, 0.3, 0.0), (7.5, 5.5, 0.01))
        boxes.append((tuple(corner), tuple(corner + size)))
    points = np.concatenate([_box_surface(np.array(low), np.array(high), voxel_m, rng) for low, high in boxes])
    # Walls in the middle of a voxel, and some millimetres of noise: one voxel thick, rough where they are not aligned.
    points += voxel_m / 2 + rng.normal(0.0, 0.006, points.shape)
    return _sites(points, voxel_m, rng)


def lidar_sweep(voxel_m: float = 0.05, seed: int = 0) -> Tensor:
    """(N, 4) int32 sites of one sweep of a 64-beam LiDAR over a street, shuffled; N is about 91,000 at 5 cm."""
    rng = np.random.default_rng(seed)
    azimuth = np.linspace(-np.pi, np.pi, 2400, endpoint=False)
    elevation = np.deg2rad(np.linspace(-24.8, 2.0, 64))
    angle, height = (grid.ravel() for grid in np.meshgrid(azimuth, elevation))
    rays = np.stack([np.cos(height) * np.cos(angle), np.cos(height) * np.sin(angle), np.sin(height)], 1)
    # The ground is 1.73 m below the sensor; facades run along the street, vehicles and trunks stand on it.
    with np.errstate(divide="ignore"):
        reach = np.where(rays[:, 2] < 0, -1.73 / rays[:, 2], np.inf)
        for side in (-11.0, 13.0):
            along = side / rays[:, 1]
            reach = np.where(along > 0, np.minimum(reach, along), reach)
    for _ in range(60):
        centre = rng.uniform((-55.0, -10.0, -1.73), (55.0, 12.0, -1.72))
        if np.linalg.norm(centre[:2]) < 3.5:
            continue
        size = np.array((4.2, 1.8, 1.6) if rng.random() < 0.5 else (0.5, 0.5, 4.0))
        half = np.array([size[0] / 2, size[1] / 2, 0.0])
        reach = np.minimum(reach, _ray_box(rays, centre - half, centre + half + [0.0, 0.0, size[2]]))
    hit = reach < 70.0
    points = rays[hit] * (reach[hit] + rng.normal(0.0, 0.015, hit.sum()))[:, None]
    return _sites(points, voxel_m, rng)


def ball(radius: int = 29) -> Tensor:
    """(N, 4) int32 sites of a filled ball: nearly every neighbour is there (about 26 pairs a site)."""
    axis = torch.arange(-radius, radius + 1)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    inside = grid[(grid**2).sum(1) <= radius * radius]
    return torch.cat([torch.zeros(len(inside), 1), inside], 1).int()


def from_file(path: Path, voxel_m: float) -> Tensor:
    """(N, 4) int32 sites of a file of points.

    Args:
        path: ``.bin`` (KITTI: 4 float32 a point; nuScenes ``.pcd.bin``: 5; ScanNet ``scene*.bin``: 6), ``.npy`` or
            ``.npz`` with (P, >= 3) points, metres.
        voxel_m: edge of a voxel, metres.

    Raises:
        UserError: the file is missing or not such a file.
    """
    try:
        if path.suffix == ".bin":
            columns = 5 if path.name.endswith(".pcd.bin") else 6 if path.name.startswith("scene") else 4
            points = np.frombuffer(path.read_bytes(), np.float32).reshape(-1, columns)
        elif path.suffix in (".npy", ".npz"):
            loaded = np.load(path, allow_pickle=False)
            points = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
        else:
            raise UserError(f"{path}: clouds are read from .bin, .npy and .npz files")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as points ({error})") from error
    if points.ndim != 2 or points.shape[1] < 3 or not np.isfinite(points[:, :3]).all():
        raise UserError(f"{path}: (P, 3) finite coordinates are needed, not an array of shape {points.shape}")
    return _sites(points[:, :3].astype(np.float64), voxel_m, np.random.default_rng(0))


def _box_surface(low: Points, high: Points, voxel_m: float, rng: np.random.Generator) -> Points:
    """Points on the six faces, dense enough to fill every voxel."""
    faces = []
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        area = float(np.prod((high - low)[others]))
        count = int(12 * area / voxel_m**2)
        for side in (low, high):
            points = rng.uniform(low, high, (count, 3))
            points[:, axis] = side[axis]
            faces.append(points)
    return np.concatenate(faces)


def _ray_box(rays: Points, low: Points, high: Points) -> Points:
    """Distance along each ray from the origin to a box; infinite where it misses."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = low / rays, high / rays
    near = np.minimum(first, second).max(1)
    far = np.maximum(first, second).min(1)
    return np.where((near <= far) & (near > 0), near, np.inf)


def _sites(points_xyz: Points, voxel_m: float, rng: np.random.Generator) -> Tensor:
    cells = np.floor(points_xyz[:, ::-1] / voxel_m).astype(np.int64)
    low = cells.min(0, initial=0)
    extent = cells.max(0, initial=0) - low + 1
    numbers = np.unique(np.ravel_multi_index(tuple((cells - low).T), tuple(extent)))
    cells = np.stack(np.unravel_index(numbers, tuple(extent)), 1) + low
    rng.shuffle(cells)
    return torch.from_numpy(np.concatenate([np.zeros((len(cells), 1), np.int64), cells], 1).astype(np.int32))
