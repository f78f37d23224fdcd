# SPDX-License-Identifier: Apache-2.0
"""One rigid motion for the whole cloud."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from scene_flow.classical.config import IcpConfig
from scene_flow.classical.ego import register
from scene_flow.problem import Estimate, Problem
from vision3d.geometry.se3 import transform


class GlobalIcp:
    """The registration of both clouds as the flow of every point, on top of what is compensated already."""

    deterministic = True

    def __init__(self, config: IcpConfig) -> None:
        self.config = config

    def estimate(self, problem: Problem) -> Estimate:
        """One motion; confidence falls linearly with the distance to the target then, to 0 at three ``radius_m``."""
        motion = register(problem.source, problem.target, problem.axes, self.config)
        moved = transform(motion.T_target_source, problem.source)
        reach_m = 3 * self.config.radius_m
        distance, _ = cKDTree(problem.target).query(moved, distance_upper_bound=reach_m)
        confidence = 1 - np.minimum(distance / reach_m, 1)
        facts = {
            "icp_fitness": round(motion.fitness, 4),
            "icp_rmse_m": round(motion.rmse_m, 4) if np.isfinite(motion.rmse_m) else None,
            "icp_T": motion.T_target_source.tolist(),
        }
        return Estimate((moved - problem.source).astype(np.float32), confidence.astype(np.float32), extra=facts)
