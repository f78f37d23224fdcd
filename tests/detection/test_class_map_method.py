# SPDX-License-Identifier: Apache-2.0
"""The class map: what is known from points, the loss, boxes read from a map, training."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from detection.networks.config import BackboneConfig
from detection.pointobb.class_map.config import ClassMapConfig
from detection.pointobb.class_map.labeller import ClassMapLabeller
from detection.pointobb.class_map.labels import BACKGROUND, UNKNOWN, label_map, middles, nearest
from detection.pointobb.class_map.network import ClassMapNet
from detection.pointobb.class_map.task import ClassMapTask, map_loss
from detection.pointobb.class_map.walk import axis_of, sample, walk
from detection.training.config import TrainConfig
from detection.training.pool import Pool
from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError
from vision3d.geometry import rotated
from vision3d.readers.aerial import AerialReader

CONFIG = ClassMapConfig()
SMALL = BackboneConfig(width=8, channels=16)


def _map_of(boxes: np.ndarray, size: int = 128) -> np.ndarray:
    """Scores of 0.9 in boxes and 0.05 outside, smoothed as a network's map is."""
    y, x = np.mgrid[:size, :size]
    inside = rotated.points_in_boxes(np.stack([x, y], -1).reshape(-1, 2), boxes).any(1).reshape(size, size)
    blurred = torch.nn.functional.avg_pool2d(torch.from_numpy(inside).float()[None, None], 3, 1, 1)[0, 0]
    return (0.05 + 0.85 * blurred).numpy()


def test_label_map_equals_its_definition_pixel_by_pixel() -> None:
    draw = np.random.default_rng(2)
    points, labels = draw.uniform(0, 95, (9, 2)), draw.integers(0, 3, 9)
    config = replace(CONFIG, clear=2.0)
    found = label_map(points, labels, (96, 96), 1, config)
    apart, halves = nearest(points, config.lone_px), middles(points, labels)
    for y in range(0, 96, 5):
        for x in range(0, 96, 3):
            away = np.hypot(points[:, 0] - x, points[:, 1] - y)
            wanted = BACKGROUND if (config.clear * away > apart).all() else UNKNOWN
            if (np.hypot(halves[:, 0] - x, halves[:, 1] - y) <= config.between_px).any():
                wanted = BACKGROUND
            own = away <= np.maximum(np.minimum(config.radius_px, apart / 2), math.sqrt(0.5))
            if own.any():
                wanted = labels[np.where(own, away, np.inf).argmin()]
            assert found[y, x] == wanted, (x, y)


def test_label_map_of_a_lone_point_and_of_none() -> None:
    lone = label_map(np.array([[400.0, 400]]), np.array([1]), (200, 200), 4, CONFIG)
    assert lone[100, 100] == 1
    assert lone[100, 110] == UNKNOWN
    assert lone[100, 140] == BACKGROUND
    assert (label_map(np.zeros((0, 2)), np.zeros(0, np.int64), (5, 5), 4, CONFIG) == BACKGROUND).all()


def test_every_point_marks_a_cell_however_dense_points_are() -> None:
    points = np.array([[4.0 * k + 1.2, 20.3] for k in range(12)])
    found = label_map(points, np.arange(12), (16, 16), 4, CONFIG)
    assert set(range(12)) <= set(found.ravel().tolist())


def test_loss_ignores_unknown_cells_and_rewards_the_right_map() -> None:
    labels = torch.tensor([[[0, UNKNOWN], [BACKGROUND, 1]]])
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    map_loss(logits, labels, CONFIG).backward()
    assert (logits.grad[:, :, 0, 1] == 0).all()
    assert logits.grad[0, 0, 0, 0] < 0 < logits.grad[0, 1, 0, 0]
    right = torch.full((1, 2, 2, 2), -9.0)
    right[0, 0, 0, 0] = right[0, 1, 1, 1] = 9
    assert map_loss(right, labels, CONFIG) < 1e-6
    nothing = map_loss(logits, torch.full((1, 2, 2), UNKNOWN), CONFIG)
    assert nothing == 0


