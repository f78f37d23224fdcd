# SPDX-License-Identifier: Apache-2.0
"""The middle encoder of voxel-based LiDAR detectors: sparse convolutions in 3D, a dense bird's-eye view at the end.

Plan of SECOND (Yan et al., Sensors 2018) in the widths that OpenPCDet publishes as VoxelBackBone8x and
VoxelResBackBone8x. ``vision3d.nn.names`` says how published weights are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from vision3d.nn.blocks import BasicBlock, ConvBlock
from vision3d.nn.choices import Norm, subm_conv
from vision3d.sparse import SparseBatchNorm, SparseConv3d, SparseTensor

#: Batch norm as published.
SECOND_NORM = partial(SparseBatchNorm, eps=1e-3, momentum=0.01)
#: Channels of the four stages, by kind of block.
CHANNELS = {"conv": (16, 32, 64, 64), "residual": (16, 32, 64, 128)}
_BLOCKS = {"conv": (1, 2, 2, 2), "residual": (2, 2, 2, 2)}
#: Padding (z, y, x) of the strided convolutions; the last one gives up half a voxel above and below.
_PADDING: tuple[tuple[int, int, int], ...] = ((1, 1, 1), (1, 1, 1), (0, 1, 1))


class VoxelNetEncoder(nn.Module):
    """(B, z, y, x) voxels to a dense bird's-eye view at stride 8.

    A submanifold stage at stride 1, three stages at strides 2, 4, 8 that each start with a k3 s2 convolution, and a
    (3, 1, 1) convolution of stride (2, 1, 1) that shortens z.

    Args:
        in_channels: channels of the voxels.
        out_channels: channels of a bird's-eye-view layer.
        block: "conv" (convolution, norm, ReLU) or "residual" (basic blocks, their convolutions with bias).
        channels: of the four stages; None: as published, see ``CHANNELS``.
        norm: "batch", "instance", "layer", "none", or a function of the number of channels.

    Raises:
        ValueError: an unknown block, or not four channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 128,
        block: str = "conv",
        channels: Sequence[int] | None = None,
        norm: Norm = SECOND_NORM,
    ) -> None:
        super().__init__()
        if block not in CHANNELS:
            raise ValueError(f"unknown block {block!r}; there are: {', '.join(CHANNELS)}")
        widths = CHANNELS[block] if channels is None else tuple(channels)
        if len(widths) != 4:
            raise ValueError(f"channels must be four, one per stage, not {widths}")
        width = widths[0]
        self.conv_input = ConvBlock(subm_conv(3, in_channels, width, 3), width, norm)
        self.stages = nn.ModuleList()
        for index, (planes, blocks) in enumerate(zip(widths, _BLOCKS[block])):
            stage: list[nn.Module] = []
            if index > 0:
                down = SparseConv3d(width, planes, 3, stride=2, padding=_PADDING[index - 1], bias=False)
                stage.append(ConvBlock(down, planes, norm))
            for _ in range(blocks):
                if block == "residual":
                    stage.append(BasicBlock(planes, planes, norm=norm, bias=True))
                else:
                    stage.append(ConvBlock(subm_conv(3, planes, planes, 3), planes, norm))
            self.stages.append(nn.Sequential(*stage))
            width = planes
        last = SparseConv3d(width, out_channels, (3, 1, 1), stride=(2, 1, 1), bias=False)
        self.conv_out = ConvBlock(last, out_channels, norm)

    def forward_features(self, x: SparseTensor) -> list[SparseTensor]:
        """Features of the four stages, at strides 1, 2, 4, 8, and the last convolution's."""
        x = self.conv_input(x)
        found = []
        for stage in (*self.stages, self.conv_out):
            x = stage(x)
            found.append(x)
        return found

    def forward(self, x: SparseTensor) -> Tensor:
        """(B, out_channels * Z, Y / 8, X / 8): the layers of what is left of z, side by side in the channels.

        Args:
            x: voxels with a ``spatial_shape`` (Z, Y, X). Published nets add one to the grid's Z: 41 for 40 layers.

        Raises:
            ValueError: the shape is missing, or so small that a convolution has no output.
        """
        if x.spatial_shape is None:
            raise ValueError("a bird's-eye view needs a bounded grid: give the SparseTensor a spatial_shape")
        return self.forward_features(x)[-1].dense().flatten(1, 2)
