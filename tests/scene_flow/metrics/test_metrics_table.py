# SPDX-License-Identifier: Apache-2.0
"""The table of all metrics: averages, failures, what is left out when the truth is thin, one pair at a time."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scored_flow import counts, failure, result_of, street, truth_of, turn, values

from scene_flow.metrics.pair import score_pair
from scene_flow.metrics.table import score_flow
from vision3d.errors import UserError
from vision3d.types import FlowResult


def test_scenes_weigh_the_same_and_points_do_not() -> None:
    few, many = truth_of(np.zeros((10, 3))), truth_of(np.zeros((1000, 3)))
    results = [result_of(np.full((10, 3), 0.01)), result_of(np.tile([1.0, 0, 0], (1000, 1)))]
    found = values(score_flow(results, [few, many]))
    scene_mean = (0.01 * np.sqrt(3) + 1.0) / 2
    point_mean = (10 * 0.01 * np.sqrt(3) + 1000 * 1.0) / 1010
    assert found["epe3d"] == pytest.approx(scene_mean) and abs(scene_mean - point_mean) > 0.4
    assert found["acc3ds"] == 0.5 and found["acc3dr"] == 0.5


def test_only_valid_points_count() -> None:
    truth = truth_of([[1.0, 0, 0], [np.nan, 0, 0]], valid=np.array([True, False]))
    found = values(score_flow([result_of([[1.0, 0, 0], [7, 7, 7]])], [truth]))
    assert found["epe3d"] == 0.0 and found["acc3ds"] == 1.0 and found["outliers"] == 0.0


def test_failures_are_infinitely_wrong_and_counted() -> None:
    truth, flow = street(0)
    metrics = score_flow([result_of(flow), failure()], [truth, truth])
    found = values(metrics)
    alone = values(score_flow([result_of(flow)], [truth]))
    for name in ("epe3d", "epe3d_dynamic", "epe3d_static", "three_way_mean", "bucket_mean_dynamic"):
        assert found[name] == np.inf and np.isfinite(alone[name])
    assert found["acc3ds"] == pytest.approx(alone["acc3ds"] / 2)
    assert found["outliers"] == pytest.approx((alone["outliers"] + 1) / 2)
    assert found["angle"] == pytest.approx((alone["angle"] + np.pi) / 2)
    assert counts(metrics)["epe3d"] == 2 and not any(np.isnan(v) for v in found.values())


def test_bad_input_with_a_flow_left_over_is_a_failure() -> None:
    truth, _ = street(0)
    odd = replace(result_of(truth.flow), status="bad_input")
    assert values(score_flow([odd], [truth]))["epe3d"] == np.inf


def test_pairs_without_valid_points_are_counted_and_left_out() -> None:
    truth, flow = street(0)
    empty = replace(truth, valid=np.zeros(len(flow), dtype=bool))
    metrics = score_flow([result_of(flow), result_of(flow)], [truth, empty])
    assert values(metrics)["pairs_without_truth"] == 1 and counts(metrics)["epe3d"] == 1
    assert values(metrics)["epe3d"] == values(score_flow([result_of(flow)], [truth]))["epe3d"]
    assert values(score_flow([result_of(flow)], [empty])) == {"pairs_without_truth": 1}
    assert score_flow([], []) == []


def test_dynamic_comes_from_the_data_set_else_from_the_sensors_motion_else_not_at_all() -> None:
    T = turn(0.0, (1.0, 0, 0))
    flow = np.array([[1.0, 0, 0], [1.2, 0, 0]])  # the second moves
    answer = result_of(flow + [[0.1, 0, 0], [0.3, 0, 0]])
    from_motion = truth_of(flow, T_target_source=T)
    assert values(score_flow([answer], [from_motion]))["epe3d_dynamic"] == pytest.approx(0.3)
    assert values(score_flow([answer], [from_motion]))["epe3d_static"] == pytest.approx(0.1)
    told = replace(from_motion, dynamic=np.array([True, False]))
    assert values(score_flow([answer], [told]))["epe3d_dynamic"] == pytest.approx(0.1)
    assert "epe3d_dynamic" not in values(score_flow([answer], [truth_of(flow)]))


def test_moving_points_overlap() -> None:
    flow = np.zeros((4, 3))
    truth = truth_of(flow, dynamic=np.array([True, True, False, False]))
    said = result_of(flow, dynamic=np.array([True, False, True, False]))
    assert values(score_flow([said], [truth]))["dynamic_iou"] == pytest.approx(1 / 3)
    assert "dynamic_iou" not in values(score_flow([result_of(flow)], [truth]))
    # A failure has found nothing: two more moving points that nobody saw.
    assert values(score_flow([said, failure()], [truth, truth]))["dynamic_iou"] == pytest.approx(1 / 5)


def test_drawn_points_have_numbers_of_their_own() -> None:
    truth = truth_of(np.zeros((4, 3)))
    flow = np.array([[0.01, 0, 0], [0.01, 0, 0], [1.0, 0, 0], [1.0, 0, 0]])
    drawn = result_of(flow, sampled=np.array([True, True, False, False]))
    found = values(score_flow([drawn], [truth]))
    assert found["epe3d_sampled"] == pytest.approx(0.01) and found["epe3d"] == pytest.approx(0.505)
    assert found["acc3ds_sampled"] == 1.0 and found["acc3ds"] == 0.5
    assert "epe3d_sampled" not in values(score_flow([result_of(flow)], [truth]))
    assert values(score_flow([drawn, failure()], [truth, truth]))["epe3d_sampled"] == np.inf


def test_thin_truth_has_thin_numbers() -> None:
    flow = np.zeros((3, 3))
    found = values(score_flow([result_of(flow)], [truth_of(flow)]))
    assert set(found) == {"epe3d", "acc3ds", "acc3dr", "outliers", "angle"}


def test_names_and_units() -> None:
    truth, flow = street(0)
    metrics = score_flow([result_of(flow)], [truth])
    units = {m.name: (m.unit, m.better) for m in metrics}
    assert units["epe3d"] == ("m", "lower") and units["acc3dr"] == ("", "higher")
    assert units["bucket_mean_dynamic"] == ("", "lower") and units["bucket_mean_static"] == ("m", "lower")
    assert len(metrics) < 30


def test_axes_change_nothing() -> None:
    truth, flow = street(1)
    order = [1, 2, 0]  # (x, y, z)_camera = (y, z, x)_lidar
    P = np.zeros((4, 4))
    P[[0, 1, 2, 3], [*order, 3]] = 1
    turned = replace(
        truth,
        flow=truth.flow[:, order],
        points=truth.points[:, order],
        axes="camera",
        T_target_source=P @ truth.T_target_source @ P.T,
    )
    here = values(score_flow([result_of(flow)], [truth]))
    there = values(score_flow([result_of(flow[:, order], axes="camera")], [turned]))
    assert here == pytest.approx(there) and len(here) > 15


def test_order_of_points_changes_nothing() -> None:
    truth, flow = street(2)
    order = np.random.default_rng(0).permutation(len(flow))
    rows = {n: getattr(truth, n)[order] for n in ("flow", "valid", "points", "ground", "classes")}
    here = values(score_flow([result_of(flow)], [truth]))
    assert here == pytest.approx(values(score_flow([result_of(flow[order])], [replace(truth, **rows)])))


@pytest.mark.parametrize("name", ["flow", "dynamic", "ground", "sampled"])
def test_result_of_another_size_is_refused_by_name(name: str) -> None:
    truth = truth_of(np.zeros((5, 3)))
    arrays = {"flow": np.zeros((5, 3)), name: np.zeros((4, 3)) if name == "flow" else np.zeros(4, dtype=bool)}
    with pytest.raises(UserError, match=f"^odd: the result has 4 rows of {name}, but the truth has 5 points"):
        score_pair(FlowResult("odd", "ok", **arrays), truth)


def test_other_mismatches_are_refused_by_name() -> None:
    truth = truth_of(np.zeros((5, 3)))
    with pytest.raises(UserError, match=r"^pair: the result is in camera axes, the truth in lidar axes"):
        score_pair(result_of(truth.flow, axes="camera"), truth)
    with pytest.raises(UserError, match=r"^pair: truth has 4 rows of ground but 5 of valid"):
        score_pair(result_of(truth.flow), replace(truth, ground=np.zeros(4, dtype=bool)))
    with pytest.raises(UserError, match=r"^pair: truth cannot be used: true flow must be"):
        score_pair(result_of(truth.flow), replace(truth, flow=np.full((5, 3), np.nan)))
    with pytest.raises(ValueError, match="1 results for 2 truths"):
        score_flow([result_of(truth.flow)], [truth, truth])


def test_one_pair_at_a_time() -> None:
    alive: list[weakref.ref[Any]] = []

    class Lazy:
        def __init__(self, make: Any) -> None:
            self._make = make

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 2, "pairs are kept"
            made = self._make(index)
            alive.append(weakref.ref(made))
            return made

    found = values(score_flow(Lazy(lambda i: result_of(street(i)[1])), Lazy(lambda i: street(i)[0])))
    assert np.isfinite(found["bucket_mean_dynamic"])
