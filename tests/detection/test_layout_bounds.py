# SPDX-License-Identifier: Apache-2.0
"""Bounds of sizes: Voronoi cells, watershed basins and the overlap of Gaussians."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from detection.pointobb.layout.overlap import overlap_loss
from detection.pointobb.layout.voronoi import cells, ridges, spacing
from detection.pointobb.layout.watershed import Basins, disks, flood
from vision3d.geometry import rotated

FAR = 60.0  # radius of the background's border, pixels


def _scene(boxes: np.ndarray, size: int = 128, seed: int = 0) -> np.ndarray:
    """Bright boxes on a dark noisy ground."""
    noise = np.random.default_rng(seed).normal(0, 4, (size, size, 3))
    y, x = np.mgrid[:size, :size]
    inside = rotated.points_in_boxes(np.stack([x, y], -1).reshape(-1, 2), boxes).any(1).reshape(size, size)
    return (np.where(inside[..., None], 190, 60) + noise).clip(0, 255).astype(np.uint8)


def test_cells_equal_a_brute_force_search() -> None:
    points = np.random.default_rng(3).uniform(0, 60, (12, 2))
    owner, distance = cells(points, (50, 61))
    y, x = np.mgrid[:50, :61]
    all_of_them = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    np.testing.assert_allclose(distance, all_of_them.min(-1), atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(all_of_them, owner[..., None], -1)[..., 0], all_of_them.min(-1))


def test_cells_do_not_depend_on_how_many_rows_are_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(4).uniform(0, 60, (9, 2))
    at_once = cells(points, (50, 40))
    monkeypatch.setattr("detection.pointobb.layout.voronoi.ROWS", 7)
    for part, whole in zip(cells(points, (50, 40)), at_once, strict=True):
        np.testing.assert_array_equal(part, whole)


def test_no_step_between_cells_misses_a_ridge() -> None:
    owner, _ = cells(np.random.default_rng(5).uniform(0, 50, (20, 2)), (50, 50))
    free = ~ridges(owner)
    for a, b in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        assert not (free[a] & free[b] & (owner[a] != owner[b])).any()


def test_spacing_of_points() -> None:
    points = np.array([[0.0, 0], [3, 4], [40, 0]])
    np.testing.assert_allclose(spacing(points, (100, 80)), [5, 5, math.hypot(37, 4)])
    np.testing.assert_allclose(spacing(points[:1], (100, 80)), [50])
    assert spacing(points[:0], (100, 80)).shape == (0,)


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2, -0.8])
def test_the_basin_of_a_box_is_the_box(angle: float) -> None:
    box = np.array([[64.0, 60, 46, 18, angle]])
    found = flood(_scene(box), box[:, :2] + [2, -1], disks(box[:, :2], 2), disks(box[:, :2], FAR), 1.0)
    axis, long = found.axes()
    assert rotated.angle_distance(axis[0], angle) < math.radians(2)
    assert 0.5 < long[0] < 0.7
    for boxes, valid in (found.boxes(axis), found.tight()):
        assert valid.all()
        assert rotated.iou_pairs(boxes, box)[0] > 0.85


def test_basins_never_cross_the_borders_of_cells() -> None:
    draw = np.random.default_rng(6)
    image = cv2.GaussianBlur(draw.integers(0, 256, (96, 96, 3), dtype=np.uint8), (0, 0), 2)
    points = draw.uniform(2, 93, (25, 2))
    found = flood(image, points, disks(points, 3), disks(points, 30), 1.0)
    x, y = found.pixels.astype(int).T
    np.testing.assert_array_equal(cells(points, (96, 96))[0][y, x], found.owner)
    assert (np.diff(found.owner) >= 0).all()
    assert found.sizes().sum() == len(found.pixels)


@pytest.mark.parametrize("gap", [0.0, 1.0, 3.0])
def test_neighbours_that_touch_or_nearly_do_keep_basins_of_their_own(gap: float) -> None:
    boxes = np.array([[40.0 + (10.5 + gap) * k, 64, 10, 40, 0.0] for k in range(5)])
    image = _scene(boxes)
    found = flood(image, boxes[:, :2], disks(boxes[:, :2], 2), disks(boxes[:, :2], 26), 0.0)
    measured, _ = found.boxes(np.zeros(5))
    assert rotated.iou_pairs(measured, boxes).min() > 0.75


def test_a_turned_image_has_turned_basins() -> None:
    boxes = np.array([[40.0, 50, 40, 12, 0.5], [90, 80, 30, 20, -0.2]])
    image = _scene(boxes)
    straight = flood(image, boxes[:, :2], disks(boxes[:, :2], 2), disks(boxes[:, :2], FAR), 1.0).tight()[0]
    moved = rotated.turned(boxes, (128, 128), 1)
    image = np.ascontiguousarray(np.rot90(image))
    found = flood(image, moved[:, :2], disks(moved[:, :2], 2), disks(moved[:, :2], FAR), 1.0).tight()[0]
    assert rotated.iou_pairs(rotated.turned(straight, (128, 128), 1), found).min() > 0.9


def test_objects_at_the_border_reach_it() -> None:
    box = np.array([[8.0, 60, 40, 20, 0]])
    found = flood(_scene(box), box[:, :2], disks(box[:, :2], 2), disks(box[:, :2], FAR), 1.0)
    assert found.pixels[:, 0].min() == 0


def test_no_points_and_points_outside_have_no_basin() -> None:
    image = _scene(np.array([[64.0, 64, 30, 10, 0]]))
    assert flood(image, np.zeros((0, 2)), np.zeros((0, 5)), np.zeros((0, 5)), 1.0).count == 0
    points = np.array([[64.0, 64], [-500, 20]])
    found = flood(image, points, disks(points, 2), disks(points, 50), 1.0)
    _, valid = found.boxes(np.zeros(2))
    assert valid.tolist() == [True, False]
    assert found.axes()[1][1] == 0


def test_extents_of_a_basin_along_a_given_axis() -> None:
    basins = Basins(np.array([[3.0, 3], [4, 3], [5, 3], [3, 4], [4, 4], [5, 4]]), np.zeros(6, np.int64), 1)
    boxes, valid = basins.boxes(np.array([0.0]))
    np.testing.assert_allclose(boxes, [[4, 3.5, 3, 2, 0]])
    assert valid.all()
    turned, _ = basins.boxes(np.array([math.pi / 2]))
    np.testing.assert_allclose(turned, [[4, 3.5, 2, 3, math.pi / 2]])


def test_far_objects_are_not_pushed() -> None:
    boxes = torch.tensor([[20.0, 20, 20, 10, 0.3], [900, 20, 20, 10, 1.0]], requires_grad=True)
    overlap_loss(boxes, torch.zeros(2, dtype=torch.long)).backward()
    assert torch.equal(boxes.grad, torch.zeros(2, 5))


def test_objects_too_close_are_pushed_apart_and_made_smaller() -> None:
    boxes = torch.tensor([[20.0, 20, 20, 20, 0], [30, 20, 20, 20, 0]], requires_grad=True)
    loss = overlap_loss(boxes, torch.zeros(2, dtype=torch.long))
    loss.backward()
    assert boxes.grad[0, 0] > 0 > boxes.grad[1, 0]
    assert (boxes.grad[:, 2] > 0).all()
    apart = torch.tensor([[20.0, 20, 10, 20, 0], [30, 20, 10, 20, 0]])
    assert overlap_loss(apart, torch.zeros(2, dtype=torch.long)) < loss / 20


def test_overlap_counts_pairs_of_one_image_in_any_order() -> None:
    draw = torch.Generator().manual_seed(1)
    boxes = torch.rand(7, 5, generator=draw, dtype=torch.float64) * torch.tensor([60.0, 60, 30, 20, 3]) + 1
    images = torch.tensor([0, 0, 0, 1, 1, 4, 4])
    whole = overlap_loss(boxes, images)
    parts = [overlap_loss(boxes[images == k], images[images == k]) * (images == k).sum() for k in (0, 1, 4)]
    torch.testing.assert_close(whole, sum(parts) / 7)
    order = torch.tensor([2, 0, 1, 4, 3, 6, 5])
    torch.testing.assert_close(overlap_loss(boxes[order], images), whole)
    assert overlap_loss(boxes[:1], images[:1]) == 0
