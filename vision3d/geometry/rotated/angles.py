# SPDX-License-Identifier: Apache-2.0
"""Angles of axes: theta and theta + pi are the same direction of a box (for squares theta + pi/2 is as well)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


def wrap(angles: ArrayLike, period: float = np.pi) -> Float:
    """Angles (radians, any shape) moved by whole periods into [-period/2, period/2); those inside stay bit for bit."""
    angles = np.asarray(angles, dtype=np.float64)
    half = period / 2
    moved = np.mod(angles + half, period) - half
    # np.mod may round up to the period itself.
    moved = np.where(moved >= half, -half, moved)
    return np.where((angles >= -half) & (angles < half), angles, moved)


def angle_distance(a: ArrayLike, b: ArrayLike, period: float = np.pi) -> Float:
    """Smallest turn between the axes a and b, radians in [0, period/2]; give period=pi/2 for squares."""
    return np.abs(wrap(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64), period))


def axial_mean(
    angles: ArrayLike, weights: ArrayLike | None = None, axis: int | None = None, period: float = np.pi
) -> Float:
    """Mean direction of axes: the angle of the sum of unit vectors at ``2 pi / period`` times the angles.

    An ordinary mean of -89 and 89 degrees gives 0, at right angles to both; this gives 90.

    Args:
        angles: radians, any shape.
        weights: as large as ``angles`` or broadcast to them; None weighs all alike.
        axis: the axis to average over; None takes all angles together.
        period: pi for boxes (doubled angles), pi/2 for squares (quadrupled).

    Returns:
        Radians in [-period/2, period/2) with ``axis`` removed. Where the vectors cancel, every angle is as good as
        another and the result is an arbitrary finite one.

    Raises:
        ValueError: nothing to average.
    """
    angles = np.asarray(angles, dtype=np.float64)
    if angles.size == 0:
        raise ValueError("axial_mean of no angles")
    factor = 2 * np.pi / period
    weight = np.ones(()) if weights is None else np.asarray(weights, dtype=np.float64)
    sine = np.sum(weight * np.sin(factor * angles), axis=axis)
    cosine = np.sum(weight * np.cos(factor * angles), axis=axis)
    return wrap(np.arctan2(sine, cosine) / factor, period)
