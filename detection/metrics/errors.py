# SPDX-License-Identifier: Apache-2.0
"""How far found boxes are from the objects they stand for: angle, centre and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

# Below this aspect ratio nobody can say which side is the long one, so that a quarter turn is no error.
SQUARE_ASPECT = 1.1


@dataclass(frozen=True)
class BoxErrors:
    """Errors of K boxes.

    Attributes:
        angle_rad: (K,) between the axes, 0 to pi/2; 0 to pi/4 for objects that are nearly square.
        centre_px: (K,) distance of the centres.
        size: (K,) mean of the relative errors of the long and the short side.
    """

    angle_rad: Float
    centre_px: Float
    size: Float


def box_errors(boxes: Float, true_boxes: Float) -> BoxErrors:
    """Errors of (K, 5) boxes against (K, 5) true ones of positive size, le90, pixels and radians."""
    square = true_boxes[:, 2] < SQUARE_ASPECT * true_boxes[:, 3]
    period = np.where(square, np.pi / 2, np.pi)
    turn = boxes[:, 4] - true_boxes[:, 4]
    return BoxErrors(
        angle_rad=np.abs(turn - period * np.round(turn / period)),
        centre_px=np.linalg.norm(boxes[:, :2] - true_boxes[:, :2], axis=1),
        size=np.abs(boxes[:, 2:4] / true_boxes[:, 2:4] - 1.0).mean(axis=1),
    )


def median(values: Float) -> float:
    """The median; infinite where there is nothing to take it of."""
    return float(np.median(values)) if len(values) else float("inf")
