# SPDX-License-Identifier: Apache-2.0
"""EPE by distance from the sensor (SSF, Khoche et al., ICRA 2025): networks are good near by and seldom asked far out.

Distance is three-dimensional. Points that truly move at 1.4 m/s (a walk) or more against the static world are dynamic,
others static. A bin's error is the mean over all its points in the data set, the score the mean over the filled bins.
Ground and invalid points are dropped; there is no 35 m box.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scene_flow.metrics.pair import FRAME_S, ScoredPair
from scene_flow.metrics.region import counted

Float = NDArray[np.float64]

SSF_EDGES_M = (0.0, 35.0, 50.0, 75.0, 100.0, np.inf)
WALK_M_PER_S = 1.4
MOTIONS = ("static", "dynamic", "all")


class RangeErrors:
    """Sums per bin for static and dynamic points, and for all of them where nobody knows what moves.

    Args:
        edges_m: bounds of the bins; a bin holds its lower bound.
    """

    def __init__(self, edges_m: Sequence[float] = SSF_EDGES_M) -> None:
        self._edges_m = np.asarray(edges_m, dtype=np.float64)
        bins = len(self._edges_m) - 1
        self._error_m = {motion: np.zeros(bins) for motion in MOTIONS}
        self._range_m = {motion: np.zeros(bins) for motion in MOTIONS}
        self._count = {motion: np.zeros(bins, dtype=np.int64) for motion in MOTIONS}

    def add(self, pair: ScoredPair) -> None:
        """Count a pair's points off the ground."""
        use = counted(pair, "everywhere")
        range_m = np.linalg.norm(pair.points, axis=1)
        column = np.searchsorted(self._edges_m, range_m, side="right") - 1
        use &= (column >= 0) & (column < len(self._edges_m) - 1)
        masks = {"all": use}
        if pair.frame_m is not None:
            walks = pair.frame_m / FRAME_S >= WALK_M_PER_S
            masks |= {"static": use & ~walks, "dynamic": use & walks}
        bins = len(self._edges_m) - 1
        for motion, mask in masks.items():
            self._error_m[motion] += np.bincount(column[mask], pair.error_m[mask], bins)
            self._range_m[motion] += np.bincount(column[mask], range_m[mask], bins)
            self._count[motion] += np.bincount(column[mask], minlength=bins)

    def curve(self, motion: str) -> tuple[Float, Float]:
        """(K,) mean distances and (K,) mean errors, metres, of the filled bins; ``motion`` is one of MOTIONS."""
        filled = self._count[motion] > 0
        count = self._count[motion][filled]
        return self._range_m[motion][filled] / count, self._error_m[motion][filled] / count

    def bins(self, motion: str) -> dict[str, float]:
        """``0-35``, ``35-50``, ... -> mean error in metres, filled bins only; the last is ``100+``."""
        names = [
            f"{low:g}-{high:g}" if np.isfinite(high) else f"{low:g}+"
            for low, high in zip(self._edges_m[:-1], self._edges_m[1:], strict=True)
        ]
        filled = [name for name, n in zip(names, self._count[motion], strict=True) if n]
        return dict(zip(filled, self.curve(motion)[1].tolist(), strict=True))

    def mean(self, motion: str) -> float | None:
        """The mean over the filled bins, metres: near and far weigh the same. None where none is filled."""
        errors_m = self.curve(motion)[1]
        return float(errors_m.mean()) if len(errors_m) else None
