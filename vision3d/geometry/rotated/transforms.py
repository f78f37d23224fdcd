# SPDX-License-Identifier: Apache-2.0
"""What a change of the image does to its boxes. Pixel centres lie at integers: the image starts at (-0.5, -0.5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry.rotated.boxes import canonical, check_boxes
from vision3d.geometry.rotated.corners import corners
from vision3d.geometry.rotated.enclosing import from_corners

Float = NDArray[np.float64]


def shifted(boxes: ArrayLike, offset: ArrayLike) -> Float:
    """Boxes (N, 5) moved by ``offset``: (2,) or (N, 2) pixels."""
    boxes = check_boxes(boxes).copy()
    boxes[:, :2] += np.asarray(offset, dtype=np.float64)
    return boxes


def flipped(boxes: ArrayLike, size: tuple[int, int], horizontal: bool = True, vertical: bool = False) -> Float:
    """Boxes (N, 5) of an image of ``size`` (width, height) mirrored left to right, top to bottom or both; le90."""
    boxes = check_boxes(boxes).copy()
    width, height = size
    if horizontal:
        boxes[:, 0] = width - 1 - boxes[:, 0]
    if vertical:
        boxes[:, 1] = height - 1 - boxes[:, 1]
    if horizontal != vertical:
        boxes[:, 4] = -boxes[:, 4]
    return canonical(boxes)


def turned(boxes: ArrayLike, size: tuple[int, int], quarters: int) -> Float:
    """Boxes (N, 5) of an image of ``size`` (width, height) after ``np.rot90(image, quarters)``; le90.

    As in numpy, a positive turn is counter-clockwise on screen.
    """
    boxes = check_boxes(boxes).copy()
    width, height = size
    for _ in range(quarters % 4):
        boxes[:, 0], boxes[:, 1] = boxes[:, 1].copy(), width - 1 - boxes[:, 0]
        width, height = height, width
    boxes[:, 4] -= (quarters % 4) * (np.pi / 2)
    return canonical(boxes)


def rotated(boxes: ArrayLike, angle: float, centre: ArrayLike) -> Float:
    """Boxes (N, 5) turned about ``centre`` (2,) by ``angle`` radians, clockwise on screen; le90."""
    boxes = check_boxes(boxes).copy()
    pivot = np.asarray(centre, dtype=np.float64)
    c, s = np.cos(angle), np.sin(angle)
    boxes[:, :2] = (boxes[:, :2] - pivot) @ np.array([[c, s], [-s, c]]) + pivot
    boxes[:, 4] += angle
    return canonical(boxes)


def scaled(boxes: ArrayLike, factor: float | tuple[float, float], origin: tuple[float, float] = (-0.5, -0.5)) -> Float:
    """Boxes (N, 5) of an image that was resized by ``factor`` (one, or one for x and one for y); le90.

    ``origin`` is the point that stays: the image's top left corner as :func:`cv2.resize` and torch's ``interpolate``
    have it; give (0, 0) where coordinates are only multiplied. A box stretched unevenly becomes a parallelogram, for
    which the smallest rectangle around it stands.

    Raises:
        ValueError: a factor that is not positive.
    """
    boxes = check_boxes(boxes)
    fx, fy = factor if isinstance(factor, tuple) else (factor, factor)
    if not (fx > 0 and fy > 0):
        raise ValueError(f"scale factors must be positive, not ({fx:g}, {fy:g})")
    start = np.array(origin, dtype=np.float64)
    if fx != fy:
        return from_corners((corners(boxes) - start) * (fx, fy) + start)
    out = boxes.copy()
    out[:, :2] = (boxes[:, :2] - start) * fx + start
    out[:, 2:4] *= fx
    return canonical(out)
