# SPDX-License-Identifier: Apache-2.0
"""Which points the Argoverse 2 protocols look at: near the vehicle, off the ground, of a class that counts.

The two reference implementations differ in the shape: a square of 70 m (Argoverse's scorer, |x| < 35 and |y| < 35) or a
circle of 35 m (OpenSceneFlow). Both are here; the square is the default.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scene_flow.metrics.pair import ScoredPair

Bool = NDArray[np.bool_]
Shape = Literal["square", "circle", "everywhere"]

NEAR_M = 35.0
NO_CLASS = 255  # road signs and the like: their labels are odd, so they are excluded


def near(points: NDArray[np.float64], shape: Shape, limit_m: float = NEAR_M) -> Bool:
    """(N,) points (N, 3), x forward and y left, that lie strictly inside the region around the origin."""
    if shape == "everywhere":
        return np.ones(len(points), dtype=bool)
    horizontal = points[:, :2]
    distance = np.linalg.norm(horizontal, axis=1) if shape == "circle" else np.abs(horizontal).max(axis=1)
    return np.asarray(distance < limit_m)


def counted(pair: ScoredPair, shape: Shape = "square") -> Bool:
    """(V,) points of the pair inside the region and off the ground; without ground labels no point is ground."""
    inside = near(pair.points, shape)
    return inside if pair.ground is None else inside & ~pair.ground
