# SPDX-License-Identifier: Apache-2.0
"""A sparse residual U-Net of any width and depth.

The way down is strided convolutions; the way up is their inverses, so every level has the sites it had on the way
down, and the output has the input's sites in the input's order. MinkUNet (Choy et al., CVPR 2019) and the backbone of
SCTN (Li et al., AAAI 2022) are settings of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from vision3d.nn.blocks import ConvBlock, block_class
from vision3d.nn.choices import Activation, Norm, inverse_conv, strided_conv, subm_conv
from vision3d.sparse import SparseTensor, cat


class SparseUNet(nn.Module):
    """U-Net with L downsamplings, from ``in_channels`` to ``out_channels`` on the same sites.

    Level i has stride ``stride ** i``. A level is a convolution (the stem at level 0, a strided one below, an inverse
    one on the way up) and some residual blocks.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; None: no head, the last level's features come out.
        channels: L + 1 widths on the way down.
        decoder_channels: L widths on the way up, deepest first.
        blocks: L + 1 numbers of residual blocks on the way down; level 0 usually has none.
        decoder_blocks: L numbers on the way up, deepest first.
        ndim: number of spatial axes.
        stem_kernel_size: of the first convolution; odd.
        down_kernel_size: of the strided and the inverse convolutions.
        stride: of the same.
        block: "basic" or "bottleneck"; the latter multiplies the width of a level by 4.
        norm: "batch", "instance", "layer", "none", or a function of the number of channels.
        activation: "relu", "leaky_relu", "gelu", "silu", "none", or a function without arguments.
        conv_activation: whether stem, strided and inverse convolutions end in an activation.
        widen: what changes the width on the way down: the first residual "block", or the strided "conv".
        skip: where skips leave the way down: after the residual "block", or before it, after the "conv".
        merge: where they join the way up: "before" the level's residual blocks, or "after" them.
        head_channels: widths of 1x1 convolutions with activation before the last 1x1 convolution.
        out_rule: sites that a stride leaves, as in ``vision3d.sparse.SparseConv3d``.

    Where a bounded ``spatial_shape`` is not a multiple of the total stride, sites beyond the last full window are not
    seen below, as in dense nets: they get what the skips carry.

    The backbone of SCTN, 7,717,760 parameters::

        SparseUNet(3, 64, channels=(64, 64, 128, 128), decoder_channels=(128, 128, 128), blocks=(1, 1, 1, 1),
                   decoder_blocks=(1, 1, 1), stem_kernel_size=7, down_kernel_size=3, norm="instance",
                   conv_activation=False, widen="conv", skip="conv", merge="after", head_channels=(64,),
                   out_rule="floor")

    Raises:
        ValueError: numbers of levels that differ, or an unknown choice.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None,
        channels: Sequence[int] = (32, 32, 64, 128, 256),
        decoder_channels: Sequence[int] = (256, 128, 96, 96),
        blocks: Sequence[int] = (0, 2, 2, 2, 2),
        decoder_blocks: Sequence[int] = (2, 2, 2, 2),
        ndim: int = 3,
        stem_kernel_size: int = 5,
        down_kernel_size: int = 2,
        stride: int = 2,
        block: str = "basic",
        norm: Norm = "batch",
        activation: Activation = "relu",
        conv_activation: bool = True,
        widen: str = "block",
        skip: str = "block",
        merge: str = "before",
        head_channels: Sequence[int] = (),
        out_rule: str = "dense",
    ) -> None:
        super().__init__()
        _check_levels(channels, decoder_channels, blocks, decoder_blocks)
        for name, value, known in (
            ("widen", widen, ("block", "conv")),
            ("skip", skip, ("block", "conv")),
            ("merge", merge, ("before", "after")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be {known[0]!r} or {known[1]!r}, not {value!r}")
        self.skip = skip
        self.merge = merge
        make_block = block_class(block)
        after_conv: Activation = activation if conv_activation else "none"

        def stage(width: int, planes: int, depth: int) -> tuple[nn.Sequential, int]:
            made = []
            for _ in range(depth):
                made.append(make_block(width, planes, ndim=ndim, norm=norm, activation=activation))
                width = planes * make_block.expansion
            return nn.Sequential(*made), width

        width = channels[0]
        self.stem = ConvBlock(subm_conv(ndim, in_channels, width, stem_kernel_size), width, norm, after_conv)
        self.down, self.encoder = nn.ModuleList(), nn.ModuleList()
        skips = []
        for level, (planes, depth) in enumerate(zip(channels, blocks)):
            if level > 0:
                out = planes if widen == "conv" else width
                conv = strided_conv(ndim, width, out, down_kernel_size, stride, out_rule=out_rule)
                self.down.append(ConvBlock(conv, out, norm, after_conv))
                width = out
            before = width
            made, width = stage(width, planes, depth)
            self.encoder.append(made)
            skips.append(before if skip == "conv" else width)
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        for planes, depth, side in zip(decoder_channels, decoder_blocks, reversed(skips[:-1])):
            conv = inverse_conv(ndim, width, planes, down_kernel_size, stride)
            self.up.append(ConvBlock(conv, planes, norm, after_conv))
            made, width = stage(planes + (side if merge == "before" else 0), planes, depth)
            self.decoder.append(made)
            width += side if merge == "after" else 0
        self.num_features = width
        self.head = _head(ndim, width, head_channels, out_channels, activation)

    def encode(self, x: SparseTensor) -> list[SparseTensor]:
        """The way down alone: the skips of levels 0 to L - 1, and level L's features."""
        x = self.stem(x)
        found = []
        for level, blocks in enumerate(self.encoder):
            if level > 0:
                x = self.down[level - 1](x)
            before = x
            x = blocks(x)
            found.append(before if self.skip == "conv" else x)
        return [*found[:-1], x]

    def decode(self, levels: Sequence[SparseTensor]) -> SparseTensor:
        """The way up alone, from what ``encode`` returned; ``num_features`` channels on level 0's sites."""
        *skips, x = levels
        for up, blocks, side in zip(self.up, self.decoder, reversed(skips)):
            x = up(x, side)
            x = blocks(cat([x, side])) if self.merge == "before" else cat([blocks(x), side])
        return x

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, in_channels) to (N, out_channels) on the same sites, rows in the same order."""
        return self.head(self.decode(self.encode(x)))


def _head(
    ndim: int, width: int, hidden: Sequence[int], out_channels: int | None, activation: Activation
) -> nn.Sequential:
    made: list[nn.Module] = []
    for planes in hidden:
        made.append(ConvBlock(subm_conv(ndim, width, planes, 1), planes, "none", activation))
        width = planes
    if out_channels is not None:
        made.append(subm_conv(ndim, width, out_channels, 1, bias=True))
    return nn.Sequential(*made)


def _check_levels(
    channels: Sequence[int], decoder_channels: Sequence[int], blocks: Sequence[int], decoder_blocks: Sequence[int]
) -> None:
    if len(channels) < 2:
        raise ValueError(f"channels needs at least two levels, not {tuple(channels)}")
    for name, values, wanted in (
        ("blocks", blocks, len(channels)),
        ("decoder_channels", decoder_channels, len(channels) - 1),
        ("decoder_blocks", decoder_blocks, len(channels) - 1),
    ):
        if len(values) != wanted:
            raise ValueError(
                f"{name} has {len(values)} levels; {len(channels)} channels need {wanted}: {tuple(values)}"
            )
