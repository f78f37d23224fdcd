# SPDX-License-Identifier: Apache-2.0
"""The detector's network: a backbone and heads that the levels of its pyramid share (after FCOS, Tian et al. 2019)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detection.fcos import angles
from detection.fcos.config import FcosConfig
from detection.networks.backbone import build_backbone
from detection.networks.config import BackboneConfig
from vision3d.nn.image_encoder import dense_norm

MULTIPLE = 32  # of the sides of what the network sees: the stride of its coarsest level
PRIOR = 0.01  # score of every cell before training, so that the many empty cells do not drown the rest
TYPICAL = 4.0  # sides of a box in strides that a size output of 0 stands for
_LARGEST = 5.0  # of the logarithm of a size, so that a wild output stays a number


class Cells(NamedTuple):
    """What answers: the cells of all levels, finest level first, rows before columns; N of them.

    Attributes:
        centers: (N, 2) pixels.
        strides: (N,) pixels.
        grids: (columns, rows) of each level.
    """

    centers: Tensor
    strides: Tensor
    grids: list[tuple[int, int]]


class Answers(NamedTuple):
    """What the network says of B images.

    Attributes:
        logits: (B, N, C) of the classes.
        boxes: (B, N, 5) pixels and radians; the angle is any of its half turns, and w may be less than h.
        codes: (B, N, 6) of the angle.
        quality: (B, N) logit of the box's IoU with the object.
        cells: where the rows come from.
    """

    logits: Tensor
    boxes: Tensor
    codes: Tensor
    quality: Tensor
    cells: Cells


class FcosNet(nn.Module):
    """Images -> a box, its quality and class scores per cell.

    Args:
        config: of the heads.
        backbone: of the features.
        classes: names; their number is that of the class scores.
    """

    def __init__(self, config: FcosConfig, backbone: BackboneConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.backbone = build_backbone(backbone)
        channels = self.backbone.channels
        self.class_tower = _tower(channels, config.convs)
        self.box_tower = _tower(channels, config.convs)
        self.class_head = nn.Conv2d(channels, len(classes), 3, padding=1)
        self.box_head = nn.Conv2d(channels, 4, 3, padding=1)
        self.angle_head = nn.Conv2d(channels, angles.CHANNELS, 3, padding=1)
        self.quality_head = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(self.backbone.strides)))
        for head in (self.class_head, self.box_head, self.angle_head, self.quality_head):
            nn.init.normal_(head.weight, std=0.01)
            assert head.bias is not None
            nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR) if head is self.class_head else 0.0)

    def forward(self, images: Tensor) -> Answers:
        """(B, 3, H, W) float32 RGB in [0, 1], H and W multiples of 32 -> answers of all cells."""
        levels = self.backbone(images)
        cells = cells_of(levels, self.backbone.strides)
        logits, offsets, codes, quality = [], [], [], []
        for level, scale in zip(levels, self.scales):
            of_class, of_box = self.class_tower(level), self.box_tower(level)
            logits.append(_rows(self.class_head(of_class)))
            offsets.append(_rows(self.box_head(of_box) * scale))
            codes.append(_rows(self.angle_head(of_box)))
            quality.append(_rows(self.quality_head(of_box)))
        code = torch.cat(codes, 1).float()
        boxes = boxes_of(torch.cat(offsets, 1).float(), code, cells)
        return Answers(torch.cat(logits, 1).float(), boxes, code, torch.cat(quality, 1).float().squeeze(-1), cells)


def cells_of(levels: list[Tensor], strides: tuple[int, ...]) -> Cells:
    """The cells of a pyramid's levels; cell i of stride s is centred at ``(i + 0.5) s - 0.5``."""
    centers, sizes, grids = [], [], []
    for level, stride in zip(levels, strides):
        rows, columns = level.shape[-2:]
        y = (torch.arange(rows, device=level.device, dtype=torch.float32) + 0.5) * stride - 0.5
        x = (torch.arange(columns, device=level.device, dtype=torch.float32) + 0.5) * stride - 0.5
        grid = torch.stack([x[None, :].expand(rows, columns), y[:, None].expand(rows, columns)], -1).reshape(-1, 2)
        centers.append(grid)
        sizes.append(torch.full_like(grid[:, 0], stride))
        grids.append((columns, rows))
    return Cells(torch.cat(centers), torch.cat(sizes), grids)


def boxes_of(offsets: Tensor, codes: Tensor, cells: Cells) -> Tensor:
    """(B, N, 4) center in strides from the cell and logarithm of the sides, (B, N, 6) codes -> (B, N, 5) boxes."""
    stride = cells.strides[:, None]
    centers = cells.centers + offsets[..., :2] * stride
    sides = torch.exp(offsets[..., 2:].clamp(-_LARGEST, _LARGEST)) * (stride * TYPICAL)
    return torch.cat([centers, sides, angles.decode(codes)[..., None]], -1)


def _rows(level: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C)."""
    return level.flatten(2).transpose(1, 2)


def _tower(channels: int, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convs):
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        # Never batch norm: the levels share the tower, and their statistics differ.
        layers += [conv, dense_norm("group", channels), nn.ReLU()]
    return nn.Sequential(*layers)
