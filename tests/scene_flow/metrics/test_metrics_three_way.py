# SPDX-License-Identifier: Apache-2.0
"""Three-way EPE by hand, against a plain loop, and the two averages that give different numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scored_flow import failure, result_of, street, truth_of, turn, values

from scene_flow.metrics.pair import score_pair
from scene_flow.metrics.region import near
from scene_flow.metrics.three_way import ThreeWay


def test_parts_by_hand() -> None:
    #                    moves     moves a bit  background  ground      far        road sign   moving background
    flow = np.array([[1.0, 0, 0], [0.05, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0], [1.0, 0, 0]])
    points = np.array([[1.0, 1, 0], [2, 2, 0], [-3, 34.9, 0], [4, 4, 0], [35, 0, 0], [6, 6, 0], [7, 7, 0]])
    truth = truth_of(
        flow,
        points=points,
        classes=np.array([1, 1, 0, 0, 1, 255, 0], dtype=np.uint8),
        ground=np.arange(7) == 3,
        T_target_source=np.eye(4),
    )
    score = ThreeWay()
    score.add(score_pair(result_of(flow + [[0.3, 0, 0], [0, 0.2, 0], [0, 0, 0.1], *4 * [[9, 9, 9]]]), truth))
    assert score.values() == pytest.approx({"fd": 0.3, "fs": 0.2, "bs": 0.1, "mean": 0.2})


def test_sensors_motion_is_taken_off_before_anything_is_called_moving() -> None:
    T = turn(0.1, (2.0, 0.0, 0.0))
    points = np.array([[10.0, 5, 0], [-3.0, 2, 1]])
    ego = points @ T[:3, :3].T + T[:3, 3] - points
    truth = truth_of(ego, points=points, classes=np.array([1, 0], dtype=np.uint8), T_target_source=T)
    score = ThreeWay()
    score.add(score_pair(result_of(np.zeros((2, 3))), truth))
    assert set(score.values()) == {"fs", "bs"}  # nothing moves, so there is no fd and no mean
    assert score.values()["fs"] == pytest.approx(np.linalg.norm(ego[0]))


def test_moving_is_a_speed_not_a_length() -> None:
    flow, points = np.array([[0.12, 0, 0]]), np.array([[1.0, 0, 0]])
    known = {"points": points, "classes": np.array([1], dtype=np.uint8), "T_target_source": np.eye(4)}
    for dt_s, part in ((0.1, "fd"), (0.2, "fd"), (0.5, "fs")):
        score = ThreeWay()
        score.add(score_pair(result_of(flow), truth_of(flow, dt_s=dt_s, **known)))
        assert list(score.values()) == [part]


@pytest.mark.parametrize("shape", ["square", "circle"])
def test_equals_a_plain_loop(shape: str) -> None:
    score, sums, frames = ThreeWay(shape), {}, {}
    for seed in range(3):
        truth, flow = street(seed, n=200 * (seed + 1))
        score.add(score_pair(result_of(flow), truth))
        here: dict[str, list[float]] = {}
        for i in range(len(flow)):
            x, y, _ = truth.points[i]
            inside = (abs(x) < 35 and abs(y) < 35) if shape == "square" else x * x + y * y < 35 * 35
            if not inside or truth.ground[i] or not truth.valid[i] or truth.classes[i] == 255:
                continue
            ego = truth.T_target_source @ np.append(truth.points[i], 1.0)
            residual_true = truth.flow[i] - (ego[:3] - truth.points[i])
            residual = flow[i] - (ego[:3] - truth.points[i])
            moves = np.sqrt(np.sum(residual_true**2)) > 0.05
            if truth.classes[i] == 0 and moves:
                continue
            part = "bs" if truth.classes[i] == 0 else ("fd" if moves else "fs")
            here.setdefault(part, []).append(float(np.sqrt(np.sum((residual - residual_true) ** 2))))
        for part, errors in here.items():
            sums.setdefault(part, []).extend(errors)
            frames.setdefault(part, []).append(np.mean(errors))
    for by_frame, oracle in ((False, sums), (True, frames)):
        expected = {part: float(np.mean(errors)) for part, errors in oracle.items()}
        found = score.values(frames=by_frame)
        assert found.pop("mean") == pytest.approx(np.mean(list(expected.values())))
        assert found == pytest.approx(expected)
    assert score.values()["mean"] != pytest.approx(score.values(frames=True)["mean"], abs=1e-6)


def test_square_holds_corners_that_the_circle_does_not() -> None:
    points = np.array([[34.9, 34.9, 0.0], [35.0, 0, 0], [0, -34.9, 99.0]])
    assert near(points, "square").tolist() == [True, False, True]
    assert near(points, "circle").tolist() == [False, False, True]
    assert near(points, "everywhere").all()


def test_failure_is_infinite_and_missing_knowledge_is_left_out() -> None:
    truth, flow = street(0)
    score = ThreeWay()
    score.add(score_pair(failure(), truth))
    assert all(v == np.inf for v in values(score.metrics()).values()) and len(score.metrics()) == 5
    for missing in ("classes", "T_target_source"):
        other, _ = street(0)
        object.__setattr__(other, missing, None)
        score = ThreeWay()
        score.add(score_pair(result_of(flow), other))
        assert score.metrics() == []
