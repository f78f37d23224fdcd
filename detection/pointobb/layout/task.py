# SPDX-License-Identifier: Apache-2.0
"""Training of the layout network from points: two bounds, one consistency, levels that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from detection.pointobb.class_map.labels import label_map
from detection.pointobb.class_map.task import map_loss
from detection.pointobb.layout.basins import basins_of, together
from detection.pointobb.layout.config import LayoutConfig
from detection.pointobb.layout.consistency import draw_view, make_view, view_loss
from detection.pointobb.layout.levels import assign_levels, level_of
from detection.pointobb.layout.network import LayoutNet
from detection.pointobb.layout.overlap import overlap_loss
from detection.pointobb.layout.watershed import Basins
from detection.pointobb.views import Frame
from detection.problem import Int
from detection.training.config import TrainConfig, require_multiple
from detection.training.pool import Example, Pool
from vision3d.geometry.rotated import gaussian


class Batch(NamedTuple):
    """Crops of a step. The watershed runs on the CPU, on ``crops``."""

    images: Tensor  # (B, 3, H, W) float32 in [0, 1]
    points: Tensor  # (N, 2) float32 pixels
    labels: Tensor  # (N,)
    rows: Tensor  # (N,) ascending: the crop of each point
    view: tuple[str, float]
    crops: tuple[Example, ...]
    map_labels: Tensor  # (B, H / 4, W / 4) classes, background or unknown


class Targets(NamedTuple):
    """What the basins say about N points."""

    boxes: Tensor  # (N, 5), theta as predicted
    valid: Tensor  # (N,) bool
    axis: Tensor  # (N,) radians
    long: Tensor  # (N,) 0 for round basins, to 1

    def seen(self, frame: Frame, shown: Tensor) -> Targets:
        """Those of the objects ``shown`` (N,) in another view."""
        boxes = self.boxes[shown]
        axes = frame.boxes(torch.cat([boxes[:, :4], self.axis[shown, None]], 1))[:, 4]
        return Targets(frame.boxes(boxes), self.valid[shown], axes, self.long[shown])


class LayoutTask:
    """Implements :class:`detection.training.task.Task`. The pool knows points only."""

    def __init__(self, net: LayoutNet, pool: Pool, config: LayoutConfig, train: TrainConfig) -> None:
        require_multiple(train)
        self.net, self.pool, self.config, self.train = net, pool, config, train

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Random crops and the view that they are compared with."""
        crops = tuple(self.pool.draw(rng, self.train.flip) for _ in range(self.train.batch))
        images = torch.from_numpy(np.stack([crop.image for crop in crops])).permute(0, 3, 1, 2).float() / 255
        return Batch(
            images=images.contiguous(),
            points=torch.from_numpy(np.concatenate([crop.points for crop in crops])).float(),
            labels=torch.from_numpy(np.concatenate([crop.labels for crop in crops])),
            rows=torch.repeat_interleave(torch.tensor([len(crop.points) for crop in crops])),
            view=draw_view(self.config, rng),
            crops=crops,
            map_labels=torch.from_numpy(np.stack([self._map_labels(crop) for crop in crops])),
        )

    def _map_labels(self, crop: Example) -> Int:
        stride = self.net.strides[0]
        shape = (crop.image.shape[0] // stride, crop.image.shape[1] // stride)
        return label_map(crop.points, crop.labels, shape, stride, self.config.map)

    def losses(self, batch: Batch, step: int, steps: int) -> Mapping[str, Tensor]:
        """Weighted terms: overlap, basin, axis, view, map, level. Both views of an object are held to its basin."""
        config, net = self.config, self.net
        answers = net(batch.images, batch.points, batch.labels, batch.rows)
        levels, basins, free = self._measure(batch, answers.at(answers.best()).detach())
        boxes = answers.at(levels)
        targets = targets_of(basins, free, boxes.detach())
        images, frame = make_view(batch.images, *batch.view)
        points = frame.points(batch.points)
        shown = frame.shows(points[:, None], batch.rows)[:, 0]
        seen = net(images, points[shown], batch.labels[shown], batch.rows[shown])
        seen_levels = level_of(frame.boxes(boxes[shown].detach()), net.strides)
        seen_boxes, seen_targets = seen.at(seen_levels), targets.seen(frame, shown)
        lower = [basin_loss(*pair, config) for pair in ((boxes, targets), (seen_boxes, seen_targets))]
        axis = [axis_loss(*pair) for pair in ((boxes, targets), (seen_boxes, seen_targets))]
        level = [
            functional.cross_entropy(a.levels, at, reduction="sum")
            for a, at in ((answers, levels), (seen, seen_levels))
        ]
        return {
            "overlap": config.overlap_weight * overlap_loss(boxes, batch.rows, config.touch, config.touch_slope),
            "basin": config.basin_weight * torch.stack(lower).mean(),
            "axis": config.axis_weight * torch.stack(axis).mean(),
            "view": config.view_weight * view_loss(boxes[shown], seen_boxes, frame),
            "map": config.map_weight * map_loss(answers.scores, batch.map_labels, config.map),
            "level": config.level_weight * torch.stack(level).sum() / max(len(levels) + len(seen_levels), 1),
        }

    def _measure(self, batch: Batch, own: Tensor) -> tuple[Tensor, Basins, Basins]:
        """The level that answers for each object, its basin for extents, and the one for its axis.

        The axis is always read from basins that know nothing of ``own`` (N, 5), what the network believes: a marker
        that is long already makes a basin that is long the same way.
        """
        config, progress = self.config, float(self.net.progress)
        free = together([basins_of(crop.image, crop.points, None, config) for crop in batch.crops])
        along, valid = free.boxes(free.axes()[0])
        levels = assign_levels(
            level_of(torch.from_numpy(along).float().to(own.device), self.net.strides),
            torch.from_numpy(valid).to(own.device),
            level_of(own, self.net.strides),
            progress,
            config.own_from,
        )
        if progress < config.own_from:
            return levels, free, free
        guess = np.split(own.cpu().double().numpy(), np.cumsum([len(crop.points) for crop in batch.crops])[:-1])
        marked = [basins_of(crop.image, crop.points, box, config) for crop, box in zip(batch.crops, guess, strict=True)]
        return levels, together(marked), free


def targets_of(basins: Basins, free: Basins, boxes: Tensor) -> Targets:
    """What ``basins`` say about extents along the own axes of boxes (N, 5), and ``free`` about those axes."""
    measured, valid = basins.boxes(boxes[:, 4].cpu().double().numpy())
    axis, long = free.axes()
    device = boxes.device
    return Targets(
        torch.from_numpy(measured).float().to(device),
        torch.from_numpy(valid).to(device),
        torch.from_numpy(axis).float().to(device),
        torch.from_numpy(long).float().to(device),
    )


def basin_loss(boxes: Tensor, targets: Targets, config: LayoutConfig) -> Tensor:
    """Gaussian Wasserstein loss to the basins' boxes, mean over the objects that fit best.

    It is a lower bound: a box larger than its basin costs ``config.slack`` of what a smaller one costs, so that among
    objects that look alike the boxes settle not at the middle of the basins' sizes but above.
    """
    if not bool(targets.valid.any()):
        return boxes.sum() * 0
    found, wanted = boxes[targets.valid], targets.boxes[targets.valid]
    larger = found[:, 2:4].detach().prod(1) > wanted[:, 2:4].prod(1)
    losses = gaussian.gwd_loss(found, wanted) * torch.where(larger, config.slack, 1.0)
    return losses.sort().values[: math.ceil(config.basin_keep * len(losses))].mean()


def axis_loss(boxes: Tensor, targets: Targets) -> Tensor:
    """1 - cos of twice the turn between the boxes' long sides and the basins' long axes, weighed by how long both are.

    In [0, 2]; a square has no long side, and its loss goes to 0.
    """
    if not len(boxes):
        return boxes.sum() * 0
    w, h = boxes[:, 2], boxes[:, 3]
    # From -1 for boxes much higher than wide to 1: it chooses the long side, and lets sides trade places.
    lying = (w - h) / (w + h)
    apart = 1 - torch.cos(2 * (boxes[:, 4] - targets.axis)) * torch.tanh(4 * lying)
    weight = targets.long.clamp(0, 1) * targets.valid
    return (apart * weight).sum() / weight.sum().clamp_min(1.0)
