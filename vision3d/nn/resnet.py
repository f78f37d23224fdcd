# SPDX-License-Identifier: Apache-2.0
"""Residual encoders (He et al., CVPR 2016) on sparse images and voxels.

The 2D nets have the layers of torchvision's, without the classifier: ``vision3d.nn.names`` says how weights of the
dense nets are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from vision3d.nn.blocks import block_class
from vision3d.nn.choices import Activation, Norm, make_activation, make_norm, max_pool, strided_conv, subm_conv
from vision3d.sparse import SparseTensor

#: Kind and number of the residual blocks of the four stages, by depth.
PLANS = {
    14: ("basic", (1, 1, 1, 1)),
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


class SparseResNet(nn.Module):
    """ResNet without classifier; returns the features of each stage.

    Args:
        in_channels: channels of the input.
        depth: 14, 18, 34, 50, 101 or 152.
        ndim: number of spatial axes.
        width: channels of the stem; stage i has ``width * 2 ** i`` (times 4 in bottlenecks).
        stem_kernel_size: of the first convolution. 7^3 = 343 offsets in 3D: 3 or 5 is the usual choice there.
        stem_stride: of the first convolution; 1 makes it submanifold.
        stem_pool: whether a max pooling k3 s2 follows it.
        norm: "batch", "instance", "layer", "none", or a function of the number of channels.
        activation: "relu", "leaky_relu", "gelu", "silu", "none", or a function without arguments.
        out_rule: sites that a strided convolution leaves, as in ``vision3d.sparse.SparseConv3d``: "dense" grows the set
            as a dense net does, "floor" keeps it to the sites' parents.

    Raises:
        ValueError: no such depth, or an unknown choice.
    """

    def __init__(
        self,
        in_channels: int,
        depth: int = 18,
        ndim: int = 2,
        width: int = 64,
        stem_kernel_size: int = 7,
        stem_stride: int = 2,
        stem_pool: bool = True,
        norm: Norm = "batch",
        activation: Activation = "relu",
        out_rule: str = "dense",
    ) -> None:
        super().__init__()
        if depth not in PLANS:
            raise ValueError(f"unknown depth {depth!r}; there are: {', '.join(map(str, PLANS))}")
        kind, depths = PLANS[depth]
        make_block = block_class(kind)
        if stem_stride == 1:
            self.conv1 = subm_conv(ndim, in_channels, width, stem_kernel_size)
        else:
            self.conv1 = strided_conv(ndim, in_channels, width, stem_kernel_size, stem_stride, out_rule=out_rule)
        self.norm1 = make_norm(norm, width)
        self.activation = make_activation(activation)
        self.pool = max_pool(ndim, 3, 2, 1) if stem_pool else nn.Identity()
        self.num_features: list[int] = []
        channels = width
        for index, blocks in enumerate(depths):
            planes = width * 2**index
            stage = []
            for number in range(blocks):
                stride = 2 if index > 0 and number == 0 else 1
                stage.append(make_block(channels, planes, stride, ndim, norm, activation, out_rule=out_rule))
                channels = planes * make_block.expansion
            self.add_module(f"layer{index + 1}", nn.Sequential(*stage))
            self.num_features.append(channels)

    @property
    def stages(self) -> Sequence[nn.Module]:
        """The four stages, ``layer1`` to ``layer4``."""
        return [self.get_submodule(f"layer{index + 1}") for index in range(len(self.num_features))]

    def forward(self, x: SparseTensor) -> list[SparseTensor]:
        """Features of the four stages, by default at strides 4, 8, 16 and 32; channels are ``num_features``."""
        x = self.pool(self.activation(self.norm1(self.conv1(x))))
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found
