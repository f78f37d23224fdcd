# SPDX-License-Identifier: Apache-2.0
"""A code of the angle in every cell of the pyramid (step 9)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detection.pointobb.angle_coder import STEPS


class AngleHead(nn.Module):
    """Two 3 x 3 convolutions with ReLU and one to the three channels of a code, shared by the levels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.last = nn.Conv2d(width, STEPS, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(()))
        for layer in (*self.body, self.last):
            if isinstance(layer, nn.Conv2d):
                # The published 0.01 leaves the codes near 0 for the whole of a short run.
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """(B, C, H_l, W_l) of each level -> (B, 3, H_l, W_l) float32 of each level."""
        return [self.scale.float() * self.last(self.body(level)).float() for level in features]
