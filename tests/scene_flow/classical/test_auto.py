# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from scene_flow.classical.auto import choose
from scene_flow.config import METHODS, FlowConfig
from scene_flow.pipeline import FlowPipeline
from vision3d.types import CloudPair


@pytest.mark.parametrize("axes", ["lidar", "camera"])
def test_the_choice_is_a_method_and_says_why(axes: str) -> None:
    method, reason = choose(axes)  # type: ignore[arg-type]
    assert method in METHODS
    assert len(reason) > 20


def test_the_result_names_what_was_picked_and_equals_it() -> None:
    points = np.random.default_rng(0).uniform([-5, -1, 4], [5, 1, 20], (600, 3)).astype(np.float32)
    pair = CloudPair("c", points, points + np.float32([0.2, 0, 0]), axes="camera")
    auto = FlowPipeline(FlowConfig(method="auto")).step(None, pair)
    picked, _, why = auto.extra["picked"].partition(": ")
    named = FlowPipeline(FlowConfig(method=picked)).step(None, pair)  # type: ignore[arg-type]
    assert np.array_equal(auto.flow, named.flow)
    assert why == choose("camera").reason
