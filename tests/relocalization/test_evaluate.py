# SPDX-License-Identifier: Apache-2.0
"""Errors and their summaries against cases worked out by hand, invariances, and a plain loop."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relocalization.evaluate import (
    THRESHOLDS,
    error_columns,
    errors,
    evaluate_pose_file,
    medians,
    over_scenes,
    pose_errors,
    recall,
    recall_chart,
    recall_curve,
    summarize,
)
from relocalization.pose_files import write_kitti, write_pose_list
from vision3d.errors import DataError
from vision3d.geometry.se3 import from_rt, invert, rotvec_to_rotation
from vision3d.geometry.trajectory import write_tum_trajectory

NAMES = [
    "recall_5cm_5deg",
    "recall_2cm_2deg",
    "recall_1cm_1deg",
    "recall_10cm_5deg",
    "recall_25cm_2deg",
    "recall_50cm_5deg",
    "recall_5m_10deg",
    "median_translation_cm",
    "median_rotation_deg",
    "n_localized",
]


def random_poses(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([from_rt(rotvec_to_rotation(rng.normal(0, 1, 3)), rng.normal(0, 2, 3)) for _ in range(n)])


def moved(T: np.ndarray, centre_m: float, angle_deg: float, seed: int = 0) -> np.ndarray:
    """T with its centre shifted and its camera turned by exactly the given amounts."""
    rng = np.random.default_rng(seed)
    axis, direction = rng.normal(size=(2, 3))
    out = T.copy()
    out[:3, 3] += centre_m * direction / np.linalg.norm(direction)
    out[:3, :3] = T[:3, :3] @ rotvec_to_rotation(np.radians(angle_deg) * axis / np.linalg.norm(axis))
    return out


def value_of(metrics: list, name: str) -> float:
    return next(m.value for m in metrics if m.name == name)


@pytest.mark.parametrize(
    ("centre_m", "angle_deg"), [(0.0, 0.0), (0.03, 1.0), (1e-6, 1e-5), (2.5, 90.0), (0.1, 179.999)]
)
def test_a_known_motion_is_measured_exactly(centre_m: float, angle_deg: float) -> None:
    T = random_poses(1)[0]
    e_t, e_R = pose_errors(moved(T, centre_m, angle_deg), T)
    assert e_t == pytest.approx(centre_m, abs=1e-12)
    assert e_R == pytest.approx(angle_deg, rel=1e-6, abs=1e-10)


def test_positions_are_compared_as_camera_centres_and_not_as_translations() -> None:
    # A camera that only turns on the spot has the same centre, however far its world-to-camera t moves.
    T = from_rt(np.eye(3), [10.0, 0.0, 0.0])
    turned = from_rt(rotvec_to_rotation([0.0, np.radians(30.0), 0.0]), [10.0, 0.0, 0.0])
    assert np.linalg.norm(invert(T)[:3, 3] - invert(turned)[:3, 3]) > 5.0
    assert pose_errors(turned, T) == pytest.approx((0.0, 30.0))


@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 170))
@settings(max_examples=40, deadline=None)
def test_errors_do_not_depend_on_the_world_frame_nor_on_the_order(seed: int, centre_m: float, angle_deg: float) -> None:
    T, T_new_world = random_poses(2, seed)
    est = moved(T, centre_m, angle_deg, seed)
    here = pose_errors(est, T)
    assert pose_errors(T_new_world @ est, T_new_world @ T) == pytest.approx(here, abs=1e-7)
    assert pose_errors(T, est) == pytest.approx(here, abs=1e-9)


@pytest.mark.parametrize("estimate", [None, np.full((4, 4), np.nan), np.diag([1.0, 1.0, 1.0, np.inf])])
def test_a_query_without_a_pose_is_infinitely_wrong(estimate: np.ndarray | None) -> None:
    assert pose_errors(estimate, np.eye(4)) == (math.inf, 180.0)


def test_many_errors_equal_a_loop_over_one() -> None:
    true = random_poses(50, 1)
    est = [None if i % 7 == 3 else moved(T, 0.01 * i, i, seed=i) for i, T in enumerate(true)]
    e_t, e_R = errors(est, true)
    for i, (a, b) in enumerate(zip(est, true, strict=True)):
        assert (e_t[i], e_R[i]) == pose_errors(a, b)


def test_wrong_shapes_and_unusable_truth_are_refused() -> None:
    T = np.eye(4)
    with pytest.raises(ValueError, match="2 estimates for 1 true"):
        errors([T, T], [T])
    with pytest.raises(ValueError, match="true pose holds NaN"):
        errors([T], [np.full((4, 4), np.nan)])
    with pytest.raises(ValueError, match=r"must be a \(4, 4\) matrix"):
        errors([np.eye(3)], [T])


def test_metric_names_are_the_agreed_ones() -> None:
    metrics = summarize([0.01], [1.0])
    assert [m.name for m in metrics] == NAMES
    assert [m.name for m in summarize([0.01], [1.0], prefix="sfm/")] == ["sfm/" + n for n in NAMES]
    assert {m.name: m.unit for m in metrics if m.unit} == {"median_translation_cm": "cm", "median_rotation_deg": "deg"}
    assert all((m.better == "lower") == m.name.startswith("median") for m in metrics)


def test_recall_limits_are_strict_and_both_must_hold() -> None:
    assert recall([0.05], [1.0], 5, 5) == 0.0
    assert recall([0.01], [5.0], 5, 5) == 0.0
    assert recall([0.0499], [4.999], 5, 5) == 1.0
    assert recall([0.01, 0.01, 0.9, np.inf], [0.1, 9.0, 0.1, 180.0], 5, 5) == 0.25


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 100)), min_size=1, max_size=60), st.floats(0.1, 50))
@settings(max_examples=60, deadline=None)
def test_equal_limits_are_the_same_as_a_limit_on_the_larger_number(pairs: list, t: float) -> None:
    e_t, e_R = np.array(pairs).T
    by_max = np.mean([max(100 * a, b) < t for a, b in pairs])
    assert recall(e_t, e_R, t, t) == pytest.approx(by_max)


def test_medians_are_independent_and_an_even_list_has_the_mean_of_two() -> None:
    # The middle translation and the middle rotation come from different queries.
    assert medians([0.01, 0.02, 0.03], [9.0, 1.0, 5.0]) == pytest.approx((2.0, 5.0))
    assert medians([0.01, 0.02, 0.03, 0.04], [1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, 2.5))


def test_failures_stay_in_every_denominator_and_every_median() -> None:
    # q impossible queries among n, as a plain count: nothing may vanish.
    n, q = 20, 7
    true = random_poses(n, 2)
    est = [None if i < q else moved(T, 0.001 * i, 0.01 * i, seed=i) for i, T in enumerate(true)]
    metrics = summarize(*errors(est, true))
    assert all(m.n == n for m in metrics)
    assert value_of(metrics, "n_localized") == n - q
    assert value_of(metrics, "recall_5m_10deg") == pytest.approx((n - q) / n)
    # Sorted: 13 finite values, then 7 infinite; the middle two are the 10th and 11th.
    assert value_of(metrics, "median_translation_cm") == pytest.approx(100 * 0.001 * (16 + 17) / 2)
    assert value_of(metrics, "median_rotation_deg") == pytest.approx(0.01 * (16 + 17) / 2)


def test_when_most_queries_fail_both_medians_are_infinite_and_none_is_nan() -> None:
    metrics = summarize([0.01, np.inf, np.inf], [0.1, 180.0, 180.0])
    assert value_of(metrics, "median_translation_cm") == math.inf
    assert value_of(metrics, "median_rotation_deg") == math.inf
    half = summarize([0.01, np.inf], [0.1, 180.0])
    assert value_of(half, "median_rotation_deg") == math.inf
    assert not any(math.isnan(m.value) for m in metrics + half)


def test_queries_without_an_error_count_as_failures() -> None:
    dropped = summarize([0.01, 0.01], [0.1, 0.1], n=4)
    spelt_out = summarize([0.01, 0.01, np.inf, np.inf], [0.1, 0.1, 180, 180])
    assert dropped == spelt_out
    with pytest.raises(ValueError, match="2 errors for 1 queries"):
        summarize([0.01, 0.01], [0.1, 0.1], n=1)


def test_no_query_gives_no_number_and_nan_is_refused() -> None:
    assert summarize([], []) == []
    with pytest.raises(ValueError, match="NaN"):
        summarize([np.nan], [0.0])
    with pytest.raises(ValueError, match="no query"):
        recall([], [], 5, 5)
    with pytest.raises(ValueError, match="no query"):
        medians([], [])


def test_scenes_are_averaged_without_weights_and_pooling_is_something_else() -> None:
    scenes = {
        "large": (np.full(90, 0.01), np.full(90, 0.1)),
        "small": (np.full(10, 0.04), np.full(10, 0.6)),
    }
    out = over_scenes(scenes)
    assert list(out) == ["large", "small", "mean", "pooled"]
    assert value_of(out["mean"], "median_translation_cm") == pytest.approx(2.5)
    assert value_of(out["pooled"], "median_translation_cm") == pytest.approx(1.0)
    assert value_of(out["mean"], "recall_2cm_2deg") == pytest.approx(0.5)
    assert value_of(out["pooled"], "recall_2cm_2deg") == pytest.approx(0.9)
    assert value_of(out["mean"], "n_localized") == 100
    assert {m.n for m in out["mean"]} == {100}


def test_a_scene_whose_median_is_infinite_makes_the_mean_infinite() -> None:
    out = over_scenes({"a": (np.array([0.01]), np.array([1.0])), "b": (np.array([np.inf]), np.array([180.0]))})
    assert value_of(out["mean"], "median_translation_cm") == math.inf


@pytest.mark.parametrize("scenes", [{}, {"mean": ([0.1], [1.0])}, {"a": ([], [])}])
def test_scenes_that_cannot_be_averaged_are_refused(scenes: dict) -> None:
    with pytest.raises(ValueError, match=r"at least one scene|no queries in a"):
        over_scenes(scenes)


def test_the_recall_curve_agrees_with_recall_at_every_limit() -> None:
    rng = np.random.default_rng(3)
    e_t, e_R = rng.gamma(2, 0.02, 200), rng.gamma(2, 1.0, 200)
    e_t[:9], e_R[:9] = np.inf, 180.0
    limits, shares = recall_curve(e_t, e_R, 0.5, 300.0, 40)
    assert limits[[0, -1]] == pytest.approx([0.5, 300.0])
    for limit, share in zip(limits, shares, strict=True):
        assert share == pytest.approx(recall(e_t, e_R, limit, limit))
    # Failures cap the curve, however generous the limit.
    assert shares[-1] == pytest.approx(191 / 200)
    chart = recall_chart({"ours": (e_t, e_R)})
    assert chart.x_log
    assert list(chart.series) == ["ours"]


def test_threshold_names_write_metres_as_metres() -> None:
    assert [t.name for t in THRESHOLDS] == NAMES[:7]


def test_files_are_compared_by_name_and_failures_are_listed(tmp_path: Path) -> None:
    true = random_poses(4, 4)
    names = ["seq-01/a.png", "seq-01/b.png", "seq-02/a.png", "seq-02/b.png"]
    write_pose_list(tmp_path / "true.txt", names, true, focal_px=525.0)
    est = [moved(true[2], 0.004, 0.1), true[0], true[0]]
    write_pose_list(tmp_path / "est.txt", [names[2], names[0], "seq-09/other.png"], est)
    out = evaluate_pose_file(tmp_path / "est.txt", tmp_path / "true.txt")
    assert (out["n"], out["n_localized"]) == (4, 2)
    assert out["failures"] == [names[1], names[3]]
    assert out["unknown"] == ["seq-09/other.png"]
    assert out["errors"][names[2]] == pytest.approx([0.4, 0.1], abs=1e-5)
    assert out["errors"][names[1]] is None
    by_name = {m["name"]: m["value"] for m in out["metrics"]}
    assert by_name["recall_1cm_1deg"] == 0.5
    assert by_name["median_translation_cm"] is None
    json.dumps(out, allow_nan=False)


def test_trajectories_are_compared_by_the_nearest_stamp(tmp_path: Path) -> None:
    true = random_poses(3, 5)
    start = 1_700_000_000_000_000_000
    write_tum_trajectory(tmp_path / "true.txt", [start, start + 100_000_000, start + 200_000_000], true)
    write_tum_trajectory(tmp_path / "est.txt", [start + 4_000_000, start + 230_000_000], true[[0, 2]])
    out = evaluate_pose_file(tmp_path / "est.txt", tmp_path / "true.txt")
    assert out["n"] == 3
    assert out["n_localized"] == 1  # 4 ms apart is the same image, 30 ms is not
    assert len(out["unknown"]) == 1


def test_the_order_of_lines_in_a_trajectory_does_not_matter(tmp_path: Path) -> None:
    true, stamps = random_poses(6, 9), np.arange(6) * 100_000_000
    write_tum_trajectory(tmp_path / "true.txt", stamps[::-1], true[::-1])
    shuffled = np.random.default_rng(0).permutation(6)
    write_tum_trajectory(tmp_path / "est.txt", stamps[shuffled], true[shuffled])
    out = evaluate_pose_file(tmp_path / "est.txt", tmp_path / "true.txt")
    assert out["n_localized"] == 6
    assert max(cm for cm, _ in out["errors"].values()) < 1e-5


def test_errors_of_single_queries_are_given_by_name() -> None:
    columns = error_columns(["a", "b"], [0.0123, np.inf], [0.5, 180.0])
    assert columns == {
        "a": {"translation_cm": pytest.approx(1.23), "rotation_deg": 0.5},
        "b": {"translation_cm": math.inf, "rotation_deg": 180.0},
    }


def test_one_estimate_answers_one_query_only(tmp_path: Path) -> None:
    true = random_poses(2, 6)
    write_tum_trajectory(tmp_path / "true.txt", [1_000_000_000, 1_004_000_000], true)
    write_tum_trajectory(tmp_path / "est.txt", [1_001_000_000], true[:1])
    assert evaluate_pose_file(tmp_path / "est.txt", tmp_path / "true.txt")["n_localized"] == 1


def test_kitti_files_are_compared_line_by_line(tmp_path: Path) -> None:
    true = random_poses(3, 7)
    write_kitti(tmp_path / "true.txt", true)
    write_kitti(tmp_path / "est.txt", true)
    assert evaluate_pose_file(tmp_path / "est.txt", tmp_path / "true.txt")["n_localized"] == 3
    write_kitti(tmp_path / "short.txt", true[:2])
    with pytest.raises(DataError, match="has 2 lines"):
        evaluate_pose_file(tmp_path / "short.txt", tmp_path / "true.txt")


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    true = random_poses(2, 8)
    write_pose_list(tmp_path / "a.txt", ["a", "b"], true)
    write_pose_list(tmp_path / "c.txt", ["c", "d"], true)
    write_tum_trajectory(tmp_path / "t.txt", [0, 1], true)
    with pytest.raises(DataError, match=r"no pose that .* asks for; it begins with 'c'"):
        evaluate_pose_file(tmp_path / "c.txt", tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"is a list file but .* is a tum file"):
        evaluate_pose_file(tmp_path / "a.txt", tmp_path / "t.txt")
