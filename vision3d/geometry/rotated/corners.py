# SPDX-License-Identifier: Apache-2.0
"""Corners and axis-aligned hulls of boxes, and which points lie in which box."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry.rotated import _native
from vision3d.geometry.rotated.boxes import check_boxes

Float = NDArray[np.float64]

# Halves of (w, h) from the centre to the top-left, top-right, bottom-right and bottom-left corner of the unturned box.
CORNER_SIGNS = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])


def corners(boxes: ArrayLike) -> Float:
    """Corners (N, 4, 2) of boxes (N, 5): top-left, top-right, bottom-right, bottom-left of the unturned box.

    That order is clockwise on screen. Which corner is the object's own top left is not known in le90.
    """
    boxes = check_boxes(boxes)
    local = CORNER_SIGNS * boxes[:, None, 2:4]
    c, s = np.cos(boxes[:, 4])[:, None], np.sin(boxes[:, 4])[:, None]
    x, y = local[..., 0], local[..., 1]
    return boxes[:, None, :2] + np.stack([c * x - s * y, s * x + c * y], axis=-1)


def hulls(boxes: ArrayLike) -> Float:
    """Axis-aligned hulls (N, 4) of boxes (N, 5): xmin, ymin, xmax, ymax."""
    boxes = check_boxes(boxes)
    c, s = np.abs(np.cos(boxes[:, 4])), np.abs(np.sin(boxes[:, 4]))
    half = 0.5 * np.stack([boxes[:, 2] * c + boxes[:, 3] * s, boxes[:, 2] * s + boxes[:, 3] * c], axis=1)
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def points_in_boxes(points: ArrayLike, boxes: ArrayLike) -> NDArray[np.bool_]:
    """Which points (N, 2) lie in which boxes (M, 5), the border included up to rounding: (N, M).

    Raises:
        ValueError: see :func:`~vision3d.geometry.rotated.check_boxes`; or points of another shape or not finite.
    """
    points, boxes = check_points(points), check_boxes(boxes)
    native = _native.module()
    if native is not None:
        return _native.inside(native, points, boxes)
    d = points[:, None, :] - boxes[None, :, :2]
    c, s = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    x = np.abs(d[..., 0] * c + d[..., 1] * s)
    y = np.abs(d[..., 1] * c - d[..., 0] * s)
    return (x <= 0.5 * boxes[:, 2]) & (y <= 0.5 * boxes[:, 3])


def check_points(points: ArrayLike, name: str = "points") -> Float:
    """Points as contiguous (N, 2) float64, all finite; an empty list is (0, 2).

    Raises:
        ValueError: another shape, or a number that is not finite; names the first bad row.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.ndim == 1 and array.size == 0:
        array = array.reshape(0, 2)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} must have the shape (N, 2), not {array.shape}")
    good = np.isfinite(array).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"{name}[{row}] = {tuple(array[row].tolist())}: not finite")
    return np.ascontiguousarray(array)
