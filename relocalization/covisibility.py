# SPDX-License-Identifier: Apache-2.0
"""Which pairs of images with known poses can see the same place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry import se3
from vision3d.geometry.cameras import Camera

Float = NDArray[np.float64]
Pairs = NDArray[np.int64]


def frustum_overlap(cameras: Sequence[Camera], T_world_cam: Float, depths_m: Sequence[float]) -> Float:
    """(N, N) share of each view's rays that another view sees too, the smaller of both ways; diagonal 0.

    Each image is sampled on a 6 x 8 grid at the given depths. The depths need not be exact: the result only ranks
    pairs.

    Args:
        cameras: N cameras.
        T_world_cam: (N, 4, 4) poses.
        depths_m: depths along z at which the scene is expected, metres.
    """
    n = len(cameras)
    clouds = (
        np.stack([_frustum_points(c, T, depths_m) for c, T in zip(cameras, T_world_cam)]) if n else np.zeros((0, 1, 3))
    )
    seen = np.zeros((n, n))
    for j in range(n):
        T_cam_world = se3.invert(T_world_cam[j])
        points_cam = se3.transform(T_cam_world, clouds.reshape(-1, 3))
        inside = cameras[j].contains(cameras[j].project(points_cam)).reshape(n, -1)
        # Facing each other, two cameras can see the same point but never the same surface.
        facing = T_world_cam[:, :3, 2] @ T_world_cam[j, :3, 2] > -0.2
        seen[:, j] = inside.mean(axis=1) * facing
    np.fill_diagonal(seen, 0.0)
    return np.minimum(seen, seen.T)


def covisible_pairs(overlap: Float, per_image: int, minimum: float = 0.05) -> Pairs:
    """(P, 2) pairs i < j, sorted: each image with the ``per_image`` others it overlaps most with.

    Args:
        overlap: (N, N) as from :func:`frustum_overlap`.
        minimum: pairs below this overlap are left out.
    """
    pairs = set()
    for i, row in enumerate(overlap):
        for j in np.argsort(-row, kind="stable")[:per_image]:
            if row[j] >= minimum:
                pairs.add((min(i, int(j)), max(i, int(j))))
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def scene_depths_m(cameras: Sequence[Camera], T_world_cam: Float) -> tuple[float, ...]:
    """Depths that fit a scene of unknown size: multiples of how far the cameras are apart.

    With no points triangulated yet, the spread of the camera centres is the only length there is; a video walks a
    scene's size or less, a photo collection circles it.
    """
    centers = T_world_cam[:, :3, 3]
    spread = float(np.linalg.norm(centers - np.median(centers, axis=0), axis=1).max(initial=0.0))
    return tuple(spread * k for k in (0.5, 1.0, 2.0, 4.0)) if spread > 0 else (1.0, 2.0, 4.0)


def _frustum_points(camera: Camera, T_world_cam: Float, depths_m: Sequence[float]) -> Float:
    u = np.linspace(0.05, 0.95, 8) * (camera.width - 1)
    v = np.linspace(0.05, 0.95, 6) * (camera.height - 1)
    xy = camera.normalize(np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2))
    rays = np.concatenate([xy, np.ones_like(xy[:, :1])], axis=1)
    return se3.transform(T_world_cam, np.concatenate([rays * z for z in depths_m]))
