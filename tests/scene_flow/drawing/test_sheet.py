# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scene_flow.drawing import panels
from scene_flow.drawing.clouds import flow_cloud_view
from scene_flow.drawing.panels import FrontView, TopView, splat, upright
from scene_flow.drawing.sheet import flow_error, flow_sheet, own_motion
from vision3d.types import CloudPair, FlowResult, FlowTruth


@pytest.fixture
def pair() -> CloudPair:
    rng = np.random.default_rng(0)
    source = rng.uniform([4, -6, -1], [30, 6, 2], (3000, 3)).astype(np.float32)
    return CloudPair("pair <1>", source, source + np.float32([0.5, 0, 0]))


@pytest.fixture
def result(pair: CloudPair) -> FlowResult:
    flow = np.broadcast_to(np.float32([0.5, 0, 0]), pair.source.shape).copy()
    return FlowResult(pair.name, "ok", points=pair.source, flow=flow, extra={"method": "icp"})


def truth_of(pair: CloudPair) -> FlowTruth:
    valid = np.arange(len(pair.source)) % 3 > 0
    return FlowTruth(pair.target - pair.source, valid, pair.source)


def test_both_kinds_of_axes_are_drawn_alike() -> None:
    lidar = np.float32([[10, 2, 1]])  # ahead, left, up
    assert upright(lidar, "lidar").tolist() == [[-2.0, 10.0, 1.0]]
    assert upright(lidar[:, [1, 2, 0]], "camera").tolist() == [[-2.0, 10.0, 1.0]]


def test_from_above_forward_is_up_and_from_the_sensor_left_is_left() -> None:
    points = upright(np.float32([[20, 0, 0], [10, 0, 0], [15, 3, 0], [15, -3, 1]]), "lidar")
    top, _ = TopView.around(points).place(points)
    assert top[0, 1] < top[1, 1]
    assert top[2, 0] < top[3, 0]
    front, nearer = FrontView.around(points).place(points)
    assert front[2, 0] < front[3, 0]
    assert front[3, 1] < front[2, 1]
    assert nearer[1] > nearer[0]
    behind, _ = FrontView.around(points).place(-points)
    assert np.isnan(behind).all()


def test_the_nearer_point_hides_the_farther_one() -> None:
    points = np.array([[0.0, 5.0, 0.0], [0.0, 10.0, 0.0]])
    for order in ([0, 1], [1, 0]):
        picture = panels.blank()
        colors = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
        splat(picture, FrontView(200.0, 180.0), points[order], colors[order])
        assert (picture[180, 240] == [255, 0, 0]).all()


def test_a_sheet_has_a_fourth_column_only_with_truth(pair: CloudPair, result: FlowResult) -> None:
    without, with_truth = flow_sheet(pair, result), flow_sheet(pair, result, truth_of(pair))
    assert without.shape[1] == 3 * panels.WIDTH
    assert with_truth.shape[1] == 4 * panels.WIDTH
    assert without.dtype == np.uint8
    assert (with_truth[: 2 * panels.HEIGHT, : 2 * panels.WIDTH] != 255).any()


def test_a_failed_pair_says_why(pair: CloudPair) -> None:
    sheet = flow_sheet(pair, FlowResult(pair.name, "failed", reason="nothing there"))
    assert sheet.shape[1] == panels.WIDTH
    other = flow_sheet(pair, FlowResult(pair.name, "failed", reason="another reason"))
    assert (sheet != other).any()


def test_the_sensors_share_is_taken_off(pair: CloudPair, result: FlowResult) -> None:
    T = np.eye(4)
    T[0, 3] = 0.5
    motion, against = own_motion(pair, replace(result, T_target_source=T))
    assert np.abs(motion).max() < 1e-5
    assert "static" in against
    assert own_motion(pair, result)[0] is result.flow


def test_errors_are_known_where_the_truth_is_valid(pair: CloudPair, result: FlowResult) -> None:
    truth = truth_of(pair)
    error = flow_error(result.flow, truth)
    assert np.isnan(error[~truth.valid]).all()
    assert error[truth.valid].max() < 1e-5


def test_the_view_for_the_report_holds_every_point(pair: CloudPair, result: FlowResult) -> None:
    truth = truth_of(pair)
    view = flow_cloud_view(pair, result, truth)
    assert view is not None
    sizes = {layer.name: len(layer.points) for layer in view.layers}
    assert sizes == {
        "flow": 3000,
        "second scan": 3000,
        "first scan": 3000,
        "first scan, moved": 3000,
        "error": int(truth.valid.sum()),
    }
    assert flow_cloud_view(pair, FlowResult(pair.name, "failed")) is None
