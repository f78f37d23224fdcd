# SPDX-License-Identifier: Apache-2.0
"""Axes: the classical methods think in x forward, y left, z up, because cars stand on the ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vision3d.types.clouds import Axes

Float = NDArray[np.float64]

# (x, y, z)_camera = (y, z, x)_lidar
_CAMERA_FROM_LIDAR = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


def to_lidar(points: NDArray[np.floating], axes: Axes) -> Float:
    """(N, 3) float64 with x forward, y left and z up."""
    metres: Float = np.asarray(points, dtype=np.float64)
    return metres if axes == "lidar" else metres @ _CAMERA_FROM_LIDAR


def from_lidar(points: Float, axes: Axes) -> Float:
    """The inverse of :func:`to_lidar`."""
    return points if axes == "lidar" else points @ _CAMERA_FROM_LIDAR.T


def motion_from_lidar(T: Float, axes: Axes) -> Float:
    """(4, 4) a motion found between clouds on lidar axes, for clouds on ``axes``."""
    if axes == "lidar":
        return T
    swap = np.eye(4)
    swap[:3, :3] = _CAMERA_FROM_LIDAR
    return swap @ T @ swap.T
