# SPDX-License-Identifier: Apache-2.0
"""Residual encoders (He et al., CVPR 2016) of images, dense, with torchvision's names of parameters.

``vision3d.sparse.convert_sparse`` makes the twin that runs on masked images with the same weights.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vision3d.nn.resnet import PLANS

DenseNorm = Literal["group", "batch"]
GROUPS = 32
# At least: narrow nets have fewer groups than 32. With four and more, nets of 16 channels learned angles much slower.
CHANNELS_PER_GROUP = 2


def dense_norm(norm: DenseNorm, channels: int) -> nn.Module:
    """Batch norm, or group norm of up to 32 groups of at least 2 channels each.

    Raises:
        ValueError: another name.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm != "group":
        raise ValueError(f"unknown norm {norm!r}; there are: group, batch")
    most = max(min(GROUPS, channels // CHANNELS_PER_GROUP), 1)
    groups = next(groups for groups in range(most, 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


class DenseBlock(nn.Module):
    """Basic block or bottleneck; a stride sits on the 3x3 convolution, as in torchvision.

    Args:
        in_channels: channels of the input.
        planes: channels inside; a basic block returns as many, a bottleneck four times as many.
        stride: 1 or 2.
        kind: "basic" or "bottleneck".
        norm: "group" or "batch".
    """

    def __init__(self, in_channels: int, planes: int, stride: int, kind: str, norm: DenseNorm) -> None:
        super().__init__()
        self.out_channels = planes * (4 if kind == "bottleneck" else 1)
        plan = [(1, 1), (3, stride), (1, 1)] if kind == "bottleneck" else [(3, stride), (3, 1)]
        self.depth = len(plan)
        channels = in_channels
        for number, (kernel, step) in enumerate(plan, 1):
            made = self.out_channels if number == self.depth else planes
            self.add_module(f"conv{number}", nn.Conv2d(channels, made, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{number}", dense_norm(norm, made))
            channels = made
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != self.out_channels:
            conv = nn.Conv2d(in_channels, self.out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, dense_norm(norm, self.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """``relu(branch(x) + shortcut(x))``, (B, C, H, W) -> (B, out_channels, H / stride, W / stride)."""
        y = x
        for number in range(1, self.depth + 1):
            y = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(y))
            if number < self.depth:
                y = self.relu(y)
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(y + shortcut)


class ImageEncoder(nn.Module):
    """ResNet without classifier; returns the features of its four stages.

    Args:
        depth: 14 (one block a stage), 18, 34, 50, 101 or 152.
        width: channels of the stem (64 in torchvision); stage i has ``width * 2 ** i`` (times 4 in bottlenecks).
        norm: "group" or "batch". With "batch" the names of all parameters and buffers are torchvision's.
        in_channels: of the image.

    Raises:
        ValueError: no such depth or norm.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, depth: int = 18, width: int = 64, norm: DenseNorm = "batch", in_channels: int = 3) -> None:
        super().__init__()
        if depth not in PLANS:
            raise ValueError(f"unknown depth {depth!r}; there are: {', '.join(map(str, PLANS))}")
        kind, counts = PLANS[depth]
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = dense_norm(norm, width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.num_features: list[int] = []
        channels = width
        for index, blocks in enumerate(counts):
            stage = []
            for number in range(blocks):
                stride = 2 if index > 0 and number == 0 else 1
                stage.append(DenseBlock(channels, width * 2**index, stride, kind, norm))
                channels = stage[-1].out_channels
            self.add_module(f"layer{index + 1}", nn.Sequential(*stage))
            self.num_features.append(channels)
        self.apply(_started)

    @property
    def stem(self) -> list[nn.Module]:
        """What comes before the first stage."""
        return [self.conv1, self.bn1]

    @property
    def stages(self) -> list[nn.Module]:
        """The four stages, ``layer1`` to ``layer4``."""
        return [self.get_submodule(f"layer{index + 1}") for index in range(len(self.num_features))]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) -> features of the four stages at strides 4, 8, 16, 32; channels: ``num_features``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def _started(module: nn.Module) -> None:
    """He initialization for ReLU, by what leaves a layer."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
