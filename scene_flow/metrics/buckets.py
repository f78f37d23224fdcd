# SPDX-License-Identifier: Apache-2.0
"""Bucket-normalised EPE (Khatri et al., ECCV 2024; Argoverse 2's second challenge): how much of a motion is explained.

Points fall by class and true speed into buckets of 0.04 m per 0.1 s up to 2 m, and one for all above. Over the whole
data set each bucket keeps its mean error and mean speed. The first bucket is ``static`` and stays in metres; every
other one gives error / speed, 1.0 where none of the motion is explained. A class's score is the plain mean over its
filled buckets, so that slow and fast points weigh the same; the last mean is over classes, so that pedestrians weigh as
much as cars. The background has a static score only: what it moves is noise of the poses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scene_flow.metrics.pair import FRAME_S, ScoredPair
from scene_flow.metrics.region import Shape, counted
from vision3d.types import FLOW_CLASSES, Metric

Float = NDArray[np.float64]

EDGES_M = np.append(np.linspace(0.0, 2.0, 51), np.inf)  # metres per 0.1 s; a bucket holds its lower edge


class Buckets:
    """Sums per class and bucket: ``error_m``, ``speed_m`` (metres per 0.1 s) and ``count``, each (classes, 51).

    Args:
        classes: a name per class; a point's class is its row here, others are excluded.
        still: classes whose points all count as static.
        shape: the region, see :mod:`scene_flow.metrics.region`.
    """

    def __init__(
        self,
        classes: Sequence[str] = FLOW_CLASSES,
        still: Sequence[str] = ("BACKGROUND",),
        shape: Shape = "square",
    ) -> None:
        self.classes = tuple(classes)
        self._still = np.array([name in still for name in self.classes])
        self._shape = shape
        size = (len(self.classes), len(EDGES_M) - 1)
        self.error_m, self.speed_m, self.count = np.zeros(size), np.zeros(size), np.zeros(size, dtype=np.int64)

    def add(self, pair: ScoredPair) -> None:
        """Count a pair; one without classes or without the sensor's true motion is left out."""
        if pair.classes is not None:
            self.add_as(pair, pair.classes)

    def add_as(self, pair: ScoredPair, classes: NDArray[np.uint8]) -> None:
        """Count a pair whose points have these (V,) classes; left out without the sensor's true motion."""
        if pair.frame_m is None:
            return
        use = counted(pair, self._shape) & (classes < len(self.classes))
        row = classes[use].astype(np.int64)
        speed_m = pair.frame_m[use]
        column = np.where(self._still[row], 0, np.searchsorted(EDGES_M, speed_m, side="right") - 1)
        # Beside a speed in metres per 0.1 s the error must be one, too; static errors stay metres per pair.
        error_m = np.where(column > 0, FRAME_S / pair.dt_s, 1.0) * pair.error_m[use]
        cell, size = row * self.count.shape[1] + column, self.count.size
        self.error_m += np.bincount(cell, error_m, size).reshape(self.count.shape)
        self.speed_m += np.bincount(cell, speed_m, size).reshape(self.count.shape)
        self.count += np.bincount(cell, minlength=size).reshape(self.count.shape)

    def static(self) -> dict[str, float]:
        """Class -> mean error of its static points, metres; classes that have some."""
        filled = {name: i for i, name in enumerate(self.classes) if self.count[i, 0]}
        return {name: float(self.error_m[i, 0] / self.count[i, 0]) for name, i in filled.items()}

    def dynamic(self) -> dict[str, float]:
        """Class -> plain mean of error / speed over its filled buckets but the first; classes that have some."""
        out = {}
        for name in self.classes:
            _, ratio = self.by_speed(name)
            if len(ratio):
                out[name] = float(ratio.mean())
        return out

    def by_speed(self, name: str) -> tuple[Float, Float]:
        """(K,) mean speeds in m/s and (K,) normalised errors of a class's filled buckets but the first."""
        i = self.classes.index(name)
        filled = np.flatnonzero(self.count[i, 1:]) + 1
        speed_m = self.speed_m[i, filled]
        return speed_m / self.count[i, filled] / FRAME_S, self.error_m[i, filled] / speed_m

    def metrics(self) -> list[Metric]:
        """``bucket_<class>_dynamic``, their mean ``bucket_mean_dynamic``, and ``bucket_mean_static`` in metres."""
        dynamic, static = self.dynamic(), self.static()
        counts = dict(zip(self.classes, self.count.tolist(), strict=True))
        out = [
            Metric(f"bucket_{name.lower()}_dynamic", value, "", "lower", sum(counts[name][1:]))
            for name, value in dynamic.items()
        ]
        if dynamic:
            n = sum(sum(counts[name][1:]) for name in dynamic)
            out.append(Metric("bucket_mean_dynamic", float(np.mean(list(dynamic.values()))), "", "lower", n))
        if static:
            n = sum(counts[name][0] for name in static)
            out.append(Metric("bucket_mean_static", float(np.mean(list(static.values()))), "m", "lower", n))
        return out
