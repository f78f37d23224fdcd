# SPDX-License-Identifier: Apache-2.0
"""KITTI's disparity, flow and calibration files, and what they say about points: positions, ground, and who moves.

Disparity is a 16-bit PNG, 256 units a pixel, 0 unknown. Flow is a 16-bit colour PNG: u and v as 64 units a pixel
around 32768, and a third channel that is 0 where the flow is unknown.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError
from vision3d.geometry.cameras import Camera
from vision3d.readers._flow_rigid import fit_rigid, residuals
from vision3d.readers._images import decode
from vision3d.readers._poses import numbered_fields, numbers_of

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

BASELINE_M = 0.54
MAX_DEPTH_M = 35.0
GROUND_Y_M = -1.4
# A moving point: 0.5 m/s, the threshold of Argoverse 2, in one tenth of a second.
MOVING_M = 0.05
# Depth from disparity errs by z^2 / (f b) per pixel of disparity; the truth is stored in steps of 1/256 pixel, twice.
DEPTH_STEP_PX = 2 / 256
FOCAL_PX = 721.5  # of most recordings


def read_disparity(path: Path) -> Float:
    """(H, W) pixels, 0 where unknown; raises DataError naming the file."""
    import cv2

    raw = decode(path, cv2.IMREAD_UNCHANGED)
    if raw.ndim != 2 or raw.dtype != np.uint16:
        raise DataError(path, f"disparity must be one 16-bit channel, found {raw.dtype} of shape {raw.shape}")
    return raw.astype(np.float64) / 256


def read_flow(path: Path) -> tuple[Float, Bool]:
    """(H, W, 2) pixels and (H, W) whether it is known; raises DataError naming the file."""
    import cv2

    raw = decode(path, cv2.IMREAD_UNCHANGED)
    if raw.ndim != 3 or raw.shape[2] != 3 or raw.dtype != np.uint16:
        raise DataError(path, f"flow must be three 16-bit channels, found {raw.dtype} of shape {raw.shape}")
    # OpenCV gives blue, green, red: valid, v, u.
    return (raw[..., :0:-1].astype(np.float64) - 32768) / 64, raw[..., 0] > 0


def read_projection(path: Path) -> Float:
    """(3, 4) ``P_rect_02`` of a ``calib_cam`` file; raises DataError when it is not there."""
    for number, fields in numbered_fields(path):
        if fields[0] == "P_rect_02:":
            values = numbers_of(fields[1:], path, number)
            if len(values) != 12:
                raise DataError(path, f"line {number}: P_rect_02 must be 12 numbers, found {len(values)}")
            P = np.array(values).reshape(3, 4)
            if P[0, 0] <= 0 or P[1, 1] <= 0:
                raise DataError(path, f"line {number}: P_rect_02 has a focal length that is not positive")
            return P
    raise DataError(path, "has no line P_rect_02")


def unproject(uv_px: Float, disparity_px: Float, P: Float) -> Float:
    """(N, 3) points, camera axes (x left, y up, z forward), of pixels (N, 2) with disparity (N,)."""
    z = P[0, 0] * BASELINE_M / (disparity_px + 1e-5)
    w = z + P[2, 3]
    x = (uv_px[:, 0] * w - P[0, 2] * z - P[0, 3]) / P[0, 0]
    y = (uv_px[:, 1] * w - P[1, 2] * z - P[1, 3]) / P[1, 1]
    return np.stack([-x, -y, z], axis=1)


def pinhole(P: Float, width: int, height: int) -> Camera:
    """The camera of ``P`` (3, 4); its offset of 6 cm from the points' origin is left out."""
    return Camera("PINHOLE", width, height, (float(P[0, 0]), float(P[1, 1]), float(P[0, 2]), float(P[1, 2])))


def kept_points(first: NDArray[np.floating], second: NDArray[np.floating], ground: bool) -> Bool:
    """(N,) points that are scored: nearer than 35 m in both frames and, unless ``ground``, not on the ground in both.

    The published rule calls ground what lies more than 1.4 m below the camera in both frames.
    """
    near = (first[:, 2] < MAX_DEPTH_M) & (second[:, 2] < MAX_DEPTH_M)
    if ground:
        return near
    return near & ~((first[:, 1] < GROUND_Y_M) & (second[:, 1] < GROUND_Y_M))


def moving_points(
    first: Float, second: Float, moving: Bool | None = None, focal_px: float = FOCAL_PX
) -> tuple[Bool | None, Float | None]:
    """(N,) points that move in the world and (4, 4) the camera's motion, from true positions in both frames.

    KITTI states neither. A point moves where it misses the rigid motion that most points follow by more than 0.05 m
    (0.5 m/s) plus what two steps of the stored disparity make at its depth: 0.05 + 2/256 z^2 / (f b).

    Args:
        moving: what the data set itself says; then only the motion is fitted, to the other points.
    """
    depth = np.maximum(first[:, 2], second[:, 2])
    tolerance = MOVING_M + DEPTH_STEP_PX * depth**2 / (focal_px * BASELINE_M)
    still = np.ones(len(first), dtype=bool) if moving is None else ~moving
    T = fit_rigid(first[still], second[still], tolerance[still])
    if moving is not None or T is None:
        return moving, T
    return residuals(T, first, second) > tolerance, T
