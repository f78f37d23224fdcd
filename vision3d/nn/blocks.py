# SPDX-License-Identifier: Apache-2.0
"""Convolutional blocks: conv-norm-activation, and the two residual blocks of He et al. (CVPR 2016) on sparse sites."""

from __future__ import annotations

from torch import nn

from vision3d.nn.choices import Activation, Ints, Norm, make_activation, make_norm, strided_conv, subm_conv
from vision3d.sparse import SparseTensor


class ConvBlock(nn.Module):
    """A convolution, its norm and its activation.

    Args:
        conv: any sparse convolution.
        channels: what it returns.
        norm: "batch", "instance", "layer", "none", or a function of the number of channels.
        activation: "relu", "leaky_relu", "gelu", "silu", "none", or a function without arguments.
    """

    def __init__(self, conv: nn.Module, channels: int, norm: Norm = "batch", activation: Activation = "relu") -> None:
        super().__init__()
        self.conv = conv
        self.norm = make_norm(norm, channels)
        self.activation = make_activation(activation)

    def forward(self, x: SparseTensor, like: SparseTensor | None = None) -> SparseTensor:
        """Convolve; ``like``, where the convolution takes one, is the tensor whose sites the result lies on."""
        y = self.conv(x) if like is None else self.conv(x, like)
        return self.activation(self.norm(y))


class Shortcut(nn.Sequential):
    """The 1x1 convolution and norm that fit a block's input to its output."""

    def __init__(self, ndim: int, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        if stride == 1:
            conv = subm_conv(ndim, in_channels, out_channels, 1)
        else:
            conv = strided_conv(ndim, in_channels, out_channels, 1, stride)
        super().__init__(conv, make_norm(norm, out_channels))
        self.stride = stride

    def forward(self, x: SparseTensor, like: SparseTensor) -> SparseTensor:  # type: ignore[override]
        """``x`` on the sites of ``like``: a strided 1x1 kernel would miss those that only a 3x3 kernel reaches."""
        conv, norm = self
        return norm(conv(x) if self.stride == 1 else conv(x, like))


class ResidualBlock(nn.Module):
    """What the residual blocks share. ``expansion`` is the ratio of output channels to ``planes``."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        ndim: int = 3,
        norm: Norm = "batch",
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.activation = make_activation(activation)
        self.downsample: Shortcut | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = Shortcut(ndim, in_channels, out_channels, stride, norm)

    def residual(self, x: SparseTensor) -> SparseTensor:
        """The branch beside the shortcut, before the last activation."""
        raise NotImplementedError

    def forward(self, x: SparseTensor) -> SparseTensor:
        """``activation(residual(x) + shortcut(x))``."""
        y = self.residual(x)
        shortcut = x if self.downsample is None else self.downsample(x, y)
        return self.activation(y + shortcut)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions.

    Args:
        in_channels: channels of the input.
        planes: channels of both convolutions and of the output.
        stride: of the first convolution; with 1 both are submanifold.
        ndim: number of spatial axes.
        norm: as in ``ConvBlock``.
        activation: as in ``ConvBlock``.
        bias: whether the 3x3 convolutions have a bias.
        dilation: of the second convolution, and of the first when it has no stride.
        out_rule: sites that a stride leaves, as in ``vision3d.sparse.SparseConv3d``.
    """

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        ndim: int = 3,
        norm: Norm = "batch",
        activation: Activation = "relu",
        bias: bool = False,
        dilation: Ints = 1,
        out_rule: str = "dense",
    ) -> None:
        super().__init__(in_channels, planes, stride, ndim, norm, activation)
        if stride == 1:
            self.conv1 = subm_conv(ndim, in_channels, planes, 3, bias, dilation)
        else:
            self.conv1 = strided_conv(ndim, in_channels, planes, 3, stride, bias, out_rule)
        self.norm1 = make_norm(norm, planes)
        self.conv2 = subm_conv(ndim, planes, planes, 3, bias, dilation)
        self.norm2 = make_norm(norm, planes)

    def residual(self, x: SparseTensor) -> SparseTensor:
        """3x3, norm, activation, 3x3, norm."""
        y = self.activation(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(y))


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 convolutions; a stride sits on the 3x3 one, as in torchvision. Returns ``4 * planes`` channels.

    Args:
        in_channels: channels of the input.
        planes: channels of the 3x3 convolution.
        stride: as in ``BasicBlock``, as are the others.
        ndim: number of spatial axes.
        norm: see above.
        activation: see above.
        bias: see above.
        dilation: of the 3x3 convolution when it has no stride.
        out_rule: see above.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        ndim: int = 3,
        norm: Norm = "batch",
        activation: Activation = "relu",
        bias: bool = False,
        dilation: Ints = 1,
        out_rule: str = "dense",
    ) -> None:
        super().__init__(in_channels, planes, stride, ndim, norm, activation)
        self.conv1 = subm_conv(ndim, in_channels, planes, 1, bias)
        self.norm1 = make_norm(norm, planes)
        if stride == 1:
            self.conv2 = subm_conv(ndim, planes, planes, 3, bias, dilation)
        else:
            self.conv2 = strided_conv(ndim, planes, planes, 3, stride, bias, out_rule)
        self.norm2 = make_norm(norm, planes)
        self.conv3 = subm_conv(ndim, planes, planes * self.expansion, 1, bias)
        self.norm3 = make_norm(norm, planes * self.expansion)

    def residual(self, x: SparseTensor) -> SparseTensor:
        """1x1, 3x3, 1x1, each with its norm; activations between them."""
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.activation(self.norm2(self.conv2(y)))
        return self.norm3(self.conv3(y))


BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def block_class(block: str) -> type[BasicBlock] | type[Bottleneck]:
    """The residual block of a name, "basic" or "bottleneck". Raises ``ValueError`` for others."""
    if block not in BLOCKS:
        raise ValueError(f"unknown block {block!r}; there are: {', '.join(BLOCKS)}")
    return BLOCKS[block]
