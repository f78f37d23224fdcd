# SPDX-License-Identifier: Apache-2.0
"""What the detector's training minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detection.fcos import angles
from detection.fcos.assign import assign
from detection.fcos.config import FcosConfig
from detection.fcos.network import Answers
from vision3d.geometry.rotated.gaussian import probiou_loss
from vision3d.geometry.rotated.iou_loss import paired_iou

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss (Lin et al., ICCV 2017)


def losses_of(
    answers: Answers, boxes: Tensor, labels: Tensor, weights: Tensor, image: Tensor, config: FcosConfig
) -> dict[str, Tensor]:
    """Named terms, weighted; without objects only the term of the classes is above 0.

    Args:
        boxes: (G, 5) le90 of all images.
        labels: (G,) int64.
        weights: (G,) how much each box counts; only their ratios matter.
        image: (G,) int64 the image of each.
    """
    batch, _, classes = answers.logits.shape
    owner = assign(boxes, image, batch, answers.cells, config.reach, config.radius)
    taken = owner >= 0
    mine = owner[taken]
    share = weights[mine] / weights[mine].mean().clamp_min(1e-6)
    total = share.sum().clamp_min(1.0)

    targets = torch.zeros_like(answers.logits)
    targets[taken] = F.one_hot(labels[mine], classes).to(targets)
    counts = torch.ones_like(answers.quality)
    counts[taken] = share
    terms = {"class": (focal(answers.logits, targets).sum(-1) * counts).sum() / total}

    found, wanted = answers.boxes[taken], boxes[mine]
    iou = paired_iou(found, wanted)
    # Boxes that are apart have no gradient of their IoU, and Gaussians do not see a square's angle: half of each.
    shape = (1 - iou + probiou_loss(found, wanted)) / 2
    terms["box"] = config.box_weight * (shape * share).sum() / total
    terms["angle"] = config.angle_weight * (angle_loss(answers.codes[taken], wanted) * share).sum() / total
    quality = F.binary_cross_entropy_with_logits(answers.quality[taken], iou.detach(), reduction="none")
    terms["quality"] = config.quality_weight * (quality * share).sum() / total
    return terms


def focal(logits: Tensor, targets: Tensor) -> Tensor:
    """The sigmoid focal loss of each element."""
    plain = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    score = torch.sigmoid(logits)
    wrong = score * (1 - targets) + (1 - score) * targets
    return (ALPHA * targets + (1 - ALPHA) * (1 - targets)) * wrong**GAMMA * plain


def angle_loss(codes: Tensor, boxes: Tensor) -> Tensor:
    """(P, 6) codes and (P, 5) true boxes -> (P,) error of the codes.

    The half that tells the long side from the short one counts by how much they differ: a square has none.
    """
    error = F.smooth_l1_loss(codes, angles.encode(boxes[:, 4]), reduction="none", beta=0.1)
    sides = boxes[:, 2:4]
    elongation = 1 - sides.amin(1) / sides.amax(1).clamp_min(1e-6)
    return error[:, :3].mean(1) * elongation + error[:, 3:].mean(1)
