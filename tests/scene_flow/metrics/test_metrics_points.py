# SPDX-License-Identifier: Apache-2.0
"""Point errors at the edges of the strict inequalities, with flows that are not numbers, and against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scene_flow.metrics.points import (
    angle_errors,
    end_point_errors,
    is_outlier,
    is_relaxed,
    is_strict,
    relative_errors,
    score_points,
)


@pytest.mark.parametrize(
    ("error", "true", "strict", "relaxed", "outlier"),
    [
        # A long true flow keeps r out of play for Outliers only below 0.10, so the length is chosen per row.
        (0.049, 0.1, True, True, True),
        (0.05, 0.1, False, True, True),
        (0.051, 0.1, False, True, True),
        (0.099, 0.1, False, True, True),
        (0.1, 0.1, False, False, True),
        (0.05, 0.9999, False, True, False),  # r = 0.05 exactly
        (0.05, 1.01, True, True, False),  # r < 0.05
        (0.099, 0.9999, False, True, False),
        (0.1, 0.9999, False, False, False),  # r = 0.10 exactly: neither accurate nor an outlier
        (0.101, 0.9999, False, False, True),
        (0.29, 10.0, True, True, False),
        (0.3, 10.0, True, True, False),
        (0.31, 10.0, True, True, True),  # accurate and an outlier at once: the two are no opposites
        (0.0, 0.0, True, True, False),
        (0.9e-5, 0.0, True, True, False),  # a point that stands still: outlier above 0.01 mm
        (1.1e-5, 0.0, True, True, True),
        (0.049, 0.0, True, True, True),
        (0.05, 0.0, False, True, True),
        (np.inf, 0.0, False, False, True),
        (np.inf, 1e9, False, False, True),
    ],
)
def test_strict_inequalities(error: float, true: float, strict: bool, relaxed: bool, outlier: bool) -> None:
    e, size = np.array([error]), np.array([true])
    assert (is_strict(e, size)[0], is_relaxed(e, size)[0], is_outlier(e, size)[0]) == (strict, relaxed, outlier)


def test_relative_error_has_the_cards_denominator() -> None:
    assert relative_errors(np.array([0.5, 1e-4]), np.array([2.0, 0.0])) == pytest.approx([0.5 / 2.0001, 1.0], rel=1e-12)


def test_end_point_error_is_a_distance_in_double_precision() -> None:
    true = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    error = end_point_errors(true + np.float32([3, 4, 0]), true)
    assert error.dtype == np.float64 and error == pytest.approx([5.0, 5.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_flow_that_is_no_number_is_infinitely_wrong(bad: float) -> None:
    flow = np.array([[0.0, bad, 0.0], [0.0, 0.0, 0.0]])
    error = end_point_errors(flow, np.zeros((2, 3)))
    assert error.tolist() == [math.inf, 0.0]
    scores = score_points(error, np.zeros(2), angle_errors(flow, np.zeros((2, 3)), 0.1))
    assert scores.epe3d_m == math.inf and (scores.acc3ds, scores.acc3dr, scores.outliers) == (0.5, 0.5, 0.5)
    assert scores.angle_rad == pytest.approx(np.pi / 2)


def test_no_answer_is_infinitely_wrong_everywhere() -> None:
    assert end_point_errors(None, np.zeros((3, 3))).tolist() == [math.inf] * 3
    assert angle_errors(None, np.zeros((3, 3)), 0.1) == pytest.approx([np.pi] * 3)


def test_shapes_and_true_flows_are_checked() -> None:
    with pytest.raises(ValueError, match=r"flow has shape \(2, 3\), the true flow \(3, 3\)"):
        end_point_errors(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="finite"):
        end_point_errors(np.zeros((1, 3)), np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="no point"):
        score_points(*np.zeros((3, 0)))


def test_angle_is_that_of_space_time() -> None:
    flow, true = np.array([[0.1, 0, 0], [0, 0, 0], [1, 2, 3]]), np.array([[0, 0, 0], [0, 0, 0], [1.0, 2.0, 3.0]])
    assert angle_errors(flow, true, 0.1) == pytest.approx([np.pi / 4, 0.0, 0.0], abs=1e-12)
    # Half of the frame time doubles the tangent.
    assert angle_errors(flow, true, 0.05)[0] == pytest.approx(math.atan(2.0))


def test_angle_equals_arc_cosine_and_sees_tiny_angles() -> None:
    rng = np.random.default_rng(0)
    flow, true = rng.normal(size=(2, 50, 3))
    a, b = (np.append(v, np.full((50, 1), 0.1), axis=1) for v in (flow, true))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert angle_errors(flow, true, 0.1) == pytest.approx(np.arccos(cosine))
    assert angle_errors(np.array([[0.1 * 1e-9, 0, 0]]), np.zeros((1, 3)), 0.1)[0] == pytest.approx(1e-9)


def test_scores_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(0, 0.5, (300, 3)) * rng.choice([0, 0.1, 1], (300, 1))
    flow = true + rng.normal(0, 1, (300, 3)) * rng.choice([1e-6, 0.03, 0.06, 0.3], (300, 1))
    total = strict = relaxed = outliers = 0.0
    for f, g in zip(flow, true, strict=True):
        e = math.dist(f, g)
        r = e / (math.hypot(*g) + 1e-4)
        total += e
        strict += e < 0.05 or r < 0.05
        relaxed += e < 0.1 or r < 0.1
        outliers += e > 0.3 or r > 0.1
    got = score_points(end_point_errors(flow, true), np.linalg.norm(true, axis=1), angle_errors(flow, true, 0.1))
    found = [got.epe3d_m, got.acc3ds, got.acc3dr, got.outliers]
    assert found == pytest.approx([v / 300 for v in (total, strict, relaxed, outliers)])
    assert 0 < got.acc3ds < got.acc3dr < 1 and 0 < got.outliers < 1
