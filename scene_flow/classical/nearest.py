# SPDX-License-Identifier: Apache-2.0
"""Every point goes to the nearest point of the second scan: the least that a method must beat."""

from __future__ import annotations

import numpy as np

from scene_flow.problem import Estimate, Problem
from vision3d.errors import ConfigError


class NearestNeighbour:
    """The nearest point of the target, minus the point.

    Args:
        max_distance_m: a point with no target point within this has no counterpart: its flow is zero and its confidence
            0. By default what a vehicle at 40 m/s (144 km/h) covers between two scans at 10 Hz.

    Raises:
        ConfigError: ``max_distance_m`` is not a positive number.
    """

    deterministic = True

    def __init__(self, max_distance_m: float = 4.0) -> None:
        if not 0 < max_distance_m < np.inf:
            raise ConfigError(f"max_distance_m is {max_distance_m}: must be a positive number of metres")
        self.max_distance_m = max_distance_m

    def estimate(self, problem: Problem) -> Estimate:
        """Flow to the nearest target point; confidence falls linearly from 1 at no distance to 0 at the farthest."""
        from scipy.spatial import cKDTree

        distance_m, nearest = cKDTree(problem.target).query(problem.source)
        near = distance_m <= self.max_distance_m
        flow = np.where(near[:, None], problem.target[nearest] - problem.source, np.float32(0))
        confidence = np.where(near, 1 - distance_m / self.max_distance_m, 0)
        return Estimate(flow, confidence.astype(np.float32), extra={"unmatched": int((~near).sum())})
