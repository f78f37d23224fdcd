# SPDX-License-Identifier: Apache-2.0
"""Multiple-instance learning: a bag is known to hold its class, the box within it is to be found (steps 3 to 6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class BagHead(nn.Module):
    """Two fully connected layers over box features, shared by the stages, and each stage's two linear outputs.

    Stage 0 has a background class last, stage 1 has none.
    """

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(inplace=True), nn.Linear(width, width), nn.ReLU(inplace=True)
        )
        self.classify = nn.ModuleList([nn.Linear(width, classes + 1), nn.Linear(width, classes)])
        self.select = nn.ModuleList([nn.Linear(width, classes + 1), nn.Linear(width, classes)])
        for branch in (*self.classify, *self.select):
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, pooled: Tensor, stage: int) -> tuple[Tensor, Tensor]:
        """(R, inputs) -> logits of classes and of instances, (R, C + 1) in stage 0 and (R, C) in stage 1."""
        hidden = self.shared(pooled)
        return self.classify[stage](hidden).float(), self.select[stage](hidden).float()


def instance_probabilities(logits: Tensor, valid: Tensor) -> Tensor:
    """(G, N, C): softmax over the N proposals of a bag, without those that are not valid, summing to 1 again.

    A bag without a valid proposal is 0 throughout.
    """
    masked = torch.where(valid[..., None], logits, -math.inf)
    top = masked.amax(1, keepdim=True)
    top = torch.where(torch.isfinite(top), top, 0.0).detach()
    weight = torch.where(valid[..., None], torch.exp(torch.where(valid[..., None], logits - top, 0.0)), 0.0)
    return weight / weight.sum(1, keepdim=True).clamp_min(1e-12)


def bag_probability(cls: Tensor, ins: Tensor) -> Tensor:
    """(G, C) sum over proposals of class times instance probability, both (G, N, C); clamped against rounding."""
    return (cls * ins).sum(1).clamp(0, 1)


def entropy(probability: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy of each probability, in float32 also where autocast is at work: torch bans its own there."""
    with torch.autocast(probability.device.type, enabled=False):
        return functional.binary_cross_entropy(probability.float(), target.float(), reduction="none")


def coarse_loss(probability: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Cross entropy of bag probabilities (G, C + 1) and their classes (G,), summed over C + 1, per bag that counts.

    Bags where ``counts`` (G,) is False have no proposal to learn from and add nothing.
    """
    target = functional.one_hot(labels, probability.shape[1]).to(probability.dtype)
    per_bag = entropy(probability, target).sum(1)
    return (per_bag * counts).sum() / counts.sum().clamp_min(1)


def refine_loss(probability: Tensor, labels: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """Focal loss of bags ``sum_c (p - q)^2 BCE(p, q)`` for (G, C), weighted by the coarse bags' scores (G,)."""
    target = functional.one_hot(labels, probability.shape[1]).to(probability.dtype)
    per_bag = ((probability - target).square() * entropy(probability, target)).sum(1)
    return (per_bag * weights * counts).sum() / counts.sum().clamp_min(1)


def negative_loss(probability: Tensor, counted: Tensor, weight: Tensor, bags: int) -> Tensor:
    """The same focal form with target 0 for background boxes (M, C) where ``counted`` (M,), per bag."""
    per_box = (probability.square() * entropy(probability, torch.zeros_like(probability))).sum(1)
    return weight * (per_box * counted).sum() / max(bags, 1)


def label_scores(cls: Tensor, ins: Tensor, labels: Tensor) -> Tensor:
    """(G, N) scores of the proposals for the known class (G,): class times instance probability."""
    at = labels[:, None, None].expand(-1, cls.shape[1], 1)
    return (cls.gather(2, at) * ins.gather(2, at)).squeeze(2)


def read_out(boxes: Tensor, scores: Tensor, top_k: int, axial: bool = True) -> Tensor:
    """(G, 5) score-weighted means of the ``top_k`` best boxes (G, N, 5), detached (step 5).

    Angles are averaged as unit vectors of the doubled angle; ``axial=False`` averages them as plain numbers, which is
    what was published and makes 0 of 89 and -89 degrees. A bag whose scores are all 0 gives the plain mean of some.
    """
    best, rows = scores.detach().topk(min(top_k, scores.shape[1]), 1)
    chosen = boxes.detach().gather(1, rows[..., None].expand(-1, -1, 5))
    total = best.sum(1, keepdim=True)
    weight = torch.where(total > 0, best / total.clamp_min(1e-30), 1 / best.shape[1])[..., None]
    mean = (chosen * weight).sum(1)
    if axial:
        double = 2 * chosen[..., 4:]
        turn = torch.atan2((torch.sin(double) * weight).sum(1), (torch.cos(double) * weight).sum(1))
        mean = torch.cat((mean[:, :4], turn / 2), 1)
    return mean
