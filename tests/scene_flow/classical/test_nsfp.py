# SPDX-License-Identifier: Apache-2.0
"""The fitted network on motions that are known, on clouds that hold nothing to fit, and twice on the same."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scene_flow.classical.nsfp import Nsfp, drawn
from scene_flow.classical.nsfp_config import NsfpConfig
from scene_flow.problem import Estimate, Problem

Float32 = NDArray[np.float32]
VARIANTS: tuple[Literal["nsfp", "fast"], ...] = ("nsfp", "fast")
MOTION = np.array([0.4, -0.3, 0.1], np.float32)


def surface(seed: int, n: int) -> Float32:
    """Points on the five upper sides of a box of 4 x 2 x 1.5 m, ten metres ahead."""
    rng = np.random.default_rng(seed)
    half = np.array([2.0, 1.0, 0.75])
    points = rng.uniform(-half, half, (n, 3))
    side = rng.integers(0, 5, n)
    for row, at in enumerate(side):
        points[row, at // 2] = half[at // 2] * (1 if at % 2 == 0 else -1)
    return (points + [10, 2, 0]).astype(np.float32)


def estimate(problem: Problem, **options: object) -> Estimate:
    found = Nsfp(NsfpConfig(**options)).estimate(problem)  # type: ignore[arg-type]
    assert found.flow.shape == problem.source.shape and found.flow.dtype == np.float32
    assert np.isfinite(found.flow).all()
    json.dumps(dict(found.extra), allow_nan=False)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_translation_is_recovered_from_other_samples_of_the_surface(variant: str) -> None:
    source, target = surface(0, 400), surface(1, 400) + MOTION
    found = estimate(Problem(source, target), variant=variant, iterations=100, points=300)
    error_m = np.linalg.norm(found.flow - MOTION, axis=1)
    assert error_m.mean() < 0.1  # of 0.51 m
    assert found.extra["points"] == 300 and found.extra["variant"] == variant and not found.extra["still"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_stands_still_does_not_move(variant: str) -> None:
    same = surface(0, 250)
    assert np.linalg.norm(estimate(Problem(same, same), variant=variant, iterations=40).flow, axis=1).max() < 0.02
    other = estimate(Problem(same, surface(1, 250)), variant=variant, iterations=60)
    assert np.linalg.norm(other.flow, axis=1).mean() < 0.08


@pytest.mark.parametrize("variant", VARIANTS)
def test_seeds(variant: str) -> None:
    problem = Problem(surface(0, 120), surface(1, 120) + MOTION, seed=5)
    flows = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        flows.append(estimate(problem, variant=variant, points=100, iterations=15).flow.tobytes())
    other = estimate(dataclasses.replace(problem, seed=6), variant=variant, points=100, iterations=15)
    assert flows[0] == flows[1] != other.flow.tobytes()
    assert not Nsfp.deterministic


@pytest.mark.parametrize("variant", VARIANTS)
def test_inputs_are_left_alone(variant: str) -> None:
    source, target = surface(0, 60), surface(1, 60)
    kept = source.copy(), target.copy()
    estimate(Problem(source, target), variant=variant, iterations=5)
    np.testing.assert_array_equal(source, kept[0])
    np.testing.assert_array_equal(target, kept[1])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ([[1, 2, 3]], [[1, 2, 4]]),
        ([[0, 0, 0]], [[0, 0, 0]]),
        ([[1, 1, 1]] * 30, [[1, 1, 1]]),
        ([[0, 0, 0], [1, 0, 0]], [[5000, 0, 0], [5000, 1, 0], [5000, 0, 1]]),
        ([[1e6, 0, 0], [-1e6, 0, 0]], [[0, 1e6, 0]]),
        ([[1e19, 0, 0]], [[0, 0, 0]]),
    ],
    ids=["one-point", "at-the-origin", "coincident", "far-apart", "kilometres", "absurd"],
)
def test_degenerate_clouds_get_a_finite_answer(
    variant: str, source: list[list[float]], target: list[list[float]]
) -> None:
    problem = Problem(np.array(source, np.float32), np.array(target, np.float32))
    estimate(problem, variant=variant, iterations=20, field_mb=20)


def test_far_apart_clouds_stand_still() -> None:
    """Nothing is within the truncation: no flow is better than none, and the network's first guess is no answer."""
    found = estimate(Problem(surface(0, 50), surface(1, 50) + np.float32(100)), iterations=20)
    assert found.extra["still"] and not found.flow.any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_diverging_fit_is_no_answer(variant: str) -> None:
    problem = Problem(surface(0, 50), surface(1, 50) + MOTION)
    found = estimate(problem, variant=variant, learning_rate=1.0, iterations=30)
    assert np.linalg.norm(found.flow, axis=1).max() < 5


def test_the_field_says_when_its_cells_grew() -> None:
    problem = Problem(surface(0, 50), surface(1, 50))
    assert estimate(problem, variant="fast", iterations=2).extra["coarsened"] is False
    found = estimate(problem, variant="fast", iterations=2, field_mb=1, cell_m=0.02)
    assert found.extra["coarsened"] is True and found.extra["cell_m"] > 0.02


def test_drawn_rows_are_the_cloud_s_own_in_its_order() -> None:
    cloud = np.arange(300, dtype=np.float32).reshape(100, 3)
    some = drawn(cloud, 20, 3, 0)
    assert len(np.unique(some[:, 0])) == 20 and (np.diff(some[:, 0]) > 0).all() and np.isin(some[:, 0], cloud).all()
    assert not np.array_equal(some, drawn(cloud, 20, 3, 1))
    for points in (0, 100, 500):
        np.testing.assert_array_equal(drawn(cloud, points, 3, 0), cloud)
