# SPDX-License-Identifier: Apache-2.0
"""Standing still is a method like the others."""

from __future__ import annotations

import numpy as np

from scene_flow.classical.zero import ZeroFlow
from scene_flow.problem import Problem


def test_nothing_moves() -> None:
    source = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    found = ZeroFlow().estimate(Problem(source, source[:3] + 1))
    assert found.flow.shape == (7, 3) and found.flow.dtype == np.float32 and not found.flow.any()
    assert found.confidence is None and ZeroFlow.deterministic
