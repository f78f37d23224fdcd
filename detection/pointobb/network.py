# SPDX-License-Identifier: Apache-2.0
"""The network of PointOBB, and the path from points to boxes that training and labelling share.

It is no detector: it needs a point per object, also to label. Luo et al., CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detection.networks.backbone import build_backbone
from detection.networks.config import BackboneConfig
from detection.pointobb.angle_head import AngleHead
from detection.pointobb.bags import Bags, refine_bag
from detection.pointobb.config import PointObbConfig, size_table
from detection.pointobb.dense_to_sparse import near_codes
from detection.pointobb.mil import BagHead, bag_probability, instance_probabilities, label_scores, read_out
from detection.pointobb.refine import clamp_to, inside_part, inside_part_turned, mean_angles
from detection.pointobb.schedule import Phase, phase_at
from detection.pointobb.views import Frame
from vision3d.geometry.rotated.roi_align import pyramid_levels, roi_align_rotated


@dataclass(frozen=True)
class Scored:
    """A bag after the head.

    Attributes:
        bags: the proposals.
        cls: (G, N, C') probabilities of classes.
        ins: (G, N, C') probabilities of instances.
    """

    bags: Bags
    cls: Tensor
    ins: Tensor

    @property
    def probability(self) -> Tensor:
        """(G, C') of the bags."""
        return bag_probability(self.cls, self.ins)


@dataclass(frozen=True)
class NearCodes:
    """Codes of the angle around each point: sums (G, L, 3) and numbers (G, L) of its cells, nearest cell (G, L, 3)."""

    sums: Tensor
    numbers: Tensor
    nearest: Tensor


class PointObbNet(nn.Module):
    """Backbone, head of the bags and head of the angle.

    Attributes:
        progress: part of the training that is done, set by the training loop; decides the phase.
        side_px: side of the training crops; the first bag's sizes follow it, also on whole images.
    """

    progress: Tensor
    side_px: Tensor
    round_classes: Tensor
    size_factors: Tensor

    def __init__(self, config: PointObbConfig, backbone: BackboneConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.backbone = build_backbone(backbone)
        self.bag_head = BagHead(backbone.channels * config.roi_size**2, config.fc_width, len(classes))
        self.angle_head = AngleHead(backbone.channels, config.angle_width)
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self.register_buffer("side_px", torch.tensor(256.0))
        table = size_table(config.size_table, classes)
        factors = torch.tensor([table.get(name, 1.0) for name in classes])
        without = torch.tensor([name in config.round_classes for name in classes], dtype=torch.bool)
        self.register_buffer("size_factors", factors, persistent=False)
        self.register_buffer("round_classes", without, persistent=False)

    @property
    def phase(self) -> Phase:
        """What is at work now."""
        return phase_at(float(self.progress), self.config)

    def codes(self, features: Sequence[Tensor], points: Tensor, images: Tensor) -> NearCodes:
        """The angle codes around points (G, 2) of images (G,)."""
        return NearCodes(*near_codes(self.angle_head(features), self.backbone.strides, points, images))

    def logits(self, features: Sequence[Tensor], boxes: Tensor, images: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        """Logits of classes and instances of boxes (R, 5), worked on in portions of ``max_rois``."""
        config = self.config
        found = []
        for start in range(0, max(len(boxes), 1), config.max_rois):
            part, rows = boxes[start : start + config.max_rois], images[start : start + config.max_rois]
            levels = pyramid_levels(part, len(features), config.level_unit_px)
            pooled = roi_align_rotated(
                features, self.backbone.strides, part, rows, levels, config.roi_size, config.roi_samples
            )
            found.append(self.bag_head(pooled.flatten(1), stage))
        return torch.cat([cls for cls, _ in found]), torch.cat([ins for _, ins in found])

    def score(self, features: Sequence[Tensor], bags: Bags, stage: int) -> Scored:
        """Probabilities of every proposal; classes by softmax in stage 0 and by sigmoid in stage 1."""
        count, size = bags.boxes.shape[:2]
        rows = bags.images[:, None].expand(-1, size).reshape(-1)
        cls, ins = (x.reshape(count, size, -1) for x in self.logits(features, bags.boxes.flatten(0, 1), rows, stage))
        cls = cls.softmax(2) if stage == 0 else cls.sigmoid()
        return Scored(bags, cls, instance_probabilities(ins, bags.valid))

    def found(self, scored: Scored, labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Step 5: the boxes (G, 5) that bags of known classes (G,) give, and the bags' scores (G,), detached."""
        scores = label_scores(scored.cls, scored.ins, labels).detach()
        boxes = read_out(scored.bags.boxes, scores, self.config.top_k, self.config.angle_mean == "axial")
        return clamp_to(boxes, size), scores.sum(1).clamp(0, 1)

    def second_bag(self, boxes: Tensor, images: Tensor, frame: Frame, mean_angle: Tensor | None = None) -> Bags:
        """Step 6: the bags around coarse boxes (G, 5) of a view.

        Args:
            mean_angle: (G,) of all boxes of each one's image, where ``boxes`` are not all of them.
        """
        config = self.config
        around = refine_bag(boxes, config.factors, config.shift)
        if config.validity == "content":
            part = inside_part(around, images, frame)
        else:
            theta = mean_angles(boxes[:, 4], images) if mean_angle is None else mean_angle
            part = inside_part_turned(around, theta, frame.size)
        return Bags(around, part > config.min_inside, images)
