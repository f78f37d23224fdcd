# SPDX-License-Identifier: Apache-2.0
"""Point Transformer V3 (Wu et al., CVPR 2024) over voxels: serialized attention in a U-Net of grid poolings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import nn

from vision3d.nn.blocks import ConvBlock
from vision3d.nn.choices import Activation, Norm, make_activation, make_norm, max_pool, subm_conv
from vision3d.nn.serialization import ORDERS, CurvePatches
from vision3d.nn.window_attention import PointTransformerBlock
from vision3d.sparse import SparseBatchNorm, SparseTensor, functional

#: Batch norm as published.
PTV3_NORM = partial(SparseBatchNorm, eps=1e-3, momentum=0.01)


class GridPooling(nn.Module):
    """Linear layer, maximum over the cells of a grid, norm, activation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: size of a cell.
        ndim: number of spatial axes.
        norm: "batch", "instance", "layer", "none", or a function of the number of channels.
        activation: "relu", "leaky_relu", "gelu", "silu", "none", or a function without arguments.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 2,
        ndim: int = 3,
        norm: Norm = PTV3_NORM,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, out_channels)
        self.pool = max_pool(ndim, stride, stride)
        self.norm = make_norm(norm, out_channels)
        self.activation = make_activation(activation)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, in_channels) to (M, out_channels), one row per cell that holds any."""
        return self.activation(self.norm(self.pool(x.map(self.proj))))


class GridUnpooling(nn.Module):
    """Coarse features copied to the sites of their cells, plus the skip; both after linear layer, norm and activation.

    Args:
        in_channels: channels of the coarse tensor.
        skip_channels: channels of the skip.
        out_channels: channels of the output.
        stride: size of a cell.
        norm: as in ``GridPooling``.
        activation: as in ``GridPooling``.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        stride: int = 2,
        norm: Norm = PTV3_NORM,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.stride = stride
        self.proj = nn.Linear(in_channels, out_channels)
        self.norm = make_norm(norm, out_channels)
        self.proj_skip = nn.Linear(skip_channels, out_channels)
        self.norm_skip = make_norm(norm, out_channels)
        self.activation = make_activation(activation)

    def forward(self, x: SparseTensor, skip: SparseTensor) -> SparseTensor:
        """(M, in_channels) and (N, skip_channels) to (N, out_channels), on the skip's sites."""
        coarse = self.activation(self.norm(x.map(self.proj)))
        side = self.activation(self.norm_skip(skip.map(self.proj_skip)))
        return side + functional.upsample(coarse, self.stride, side, self)


