# SPDX-License-Identifier: Apache-2.0
"""What makes five numbers a box, and the one form of a box that stands for all its equals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry.rotated.angles import wrap

Float = NDArray[np.float64]

LARGEST_SIDE = 1e150  # beyond it areas leave the range of float64
SQUARE_PX = 1e-6  # sides that differ by less (and by less than this part) count as equal


def check_boxes(boxes: ArrayLike, name: str = "boxes") -> Float:
    """Boxes as contiguous (N, 5) float64 with finite numbers and sides >= 0; an empty list is (0, 5).

    Raises:
        ValueError: another shape, or a number that is not one, infinite or a negative side; names the first bad row.
    """
    array = np.asarray(boxes, dtype=np.float64)
    if array.ndim == 1 and array.size == 0:
        array = array.reshape(0, 5)
    if array.ndim != 2 or array.shape[1] != 5:
        raise ValueError(f"{name} must have the shape (N, 5), not {array.shape}")
    finite = np.asarray(np.isfinite(array).all(axis=1))
    sides = array[:, 2:4]
    good = np.asarray(finite & ((sides >= 0) & (sides <= LARGEST_SIDE)).all(axis=1))
    if not good.all():
        row = int(np.argmin(good))
        cx, cy, w, h, theta = array[row].tolist()
        problem = "a side is negative" if finite[row] and min(w, h) < 0 else "not a finite box"
        raise ValueError(f"{name}[{row}] = ({cx:g}, {cy:g}, {w:g}, {h:g}, {theta:g}): {problem}")
    return np.ascontiguousarray(array)


def canonical(boxes: ArrayLike) -> Float:
    """Boxes (N, 5) in le90: w >= h and theta in [-pi/2, pi/2); for squares theta in [-pi/4, pi/4).

    ``(w, h, t)``, ``(w, h, t + pi)`` and ``(h, w, t + pi/2)`` are one box and give one result. Sides within 1e-6 px
    (and 1e-6 of the side) count as equal, so that a square's angle does not hang on rounding.

    Raises:
        ValueError: see :func:`check_boxes`.
    """
    boxes = check_boxes(boxes)
    w, h, theta = boxes[:, 2], boxes[:, 3], boxes[:, 4]
    longer, shorter = np.maximum(w, h), np.minimum(w, h)
    square = longer - shorter <= SQUARE_PX * np.minimum(1.0, longer)
    # The turn is chosen before it is added: theta + pi/2 and back would lose the last bit.
    theta = wrap(np.where((h > w) & ~square, theta + np.pi / 2, theta))
    theta = np.where(square, wrap(theta, np.pi / 2), theta)
    return np.stack([boxes[:, 0], boxes[:, 1], longer, shorter, theta], axis=1)
