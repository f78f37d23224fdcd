# SPDX-License-Identifier: Apache-2.0
"""Bucket-normalised EPE: exactly 1 for no residual, its edges, its sums against a plain loop, its means of means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scored_flow import failure, result_of, street, truth_of, values

from scene_flow.metrics.buckets import EDGES_M, Buckets
from scene_flow.metrics.pair import score_pair
from vision3d.types import FLOW_CLASSES, FlowTruth


def ego_flow(truth: FlowTruth) -> np.ndarray:
    T = truth.T_target_source
    return truth.points @ T[:3, :3].T + T[:3, 3] - truth.points


def scored(*pairs: tuple[np.ndarray, FlowTruth]) -> Buckets:
    buckets = Buckets()
    for flow, truth in pairs:
        buckets.add(score_pair(result_of(flow), truth))
    return buckets


def cars(speeds: list[float], **given: object) -> FlowTruth:
    flow = np.zeros((len(speeds), 3))
    flow[:, 1] = speeds
    given.setdefault("classes", np.ones(len(speeds), dtype=np.uint8))
    return truth_of(flow, T_target_source=np.eye(4), **given)


def test_edges_are_the_published_ones() -> None:
    assert len(EDGES_M) == 52 and EDGES_M[0] == 0 and EDGES_M[1] == pytest.approx(0.04) and EDGES_M[50] == 2.0
    assert np.isinf(EDGES_M[51])


def test_no_residual_scores_exactly_one() -> None:
    truth = cars([0.1, 0.5, 1.3, 2.7, 0.01])
    found = values(scored((np.zeros((5, 3)), truth)).metrics())
    assert found["bucket_car_dynamic"] == found["bucket_mean_dynamic"] == 1.0
    assert found["bucket_mean_static"] == pytest.approx(0.01)
    # With a sensor that moves, too, to rounding; and in the float32 that results have.
    truth, _ = street(3)
    found = values(scored((ego_flow(truth).astype(np.float32), truth)).metrics())
    dynamic = {name: value for name, value in found.items() if name.endswith("_dynamic")}
    assert len(dynamic) == 5 and all(v == pytest.approx(1.0, abs=1e-5) for v in dynamic.values())


def test_bucket_holds_its_lower_edge() -> None:
    buckets = scored((np.zeros((4, 3)), cars([float(EDGES_M[1]), np.nextafter(EDGES_M[1], 0), 2.0, 50.0])))
    assert np.flatnonzero(buckets.count[1]).tolist() == [0, 1, 50]
    assert buckets.count[1, 50] == 2


def test_slow_and_fast_weigh_the_same_however_many_they_are() -> None:
    # 99 points at 0.1 m answered exactly, one at 1 m not at all: half of the motion is explained.
    truth = cars([0.1] * 99 + [1.0], points=np.ones((100, 3)))
    flow = truth.flow.copy()
    flow[-1] = 0
    assert values(scored((flow, truth)).metrics())["bucket_car_dynamic"] == pytest.approx(0.5)


def test_classes_weigh_the_same() -> None:
    truth = cars([0.5] * 10, classes=np.array([1] * 9 + [3], dtype=np.uint8))
    flow = truth.flow.copy()
    flow[-1] = 0
    found = values(scored((flow, truth)).metrics())
    assert found["bucket_car_dynamic"] == 0.0 and found["bucket_pedestrian_dynamic"] == 1.0
    assert found["bucket_mean_dynamic"] == 0.5
    assert "bucket_other_vehicles_dynamic" not in found and "bucket_background_dynamic" not in found


def test_bucket_is_a_speed_not_a_length() -> None:
    # 0.3 m in 0.5 s is 0.06 m per 0.1 s: bucket 1, and an error of 0.15 m is half of it.
    truth = cars([0.3], dt_s=0.5)
    buckets = scored((truth.flow / 2, truth))
    assert np.flatnonzero(buckets.count[1]).tolist() == [1]
    speed, ratio = buckets.by_speed("CAR")
    assert speed == pytest.approx([0.6]) and ratio == pytest.approx([0.5])


def test_equals_a_plain_loop() -> None:
    cases = [street(seed) for seed in range(3)]
    buckets = scored(*[(flow, truth) for truth, flow in cases])
    cells: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for truth, flow in cases:
        ego = ego_flow(truth)
        for i in range(len(flow)):
            far = np.abs(truth.points[i, :2]).max() >= 35
            if far or not truth.valid[i] or truth.ground[i] or truth.classes[i] == 255:
                continue
            speed = math.hypot(*(truth.flow[i] - ego[i]))
            error = math.dist(flow[i] - ego[i], truth.flow[i] - ego[i])
            bucket = 0
            if truth.classes[i] != 0:
                while bucket < 50 and speed >= (bucket + 1) * 2.0 / 50:
                    bucket += 1
            cells.setdefault((int(truth.classes[i]), bucket), []).append((error, speed))
    per_class: dict[int, list[float]] = {}
    static: dict[int, float] = {}
    for (cls, bucket), pairs in cells.items():
        error, speed = np.mean(pairs, axis=0)
        if bucket:
            per_class.setdefault(cls, []).append(error / speed)
        else:
            static[cls] = error
    found = values(buckets.metrics())
    for cls, ratios in per_class.items():
        assert found[f"bucket_{FLOW_CLASSES[cls].lower()}_dynamic"] == pytest.approx(np.mean(ratios))
    assert found["bucket_mean_dynamic"] == pytest.approx(np.mean([np.mean(r) for r in per_class.values()]))
    assert found["bucket_mean_static"] == pytest.approx(np.mean(list(static.values())))
    assert set(per_class) == {1, 2, 3, 4} and set(static) == {0, 1, 2, 3, 4}


def test_failure_is_infinite() -> None:
    truth, _ = street(0)
    buckets = Buckets()
    buckets.add(score_pair(failure(), truth))
    assert all(v == np.inf for v in values(buckets.metrics()).values()) and len(buckets.metrics()) == 6
