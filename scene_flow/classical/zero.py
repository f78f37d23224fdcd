# SPDX-License-Identifier: Apache-2.0
"""The flow of a world in which nothing moves: the row that every table of scene flow must contain."""

from __future__ import annotations

import numpy as np

from scene_flow.problem import Estimate, Problem


class ZeroFlow:
    """Every point stays where it is. Where the sensor's motion is undone, that is right for most of a street."""

    deterministic = True

    def estimate(self, problem: Problem) -> Estimate:
        """Zeros, and no confidence: nothing was looked at."""
        return Estimate(np.zeros((len(problem.source), 3), dtype=np.float32))
