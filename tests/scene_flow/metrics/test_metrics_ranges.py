# SPDX-License-Identifier: Apache-2.0
"""EPE by distance: bins, what counts as moving, means of bins, a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from scored_flow import failure, result_of, street, truth_of

from scene_flow.metrics.pair import score_pair
from scene_flow.metrics.ranges import RangeErrors


def test_bins_hold_their_lower_bound_and_distance_is_three_dimensional() -> None:
    points = np.array([[34.9, 0, 0], [35.0, 0, 0], [0, 30.0, 40.0], [0, 0, -99.0], [120.0, 0, 0]])
    truth = truth_of(np.zeros((5, 3)), points=points)
    score = RangeErrors()
    score.add(score_pair(result_of([[e, 0.0, 0.0] for e in range(1, 6)]), truth))
    assert score.bins("all") == pytest.approx({"0-35": 1, "35-50": 2, "50-75": 3, "75-100": 4, "100+": 5})
    assert score.mean("all") == pytest.approx(3.0)
    assert score.curve("all")[0] == pytest.approx([34.9, 35.0, 50.0, 99.0, 120.0])
    assert score.mean("dynamic") is None and score.bins("static") == {}


def test_walking_speed_splits_static_from_dynamic() -> None:
    flow = np.array([[0.13, 0, 0], [0.15, 0, 0]])
    points = np.array([[1.0, 0, 0], [2.0, 0, 0]])
    for dt_s, dynamic in ((0.1, 1), (0.05, 2), (0.2, 0)):
        score = RangeErrors()
        score.add(score_pair(result_of(flow), truth_of(flow, points=points, T_target_source=np.eye(4), dt_s=dt_s)))
        assert len(score.curve("dynamic")[0]) == min(dynamic, 1)
        assert len(score.curve("static")[0]) == min(2 - dynamic, 1)


def test_equals_a_plain_loop() -> None:
    score, oracle = RangeErrors(), {}
    for seed in range(2):
        truth, flow = street(seed)
        score.add(score_pair(result_of(flow), truth))
        for i in np.flatnonzero(truth.valid & ~truth.ground):
            ego = truth.T_target_source @ np.append(truth.points[i], 1.0)
            speed = np.linalg.norm(truth.flow[i] - (ego[:3] - truth.points[i])) * 10
            distance = np.linalg.norm(truth.points[i])
            name = next(
                n
                for n, high in (("0-35", 35), ("35-50", 50), ("50-75", 75), ("75-100", 100), ("100+", np.inf))
                if distance < high
            )
            key = ("dynamic" if speed >= 1.4 else "static", name)
            oracle.setdefault(key, []).append(np.linalg.norm(flow[i] - truth.flow[i]))
    for motion in ("static", "dynamic"):
        expected = {name: float(np.mean(v)) for (m, name), v in oracle.items() if m == motion}
        assert score.bins(motion) == pytest.approx(expected) and len(expected) == 5
        assert score.mean(motion) == pytest.approx(np.mean(list(expected.values())))


def test_failure_is_infinite() -> None:
    truth, _ = street(0)
    score = RangeErrors()
    score.add(score_pair(failure(), truth))
    assert score.mean("static") == score.mean("dynamic") == np.inf
