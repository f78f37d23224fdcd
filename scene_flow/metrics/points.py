# SPDX-License-Identifier: Apache-2.0
"""Errors of single points, and what a pair's points say together: EPE3D, the accuracies, outliers, the angle.

Definitions (card sctn.md, "Evaluation"; all comparisons strict): e = ||f - f_true||, r = e / (||f_true|| + 1e-4);
Acc3DS counts e < 0.05 m or r < 0.05, Acc3DR e < 0.10 m or r < 0.10, Outliers e > 0.30 m or r > 0.10.
A flow that holds NaN or infinity is infinitely wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

RELATIVE_EPS_M = 1e-4
STRICT, RELAXED = 0.05, 0.10  # metres, and share of the true length
OUTLIER_M, OUTLIER_SHARE = 0.30, 0.10
WORST_ANGLE_RAD = float(np.pi)


@dataclass(frozen=True)
class PointScores:
    """A pair's scores, each the mean over its points.

    Attributes:
        epe3d_m: metres; infinite as soon as one point is infinitely wrong.
        acc3ds, acc3dr, outliers: shares, 0 to 1.
        angle_rad: in space-time, see :func:`angle_errors`.
    """

    epe3d_m: float
    acc3ds: float
    acc3dr: float
    outliers: float
    angle_rad: float


def end_point_errors(flow: ArrayLike | None, true_flow: ArrayLike) -> Float:
    """(N,) metres: the distance between the ends of ``flow`` and ``true_flow``, both (N, 3).

    Infinite where the flow holds a number that is not finite, and everywhere for None (no answer).

    Raises:
        ValueError: the shapes differ, or a true flow is not finite.
    """
    true = np.asarray(true_flow, dtype=np.float64)
    if true.ndim != 2 or true.shape[1] != 3 or not np.isfinite(true).all():
        raise ValueError("true flow must be (N, 3) finite numbers")
    if flow is None:
        return np.full(len(true), np.inf)
    found = np.asarray(flow, dtype=np.float64)
    if found.shape != true.shape:
        raise ValueError(f"flow has shape {found.shape}, the true flow {true.shape}")
    error = np.full(len(true), np.inf)
    ok = np.isfinite(found).all(axis=1)
    error[ok] = np.linalg.norm(found[ok] - true[ok], axis=1)
    return error


def relative_errors(error_m: Float, true_m: Float) -> Float:
    """(N,) error by the true flow's length; 1e-4 m are added so that a point that stands still has one, too."""
    return error_m / (true_m + RELATIVE_EPS_M)


def is_strict(error_m: Float, true_m: Float) -> Bool:
    """(N,) points that Acc3DS counts."""
    return (error_m < STRICT) | (relative_errors(error_m, true_m) < STRICT)


def is_relaxed(error_m: Float, true_m: Float) -> Bool:
    """(N,) points that Acc3DR counts."""
    return (error_m < RELAXED) | (relative_errors(error_m, true_m) < RELAXED)


def is_outlier(error_m: Float, true_m: Float) -> Bool:
    """(N,) outliers. On a point that stands still everything above 0.01 mm is one: useless on static scenes."""
    return (error_m > OUTLIER_M) | (relative_errors(error_m, true_m) > OUTLIER_SHARE)


def angle_errors(flow: ArrayLike | None, true_flow: ArrayLike, dt_s: float) -> Float:
    """(N,) radians between (flow, dt) and (true flow, dt), the angle of Argoverse 2's first challenge (dt 0.1 s).

    With time as a fourth axis two flows of length zero have angle 0 instead of none. A flow that is not finite has pi.
    """
    true = np.asarray(true_flow, dtype=np.float64)
    angle = np.full(len(true), WORST_ANGLE_RAD)
    if flow is None:
        return angle
    found = np.asarray(flow, dtype=np.float64)
    ok = np.isfinite(found).all(axis=1)
    a, b = (np.pad(v[ok], ((0, 0), (0, 1)), constant_values=dt_s) for v in (found, true))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    # Half-angle form: the arc cosine of a product near 1 loses half of the digits.
    angle[ok] = 2.0 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    return angle


def score_points(error_m: Float, true_m: Float, angle_rad: Float) -> PointScores:
    """Scores of one pair from its points' errors, all (N,).

    Raises:
        ValueError: there is no point; a mean of nothing is undefined.
    """
    if not len(error_m):
        raise ValueError("no point to score")
    return PointScores(
        epe3d_m=float(error_m.mean()),
        acc3ds=float(is_strict(error_m, true_m).mean()),
        acc3dr=float(is_relaxed(error_m, true_m).mean()),
        outliers=float(is_outlier(error_m, true_m).mean()),
        angle_rad=float(angle_rad.mean()),
    )
