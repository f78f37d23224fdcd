# SPDX-License-Identifier: Apache-2.0
"""Training of PointOBB: steps 2 to 14 over one batch. Only images, points and classes come in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detection.pointobb.angle_consistency import angle_loss
from detection.pointobb.bags import Bags, base_bag, base_scales, random_boxes
from detection.pointobb.config import PointObbConfig
from detection.pointobb.dense_to_sparse import assign_angles, level_angles, object_angles
from detection.pointobb.mil import coarse_loss, negative_loss, refine_loss
from detection.pointobb.network import PointObbNet, Scored
from detection.pointobb.refine import inside_part, inside_part_turned, mean_angles, overlap_bound
from detection.pointobb.scale_consistency import scale_consistency
from detection.pointobb.schedule import Phase
from detection.pointobb.views import Frame, flipped, original, pad_to_multiple, resized, rotated
from detection.training.config import TrainConfig
from detection.training.pool import Pool

NEGATIVE_IOU = 0.3
INSTANCE_WEIGHT = 2.0  # of the instance scores within the scale consistency; class scores have 1


class PointBatch(NamedTuple):
    """Crops with points, and how the second views of this step are made; every image has the same size.

    Attributes:
        images: (B, 3, H, W) float32 in [0, 1], sides multiples of 32.
        contents: (B, 4) float32 borders of the real content, see :class:`~detection.pointobb.views.Frame`.
        points: (G, 2) float32 pixels.
        labels: (G,) int64.
        rows: (G,) int64, image of each point.
        view: (3,) float64: ratio of the resized view, angle of the rotated one in radians, 1 where it is flipped.
    """

    images: Tensor
    contents: Tensor
    points: Tensor
    labels: Tensor
    rows: Tensor
    view: Tensor


@dataclass(frozen=True)
class _View:
    """One image batch with its objects on the way through the stages."""

    frame: Frame
    features: list[Tensor]
    points: Tensor
    bags: Bags
    counts: Tensor | None = None


class PointObbTask:
    """What the training loop runs.

    The network learns from ``pool``'s crops; its bags' sizes are tied to the side of these crops.
    """

    def __init__(self, net: PointObbNet, pool: Pool, config: PointObbConfig, train: TrainConfig) -> None:
        self.net, self.pool, self.config, self.train = net, pool, config, train
        net.side_px.fill_(float(train.crop))

    def batch(self, step: int, rng: np.random.Generator) -> PointBatch:
        """Random crops with their points, some of them mirrored, and the draw of the views."""
        images, contents, points, labels, rows = [], [], [], [], []
        for row in range(self.train.batch):
            # Mirrored here and not by the pool, to know on which side a padded crop's content ends up.
            example = self.pool.draw(rng)
            height, width = self.pool.whole(example.index).image.shape[:2]
            side_y, side_x = example.image.shape[:2]
            width, height = min(width, side_x), min(height, side_y)
            border = [-0.5, -0.5, width - 0.5, height - 0.5]
            if rng.random() < self.train.flip:
                example = example.flipped()
                border[0], border[2] = side_x - width - 0.5, side_x - 0.5
            images.append(torch.from_numpy(np.ascontiguousarray(example.image)).permute(2, 0, 1))
            contents.append(border)
            points.append(torch.from_numpy(example.points).float())
            labels.append(torch.from_numpy(example.labels).long())
            rows.append(torch.full((len(example.points),), row))
        ratio, turn, drawn = rng.uniform(0.5, 1.5), rng.uniform(math.pi / 4, 3 * math.pi / 4), rng.random()
        flip = drawn < self.config.flip and float(self.net.progress) >= self.config.flip_from
        return PointBatch(
            pad_to_multiple(torch.stack(images).float() / 255),
            torch.tensor(contents),
            torch.cat(points),
            torch.cat(labels),
            torch.cat(rows),
            torch.tensor([ratio, turn, float(flip)], dtype=torch.float64),
        )

    def losses(self, batch: PointBatch, step: int, steps: int) -> Mapping[str, Tensor]:
        """The weighted terms of the phase that the network's ``progress`` says; those of other phases are 0.

        ``bag``, ``view_bag`` (coarse bags in the original and in the second view), ``scale`` (consistency), ``refine``,
        ``background``, ``angle``.
        """
        net, config = self.net, self.config
        terms = dict.fromkeys(("bag", "view_bag", "scale", "refine", "background", "angle"), batch.images.new_zeros(()))
        batch = self._bounded(batch)
        if not len(batch.points):
            return terms
        phase = net.phase
        view = self._original(batch)
        ratio, turn, flip = batch.view.tolist()
        if phase == Phase.SCALE:
            images, frame = resized(batch.images, batch.contents, ratio)
            other = self._second(images, frame, view, batch)
            views = [view]
        else:
            if flip:
                images, frame = flipped(batch.images, batch.contents)
            else:
                images, frame = rotated(batch.images, batch.contents, turn)
            other = self._second(images, frame, view, batch)
            view, other, terms["angle"] = self._with_angles(view, other, batch, phase)
            views = [view, other]
        scored = [net.score(each.features, each.bags, 0) for each in (view, other)]
        for name, coarse in zip(("bag", "view_bag"), scored):
            seen = coarse.bags.valid.any(1)
            terms[name] = config.bag_weight * coarse_loss(coarse.probability, batch.labels, seen)
        if phase == Phase.SCALE and config.scale_weight:
            terms["scale"] = config.scale_weight * self._scale_loss(*scored)
        for each, first in zip(views, scored):
            bag_loss, background = self._refine(each, first, batch.labels)
            terms["refine"] = terms["refine"] + config.bag_weight * bag_loss
            terms["background"] = terms["background"] + background
        # Both views are one batch then, and losses are means over its bags.
        if phase != Phase.SCALE:
            for name in ("bag", "view_bag", "refine", "background"):
                terms[name] = terms[name] / len(views)
        return terms

    def _bounded(self, batch: PointBatch) -> PointBatch:
        """At most ``max_rois`` proposals of an image: objects beyond that are left out at random."""
        limit = self.config.max_rois // (len(self.config.multiples) * len(self.config.ratios))
        keep = torch.ones_like(batch.rows, dtype=torch.bool)
        for image in range(len(batch.images)):
            objects = torch.nonzero(batch.rows == image).flatten()
            if len(objects) > limit:
                order = torch.randperm(len(objects), device=objects.device)
                keep[objects[order[limit:]]] = False
        return batch._replace(points=batch.points[keep], labels=batch.labels[keep], rows=batch.rows[keep])

    def _original(self, batch: PointBatch) -> _View:
        frame = original(batch.images, batch.contents)
        scales = base_scales(batch.points, batch.rows, float(self.net.side_px), self.config)
        boxes = base_bag(batch.points, scales, self.config.ratios, batch.contents[batch.rows])
        bags = Bags(boxes, torch.ones_like(boxes[..., 0], dtype=torch.bool), batch.rows)
        return _View(frame, self.net.backbone(batch.images), batch.points, bags)

    def _second(self, images: Tensor, frame: Frame, first: _View, batch: PointBatch) -> _View:
        """The other view, with the original's points and boxes in it."""
        points, boxes = frame.points(first.points), frame.boxes(first.bags.boxes)
        here = frame.shows(points[:, None], batch.rows)
        valid = here.expand(boxes.shape[:2])
        if frame.rotation:
            if self.config.validity == "content":
                part = inside_part(boxes, batch.rows, frame)
            else:
                part = inside_part_turned(boxes, mean_angles(boxes[:, 0, 4], batch.rows), frame.size)
            valid = valid & (part > self.config.min_inside)
        return _View(frame, self.net.backbone(images), points, Bags(boxes, valid, batch.rows), counts=here[:, 0])

    def _with_angles(self, first: _View, second: _View, batch: PointBatch, phase: Phase) -> tuple[_View, _View, Tensor]:
        """Step 10's loss, and in the last phase the views with step 11's angles."""
        net, config = self.net, self.config
        paired = second.counts if second.counts is not None else torch.ones_like(batch.rows, dtype=torch.bool)
        directed = ~net.round_classes[batch.labels]
        near = [net.codes(view.features, view.points, batch.rows) for view in (first, second)]
        angles = [object_angles(n.sums, n.numbers, n.nearest) for n in near]
        frame = second.frame
        loss = angle_loss(angles[0], angles[1], frame.rotation, frame.flipped, paired, directed)
        views = []
        for view, codes in zip((first, second), near):
            if phase == Phase.ASSIGN:
                found = level_angles(codes.sums, codes.numbers, codes.nearest, paired)
                boxes = assign_angles(view.bags.boxes, found, config.level_unit_px)
                # Without a direction, boxes keep the angle of their view: 0 in the original.
                boxes = torch.where(directed[:, None, None], boxes, view.bags.boxes)
                view = replace(view, bags=replace(view.bags, boxes=boxes))
            views.append(view)
        return views[0], views[1], config.angle_weight * loss

    def _scale_loss(self, first: Scored, second: Scored) -> Tensor:
        valid = first.bags.valid & second.bags.valid
        scales, seen = len(self.config.multiples), valid.any(1)
        return scale_consistency(first.cls, second.cls, valid, scales, seen) + INSTANCE_WEIGHT * scale_consistency(
            first.ins, second.ins, valid, scales, seen
        )

    def _refine(self, view: _View, coarse: Scored, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Step 6 in one view: the losses of the second bags and of the background."""
        net, config = self.net, self.config
        seen = coarse.bags.valid.any(1)
        boxes, weights = net.found(coarse, labels, view.frame.size)
        bags = net.second_bag(boxes, coarse.bags.images, view.frame)
        fine = net.score(view.features, bags, 1)
        counts = seen & bags.valid.any(1)
        loss = refine_loss(fine.probability, labels, weights, counts)
        mean_weight = (weights * counts).sum() / counts.sum().clamp_min(1)
        return loss, self._background(view, coarse.bags, bags, counts, config.negative_weight * mean_weight)

    def _background(self, view: _View, coarse: Bags, fine: Bags, counts: Tensor, weight: Tensor) -> Tensor:
        """Random boxes at the proposals' mean angle that overlap none of them."""
        config = self.config
        total = weight.new_zeros(())
        if not config.negatives:
            return total
        for image in range(len(view.frame.contents)):
            objects = coarse.images == image
            positives = torch.cat((coarse.boxes[objects].flatten(0, 1), fine.boxes[objects].flatten(0, 1)))
            if not len(positives):
                continue
            theta = _mean_angle(fine.boxes[objects][:, 0, 4], config.angle_mean == "axial")
            roots = (positives[:, 2] * positives[:, 3]).sqrt()
            low, high = max(float(roots.min()), 1.0), float(roots.max())
            drawn = random_boxes(config.negatives, low, high, view.frame.size, theta, positives)
            free = overlap_bound(drawn, positives) < NEGATIVE_IOU
            images = torch.full((len(drawn),), image, device=drawn.device)
            if config.validity == "content":
                free = free & (inside_part(drawn[:, None], images, view.frame)[:, 0] > config.min_inside)
            drawn = drawn[free]
            cls, _ = self.net.logits(view.features, drawn, images[: len(drawn)], 1)
            total = total + negative_loss(cls.sigmoid(), torch.ones_like(drawn[:, 0]), weight, int(counts.sum()))
        return total


def _mean_angle(theta: Tensor, axial: bool) -> float:
    if not axial:
        return float(theta.mean())
    return float(torch.atan2(torch.sin(2 * theta).sum(), torch.cos(2 * theta).sum()) / 2)