@pytest.mark.parametrize("angle", [0.0, 0.5, 1.3, -0.9])
@pytest.mark.parametrize("size", [(24.0, 10.0), (60.0, 20.0), (90.0, 30.0)])
def test_walk_reads_a_box_from_its_map(size: tuple[float, float], angle: float) -> None:
    box = np.array([[64.0, 62, *size, angle]])
    found = walk(_map_of(box), box[:, :2] + [1, -0.5], box[:, :2], CONFIG)
    assert rotated.iou_pairs(found, box)[0] > 0.7
    assert rotated.angle_distance(found[0, 4], angle) < math.radians(5)


def test_neighbours_do_not_take_each_others_map() -> None:
    boxes = rotated.canonical(np.array([[30.0 + 14 * k, 64, 12, 40, 0.0] for k in range(6)]))
    found = walk(_map_of(boxes), boxes[:, :2], boxes[:, :2], CONFIG)
    assert rotated.iou_pairs(found, boxes).min() > 0.7
    other = np.array([[64.0, 40], [64, 80]])
    alone = walk(_map_of(np.array([[64.0, 60, 100, 12, math.pi / 2]])), other[:1], other, CONFIG)
    assert alone[0, 1] + alone[0, 2] / 2 < 61


def test_axis_does_not_depend_on_the_order_of_points_nor_on_a_turn() -> None:
    boxes = np.array([[40.0, 50, 40, 12, 0.5], [90, 80, 30, 10, -0.2]])
    scores, radius = _map_of(boxes), np.full(2, 20.0)
    axes = axis_of(scores, boxes[:, :2], radius, CONFIG)
    np.testing.assert_allclose(axis_of(scores, boxes[::-1, :2], radius, CONFIG), axes[::-1])
    moved = rotated.turned(boxes, (128, 128), 1)[:, :2]
    turned = axis_of(np.rot90(scores), moved, radius, CONFIG)
    assert rotated.angle_distance(turned, axes - np.pi / 2).max() < 1e-3


def test_sample_is_bilinear_and_goes_on_outside() -> None:
    scores = np.array([[0.0, 1], [2, 3]], np.float32)
    np.testing.assert_allclose(sample(scores, np.array([0.5, -3, 1]), np.array([0.5, 0, 9])), [1.5, 0, 3])


def test_trained_on_points_it_finds_boxes_and_labels_alike_again() -> None:
    torch.manual_seed(0)
    source = "aerial:sparse?scenes=4&size=128&classes=storage-tank,small-vehicle"
    reader = AerialReader(source, DataConfig(split="train"))
    net = ClassMapNet(CONFIG, SMALL, reader.classes)
    task = ClassMapTask(net, Pool(reader, 128), CONFIG, TrainConfig(crop=128, batch=2))
    descent = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        loss = task.losses(task.batch(step, np.random.default_rng(step)), step, 25)["map"]
        descent.zero_grad()
        loss.backward()
        descent.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2
    sample_ = reader[0]
    boxes, scores = ClassMapLabeller(net).label(sample_.image, sample_.points, sample_.labels)
    again = ClassMapLabeller(net).label(sample_.image, sample_.points, sample_.labels)
    assert boxes.shape == (len(sample_.points), 5)
    np.testing.assert_array_equal(boxes, again[0])
    assert ((scores >= 0) & (scores <= 1)).all()
    assert net.training
    none = ClassMapLabeller(net).label(sample_.image, np.zeros((0, 2)), np.zeros(0, np.int64))
    assert none[0].shape == (0, 5)


def test_the_same_stream_gives_the_same_batch() -> None:
    reader = AerialReader("aerial:sparse?scenes=2&size=128", DataConfig(split="train"))
    net = ClassMapNet(CONFIG, SMALL, reader.classes)
    task = ClassMapTask(net, Pool(reader, 96), CONFIG, TrainConfig(crop=96))
    first, second = (task.batch(3, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    assert first.labels.shape == (2, 24, 24)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"class_map\.stop"):
        ClassMapConfig(stop=1.5)
