# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from vision3d.geometry.se3 import from_rt, invert, rotvec_to_rotation, transform
from vision3d.readers import _bodies_shapes as shapes
from vision3d.readers._bodies_boxes import DepthCamera
from vision3d.readers._bodies_lidar import Lidar
from vision3d.readers._bodies_scan import Draw, World, scan_pair
from vision3d.readers._bodies_shapes import Body, solid

HALF = np.array([1.0, 0.7, 0.5])


def box_at(x, y, z, half=HALF, shift=(0.0, 0.0, 0.0), rotvec=(0.0, 0.0, 0.0), turned=(0.0, 0.0, 0.0)):
    body = Body((solid("box", half),), from_rt(rotvec_to_rotation(np.array(turned)), (x, y, z)), np.eye(4))
    return shapes.moved(body, rotvec_to_rotation(np.array(rotvec)), np.array(shift))


def scan(bodies, ego=None, sensor=None, points=800, noise=0.0, occluded=False, seed=0):
    world = World(bodies, np.eye(4) if ego is None else ego)
    rngs = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    return scan_pair("x", world, sensor or DepthCamera(), Draw(points, points, noise, occluded), rngs, False)


def surface_distance(points, half=HALF):
    """Unsigned distance (N,) from points in a box's own axes to its surface."""
    q = np.abs(points) - half
    return np.abs(np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0))


def test_a_box_that_shifts_has_that_flow_everywhere():
    shift = np.array([0.5, -0.2, -0.9])
    pair, truth = scan([box_at(0.3, 0.1, 9, shift=shift, turned=(0.4, 0.5, 0.6))], noise=0.01)
    assert len(pair.source) == len(pair.target) == 800
    assert np.abs(truth.flow - shift).max() < 1e-6
    assert truth.valid.all()
    assert truth.dynamic.all()
    assert truth.classes is None
    assert np.array_equal(truth.points, pair.source)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_both_clouds_and_the_flow_end_on_the_body_within_the_noise(noise):
    body = box_at(0.3, 0.1, 9, shift=(0.4, 0.3, 0.2), rotvec=(0.1, -0.2, 0.15), turned=(0.4, 0.5, 0.6))
    ego = invert(from_rt(rotvec_to_rotation(np.array([0.02, -0.03, 0.01])), (0.1, 0.0, 0.5)))
    pair, truth = scan([body], ego, noise=noise)
    there = ego @ body.motion @ body.T_world_body
    for points, pose in (
        (pair.source, body.T_world_body),
        (pair.target, there),
        (pair.source + truth.flow, there),
    ):
        distance = surface_distance(transform(invert(pose), points))
        assert distance.max() < 5.5 * noise + 2e-6
        if noise:
            assert distance.mean() == pytest.approx(noise * np.sqrt(2 / np.pi), rel=0.1)
    assert truth.T_target_source == pytest.approx(ego)
    assert pair.T_target_source is None


def test_each_body_keeps_its_shape_and_no_two_share_a_motion():
    left = box_at(3, 0, 12, shift=(0, 0, 1.0), rotvec=(0.1, 0.3, 0.0))
    right = box_at(-3, 0, 12, shift=(0.5, 0, 0.0), rotvec=(0.0, -0.2, 0.2))
    pair, truth = scan([left, right], noise=0.01)
    moved = pair.source.astype(float) + truth.flow
    distances = []
    for side in (pair.source[:, 0] > 0, pair.source[:, 0] < 0):
        before, after = pair.source[side].astype(float), moved[side]
        gaps = [np.linalg.norm(c[:, None] - c[None], axis=2) for c in (before, after)]
        assert np.abs(gaps[0] - gaps[1]).max() < 5e-6
        distances.append(gaps)
    across = [np.linalg.norm(c[0] - c[-1]) for c in (pair.source[np.argsort(pair.source[:, 0])], moved)]
    assert abs(across[0] - across[1]) > 0.1


def test_nothing_comes_from_behind_a_wall():
    wall, behind = box_at(0, 0, 6, half=np.array([4.0, 3.0, 0.1])), box_at(0, 0, 9, shift=(0, 0, 1.0))
    pair, truth = scan([wall, behind], occluded=True)
    assert pair.source[:, 2].max() < 5.91
    assert not truth.dynamic.any()


