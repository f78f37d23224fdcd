# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours: against every distance, on a motion that they can find, and where there is no neighbour."""

from __future__ import annotations

import numpy as np
import pytest

from scene_flow.classical.nearest import NearestNeighbour
from scene_flow.problem import Problem
from vision3d.errors import ConfigError


def test_against_every_distance() -> None:
    rng = np.random.default_rng(0)
    source, target = (rng.uniform(-5, 5, (n, 3)).astype(np.float32) for n in (200, 150))
    found = NearestNeighbour(1.5).estimate(Problem(source, target))
    distance = np.linalg.norm(source[:, None].astype(np.float64) - target, axis=2)
    near = distance.min(axis=1) <= 1.5
    expected = np.where(near[:, None], target[distance.argmin(axis=1)] - source, 0)
    assert 0 < near.sum() < 200
    np.testing.assert_array_equal(found.flow, expected)
    assert found.confidence is not None
    np.testing.assert_allclose(found.confidence, np.maximum(0, 1 - distance.min(axis=1) / 1.5), atol=1e-6)
    assert found.extra["unmatched"] == (~near).sum()


def test_a_motion_below_half_the_spacing_is_found() -> None:
    source = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), -1).reshape(-1, 3).astype(np.float32)
    found = NearestNeighbour().estimate(Problem(source, source[::-1] + np.array([0.25, -0.25, 0.125], np.float32)))
    np.testing.assert_array_equal(found.flow, np.broadcast_to(np.array([0.25, -0.25, 0.125], np.float32), source.shape))


def test_confidence_falls_to_nothing() -> None:
    source = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 0, 0]], np.float32)
    found = NearestNeighbour(2.0).estimate(Problem(source, source[:1]))
    assert found.confidence is not None
    assert found.confidence.tolist() == [1, 0.5, 0, 0]
    assert found.flow[:, 0].tolist() == [0, -1, -2, 0]


def test_clouds_of_one_point() -> None:
    found = NearestNeighbour().estimate(Problem(np.array([[1, 2, 3]], np.float32), np.array([[1, 2, 4]], np.float32)))
    assert found.flow.tolist() == [[0, 0, 1]] and found.confidence is not None and found.flow.dtype == np.float32


@pytest.mark.parametrize("distance_m", [0.0, -1.0, float("nan"), float("inf")])
def test_a_distance_is_positive(distance_m: float) -> None:
    with pytest.raises(ConfigError, match="max_distance_m"):
        NearestNeighbour(distance_m)
