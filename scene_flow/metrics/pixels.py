# SPDX-License-Identifier: Apache-2.0
"""EPE2D and Acc2D: the flow as pixels of the camera that sees the cloud (card sctn.md, "Evaluation").

A point p is seen at u = cx - fx x / z, v = cy - fy y / z, in axes x left, y up, z forward. The flow in pixels goes from
p's place to that of p + f. Acc2D counts e < 3 px or e / (||true|| + 1e-5) < 0.05, strictly. Lenses' distortion is left
out: the prepared data sets have none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scene_flow.metrics.means import PairMeans
from scene_flow.metrics.pair import ScoredPair
from vision3d.geometry.cameras import Camera
from vision3d.types import Metric

Float = NDArray[np.float64]

ACCURATE_PX, ACCURATE_SHARE, RELATIVE_EPS_PX = 3.0, 0.05, 1e-5


def project(points: Float, camera: Camera) -> Float:
    """(N, 2) pixels of ``points`` (N, 3), metres, x forward, y left, z up; NaN where one is not before the camera."""
    forward = np.where(points[:, 0] > 0, points[:, 0], np.nan)
    u = camera.cx - camera.fx * points[:, 1] / forward
    v = camera.cy - camera.fy * points[:, 2] / forward
    return np.stack([u, v], axis=1)


def pixel_errors(points: Float, flow: Float, true_flow: Float, camera: Camera) -> tuple[Float, Float]:
    """(M,) errors and (M,) true flow's lengths in pixels, all arguments (N, 3) metres in lidar axes.

    Points that truly are, or go, behind the camera have no pixel and are left out (M <= N). A flow that leads a visible
    point behind the camera, or is not finite, is infinitely wrong.
    """
    start, true_end = project(points, camera), project(points + true_flow, camera)
    seen = np.isfinite(start).all(axis=1) & np.isfinite(true_end).all(axis=1)
    error = np.linalg.norm(project((points + flow)[seen], camera) - true_end[seen], axis=1)
    true = np.linalg.norm(true_end[seen] - start[seen], axis=1)
    return np.where(np.isfinite(error), error, np.inf), true


def is_accurate(error_px: Float, true_px: Float) -> NDArray[np.bool_]:
    """(N,) points that Acc2D counts."""
    return (error_px < ACCURATE_PX) | (error_px / (true_px + RELATIVE_EPS_PX) < ACCURATE_SHARE)


class PixelScores:
    """EPE2D and Acc2D, per pair and then averaged over the pairs that have a camera."""

    def __init__(self) -> None:
        self._epe, self._accurate = PairMeans(), PairMeans()

    def add(self, pair: ScoredPair) -> None:
        """Count a pair; one without camera, or with no visible point, is left out."""
        if pair.camera is None:
            return
        error, true = pixel_errors(pair.points, pair.flow, pair.true_flow, pair.camera)
        self._epe.add_points(error)
        self._accurate.add_points(is_accurate(error, true))

    def metrics(self) -> list[Metric]:
        """``epe2d`` and ``acc2d``; none without cameras."""
        return [*self._epe.metric("epe2d", "px", "lower"), *self._accurate.metric("acc2d", "", "higher")]
