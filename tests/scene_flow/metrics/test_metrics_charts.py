# SPDX-License-Identifier: Apache-2.0
"""Charts of errors say what the table says, and hold what a truth allows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scored_flow import failure, result_of, street, truth_of, values

from scene_flow.metrics.charts import LIMITS_M, flow_exhibit
from scene_flow.metrics.table import score_flow
from vision3d.types import Chart, Exhibit
from vision3d.view.charts import chart_svg


def chart(exhibit: Exhibit, name: str) -> Chart:
    (found,) = [c for c in exhibit.charts if c.name == name]
    return found


def test_curve_of_errors_is_the_share_below_each_limit() -> None:
    truth = truth_of(np.zeros((4, 3)))
    flow = np.array([[0.002, 0, 0], [0.05, 0, 0], [0.5, 0, 0], [np.nan, 0, 0]])
    exhibit = flow_exhibit([result_of(flow), failure()], [truth, truth], "mine")
    limits, share = chart(exhibit, "errors").series["mine"]
    assert limits is LIMITS_M and share[-1] == pytest.approx(3 / 8)
    for i in (0, 30, 60, 90):
        assert share[i] == pytest.approx(sum(e < limits[i] for e in (0.002, 0.05, 0.5)) / 8)
    assert (np.diff(share) >= 0).all()
    # The limit is strict, as in Acc3DS.
    at_limit = result_of(np.stack([LIMITS_M[[60]], [0.0], [0.0]], axis=1))
    _, share = chart(flow_exhibit([at_limit], [truth_of(np.zeros((1, 3)))], "mine"), "errors").series["mine"]
    assert share[60] == 0.0 and share[61] == 1.0
    assert chart(exhibit, "errors").series["no motion"][1] == pytest.approx(1.0)


def test_no_motion_is_the_sensors_motion_where_it_is_known() -> None:
    truth, flow = street(0)
    exhibit = flow_exhibit([result_of(flow)], [truth])
    T = truth.T_target_source
    ego = truth.points @ T[:3, :3].T + T[:3, 3] - truth.points
    told = flow_exhibit([result_of(ego)], [truth], "ego")
    curves = chart(told, "errors").series
    # The first limits lie far above rounding.
    assert curves["ego"][1] == pytest.approx(curves["no motion"][1])
    blind = flow_exhibit([result_of(flow)], [replace(truth, T_target_source=None)])
    assert chart(blind, "errors").series["no motion"][1].sum() < chart(exhibit, "errors").series["no motion"][1].sum()


def test_table_of_pairs_agrees_with_the_metrics() -> None:
    cases = [street(seed) for seed in range(3)]
    results = [result_of(flow, name=f"p{i}") for i, (_, flow) in enumerate(cases)]
    truths = [truth for truth, _ in cases]
    rows = flow_exhibit(results, truths).per_sample
    found = values(score_flow(results, truths))
    assert list(rows) == ["p0", "p1", "p2"]
    for column, name in (
        ("epe3d_m", "epe3d"),
        ("acc3ds", "acc3ds"),
        ("outliers", "outliers"),
        ("epe3d_dynamic_m", "epe3d_dynamic"),
    ):
        assert np.mean([row[column] for row in rows.values()]) == pytest.approx(found[name])


def test_charts_by_what_the_truth_knows() -> None:
    truth, flow = street(0)
    result = result_of(flow)
    full = flow_exhibit([result], [truth])
    assert set(chart(full, "range").series) == {"dynamic", "static"}
    assert set(chart(full, "speed").series) == {"car", "other vehicles", "pedestrian", "wheeled vru"}
    classless = flow_exhibit([result], [replace(truth, classes=None)])
    assert set(chart(classless, "speed").series) == {"all points"}
    blind = flow_exhibit([result], [replace(truth, T_target_source=None)])
    assert [c.name for c in blind.charts] == ["errors", "range"] and set(chart(blind, "range").series) == {"all"}


def test_no_residual_is_a_flat_line_at_one() -> None:
    truth, _ = street(4)
    T = truth.T_target_source
    ego = truth.points @ T[:3, :3].T + T[:3, 3] - truth.points
    for speed, ratio in chart(flow_exhibit([result_of(ego)], [truth]), "speed").series.values():
        assert ratio == pytest.approx(1.0) and (np.diff(speed) > 0).all()


def test_other_methods_are_drawn_beside() -> None:
    truth, flow = street(0)
    exhibit = flow_exhibit([result_of(flow)], [truth], "sctn", {"icp": [failure()]})
    assert list(chart(exhibit, "errors").series) == ["sctn", "icp", "no motion"]
    assert chart(exhibit, "errors").series["icp"][1].max() == 0.0


def test_no_truth_no_exhibit_and_failures_can_be_drawn() -> None:
    assert flow_exhibit([failure()], []) == Exhibit()
    truth, _ = street(0)
    exhibit = flow_exhibit([failure()], [truth])
    assert exhibit.per_sample["lost"]["epe3d_m"] == np.inf
    assert all("<svg" in chart_svg(c) for c in exhibit.charts)
