# SPDX-License-Identifier: Apache-2.0
"""Layers by what an argument says: convolutions by number of axes, norms and activations by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from torch import nn

from vision3d import sparse

Norm = str | Callable[[int], nn.Module]
Activation = str | Callable[[], nn.Module]
Ints = int | Sequence[int]
Layer = TypeVar("Layer", bound=nn.Module)

_SUBM = {1: sparse.SubMConv1d, 2: sparse.SubMConv2d, 3: sparse.SubMConv3d, 4: sparse.SubMConv4d}
_STRIDED = {1: sparse.SparseConv1d, 2: sparse.SparseConv2d, 3: sparse.SparseConv3d, 4: sparse.SparseConv4d}
_INVERSE = {
    1: sparse.SparseInverseConv1d,
    2: sparse.SparseInverseConv2d,
    3: sparse.SparseInverseConv3d,
    4: sparse.SparseInverseConv4d,
}
_MAX_POOL = {1: sparse.SparseMaxPool1d, 2: sparse.SparseMaxPool2d, 3: sparse.SparseMaxPool3d, 4: sparse.SparseMaxPool4d}
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": sparse.SparseBatchNorm,
    "instance": partial(sparse.SparseInstanceNorm, affine=True),
    "layer": sparse.SparseLayerNorm,
    "none": lambda channels: nn.Identity(),
}
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": sparse.SparseReLU,
    "leaky_relu": sparse.SparseLeakyReLU,
    "gelu": sparse.SparseGELU,
    "silu": sparse.SparseSiLU,
    "none": nn.Identity,
}


def subm_conv(
    ndim: int, in_channels: int, out_channels: int, kernel_size: Ints, bias: bool = False, dilation: Ints = 1
) -> nn.Module:
    """Submanifold convolution: output sites are the input's."""
    return _by_axes(_SUBM, ndim)(in_channels, out_channels, kernel_size, dilation=dilation, bias=bias)


def strided_conv(
    ndim: int,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    bias: bool = False,
    out_rule: str = "dense",
) -> nn.Module:
    """Strided convolution with the padding that centres its kernel: 0 for k2, 1 for k3, as MinkowskiEngine has it."""
    conv = _by_axes(_STRIDED, ndim)
    padding = (kernel_size - 1) // 2
    return conv(in_channels, out_channels, kernel_size, stride, padding, bias=bias, out_rule=out_rule)


def inverse_conv(ndim: int, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> nn.Module:
    """The way back from ``strided_conv`` with the same kernel and stride, without bias."""
    conv = _by_axes(_INVERSE, ndim)
    return conv(in_channels, out_channels, kernel_size, stride, (kernel_size - 1) // 2, bias=False)


def max_pool(ndim: int, kernel_size: int, stride: int, padding: int = 0) -> nn.Module:
    """Maximum over the active sites of a window."""
    return _by_axes(_MAX_POOL, ndim)(kernel_size, stride, padding)


def make_norm(norm: Norm, channels: int) -> nn.Module:
    """A norm by name ("batch", "instance", "layer", "none"), or what ``norm(channels)`` returns.

    Raises:
        ValueError: no such norm.
    """
    return _by_name(_NORMS, norm, "norm")(channels)


def make_activation(activation: Activation) -> nn.Module:
    """An activation by name ("relu", "leaky_relu", "gelu", "silu", "none"), or what ``activation()`` returns.

    Raises:
        ValueError: no such activation.
    """
    return _by_name(_ACTIVATIONS, activation, "activation")()


def _by_axes(classes: Mapping[int, type[Layer]], ndim: int) -> type[Layer]:
    if ndim not in classes:
        raise ValueError(f"ndim must be one of {', '.join(map(str, classes))}, not {ndim!r}")
    return classes[ndim]


def _by_name(makers: dict[str, Callable[..., nn.Module]], wanted: object, what: str) -> Callable[..., nn.Module]:
    if callable(wanted):
        return wanted
    if wanted not in makers:
        raise ValueError(f"unknown {what} {wanted!r}; there are: {', '.join(makers)}, or a function that makes one")
    return makers[wanted]