class PointTransformer(nn.Module):
    """Stem, encoder stages with grid pooling between them, decoder stages with unpooling.

    Defaults are those published for indoor scenes: 46.2 M parameters with 6 input channels. Four things are not as in
    the published code. A sample shorter than a patch is masked; there, the smallest sample shrinks all patches. Curves
    are shuffled in training only. Stochastic depth drops samples, not rows. The position code of a decoder's first
    block sees the sum of the skip and what came up, as in the authors' later nets, not the skip alone.

    Args:
        in_channels: channels of the input.
        order: curves; block i of a stage follows number i, around again.
        stride: of the poolings between the stages.
        enc_depths: blocks per stage.
        enc_channels: widths.
        enc_num_head: attention heads.
        enc_patch_size: rows in a patch.
        dec_depths: blocks per decoder stage, finest first; none: no decoder, the coarsest stage comes out.
        dec_channels: see above, as the next two; ignored without a decoder.
        dec_num_head: see above.
        dec_patch_size: see above.
        mlp_ratio: as in ``PointTransformerBlock``, as are the next three.
        qkv_bias: see above.
        attn_drop: see above.
        proj_drop: see above.
        drop_path: of the last block of the encoder (and of the first of the decoder); it grows linearly from 0.
        shuffle_orders: in training, every stage takes the curves in an order of its own, from torch's generator.
        ndim: number of spatial axes.
        norm: of stem and poolings.
        activation: of the same.

    Raises:
        ValueError: numbers of stages that differ.
    """

    def __init__(
        self,
        in_channels: int,
        order: Sequence[str] = ORDERS,
        stride: Sequence[int] = (2, 2, 2, 2),
        enc_depths: Sequence[int] = (2, 2, 2, 6, 2),
        enc_channels: Sequence[int] = (32, 64, 128, 256, 512),
        enc_num_head: Sequence[int] = (2, 4, 8, 16, 32),
        enc_patch_size: Sequence[int] = (1024, 1024, 1024, 1024, 1024),
        dec_depths: Sequence[int] = (2, 2, 2, 2),
        dec_channels: Sequence[int] = (64, 64, 128, 256),
        dec_num_head: Sequence[int] = (4, 4, 8, 16),
        dec_patch_size: Sequence[int] = (1024, 1024, 1024, 1024),
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.3,
        shuffle_orders: bool = True,
        ndim: int = 3,
        norm: Norm = PTV3_NORM,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        stages = len(enc_depths)
        _check_stages(stages, enc_channels=enc_channels, enc_num_head=enc_num_head, enc_patch_size=enc_patch_size)
        _check_stages(stages - 1, stride=stride)
        if dec_depths:
            _check_stages(
                stages - 1,
                dec_depths=dec_depths,
                dec_channels=dec_channels,
                dec_num_head=dec_num_head,
                dec_patch_size=dec_patch_size,
            )
        self.order = tuple(order)
        self.shuffle_orders = shuffle_orders

        def blocks(channels: int, heads: int, patch_size: int, rates: Sequence[float]) -> Stage:
            made = [
                PointTransformerBlock(
                    channels,
                    heads,
                    patch_size,
                    self.order[i % len(self.order)],
                    mlp_ratio,
                    qkv_bias,
                    attn_drop,
                    proj_drop,
                    rate,
                    ndim,
                )
                for i, rate in enumerate(rates)
            ]
            return Stage(made, patch_size)

        width = enc_channels[0]
        self.stem = ConvBlock(subm_conv(ndim, in_channels, width, 5), width, norm, activation)
        rates = _ramp(drop_path, enc_depths)
        self.down, self.encoder = nn.ModuleList(), nn.ModuleList()
        for index, channels in enumerate(enc_channels):
            if index > 0:
                self.down.append(GridPooling(width, channels, stride[index - 1], ndim, norm, activation))
            self.encoder.append(blocks(channels, enc_num_head[index], enc_patch_size[index], rates[index]))
            width = channels
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        rates = _ramp(drop_path, dec_depths)
        for index in reversed(range(len(dec_depths))):
            channels = dec_channels[index]
            self.up.append(GridUnpooling(width, enc_channels[index], channels, stride[index], norm, activation))
            self.decoder.append(blocks(channels, dec_num_head[index], dec_patch_size[index], rates[index][::-1]))
            width = channels
        self.num_features = width

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, in_channels) to (N, dec_channels[0]) on the same sites; without decoder, the coarsest stage's output."""
        x = self.stem(x)
        skips: list[SparseTensor] = []
        levels: list[CurvePatches] = []
        for index, blocks in enumerate(self.encoder):
            if index > 0:
                skips.append(x)
                x = self.down[index - 1](x)
            levels.append(CurvePatches(x.sites, self._orders()))
            x = blocks(x, levels[-1])
        for up, blocks, skip, level in zip(self.up, self.decoder, reversed(skips), reversed(levels[:-1])):
            x = blocks(up(x, skip), level)
        return x

    def _orders(self) -> list[str]:
        if self.training and self.shuffle_orders:
            return [self.order[i] for i in torch.randperm(len(self.order)).tolist()]
        return list(self.order)


class Stage(nn.ModuleList):
    """Blocks on the same sites, which take the level's curves in turn."""

    def __init__(self, blocks: Iterable[PointTransformerBlock], patch_size: int) -> None:
        super().__init__(blocks)
        self.patch_size = patch_size

    def forward(self, x: SparseTensor, patches: CurvePatches) -> SparseTensor:
        """(N, C) to (N, C)."""
        for number, block in enumerate(self):
            x = block(x, patches.layout(number, self.patch_size))
        return x


def _ramp(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Drop path rates per stage, from 0 to ``last`` over all blocks."""
    rates = [last * i / max(sum(depths) - 1, 1) for i in range(sum(depths))]
    return [rates[sum(depths[:i]) : sum(depths[: i + 1])] for i in range(len(depths))]


def _check_stages(stages: int, **values: Sequence[int]) -> None:
    for name, given in values.items():
        if len(given) != stages:
            raise ValueError(f"{name} has {len(given)} entries where {stages} are needed: {tuple(given)}")
