# SPDX-License-Identifier: Apache-2.0
"""One training step of PointOBB in every phase: phases survive a checkpoint, and true boxes stay out of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pointobb_toy import CLASSES, Rectangles

from detection.networks.config import BackboneConfig
from detection.pointobb.config import PointObbConfig, seed_faithful
from detection.pointobb.labeller import PointObbLabeller
from detection.pointobb.network import PointObbNet
from detection.pointobb.schedule import Phase, phase_at
from detection.pointobb.task import PointBatch, PointObbTask
from detection.training.config import TrainConfig
from detection.training.pool import Pool

TRAIN = TrainConfig(steps=100, batch=2, crop=96, lr=1e-3)
SMALL = PointObbConfig(fc_width=16, roi_size=3, angle_width=8, negatives=10)
BACKBONE = BackboneConfig(width=8, channels=16)
CONFIGS = {"ours": SMALL, "published": seed_faithful(SMALL)}
STEPS = {Phase.SCALE: 10, Phase.ANGLE: 25, Phase.ASSIGN: 60}


def made(config: PointObbConfig = SMALL, reader: Rectangles | None = None, seed: int = 0) -> PointObbTask:
    torch.manual_seed(seed)
    net = PointObbNet(config, BACKBONE, CLASSES)
    return PointObbTask(net, Pool(reader or Rectangles(4), TRAIN.crop), config, TRAIN)


def batch_at(task: PointObbTask, step: int) -> PointBatch:
    task.net.progress.fill_(step / TRAIN.steps)
    task.net.train()
    torch.manual_seed(step)
    return task.batch(step, np.random.default_rng([0, step]))


def losses_at(task: PointObbTask, step: int) -> dict[str, torch.Tensor]:
    return dict(task.losses(batch_at(task, step), step, TRAIN.steps))


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(terms.values())).sum()


def train_on(task: PointObbTask, steps: range) -> None:
    optimizer = torch.optim.SGD(task.net.parameters(), 0.01)
    for step in steps:
        optimizer.zero_grad()
        total(losses_at(task, step)).backward()
        optimizer.step()


def test_phases_are_parts_of_the_run() -> None:
    """Card, step 14: 16000 and 22000 of 24 epochs are 0.23 and 0.31 of the run."""
    config = PointObbConfig()
    assert [phase_at(p, config) for p in (0, 0.229, 0.23, 0.309, 0.31, 1)] == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_trains_what_it_should(name: str, phase: Phase) -> None:
    task = made(CONFIGS[name])
    terms = losses_at(task, STEPS[phase])
    assert task.net.phase == phase
    assert list(terms) == ["bag", "view_bag", "scale", "refine", "background", "angle"]
    assert all(math.isfinite(float(term.detach())) for term in terms.values())
    assert (float(terms["scale"].detach()) > 0) == (phase == Phase.SCALE)
    assert (float(terms["angle"].detach()) > 0) == (phase != Phase.SCALE)
    total(terms).backward()
    reached = {name for name, p in task.net.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert "bag_head.select.0.weight" in reached
    assert "bag_head.classify.1.weight" in reached
    assert any(name.startswith("backbone.encoder.conv1") for name in reached)
    assert ("angle_head.last.weight" in reached) == (phase != Phase.SCALE)


def test_boxes_carry_angles_in_the_last_phase_only() -> None:
    task = made()
    sample = Rectangles(1)[0]
    assert sample.points is not None
    assert sample.labels is not None
    for phase, step in STEPS.items():
        task.net.progress.fill_(step / TRAIN.steps)
        boxes, scores = PointObbLabeller(task.net).label(sample.image, sample.points, sample.labels)
        turned = np.minimum(np.abs(boxes[:, 4]), np.abs(np.abs(boxes[:, 4]) - np.pi / 2)) > 1e-3
        assert turned.any() == (phase == Phase.ASSIGN)
        assert boxes.shape == (len(sample.points), 5)
        assert (boxes[:, 2] >= boxes[:, 3] - 1e-6).all()
        assert ((scores >= 0) & (scores <= 1)).all()


def test_classes_without_direction_and_the_named_size_table() -> None:
    """Card, steps 12 and 13: off unless named."""
    sample = Rectangles(1)[0]
    assert sample.points is not None
    labels = np.zeros(len(sample.points), np.int64)

    def label(config: PointObbConfig, which: int, classes: tuple[str, ...] = ("ship", "storage-tank")) -> np.ndarray:
        torch.manual_seed(0)
        net = PointObbNet(config, BACKBONE, classes)
        net.side_px.fill_(96)
        net.progress.fill_(0.9)
        assert sample.points is not None
        return PointObbLabeller(net).label(sample.image, sample.points, labels + which)[0]

    plain, table = label(SMALL, 0), label(replace(SMALL, size_table="pointobb"), 0)
    np.testing.assert_allclose(table[:, 2:4], 0.65 * plain[:, 2:4], rtol=1e-6)
    np.testing.assert_allclose(label(replace(SMALL, size_table="pointobb"), 1), label(SMALL, 1))
    # The table of DOTA is another one: there, ships keep their size.
    dota = ("ship", "small-vehicle")
    np.testing.assert_allclose(label(replace(SMALL, size_table="pointobb"), 0, dota), label(SMALL, 0, dota))
    shrunk = label(replace(SMALL, size_table="pointobb"), 1, dota)
    np.testing.assert_allclose(shrunk[:, 2:4], 0.65 * label(SMALL, 1, dota)[:, 2:4], rtol=1e-6)
    upright = label(replace(SMALL, round_classes=("storage-tank",)), 1)[:, 4]
    assert (np.minimum(np.abs(upright), np.abs(np.abs(upright) - np.pi / 2)) < 1e-6).all()


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_checkpoint_goes_on_to_the_same_loss_and_labels(name: str, tmp_path: Path) -> None:
    """Card, check 8: the phase is part of the state; the next loss and the export are equal, bit for bit."""
    task = made(CONFIGS[name])
    train_on(task, range(30, 34))
    torch.save(task.net.state_dict(), tmp_path / "net.pth")
    again = made(CONFIGS[name], seed=5)
    again.net.side_px.fill_(7)
    again.net.load_state_dict(torch.load(tmp_path / "net.pth", weights_only=True))
    assert again.net.phase == task.net.phase == Phase.ASSIGN
    assert float(again.net.side_px) == TRAIN.crop
    for a, b in zip(losses_at(task, 34).values(), losses_at(again, 34).values()):
        assert torch.equal(a, b)
    sample = Rectangles(1)[0]
    assert sample.points is not None
    assert sample.labels is not None
    found = [PointObbLabeller(x.net).label(sample.image, sample.points, sample.labels) for x in (task, again)]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("phase", list(Phase))
def test_true_boxes_do_not_matter(phase: Phase) -> None:
    """Card, check 9: random true boxes leave every loss unchanged."""
    right, wrong = made(reader=Rectangles(4)), made(reader=Rectangles(4, wrong_boxes=True))
    a, b = losses_at(right, STEPS[phase]), losses_at(wrong, STEPS[phase])
    assert not np.array_equal(Rectangles(4).truth(0).boxes, Rectangles(4, wrong_boxes=True).truth(0).boxes)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_step_without_a_point_has_no_loss() -> None:
    task = made()
    batch = batch_at(task, 10)
    none = batch._replace(points=batch.points[:0], labels=batch.labels[:0], rows=batch.rows[:0])
    assert all(float(term) == 0 for term in task.losses(none, 10, TRAIN.steps).values())


def test_memory_is_bounded_by_leaving_objects_out_and_by_portions() -> None:
    config = replace(SMALL, max_rois=1000, negatives=0)
    task = made(config, Rectangles(1, side=192, objects=18))
    batch = batch_at(task, 10)
    many = batch._replace(points=batch.points.repeat(8, 1), labels=batch.labels.repeat(8), rows=batch.rows.repeat(8))
    kept = task._bounded(many)
    assert [int((kept.rows == image).sum()) for image in range(2)] == [14, 14]  # 14 x 70 <= 1000
    sample = Rectangles(1, side=192, objects=18)[0]
    assert sample.points is not None
    assert sample.labels is not None
    whole = made(replace(config, max_rois=100_000), Rectangles(1))
    whole.net.load_state_dict(task.net.state_dict())
    for net in (task.net, whole.net):
        net.progress.fill_(0.5)
    a, b = (PointObbLabeller(net).label(sample.image, sample.points, sample.labels) for net in (task.net, whole.net))
    np.testing.assert_allclose(a[0], b[0], atol=1e-3)


def test_a_padded_crop_knows_where_its_content_ends() -> None:
    """Images smaller than the crop are padded at the right and bottom; mirrored ones at the left."""
    torch.manual_seed(0)
    train = replace(TRAIN, crop=128, batch=8)
    net = PointObbNet(SMALL, BACKBONE, CLASSES)
    task = PointObbTask(net, Pool(Rectangles(2), 128), SMALL, train)
    batch = task.batch(0, np.random.default_rng(0))
    assert {tuple(row) for row in batch.contents.tolist()} == {(-0.5, -0.5, 95.5, 95.5), (31.5, -0.5, 127.5, 95.5)}
    border = batch.contents[batch.rows]
    assert bool(((batch.points > border[:, :2]) & (batch.points < border[:, 2:])).all())
    for row in range(8):
        left, _, right, bottom = (int(edge + 0.5) for edge in batch.contents[row])
        inside = batch.images[row, :, :bottom, left:right]
        assert float(inside.std()) > 0.05
        outside = batch.images[row].clone()
        outside[:, :bottom, left:right] = outside[:, -1:, -1:]
        assert float(outside.std((1, 2)).max()) < 1e-6
    assert float(net.side_px) == 128


def test_labels_of_a_large_image_come_from_windows_at_the_sizes_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first bag follows the training crop, whatever the size of the image."""
    from detection.pointobb import windows

    task = made(seed_faithful(SMALL))
    task.net.progress.fill_(0.5)
    reader = Rectangles(1, side=192, objects=12)
    sample = reader[0]
    assert sample.points is not None
    assert sample.labels is not None
    whole = PointObbLabeller(task.net).label(sample.image, sample.points, sample.labels)[0]
    monkeypatch.setattr(windows, "WINDOW", 128)
    monkeypatch.setattr(windows, "OVERLAP", 64)
    cut = PointObbLabeller(task.net).label(sample.image, sample.points, sample.labels)[0]
    assert cut.shape == whole.shape
    assert np.abs(cut[:, :2] - whole[:, :2]).max() < 40
    assert PointObbLabeller(task.net).label(sample.image, np.zeros((0, 2)), np.zeros(0, np.int64))[0].shape == (0, 5)


def test_portions_do_not_change_labels_of_the_published_method() -> None:
    """Its validity area turns by the mean angle of an image's boxes, however many are worked on at once."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (160, 160, 3), dtype=np.uint8)
    points, labels = rng.uniform(20, 140, (18, 2)), np.zeros(18, np.int64)
    found = []
    for most in (1000, 100_000):
        torch.manual_seed(0)
        net = PointObbNet(replace(seed_faithful(SMALL), max_rois=most), BACKBONE, CLASSES)
        net.side_px.fill_(96)
        net.progress.fill_(0.9)
        found.append(PointObbLabeller(net).label(image, points, labels)[0])
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
