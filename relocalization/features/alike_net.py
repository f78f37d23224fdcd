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
        """(1, 3, H, W) RGB in [0, 1], H and W multiples of 32 -> four maps (1, C/4, H/s, W/s), s = 1, 2, 8, 32."""
        x1 = self.block1(image)
        x2 = self.block2(F.max_pool2d(x1, 2))
        x3 = self.block3(F.max_pool2d(x2, 4))
        x4 = self.block4(F.max_pool2d(x3, 4))
        return [F.relu(conv(x)) for conv, x in zip((self.conv1, self.conv2, self.conv3, self.conv4), (x1, x2, x3, x4))]

    def score(self, levels: list[Tensor]) -> Tensor:
        """The four maps of :meth:`levels` -> (H, W) scores in (0, 1)."""
        if self.convhead1 is not None:
            return torch.sigmoid(self._hidden_score(levels))
        size = levels[0].shape[2:]
        weights = self.convhead2.weight[-1:].chunk(4, dim=1)
        # reduce, then enlarge: a 1x1 convolution and a bilinear enlargement commute
        one = [F.conv2d(level, weight) for level, weight in zip(levels, weights)]
        total = one[0]
        for level in one[1:]:
            total = total + F.interpolate(level, size=size, mode="bilinear", align_corners=True)
        return torch.sigmoid(total[0, 0])

    def _hidden_score(self, levels: list[Tensor]) -> Tensor:
        """ALIKE-l: the ReLU between its two layers forbids the short cut, so go strip by strip."""
        assert self.convhead1 is not None
        height, width = levels[0].shape[2:]
        columns = [F.interpolate(x, size=(x.shape[2], width), mode="bilinear", align_corners=True) for x in levels]
        score = levels[0].new_empty(height, width)
        for top in range(0, height, STRIP):
            rows = torch.arange(top, min(top + STRIP, height), dtype=torch.float64, device=score.device)
            stack = []
            for level in columns:
                y = rows * ((level.shape[2] - 1) / (height - 1))
                y0 = y.floor().clamp(max=max(level.shape[2] - 2, 0)).long()
                y1 = (y0 + 1).clamp(max=level.shape[2] - 1)
                stack.append(torch.lerp(level[:, :, y0], level[:, :, y1], (y - y0).float()[:, None]))
            hidden = F.relu(F.conv2d(torch.cat(stack, dim=1), self.convhead1.weight))
            score[top : top + len(rows)] = F.conv2d(hidden, self.convhead2.weight[-1:])[0, 0]
        return score

    def head(self, stacked: Tensor) -> Tensor:
        """(M, C) stacked levels at M pixels -> (M, C) descriptors of unit norm."""
        if self.convhead1 is not None:
            stacked = F.relu(stacked @ self.convhead1.weight[:, :, 0, 0].T)
        return F.normalize(stacked @ self.convhead2.weight[:-1, :, 0, 0].T, dim=1)
