# SPDX-License-Identifier: Apache-2.0
"""One motion per cluster: boxes that move as told, invariances, small clouds, and a real pair."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from scene_flow.classical.cluster_icp import ClusterIcp
from scene_flow.classical.config import ClusterConfig, IcpConfig
from scene_flow.problem import Estimate, Problem
from tests.scene_flow.classical.av2_pair import load_av2_pair
from tests.scene_flow.classical.boxes_twice import Boxes, Move, boxes
from tests.scene_flow.classical.scenes import street
from vision3d.geometry.se3 import from_rt, invert, rotvec_to_rotation, transform

Float32 = NDArray[np.float32]


def run(source: Float32, target: Float32, config: ClusterConfig | None = None, **problem: object) -> Estimate:
    given = Problem(source, target, **{"compensated": True, **problem})  # type: ignore[arg-type]
    return ClusterIcp(config or ClusterConfig(), IcpConfig()).estimate(given)


def errors(found: Estimate, scene: Boxes) -> NDArray[np.float64]:
    return np.linalg.norm(found.flow - scene.flow, axis=1)


@pytest.mark.parametrize("shift", [(1.0, 0.0), (0.0, -1.0), (0.3, 0.0)])
def test_one_box_moves_and_the_others_stand_still(shift: tuple[float, float]) -> None:
    scene = boxes([Move(2, shift)])
    found = run(scene.source, scene.target)
    on = scene.box == 2
    assert errors(found, scene)[on].max() < 0.05
    np.testing.assert_array_equal(found.flow[~on], 0)
    np.testing.assert_array_equal(found.dynamic, on)
    assert found.extra["movers"] == 1
    assert found.confidence is not None and found.confidence.min() > 0.8 and found.confidence.max() <= 1


def test_boxes_in_opposite_directions() -> None:
    scene = boxes([Move(0, (1.5, 0.0)), Move(4, (-1.5, 0.0))])
    found = run(scene.source, scene.target)
    moving = np.isin(scene.box, [0, 4])
    assert errors(found, scene)[moving].max() < 0.05
    np.testing.assert_array_equal(found.flow[~moving], 0)


def test_a_box_that_turns() -> None:
    scene = boxes([Move(3, (1.0, 0.1), turn_deg=6.0)])
    found = run(scene.source, scene.target)
    on = scene.box == 3
    assert errors(found, scene)[on].mean() < 0.05 and errors(found, scene)[on].max() < 0.1
    np.testing.assert_array_equal(found.flow[~on], 0)


def test_sampled_anew_but_still_is_exactly_zero() -> None:
    scene = boxes(seed=1)
    found = run(scene.source, scene.target)
    np.testing.assert_array_equal(found.flow, 0)
    assert found.dynamic is not None and not found.dynamic.any()


def test_slower_than_the_bound_stands_still() -> None:
    """0.5 m/s for 0.1 s are 5 cm, and for 1 s half a metre."""
    scene = boxes([Move(0, (0.3, 0.0))], count=2)
    assert run(scene.source, scene.target, dt_s=0.1).flow.any()
    assert not run(scene.source, scene.target, dt_s=1.0).flow.any()


def test_faster_than_the_bound_is_not_believed() -> None:
    scene = boxes([Move(0, (2.0, 0.0))], count=2)
    assert run(scene.source, scene.target, ClusterConfig(max_speed_mps=25)).flow.any()
    assert not run(scene.source, scene.target, ClusterConfig(max_speed_mps=5)).flow.any()


def test_a_box_too_long_stands_still() -> None:
    scene = boxes([Move(0, (1.0, 0.0))], count=2)
    assert not run(scene.source, scene.target, ClusterConfig(max_extent_m=3.0)).flow.any()


def test_the_sensor_s_motion_is_found_first_where_nobody_undid_it() -> None:
    scene = street(7, beams=32, columns=250, moving=False).without_ground()
    found = run(scene.source, scene.target, compensated=False)
    error = np.linalg.norm(found.flow - scene.flow, axis=1)
    assert np.linalg.norm(scene.flow, axis=1).mean() > 0.5
    assert np.median(error) < 0.05 and (error < 0.1).mean() > 0.95
    assert found.extra["global_fitness"] > 0.6


def test_registered_first_whatever_the_heading() -> None:
    """One box of many moves, and the sensor turns by 5 degrees."""
    scene = boxes([Move(2, (1.0, 0.0))], count=4)
    T = from_rt(rotvec_to_rotation([0.0, 0.0, 0.09]), [0.5, -0.2, 0.0])
    source = transform(invert(T), scene.source)
    found = run(source.astype(np.float32), scene.target, ClusterConfig(global_first="yes"))
    flow = transform(T, source) + scene.flow - source
    assert np.linalg.norm(found.flow - flow, axis=1).mean() < 0.05


@pytest.fixture(scope="module")
def pair() -> tuple[Boxes, Estimate]:
    """Three boxes, two of which move, and the answer."""
    scene = boxes([Move(1, (1.0, 0.4)), Move(2, (-0.5, 0.0), 5.0)], count=3)
    return scene, run(scene.source, scene.target)


def test_order_of_points_does_not_matter(pair: tuple[Boxes, Estimate]) -> None:
    scene, one = pair
    rng = np.random.default_rng(0)
    order = rng.permutation(len(scene.source))
    two = run(scene.source[order], rng.permutation(scene.target), seed=1)
    assert one.flow.any()
    np.testing.assert_array_equal(two.flow, one.flow[order])
    assert one.confidence is not None and one.dynamic is not None
    np.testing.assert_array_equal(two.confidence, one.confidence[order])
    np.testing.assert_array_equal(two.dynamic, one.dynamic[order])


def test_same_input_same_bytes_whatever_the_seed(pair: tuple[Boxes, Estimate]) -> None:
    scene, one = pair
    two = run(scene.source, scene.target, seed=1)
    assert one.flow.tobytes() == two.flow.tobytes() and one.extra == two.extra


@pytest.mark.parametrize("planar", ["yes", "no"])
def test_camera_axes_are_the_same_clouds(pair: tuple[Boxes, Estimate], planar: Literal["yes", "no"]) -> None:
    scene, lidar = pair
    config = ClusterConfig(planar=planar)
    if planar == "no":
        lidar = run(scene.source, scene.target, config)
    swap = [1, 2, 0]
    camera = run(scene.source[:, swap], scene.target[:, swap], config, axes="camera")
    assert lidar.flow.any()
    np.testing.assert_array_equal(camera.flow, lidar.flow[:, swap])
    np.testing.assert_array_equal(camera.dynamic, lidar.dynamic)


def test_planar_movers_stay_level_and_others_need_not() -> None:
    scene = boxes([Move(2, (1.0, 0.0))], count=3)
    lift = np.where(np.linalg.norm(scene.target[:, :2] - [0.0, -4.0], axis=1) < 3, 0.3, 0).astype(np.float32)
    lifted = scene.target + lift[:, None] * np.array([0, 0, 1], dtype=np.float32)
    assert not run(scene.source, lifted).flow[:, 2].any()
    on = scene.box == 2
    free = run(scene.source, lifted, ClusterConfig(planar="no")).flow[on]
    assert np.linalg.norm(free - (scene.flow[on] + [0, 0, 0.3]), axis=1).max() < 0.05


@pytest.mark.parametrize("splits", [0, 1])
def test_boxes_that_touch_are_told_apart_by_shorter_steps(splits: int) -> None:
    """Side by side, 0.3 m apart, one of them moves: one cluster, until it is cut."""
    rng = np.random.default_rng(0)

    def side(y_m: float, x_m: float) -> NDArray[np.float64]:
        points = rng.uniform(-0.5, 0.5, (1500, 3))
        points[np.arange(1500), rng.integers(0, 3, 1500)] = rng.choice([-0.5, 0.5], 1500)
        return points * [4.2, 1.8, 1.5] + [x_m, y_m, 0.0]

    source, target = (np.concatenate([side(2.0, 6.0), side(4.1, 6.5 + x_m)]).astype(np.float32) for x_m in (0.0, 1.0))
    found = run(source, target, ClusterConfig(splits=splits))
    np.testing.assert_array_equal(found.flow[:1500], 0)
    error = np.linalg.norm(found.flow[1500:] - [1.0, 0.0, 0.0], axis=1)
    assert error.max() < 0.05 if splits else not found.flow.any()


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 200), (200, 1), (9, 9), (200, 200)])
@pytest.mark.parametrize("kind", ["random", "equal", "apart"])
@pytest.mark.parametrize("compensated", [True, False])
def test_small_equal_and_disjoint_clouds_are_no_trouble(n: int, m: int, kind: str, compensated: bool) -> None:
    rng = np.random.default_rng(n + m)
    source, target = (rng.uniform(-5, 5, (k, 3)).astype(np.float32) for k in (n, m))
    if kind == "equal":
        source[:], target[:] = 2.0, 2.0
    if kind == "apart":
        target += np.float32(500)
    found = run(source, target, compensated=compensated)
    assert found.flow.shape == (n, 3) and found.flow.dtype == np.float32 and np.isfinite(found.flow).all()
    assert found.confidence is not None and ((found.confidence >= 0) & (found.confidence <= 1)).all()
    if compensated or kind != "random":
        np.testing.assert_array_equal(found.flow, 0)
    if kind == "apart":
        np.testing.assert_array_equal(found.confidence, 0)


def test_a_bad_registration_is_not_believed() -> None:
    """Two clouds without a common shape: moving every point by metres is worse than leaving them."""
    line = np.column_stack([np.arange(50.0), np.zeros((50, 2))]).astype(np.float32)
    ball = np.random.default_rng(0).uniform(-5, 5, (300, 3)).astype(np.float32)
    found = run(line, ball, compensated=False)
    assert np.linalg.norm(found.flow, axis=1).max() < 5, f"fitness {found.extra['global_fitness']}"


def test_real_pair_is_better_than_standing_still(shared_data: Path) -> None:
    """Measured: 0.205 m on what moves (zero flow 0.674 m), and 1.5 mm on what does not (zero flow 1.3 mm)."""
    pair = load_av2_pair(shared_data)
    near = ~pair.ground & (np.abs(pair.source[:, :2]).max(axis=1) < 35)
    low = pair.target[:, 2] > 0.3
    target = pair.target[low & (np.abs(pair.target[:, :2]).max(axis=1) < 38)]
    found = run(pair.compensated[near], target)
    error = np.linalg.norm(found.flow - pair.residual[near], axis=1)
    zero, moving = np.linalg.norm(pair.residual[near], axis=1), pair.dynamic[near]
    assert error[moving].mean() < 0.6 * zero[moving].mean()
    assert error[~moving].mean() < zero[~moving].mean() + 0.002