def test_what_becomes_hidden_is_left_out_or_kept_as_asked():
    # A screen slides in front of the left half of a wall.
    wall = box_at(0, 0, 12, half=np.array([4.0, 2.0, 0.1]))
    screen = box_at(-3.0, 0, 6, half=np.array([1.0, 2.0, 0.1]), shift=(3.0, 0, 0))
    shown, _ = scan([wall, screen], points=3000)
    kept, truth = scan([wall, screen], points=3000, occluded=True)
    on_wall = [c.source[c.source[:, 2] > 10] for c in (shown, kept)]
    shadow = [
        (np.abs(points[:, 0]) < 1.9).sum() for points in on_wall
    ]  # twice the screen's half width, at twice its depth
    assert shadow[0] == 0
    assert shadow[1] > 200
    assert truth.valid.all()
    # The same for the target: what the first scan could not see is not in it.
    uncovered = shown.target[(shown.target[:, 2] > 10) & (np.abs(shown.target[:, 0] + 6) < 1.9)]
    assert len(uncovered) == 0
    assert len(shown.source) == len(kept.source) == 3000


def test_what_leaves_the_view_is_left_out():
    body = box_at(0, 0, 6, half=np.array([2.4, 0.5, 0.1]), shift=(1.5, 0, 0))
    pair, truth = scan([body], points=3000)
    camera = DepthCamera()
    assert camera.sees(pair.source.astype(float) + truth.flow).mean() > 0.999
    kept, truth = scan([body], points=3000, occluded=True)
    assert camera.sees(kept.source.astype(float) + truth.flow).mean() < 0.8


def test_density_falls_with_the_square_of_depth():
    near, far = box_at(-2, 0, 8, half=np.array([0.5, 0.5, 0.1])), box_at(4, 0, 16, half=np.array([0.5, 0.5, 0.1]))
    pair, _ = scan([near, far], points=20_000)
    front = [np.abs(pair.source[:, 2] - z).clip(max=1e-4) < 1e-4 for z in (7.9, 15.9)]
    assert front[0].sum() / front[1].sum() == pytest.approx((15.9 / 7.9) ** 2, rel=0.06)


def test_every_ray_of_the_image_is_cast_once():
    camera = DepthCamera()
    rays = camera.all_rays(np.random.default_rng(0))
    assert rays.shape == (480 * 270, 3)
    assert camera.sees(5 * rays).all()
    assert not camera.sees(36 * rays).any()
    pair, _ = scan([box_at(0, 0, 10, half=np.array([9.0, 9.0, 1.0]))], points=0)
    assert len(pair.source) == 480 * 270


def test_lidar_points_lie_on_rings_and_its_noise_along_the_rays():
    lidar = Lidar(32, 600, 60.0)
    room = box_at(0, 0, -3.0, half=np.array([80.0, 80.0, 1.0]))
    exact, _ = scan([room], sensor=lidar, points=0)
    measured, _ = scan([room], sensor=lidar, points=0, noise=0.05)
    elevation = np.degrees(np.arcsin(exact.source[:, 2] / np.linalg.norm(exact.source, axis=1)))
    beams = np.linspace(10, -30, 32)
    assert np.abs(elevation[:, None] - beams).min(axis=1).max() < 0.06
    assert np.abs(exact.source[:, 2] + 2).max() < 1e-5
    rays = exact.source / np.linalg.norm(exact.source, axis=1, keepdims=True)
    error = measured.source - exact.source  # the same rays: noise is drawn after them
    assert np.abs(np.cross(error, rays)).max() < 1e-4
    assert (error * rays).sum(axis=1).std() == pytest.approx(0.05, rel=0.05)
    assert np.linalg.norm(exact.source, axis=1).max() < 60.0


def test_a_moving_sensor_moves_what_stands_still():
    ego = invert(from_rt(rotvec_to_rotation(np.array([0.0, 0.0, 0.05])), (1.2, 0.1, 0.0)))
    tower = box_at(10, 3, 0, half=np.array([1.0, 2.0, 4.0]))
    pair, truth = scan([tower], ego, sensor=Lidar(32, 600, 60.0), points=0, noise=0.01, occluded=True)
    points = pair.source.astype(float)
    assert np.abs(truth.flow - (transform(ego, points) - points)).max() < 1e-6
    assert not truth.dynamic.any()
    slow = box_at(10, 3, 0, half=np.array([1.0, 2.0, 4.0]), shift=(0.04, 0, 0))
    assert not scan([slow], ego, sensor=Lidar(32, 600, 60.0), points=0)[1].dynamic.any()
    faster = box_at(10, 3, 0, half=np.array([1.0, 2.0, 4.0]), shift=(0.06, 0, 0))
    assert scan([faster], ego, sensor=Lidar(32, 600, 60.0), points=0)[1].dynamic.all()
