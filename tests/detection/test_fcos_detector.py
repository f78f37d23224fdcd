# SPDX-License-Identifier: Apache-2.0
"""Training and detecting from end to end on drawn rectangles, and the ways of a crop through the task."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from detection.fcos.config import FcosConfig
from detection.fcos.detector import FcosDetector, padded, suppressed
from detection.fcos.network import FcosNet
from detection.fcos.task import FcosTask, batch_of, turned
from detection.networks.config import BackboneConfig
from detection.problem import Detections, Image
from detection.training.config import TrainConfig
from detection.training.pool import Example, Pool
from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError
from vision3d.geometry import rotated
from vision3d.readers.aerial import SPEC

CLASSES = ("long", "square")
SMALL = BackboneConfig(width=8, channels=16)
CONFIG = FcosConfig(convs=1)


def scene(seed: int, side: int = 96, count: int = 5) -> tuple[Image, Detections]:
    """Bright rectangles of two kinds on noise, apart from each other."""
    rng = np.random.default_rng(seed)
    image = rng.integers(30, 70, (side, side, 3)).astype(np.uint8)
    boxes: list[list[float]] = []
    labels = []
    while len(boxes) < count:
        label = int(rng.integers(2))
        sides = (24.0, 9.0) if label == 0 else (14.0, 14.0)
        box = [*rng.uniform(14, side - 14, 2), *sides, rng.uniform(-np.pi / 2, np.pi / 2)]
        if any(np.hypot(box[0] - other[0], box[1] - other[1]) < 26 for other in boxes):
            continue
        boxes.append(box)
        labels.append(label)
        corners = np.round(rotated.corners(np.array([box]))[0] * 16).astype(np.int32)
        cv2.fillConvexPoly(image, corners, (230, 180, 60) if label == 0 else (60, 200, 230), cv2.LINE_AA, 4)
    found = rotated.canonical(np.array(boxes))
    return image, Detections(found, np.ones(count), np.array(labels))


def example(seed: int = 0) -> Example:
    image, found = scene(seed)
    return Example(image, found.boxes[:, :2], found.labels, np.arange(len(found)), found.boxes, found.scores)


def detector(config: FcosConfig = CONFIG, backbone: BackboneConfig = SMALL) -> FcosDetector:
    torch.manual_seed(0)
    return FcosDetector(FcosNet(config, backbone, CLASSES), config, CLASSES)


def test_overfits_two_scenes() -> None:
    """Small objects of 9 to 24 px are found, in the right place, turned rightly and told apart."""
    torch.manual_seed(0)
    scenes = [scene(0), scene(1)]
    crops = [
        turned(Example(image, d.boxes[:, :2], d.labels, np.arange(5), d.boxes, d.scores), quarter)
        for image, d in scenes
        for quarter in (0, 1)
    ]
    net = FcosNet(CONFIG, SMALL, CLASSES)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
    batch = batch_of(crops)
    task = FcosTask(net, None, CONFIG, TrainConfig())  # type: ignore[arg-type]
    for step in range(60):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / 60) + 1e-4
        optimizer.zero_grad()
        torch.stack(list(task.losses(batch, step, 60).values())).sum().backward()
        optimizer.step()
    found = FcosDetector(net, CONFIG, CLASSES).detect([crop.image for crop in crops])
    for crop, answer in zip(crops, found):
        assert crop.boxes is not None
        good = answer[answer.scores > 0.3]
        iou = rotated.iou_matrix(crop.boxes, good.boxes)
        assert iou.max(1).min() > 0.6
        assert np.array_equal(good.labels[iou.argmax(1)], crop.labels)
        assert len(good) == len(crop.boxes)


def test_detect_is_the_same_alone_and_in_a_batch_of_other_sizes() -> None:
    net = detector(replace(CONFIG, score=0.0, candidates=50))
    first, second = scene(0)[0][:64, :96], scene(1)[0]
    together = net.detect([first, second])
    alone = net.detect([second])[0]
    np.testing.assert_allclose(together[1].boxes, alone.boxes, atol=1e-3)
    np.testing.assert_allclose(together[1].scores, alone.scores, atol=1e-6)
    inside = together[0].boxes
    assert (inside[:, 0] < 95.5).all() and (inside[:, 1] < 63.5).all() and (inside[:, :2] >= -0.5).all()
    assert net.detect([]) == []


def test_answers_are_canonical_sorted_and_limited() -> None:
    found = detector(replace(CONFIG, score=0.0, candidates=200, most=7)).detect([scene(0)[0]])[0]
    assert len(found) == 7
    assert (np.diff(found.scores) <= 0).all()
    assert found.boxes.dtype == found.scores.dtype == np.float64 and found.labels.dtype == np.int64
    assert (found.boxes[:, 2] >= found.boxes[:, 3]).all()
    assert (np.abs(found.boxes[:, 4]) <= np.pi / 2).all()
    assert len(detector(replace(CONFIG, score=0.9)).detect([scene(0)[0]])[0]) == 0


def test_suppression_is_by_class_and_exact_overlap() -> None:
    """Neighbours in a turned row, whose hulls overlap a lot, all stay."""
    turn = np.deg2rad(45)
    at = np.arange(5) * 11.0
    row = np.column_stack([at * -np.sin(turn), at * np.cos(turn), np.full(5, 40.0), np.full(5, 10.0), np.full(5, turn)])
    boxes = np.concatenate([row, row[:1] + [1, 0, 0, 0, 0], row[:1]])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    labels = np.array([0, 0, 0, 0, 0, 0, 1])
    found = suppressed(boxes, scores, labels, CONFIG)
    assert found.scores.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5, 0.3]
    assert found.labels.tolist() == [0, 0, 0, 0, 0, 1]


def test_padding() -> None:
    images = [np.full((40, 70, 3), 7, np.uint8), np.full((64, 33, 3), 9, np.uint8)]
    filled = padded(images)
    assert tuple(filled.shape) == (2, 3, 64, 96)
    assert (filled[0, :, :40, :70] == 7).all() and (filled[1, :, :, :33] == 9).all()
    assert filled[0, :, 50, 0].tolist() == [124, 116, 104]


@pytest.mark.parametrize("quarters", [1, 2, 3, 4])
def test_a_turned_crop_keeps_boxes_on_their_pixels(quarters: int) -> None:
    crop = example(3)
    other = turned(crop, quarters)
    assert crop.boxes is not None and other.boxes is not None
    for before, after in zip(crop.boxes, other.boxes):
        assert other.image[tuple(np.round(after[1::-1]).astype(int))].tolist() == (
            crop.image[tuple(np.round(before[1::-1]).astype(int))].tolist()
        )
    # A filled box covers the same bright pixels before and after.
    for made in (crop, other):
        assert made.boxes is not None
        y, x = np.mgrid[:96, :96]
        inside = rotated.points_in_boxes(np.column_stack([x.ravel(), y.ravel()]), made.boxes).any(1).reshape(96, 96)
        bright = made.image.max(2) > 120
        assert (inside == bright).mean() > 0.97
    np.testing.assert_allclose(other.points, other.boxes[:, :2])
    assert (rotated.canonical(other.boxes)[:, 4] >= -np.pi / 2).all()
    if quarters == 4:
        np.testing.assert_allclose(rotated.iou_pairs(other.boxes, crop.boxes), 1, atol=1e-9)


def test_batches_come_from_the_generator_alone() -> None:
    reader = SPEC.open("aerial:sparse?scenes=3&size=128", DataConfig(split="train"))

    def boxes(index: int) -> Detections:
        truth = reader.truth(index)
        return Detections(truth.boxes, np.linspace(0.5, 1, len(truth.boxes)), truth.labels)

    train = TrainConfig(batch=3, crop=96)
    pool = Pool(reader, train.crop, boxes)
    task = FcosTask(FcosNet(CONFIG, SMALL, pool.classes), pool, CONFIG, train)
    first, again = (task.batch(5, np.random.default_rng(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert tuple(first.images.shape) == (3, 3, 96, 96)
    assert len(first.boxes) == len(first.labels) == len(first.weights) == len(first.image) > 0
    assert first.weights.min() >= 0.5
    still, always = (
        FcosTask(task.net, pool, replace(CONFIG, turn=turn), train).batch(5, np.random.default_rng(7))
        for turn in (0, 1)
    )
    assert any(not torch.equal(still.images, found.images) for found in (first, always))
    terms = task.losses(first, 0, 1)
    assert set(terms) == {"class", "box", "angle", "quality"}


def test_ranges() -> None:
    with pytest.raises(ConfigError, match=r"fcos\.nms is 2: must lie between 0 and 1"):
        FcosConfig(nms=2)
    with pytest.raises(ConfigError, match=r"fcos\.radius"):
        FcosConfig(radius=0.5)  # some objects would have no cell
    with pytest.raises(ConfigError, match=r"train\.crop is 100: must be a multiple of 32"):
        FcosTask(detector().net, None, CONFIG, TrainConfig(crop=100))  # type: ignore[arg-type]


def test_a_pool_without_boxes_is_refused() -> None:
    with pytest.raises(ValueError, match="knows points only"):
        batch_of([replace(example(), boxes=None)])
