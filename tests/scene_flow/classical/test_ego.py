# SPDX-License-Identifier: Apache-2.0
"""The sensor's motion: known ones among movers, unrelated clouds, clouds too small to tell, and a real pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scene_flow.classical.config import EgoConfig, IcpConfig
from scene_flow.classical.ego import EgoMotion, estimate_ego, register
from tests.scene_flow.classical.av2_pair import load_av2_pair
from tests.scene_flow.classical.scenes import Street, street
from vision3d.geometry.se3 import from_rt, invert, rotation_angle_deg, rotvec_to_rotation, transform

CONFIG = EgoConfig()


@pytest.fixture(scope="module")
def scene() -> Street:
    """With moving cars, cyclists and people."""
    return street(5, beams=32, columns=300)


def error(found: EgoMotion, T: NDArray[np.float64]) -> tuple[float, float]:
    """Metres and degrees."""
    D = invert(T) @ found.T_target_source
    return float(np.linalg.norm(D[:3, 3])), float(rotation_angle_deg(D[:3, :3]))


@pytest.mark.parametrize(
    ("yaw_deg", "shift"),
    [
        (0.0, (0.0, 0.0, 0.0)), (5.0, (2.0, 0.0, 0.0)), (-4.0, (-1.2, 1.6, 0.1)),
        (60.0, (2.0, 0.0, 0.0)), (180.0, (0.0, 2.0, 0.0)),
    ],
)  # fmt: skip
def test_known_motion_among_movers(scene: Street, yaw_deg: float, shift: tuple[float, float, float]) -> None:
    """The street's own motion, and another one on top of it."""
    extra = from_rt(rotvec_to_rotation([0.0, 0.0, np.deg2rad(yaw_deg)]), shift)
    found = estimate_ego(transform(invert(extra), scene.source), scene.target, "lidar", CONFIG)
    metres, degrees = error(found, scene.T_target_source @ extra)
    assert metres < 0.03 and degrees < 0.05
    assert found.fitness > 0.6 and found.rmse_m < 0.3


def test_camera_axes_are_the_same_scans(scene: Street) -> None:
    lidar = estimate_ego(scene.source, scene.target, "lidar", CONFIG)
    camera = estimate_ego(scene.source[:, [1, 2, 0]], scene.target[:, [1, 2, 0]], "camera", CONFIG)
    swap = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(camera.T_target_source, swap @ lidar.T_target_source @ swap.T, atol=1e-12)
    assert camera.fitness == lidar.fitness


def test_same_input_same_bytes(scene: Street) -> None:
    one, two = (estimate_ego(scene.source, scene.target, "lidar", CONFIG) for _ in range(2))
    np.testing.assert_array_equal(one.T_target_source, two.T_target_source)
    assert (one.fitness, one.rmse_m) == (two.fitness, two.rmse_m)


def test_motion_back_is_the_inverse(scene: Street) -> None:
    back = estimate_ego(scene.target, scene.source, "lidar", CONFIG)
    metres, degrees = error(back, invert(scene.T_target_source))
    assert metres < 0.03 and degrees < 0.05


def test_unrelated_clouds_fit_badly(scene: Street) -> None:
    """Points in a ball of 30 m around the sensor are no street."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(1500, 3))
    ball = 30 * np.cbrt(rng.random((1500, 1))) * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    found = estimate_ego(scene.source, ball, "lidar", CONFIG)
    assert found.fitness < CONFIG.min_fitness
    assert np.isfinite(found.T_target_source).all()


def test_clouds_that_never_meet_give_no_motion(scene: Street) -> None:
    found = estimate_ego(scene.source, scene.target + np.float32(5000), "lidar", CONFIG)
    np.testing.assert_array_equal(found.T_target_source, np.eye(4))
    assert found.fitness == 0 and found.rmse_m == np.inf


@pytest.mark.parametrize("count", [1, 3, 9])
def test_few_far_points_give_no_motion(count: int) -> None:
    source = np.random.default_rng(count).uniform(-1, 1, (count, 3))
    found = register(source, source + [3.0, 0.0, 0.0], "lidar", IcpConfig())
    np.testing.assert_array_equal(found.T_target_source, np.eye(4))


def test_few_points_do_not_turn_onto_the_target() -> None:
    """One point can be turned onto a ring of others exactly, which is no registration."""
    angle = np.linspace(0, 2 * np.pi, 100)
    ring = np.column_stack([5 * np.cos(angle), 5 * np.sin(angle), np.zeros(100)])
    found = register(np.array([[5.0, 0.0, 0.0]]), ring[20:80], "lidar", IcpConfig())
    np.testing.assert_array_equal(found.T_target_source, np.eye(4))


@pytest.mark.parametrize("count", [1, 12, 500])
def test_equal_points_are_no_trouble(count: int) -> None:
    source = np.tile([[5.0, 2.0, 1.0]], (count, 1))
    found = register(source, source, "lidar", IcpConfig())
    np.testing.assert_array_equal(found.T_target_source, np.eye(4))
    assert found.fitness == 1 and found.rmse_m < 1e-6


def test_real_pair_against_its_pose(shared_data: Path) -> None:
    """Measured: 0.3 cm and 0.057 degrees."""
    pair = load_av2_pair(shared_data)
    found = estimate_ego(pair.source, pair.target, "lidar", CONFIG)
    metres, degrees = error(found, pair.T_target_source)
    assert metres < 0.02 and degrees < 0.1
    assert found.fitness > 0.8
