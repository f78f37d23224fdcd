# SPDX-License-Identifier: Apache-2.0
"""A pair as the network learns it: axes, sensor's motion, ground, bad points, and what is drawn from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scene_flow.training.scenes import Scene, draw, scene_as_known, scene_of, scene_untouched
from vision3d.types import CloudPair, FlowTruth


def moving_sensor(n: int = 50) -> tuple[CloudPair, FlowTruth]:
    """A sensor that turns and drives past points that stand still, but for the first ten."""
    rng = np.random.default_rng(0)
    source = rng.uniform(-5, 5, (n, 3)).astype(np.float32)
    c, s = np.cos(0.1), np.sin(0.1)
    T = np.array([[c, -s, 0, -1.0], [s, c, 0, 0.2], [0, 0, 1, 0.1], [0, 0, 0, 1]])
    flow = (source @ T[:3, :3].T + T[:3, 3] - source).astype(np.float32)
    flow[:10] += np.float32([0.5, 0, 0])
    pair = CloudPair("moving", source, source + flow, T_target_source=T)
    return pair, FlowTruth(flow, np.ones(n, bool), source)


def test_the_sensors_motion_is_undone() -> None:
    pair, truth = moving_sensor()
    scene = scene_as_known(pair, truth)
    ends = (pair.source + truth.flow)[:, [1, 2, 0]]
    np.testing.assert_allclose(scene.source + scene.flow, ends, atol=1e-5)
    np.testing.assert_allclose(scene.flow[10:], 0, atol=1e-5)
    np.testing.assert_allclose(scene.flow[:10], np.broadcast_to([0, 0, 0.5], (10, 3)), atol=1e-5)


def test_untouched_keeps_motion_and_ground() -> None:
    pair, truth = moving_sensor()
    pair = replace(pair, source_ground=np.arange(50) < 5)
    scene = scene_untouched(pair, truth)
    np.testing.assert_array_equal(scene.source, pair.source[:, [1, 2, 0]])
    np.testing.assert_array_equal(scene.flow, truth.flow[:, [1, 2, 0]])


def test_lidar_axes_become_camera_axes() -> None:
    """x forward, y left, z up -> x left, y up, z forward: a point ahead is ahead in both."""
    point = np.float32([[10, 2, 1]])
    truth = FlowTruth(np.float32([[1, 0, 0]]), np.ones(1, bool), point)
    scene = scene_as_known(CloudPair("p", point, point), truth)
    np.testing.assert_array_equal(scene.source, [[2, 1, 10]])
    np.testing.assert_array_equal(scene.flow, [[0, 0, 1]])
    camera = scene_as_known(CloudPair("p", point, point, axes="camera"), truth)
    np.testing.assert_array_equal(camera.source, point)


def test_ground_and_bad_points_are_left_out() -> None:
    pair, truth = moving_sensor()
    source, target = pair.source.copy(), pair.target.copy()
    source[3], target[7, 1] = np.inf, np.nan
    flow, valid = truth.flow.copy(), truth.valid.copy()
    flow[4], valid[5], flow[5] = np.nan, False, 1e9
    pair = replace(
        pair, source=source, target=target, source_ground=np.arange(50) >= 40, target_ground=np.arange(50) == 0
    )
    scene = scene_as_known(pair, replace(truth, flow=flow, valid=valid))
    assert scene.source.shape == scene.flow.shape == (39, 3)
    assert scene.target.shape == (48, 3)
    assert all(np.isfinite(array).all() for array in (scene.source, scene.target, scene.flow))
    np.testing.assert_array_equal(np.flatnonzero(~scene.valid), [3, 4])  # rows 4 and 5 of the source, after row 3 went
    assert (scene.flow[~scene.valid] == 0).all()


def test_nothing_to_learn() -> None:
    pair, truth = moving_sensor()
    assert scene_of(pair, truth).usable
    assert not scene_of(pair, truth, source_ground=np.ones(50, bool)).usable
    assert not scene_of(pair, truth, target_ground=np.ones(50, bool)).usable
    assert not scene_of(pair, replace(truth, valid=np.zeros(50, bool))).usable


def numbered(n: int, m: int) -> Scene:
    """Points that know their row: x of the source, and its flow."""
    source = np.zeros((n, 3), np.float32)
    source[:, 0] = np.arange(n)
    target = np.zeros((m, 3), np.float32)
    target[:, 0] = np.arange(m)
    return Scene(source, target, 2 * source, np.arange(n) % 2 == 0)


def test_draws_are_independent_and_without_repetition() -> None:
    drawn = draw(numbered(100, 100), 40, np.random.default_rng(0))
    rows, others = drawn.source[:, 0], drawn.target[:, 0]
    assert len(set(rows)) == len(set(others)) == 40
    assert set(rows) != set(others)
    np.testing.assert_array_equal(drawn.flow, 2 * drawn.source)
    np.testing.assert_array_equal(drawn.valid, rows % 2 == 0)


def test_small_clouds_are_filled_up() -> None:
    drawn = draw(numbered(10, 40), 25, np.random.default_rng(0))
    assert drawn.source.shape == drawn.target.shape == (25, 3)
    assert set(drawn.source[:, 0]) == set(range(10))
    assert len(set(drawn.target[:, 0])) == 25


@pytest.mark.parametrize("augment", ["turn", "all"])
def test_augmentation_moves_both_clouds_alike(augment: str) -> None:
    """Where a point goes is still where the target has it, and up stays up."""
    rng = np.random.default_rng(1)
    source = rng.normal(size=(30, 3)).astype(np.float32)
    flow = rng.normal(size=(30, 3)).astype(np.float32)
    scene = Scene(source, source + flow, flow, np.ones(30, bool))
    mirrored, sizes = 0, []
    for seed in range(12):
        drawn = draw(scene, 30, np.random.default_rng(seed), augment)
        ends = drawn.source + drawn.flow
        gaps = np.linalg.norm(ends[:, None] - drawn.target[None], axis=2)
        np.testing.assert_allclose(gaps.min(axis=1), 0, atol=1e-5)
        plain = draw(scene, 30, np.random.default_rng(seed))
        A = np.linalg.lstsq(plain.source, drawn.source, rcond=None)[0].T
        size = np.cbrt(abs(np.linalg.det(A)))
        sizes.append(size)
        mirrored += np.linalg.det(A) < 0
        np.testing.assert_allclose(A @ A.T, size**2 * np.eye(3), atol=1e-4)
        np.testing.assert_allclose(A @ [0, 1, 0], [0, size, 0], atol=1e-4)
    if augment == "turn":
        assert mirrored == 0
        np.testing.assert_allclose(sizes, 1, atol=1e-4)
    else:
        assert 0 < mirrored < 12
        assert 0.9 <= min(sizes) < max(sizes) <= 1.1
