# SPDX-License-Identifier: Apache-2.0
"""A head that answers at points only: what it does grows with the objects, not with the pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from detection.networks.backbone import build_backbone
from detection.networks.config import BackboneConfig
from detection.pointobb import angle_coder
from detection.pointobb.class_map.network import map_head
from detection.pointobb.layout.config import LayoutConfig
from detection.pointobb.layout.levels import UNIT

AROUND = tuple(range(-4, 5))  # strides from the point, in x and y, at which each level is read: 1.5 middle objects
THIN = 24  # channels that are read: a level is narrowed first
LARGEST = 4.0  # logarithm of the largest size over a level's middle object, and its inverse
SHIFT = 0.25  # most that a box's centre lies off its point, in sides of the box


class Answers(NamedTuple):
    """What every level says about N points.

    Attributes:
        boxes: (N, levels, 5) pixels; theta in [-pi/2, pi/2), w and h in any order.
        levels: (N, levels) logits of the level to believe.
        scores: (B, classes, H / 4, W / 4) logits of the class map.
    """

    boxes: Tensor
    levels: Tensor
    scores: Tensor

    def best(self) -> Tensor:
        """(N,) the level that each point is best answered by."""
        return self.levels.argmax(1)

    def at(self, levels: Tensor) -> Tensor:
        """(N, 5) boxes of given levels (N,)."""
        return self.boxes[torch.arange(len(levels), device=levels.device), levels]


class LayoutNet(nn.Module):
    """Backbone, two layers per point and level that all levels share, and a map of classes over the finest level.

    Attributes:
        progress: (), float64, part of the training that is done; set by the training loop and kept with the weights.
    """

    progress: Tensor

    def __init__(self, config: LayoutConfig, backbone: BackboneConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.backbone = build_backbone(backbone)
        self.kind = nn.Embedding(len(classes), config.hidden)
        self.narrow = nn.Conv2d(self.backbone.channels, THIN, 1)
        self.first = nn.Linear(len(AROUND) ** 2 * THIN, config.hidden)
        self.norm = nn.LayerNorm(config.hidden)
        self.second = nn.Linear(config.hidden, config.hidden)
        self.out = nn.Linear(config.hidden, 2 + 2 + angle_coder.STEPS + 1)
        self.map = map_head(self.backbone.channels, len(classes))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        nn.init.normal_(self.kind.weight, std=0.1)
        nn.init.normal_(self.out.weight, std=0.01)
        with torch.no_grad():
            # An upright box twice as wide as high: a square has no angle to start from.
            self.out.bias.zero_()
            self.out.bias[0], self.out.bias[1] = 0.35, -0.35
            self.out.bias[4:7] = angle_coder.encode(torch.zeros(()))

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per cell of each level."""
        return self.backbone.strides

    def forward(self, images: Tensor, points: Tensor, labels: Tensor, rows: Tensor) -> Answers:
        """Answers for N points.

        Args:
            images: (B, 3, H, W) float32 in [0, 1], sides multiples of 32.
            points: (N, 2) pixels.
            labels: (N,) classes.
            rows: (N,) the image of each point.
        """
        pyramid = self.backbone(images)
        levels = [self.narrow(level) for level in pyramid]
        read = torch.stack([_read(level, s, points, rows) for level, s in zip(levels, self.strides)], 1)
        hidden = functional.relu(self.norm(self.first(read)) + self.kind(labels)[:, None])
        raw = self.out(functional.relu(self.second(hidden))).float()
        middle = UNIT * torch.tensor(self.strides, dtype=raw.dtype, device=raw.device)[:, None]
        sides = middle * torch.exp(LARGEST * torch.tanh(raw[..., :2] / LARGEST))
        theta = angle_coder.decode(raw[..., 4:7])
        shift = SHIFT * torch.tanh(raw[..., 2:4]) * sides
        c, s = torch.cos(theta), torch.sin(theta)
        x = points[:, None, 0] + shift[..., 0] * c - shift[..., 1] * s
        y = points[:, None, 1] + shift[..., 0] * s + shift[..., 1] * c
        boxes = torch.stack([x, y, sides[..., 0], sides[..., 1], theta], -1)
        return Answers(boxes, raw[..., 7], self.map(pyramid[0]))


def _read(level: Tensor, stride: int, points: Tensor, rows: Tensor) -> Tensor:
    """(N, 81 C) features of a level (B, C, H, W) around points (N, 2) of images ``rows``, bilinear, 0 outside."""
    batch, channels, height, width = level.shape
    steps = torch.tensor(AROUND, dtype=points.dtype, device=points.device)
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)
    # Cell k covers the pixels from k * stride - 0.5 on: its centre lies half a stride further.
    cell = (points + 0.5) / stride - 0.5
    at = cell[:, None] + offsets
    first = at.floor()
    part = at - first
    flat = level.permute(0, 2, 3, 1).reshape(-1, channels)
    total: Tensor | None = None
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = first[..., 0] + dx, first[..., 1] + dy
            weight = (part[..., 0] if dx else 1 - part[..., 0]) * (part[..., 1] if dy else 1 - part[..., 1])
            weight = weight * ((x >= 0) & (x < width) & (y >= 0) & (y < height))
            index = (rows[:, None] * height + y.clamp(0, height - 1).long()) * width + x.clamp(0, width - 1).long()
            found = flat[index] * weight[..., None].to(flat.dtype)
            total = found if total is None else total + found
    assert total is not None
    return total.reshape(len(points), len(AROUND) ** 2 * channels)
