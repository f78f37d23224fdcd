# SPDX-License-Identifier: Apache-2.0
"""The network of ALIKE (Zhao et al., IEEE Trans. Multimedia 2022, arXiv 2112.02906), without its last layer's cost.

An encoder of four blocks at strides 1, 2, 8 and 32; a 1x1 convolution brings each level to C/4 channels,
the levels are enlarged bilinearly to full size (corner pixels aligned) and stacked to C channels; one
more 1x1 layer (two in ALIKE-l) gives C descriptor channels and one score.

At full size the stack would be 128 x 480 x 640 floats. Here it is never built: the score is one channel,
so each level is reduced to one channel *before* it is enlarged, and descriptors are computed only where
they are read (:mod:`relocalization.features.alike`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Widths(NamedTuple):
    """Channels of the four blocks, of the descriptor, and whether there is a hidden layer before the head."""

    c1: int
    c2: int
    c3: int
    c4: int
    channels: int
    hidden: bool


WIDTHS = {
    "alike-t": Widths(8, 16, 32, 64, 64, False),
    "alike-s": Widths(8, 16, 48, 96, 96, False),
    "alike-n": Widths(16, 32, 64, 128, 128, False),
    "alike-l": Widths(32, 64, 128, 128, 128, True),
}
STRIDES = (1, 2, 8, 32)
# rows of the image that ALIKE-l's hidden layer handles at once: 32 x 640 x 128 floats are 10 MB
STRIP = 32


class Block(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU; a 1x1 shortcut around them if ``shortcut``."""

    def __init__(self, c_in: int, c_out: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1: nn.Module = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(c_out)
        self.conv2: nn.Module = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(c_out)
        self.downsample = nn.Conv2d(c_in, c_out, 1) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out if self.downsample is None else out + self.downsample(x))

    def fuse(self) -> None:
        """Fold the batch norms into the convolutions before them: the same function, faster."""
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
            setattr(self, conv, fuse_conv_bn_eval(getattr(self, conv), getattr(self, norm)))
            setattr(self, norm, nn.Identity())


class AlikeNet(nn.Module):
    """ALIKE's layers, under the names that its weight files use."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        c1, c2, c3, c4, channels, hidden = widths
        quarter = channels // 4
        self.channels = channels
        self.block1 = Block(3, c1, shortcut=False)
        self.block2 = Block(c1, c2, shortcut=True)
        self.block3 = Block(c2, c3, shortcut=True)
        self.block4 = Block(c3, c4, shortcut=True)
        self.conv1 = nn.Conv2d(c1, quarter, 1, bias=False)
        self.conv2 = nn.Conv2d(c2, quarter, 1, bias=False)
        self.conv3 = nn.Conv2d(c3, quarter, 1, bias=False)
        self.conv4 = nn.Conv2d(c4, quarter, 1, bias=False)
        self.convhead1 = nn.Conv2d(channels, channels, 1, bias=False) if hidden else None
        self.convhead2 = nn.Conv2d(channels, channels + 1, 1, bias=False)

    def fuse(self) -> AlikeNet:
        """Self, in evaluation mode, with batch norms folded away."""
        self.eval()
        for block in (self.block1, self.block2, self.block3, self.block4):
            block.fuse()
        return self

    def levels(self, image: Tensor) -> list[Tensor]:
        """The maps that the head reads, one per stride 1, 2, 8 and 32, channels last.

        Args:
            image: (1, 3, H, W) RGB in [0, 1], H and W multiples of 32.

        Returns:
            (H, W, c1), still to go through :meth:`first` (that is smaller), and three of (H/s, W/s, C/4).
        """
        x1 = self.block1(image)
        x2 = self.block2(F.max_pool2d(x1, 2))
        x3 = self.block3(F.max_pool2d(x2, 4))
        x4 = self.block4(F.max_pool2d(x3, 4))
        maps = [x1, F.relu(self.conv2(x2)), F.relu(self.conv3(x3)), F.relu(self.conv4(x4))]
        return [x[0].permute(1, 2, 0).contiguous() for x in maps]

    def first(self, rows: Tensor) -> Tensor:
        """(M, c1) pixels of the first level -> (M, C/4)."""
        return (rows @ self.conv1.weight[:, :, 0, 0].T).relu_()

    def head(self, stacked: Tensor) -> Tensor:
        """(M, C) stacked levels at M pixels -> (M, C) descriptors of unit norm."""
        if self.convhead1 is not None:
            stacked = (stacked @ self.convhead1.weight[:, :, 0, 0].T).relu_()
        return F.normalize(stacked @ self.convhead2.weight[:-1, :, 0, 0].T, dim=1)

    def score(self, levels: list[Tensor]) -> Tensor:
        """The four maps of :meth:`levels` -> (H, W) scores in (0, 1)."""
        return torch.sigmoid(self._short_score(levels) if self.convhead1 is None else self._hidden_score(levels))

    def _short_score(self, levels: list[Tensor]) -> Tensor:
        """One layer only: reduce each level to one channel, then enlarge it, since the two commute."""
        height, width, _ = levels[0].shape
        weights = self.convhead2.weight[-1, :, 0, 0].chunk(4)
        # in pieces that stay in the cache: six times faster than at once
        pieces = levels[0].reshape(height * width, -1).split(8192)
        score = torch.cat([self.first(rows) @ weights[0] for rows in pieces]).reshape(height, width)
        for level, weight in zip(levels[1:], weights[1:]):
            one = (level @ weight)[None, None]
            score += F.interpolate(one, size=(height, width), mode="bilinear", align_corners=True)[0, 0]
        return score

    def _hidden_score(self, levels: list[Tensor]) -> Tensor:
        """ALIKE-l: the ReLU between its two layers forbids that, so build the full stack strip by strip."""
        assert self.convhead1 is not None
        height, width, _ = levels[0].shape
        quarter = self.channels // 4
        wide = [self._enlarge_columns(level, width) for level in levels[1:]]
        score = levels[0].new_empty(height, width)
        for top in range(0, height, STRIP):
            y = torch.arange(top, min(top + STRIP, height), device=score.device)
            stack = score.new_empty(len(y), width, self.channels)
            stack[..., :quarter] = self.first(levels[0][top : top + STRIP].flatten(0, 1)).unflatten(0, (len(y), width))
            for k, level in enumerate(wide, start=1):
                v = y.double() * ((len(level) - 1) / (height - 1))
                above = v.floor().long().clamp(max=max(len(level) - 2, 0))
                below = (above + 1).clamp(max=len(level) - 1)
                blend = (v - above).float()[:, None, None]
                stack[..., k * quarter : (k + 1) * quarter] = torch.lerp(level[above], level[below], blend)
            hidden = (stack.flatten(0, 1) @ self.convhead1.weight[:, :, 0, 0].T).relu_()
            score[top : top + STRIP] = (hidden @ self.convhead2.weight[-1, :, 0, 0]).reshape(len(y), width)
        return score

    @staticmethod
    def _enlarge_columns(level: Tensor, width: int) -> Tensor:
        """(h, w, c) -> (h, width, c), bilinear along the rows only."""
        planes = level.permute(2, 0, 1)[None]
        planes = F.interpolate(planes, size=(level.shape[0], width), mode="bilinear", align_corners=True)
        return planes[0].permute(1, 2, 0).contiguous()
