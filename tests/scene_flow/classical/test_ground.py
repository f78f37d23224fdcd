# SPDX-License-Identifier: Apache-2.0
"""Ground: on surfaces of known height, whatever the sensor's height, heading and axes, and on a real scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scene_flow.classical.config import GroundConfig
from scene_flow.classical.ground import ground_mask
from tests.scene_flow.classical.av2_pair import load_av2_pair
from tests.scene_flow.classical.ground_scene import Height, flat, ground_scene, sloped, stepped
from tests.scene_flow.classical.scenes import GROUND, street

CONFIG = GroundConfig()


@pytest.mark.parametrize("sensor_m", [0.4, 1.8, 12.0])
@pytest.mark.parametrize("height", [flat, sloped, stepped])
def test_ground_goes_and_cars_and_walls_stay(height: Height, sensor_m: float) -> None:
    points, above = ground_scene(height, sensor_m)
    found = ground_mask(points, "lidar", CONFIG)
    assert found.dtype == bool and found.shape == (len(points),)
    assert found[above == 0].mean() > 0.99
    assert found[above > 0.5].mean() < 0.005
    low = (above > 0) & (above < 0.15)
    assert low.sum() > 20 and found[low].mean() > 0.9, "the foot of a wall is within 0.3 m of the ground"


@pytest.mark.parametrize(("slope", "bumps"), [(0.0, 0.0), (0.08, 0.0), (0.0, 1.0)])
def test_a_street_scanned_by_rings(slope: float, bumps: float) -> None:
    """Here the ground is known by what a ray hit; feet of bodies (below 0.3 m) count against the precision."""
    scene = street(3, slope=slope, bumps=bumps, beams=32, columns=400)
    found, truth = ground_mask(scene.source, "lidar", CONFIG), scene.source_ids == GROUND
    assert found[truth].mean() > 0.99
    assert truth[found].mean() > 0.92


def test_order_of_points_does_not_matter() -> None:
    points, _ = ground_scene(sloped, 1.8)
    order = np.random.default_rng(1).permutation(len(points))
    np.testing.assert_array_equal(
        ground_mask(points[order], "lidar", CONFIG), ground_mask(points, "lidar", CONFIG)[order]
    )


@pytest.mark.parametrize("degrees", [17.0, 90.0, 133.0])
def test_heading_hardly_matters(degrees: float) -> None:
    """The cells turn with the sensor, so only points close to the threshold may change."""
    points, above = ground_scene(sloped, 1.8)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turned = points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=np.float32)
    same = ground_mask(turned, "lidar", CONFIG) == ground_mask(points, "lidar", CONFIG)
    assert same.mean() > 0.98
    assert same[(above == 0) | (above > 0.6)].mean() > 0.99


def test_camera_axes_are_the_same_scan() -> None:
    points, _ = ground_scene(stepped, 1.8)
    camera = np.ascontiguousarray(points[:, [1, 2, 0]])
    np.testing.assert_array_equal(ground_mask(camera, "camera", CONFIG), ground_mask(points, "lidar", CONFIG))


def test_height_is_what_counts_as_ground() -> None:
    points, above = ground_scene(flat, 1.8)
    low, high = (ground_mask(points, "lidar", GroundConfig(height_m=h)) for h in (0.2, 0.8))
    some = (above > 0.4) & (above < 0.6)
    assert some.sum() > 50
    assert not low[some].any() and high[some].mean() > 0.95
    assert (high | ~low).all()


def test_nothing_beyond_the_range_is_ground() -> None:
    points, _ = ground_scene(flat, 1.8)
    far = np.hypot(points[:, 0], points[:, 1]) >= 20
    found = ground_mask(points, "lidar", GroundConfig(range_m=20.0))
    assert far.any() and not found[far].any() and found[~far].any()


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10, 40])
@pytest.mark.parametrize("same", [False, True])
def test_few_or_equal_points_are_no_trouble(count: int, same: bool) -> None:
    points = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
    if same:
        points[:] = 5.0
    found = ground_mask(points, "lidar", CONFIG)
    assert found.shape == (count,) and found.dtype == bool
    if count < 10:
        assert not found.any(), "too few points to say"


def test_a_scan_without_ground_keeps_its_points() -> None:
    """Prepared clouds come without ground; the walls' feet must not be taken for it."""
    scene = street(3, beams=32, columns=400).without_ground()
    assert ground_mask(scene.source, "lidar", CONFIG).mean() < 0.02


def test_real_scan_against_argoverse_labels(shared_data: Path) -> None:
    """Measured: precision 0.965, recall 0.978. The labels come from a map; ours from this scan alone."""
    pair = load_av2_pair(shared_data)
    found = ground_mask(pair.source, "lidar", CONFIG)
    assert pair.ground[found].mean() > 0.93
    assert found[pair.ground].mean() > 0.965
