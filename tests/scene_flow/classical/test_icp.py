# SPDX-License-Identifier: Apache-2.0
"""One motion for all points: exact where there is one, and doubtful where a point finds nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from scene_flow.classical.config import IcpConfig
from scene_flow.classical.icp import GlobalIcp
from scene_flow.problem import Problem
from tests.scene_flow.classical.scenes import street
from vision3d.geometry.se3 import from_rt, rotvec_to_rotation, transform


@pytest.fixture(scope="module")
def source() -> NDArray[np.float32]:
    return street(5, beams=32, columns=400, moving=False).source


T = from_rt(rotvec_to_rotation([0.0, 0.01, 0.08]), [1.5, -0.4, 0.05])


def test_a_rigid_motion_is_found(source: NDArray[np.float32]) -> None:
    target = transform(T, source).astype(np.float32)
    problem = Problem(source, np.random.default_rng(0).permutation(target))
    found = GlobalIcp(IcpConfig()).estimate(problem)
    assert found.flow.dtype == np.float32
    error = np.linalg.norm(found.flow - (transform(T, source) - source), axis=1)
    near = np.linalg.norm(source, axis=1) < 40
    assert error[near].max() < 0.01 and error.max() < 0.02
    assert found.confidence is not None and found.confidence[near].min() > 0.95
    np.testing.assert_allclose(found.extra["icp_T"], T, atol=0.01)
    json.dumps(dict(found.extra))


def test_flow_is_one_rigid_motion(source: NDArray[np.float32]) -> None:
    found = GlobalIcp(IcpConfig()).estimate(Problem(source, transform(T, source).astype(np.float32)))
    np.testing.assert_allclose(
        source.astype(np.float64) + found.flow, transform(found.extra["icp_T"], source), atol=1e-5
    )


def test_confidence_falls_with_the_distance_to_the_target() -> None:
    """Without the points of a corner in the target: 0 from 0.9 m on, linear before."""
    rng = np.random.default_rng(0)
    source = rng.uniform(-10, 10, (4000, 3)).astype(np.float32)
    target = source[source[:, 0] < 5]
    found = GlobalIcp(IcpConfig(radius_m=0.3)).estimate(Problem(source, target))
    moved = source.astype(np.float64) + found.flow
    distance = np.array([np.linalg.norm(target - p, axis=1).min() for p in moved[:400]])
    expected = 1 - np.minimum(distance / 0.9, 1)
    assert found.confidence is not None
    np.testing.assert_allclose(found.confidence[:400], expected, atol=1e-4)
    assert (expected == 0).any() and (expected > 0.9).any()


def test_one_point_stays() -> None:
    one = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)
    found = GlobalIcp(IcpConfig()).estimate(Problem(one, one + np.float32(500)))
    np.testing.assert_array_equal(found.flow, 0)
    np.testing.assert_array_equal(found.confidence, 0)
    assert found.extra["icp_rmse_m"] is None
