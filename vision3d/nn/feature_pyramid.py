# SPDX-License-Identifier: Apache-2.0
"""The feature pyramid of Lin et al. (CVPR 2017) over the stages of an encoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from vision3d.nn.image_encoder import DenseNorm, dense_norm


class FeaturePyramid(nn.Module):
    """Every level sees what the coarser ones saw: lateral 1x1, top-down sum, 3x3.

    Args:
        in_channels: of the stages, finest first; each has twice the stride of the one before.
        channels: of every level.
        norm: "group" or "batch", after each convolution.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, norm: DenseNorm = "group") -> None:
        super().__init__()
        self.channels = channels
        self.lateral = nn.ModuleList(_layer(found, channels, 1, norm) for found in in_channels)
        self.output = nn.ModuleList(_layer(channels, channels, 3, norm) for _ in in_channels)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """(B, C_i, H / 2^i, W / 2^i), the finest divisible by ``2 ** (len - 1)`` -> the same with ``channels`` each."""
        levels = [lateral(stage) for lateral, stage in zip(self.lateral, stages, strict=True)]
        for index in range(len(levels) - 2, -1, -1):
            levels[index] = levels[index] + F.interpolate(levels[index + 1], scale_factor=2.0, mode="nearest")
        return [output(level) for output, level in zip(self.output, levels, strict=True)]


def _layer(in_channels: int, channels: int, kernel: int, norm: DenseNorm) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, dense_norm(norm, channels))
