# SPDX-License-Identifier: Apache-2.0
"""Three-way EPE (Argoverse 2, Chodosh et al., WACV 2024): foreground that moves, foreground and background that stand.

The end-point error of a flow is that of its residual: the sensor's true motion is taken from prediction and truth alike
and cancels. It decides which points move: those with a true residual above 0.05 m per 0.1 s. Ground, invalid and
excluded points are dropped, points outside 35 m as well (:mod:`scene_flow.metrics.region`).
"""

from __future__ import annotations

import numpy as np

from scene_flow.metrics.means import PairMeans
from scene_flow.metrics.pair import DYNAMIC_M_PER_FRAME, ScoredPair
from scene_flow.metrics.region import NO_CLASS, Shape, counted
from vision3d.types import FLOW_CLASSES, Metric

BACKGROUND = FLOW_CLASSES.index("BACKGROUND")
PARTS = ("fd", "fs", "bs")  # foreground dynamic, foreground static, background static


class ThreeWay:
    """Mean error of each part, and the mean of the three.

    Two averages exist and differ: over all points of the data set (Argoverse's scorer; ``three_way_fd`` and so on), or
    per pair and then over the pairs that have such points (``frames=True`` in :meth:`values`; OpenSceneFlow averages
    over frames too, but counts a frame without such points as an error of zero).

    Args:
        shape: the region, see :mod:`scene_flow.metrics.region`.
    """

    def __init__(self, shape: Shape = "square") -> None:
        self._shape = shape
        self._sum = dict.fromkeys(PARTS, 0.0)
        self._count = dict.fromkeys(PARTS, 0)
        self._frames = {part: PairMeans() for part in PARTS}

    def add(self, pair: ScoredPair) -> None:
        """Count a pair; one without classes or without the sensor's true motion is left out."""
        if pair.classes is None or pair.frame_m is None:
            return
        use = counted(pair, self._shape) & (pair.classes != NO_CLASS)
        moving = pair.frame_m > DYNAMIC_M_PER_FRAME
        foreground = pair.classes != BACKGROUND
        masks = {"fd": foreground & moving, "fs": foreground & ~moving, "bs": ~foreground & ~moving}
        for part, mask in masks.items():
            error_m = pair.error_m[use & mask]
            self._sum[part] += float(error_m.sum())
            self._count[part] += len(error_m)
            self._frames[part].add_points(error_m)

    def values(self, frames: bool = False) -> dict[str, float]:
        """``fd``, ``fs``, ``bs`` in metres, each where it has points, and ``mean`` where all three have."""
        found = {
            part: self._frames[part].value if frames else self._sum[part] / self._count[part]
            for part in PARTS
            if self._count[part]
        }
        if len(found) == len(PARTS):
            found["mean"] = float(np.mean(list(found.values())))
        return found

    def metrics(self) -> list[Metric]:
        """``three_way_fd``, ``_fs``, ``_bs`` and ``_mean`` over points, ``three_way_mean_frames`` over pairs."""
        values, total = self.values(), sum(self._count.values())
        out = [
            Metric(f"three_way_{part}", value, "m", "lower", self._count.get(part, total))
            for part, value in values.items()
        ]
        if "mean" in values:
            pairs = max(means.pairs for means in self._frames.values())
            out.append(Metric("three_way_mean_frames", self.values(frames=True)["mean"], "m", "lower", pairs))
        return out
