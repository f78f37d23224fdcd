# SPDX-License-Identifier: Apache-2.0
"""A map of class scores over the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from detection.networks.backbone import build_backbone
from detection.networks.config import BackboneConfig
from detection.pointobb.class_map.config import ClassMapConfig

RARE = 0.05  # score of every class before training: most pixels are background


class ClassMapNet(nn.Module):
    """Backbone, and one convolution over the finest level of its pyramid.

    Attributes:
        progress: (), float64, part of the training that is done; set by the training loop and kept with the weights.
    """

    progress: Tensor

    def __init__(self, config: ClassMapConfig, backbone: BackboneConfig, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.classes = config, classes
        self.backbone = build_backbone(backbone)
        self.head = map_head(self.backbone.channels, len(classes))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    @property
    def stride(self) -> int:
        """Pixels per cell of the map."""
        return self.backbone.strides[0]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1], sides multiples of 32 -> (B, classes, H / stride, W / stride) logits."""
        logits: Tensor = self.head(self.backbone(images)[0])
        return logits


def map_head(channels: int, classes: int) -> nn.Sequential:
    """(B, channels, H, W) -> (B, classes, H, W) logits that start at a score of ``RARE``."""
    last = nn.Conv2d(channels, classes, 1)
    assert last.bias is not None
    nn.init.normal_(last.weight, std=0.01)
    nn.init.constant_(last.bias, math.log(RARE / (1 - RARE)))
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), last)
