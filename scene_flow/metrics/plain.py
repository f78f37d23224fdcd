# SPDX-License-Identifier: Apache-2.0
"""The numbers that every paper on scene flow gives: over all points, drawn ones, moving ones and standing ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scene_flow.metrics.means import PairMeans
from scene_flow.metrics.pair import ScoredPair
from scene_flow.metrics.points import score_points
from vision3d.types import Metric


class PlainScores:
    """EPE3D, Acc3DS, Acc3DR, Outliers and the angle, per pair and then averaged over pairs."""

    def __init__(self, suffix: str = "") -> None:
        self._suffix = suffix
        self._epe, self._strict, self._relaxed = PairMeans(), PairMeans(), PairMeans()
        self._outliers, self._angle = PairMeans(), PairMeans()

    def add(self, pair: ScoredPair, chosen: NDArray[np.bool_] | None = None) -> None:
        """Count a pair's points, or the ``chosen`` (V,) of them; none of them, and the pair is left out."""
        rows = slice(None) if chosen is None else chosen
        error_m, true_m, angle_rad = pair.error_m[rows], pair.true_m[rows], pair.angle_rad[rows]
        if not len(error_m):
            return
        scores = score_points(error_m, true_m, angle_rad)
        self._epe.add(scores.epe3d_m)
        self._strict.add(scores.acc3ds)
        self._relaxed.add(scores.acc3dr)
        self._outliers.add(scores.outliers)
        self._angle.add(scores.angle_rad)

    def metrics(self) -> list[Metric]:
        """``epe3d``, ``acc3ds``, ``acc3dr``, ``outliers`` and ``angle``, with the suffix."""
        return [
            *self._epe.metric("epe3d" + self._suffix, "m", "lower"),
            *self._strict.metric("acc3ds" + self._suffix, "", "higher"),
            *self._relaxed.metric("acc3dr" + self._suffix, "", "higher"),
            *self._outliers.metric("outliers" + self._suffix, "", "lower"),
            *self._angle.metric("angle" + self._suffix, "rad", "lower"),
        ]


class SampledScores:
    """The plain numbers over the points that the method answered itself: the published protocol of the networks.

    Networks that take 8192 points draw them and are scored on these alone; here the other points' flow is interpolated
    and counts in the plain numbers. Nothing is reported where no result names its points.
    """

    def __init__(self) -> None:
        self._any = False
        self._scores = PlainScores("_sampled")

    def add(self, pair: ScoredPair) -> None:
        """Count a pair's drawn points; all of them where the result names none, as without an answer."""
        self._any |= pair.sampled is not None
        self._scores.add(pair, pair.sampled)

    def metrics(self) -> list[Metric]:
        """``epe3d_sampled``, ``acc3ds_sampled``, ``acc3dr_sampled``, ``outliers_sampled``."""
        return [m for m in self._scores.metrics() if m.name != "angle_sampled"] if self._any else []


class MotionScores:
    """EPE3D of points that move in the world and of those that do not, and the overlap (IoU) of moving points.

    The overlap is counted over the points of all pairs, as in Argoverse 2's first challenge; it is there only if the
    method says which points move. A pair without an answer has found none.
    """

    def __init__(self) -> None:
        self._dynamic, self._static = PairMeans(), PairMeans()
        self._says = False
        self._both = self._either = self._points = 0

    def add(self, pair: ScoredPair) -> None:
        """Count a pair; one of which nobody knows what moves is left out."""
        if pair.dynamic is None:
            return
        self._dynamic.add_points(pair.error_m[pair.dynamic])
        self._static.add_points(pair.error_m[~pair.dynamic])
        self._says |= pair.said_dynamic is not None
        said = np.zeros_like(pair.dynamic) if pair.said_dynamic is None else pair.said_dynamic
        self._both += int((said & pair.dynamic).sum())
        self._either += int((said | pair.dynamic).sum())
        self._points += len(pair)

    def metrics(self) -> list[Metric]:
        """``epe3d_dynamic``, ``epe3d_static`` and ``dynamic_iou``; each where it is defined."""
        out = [
            *self._dynamic.metric("epe3d_dynamic", "m", "lower"),
            *self._static.metric("epe3d_static", "m", "lower"),
        ]
        if self._says and self._either:
            out.append(Metric("dynamic_iou", self._both / self._either, "", "higher", self._points))
        return out
