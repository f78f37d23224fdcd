# SPDX-License-Identifier: Apache-2.0
"""Submanifold and strided convolutions. Arguments, defaults and initial weights are those of ``torch.nn.Conv3d``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vision3d.sparse import functional
from vision3d.sparse.functional import arguments as check
from vision3d.sparse.functional.arguments import Sites
from vision3d.sparse.layers import layout
from vision3d.sparse.tensor import SparseTensor

Axes = int | Sequence[int]


class ConvNd(nn.Module):
    """What all convolutions share: geometry, the weight (K, Cin / groups, Cout), the bias (Cout,).

    The initial weights are drawn in torch's dense layout, so a seed gives the numbers it gives a dense layer.

    Raises:
        TypeError: a geometry argument is not an integer.
        ValueError: it is too small, or ``groups`` does not divide the channels.
    """

    #: Number of spatial axes; set by the 1d to 4d classes.
    ndim: ClassVar[int]
    #: Whether torch's own layer of this kind is a transposed one; decides the initial scale.
    transposed: ClassVar[bool] = False
    #: Version of the weight's layout, kept in the metadata of state dicts.
    _version = 1

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Axes,
        stride: Axes = 1,
        padding: Axes = 0,
        dilation: Axes = 1,
        groups: int = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = type(self).__name__
        if in_channels < 1 or out_channels < 1:
            raise ValueError(
                f"{kind}: in_channels and out_channels must be positive, not {in_channels}, {out_channels}"
            )
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{kind}: groups={groups} must divide in_channels={in_channels}, out_channels={out_channels}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = check.at_least(kernel_size, self.ndim, "kernel_size", 1, kind)
        self.stride = check.at_least(stride, self.ndim, "stride", 1, kind)
        self.padding = check.at_least(padding, self.ndim, "padding", 0, kind)
        self.dilation = check.at_least(dilation, self.ndim, "dilation", 1, kind)
        self.groups = groups
        shape = (prod(self.kernel_size), in_channels // groups, out_channels)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(fan in), weight and bias, as torch's convolutions."""
        first, second = self.in_channels, self.out_channels
        if not self.transposed:
            first, second = second, first
        dense_weight = self.weight.new_empty((first, second // self.groups, *self.kernel_size))
        nn.init.kaiming_uniform_(dense_weight, a=sqrt(5))
        with torch.no_grad():
            self.weight.copy_(layout.from_dense(dense_weight, self.groups, self.transposed))
        if self.bias is not None:
            bound = 1 / sqrt(prod(dense_weight.shape[1:]))
            nn.init.uniform_(self.bias, -bound, bound)

    def dense_weight(self) -> Tensor:
        """The weight in the layout of torch's dense layer of this kind; a copy."""
        return layout.to_dense(self.weight.detach(), self.kernel_size, self.groups, self.transposed)

    def _check(self, x: SparseTensor) -> None:
        check.check_tensor(x, self, self.ndim, self.in_channels)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """As torch's, with a word on where a weight of another layout may come from."""
        local_metadata, error_msgs = args[0], args[4]
        found = state_dict.get(f"{prefix}weight")
        if isinstance(found, Tensor) and found.shape != self.weight.shape:
            error_msgs.append(
                f"{prefix}weight is {tuple(found.shape)}, not the (K, Cin / groups, Cout) = {tuple(self.weight.shape)} "
                f"of {self}; vision3d.sparse.compat converts weights of spconv, MinkowskiEngine, torchsparse and "
                "dense convolutions"
            )
            state_dict = {key: value for key, value in state_dict.items() if key != f"{prefix}weight"}
            state_dict[f"{prefix}weight"] = self.weight
        version = local_metadata.get("version")
        if version is not None and version > self._version:
            error_msgs.append(
                f"{prefix}weight has layout version {version}, this release knows {self._version}; update vision3d"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Channels and whatever differs from the defaults."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)):
            if any(v != default for v in getattr(self, name)):
                parts.append(f"{name}={getattr(self, name)}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


class SubMConv(ConvNd):
    """Submanifold convolution: the output has the sites of the input and no others.

    Args:
        in_channels: Cin.
        out_channels: Cout.
        kernel_size: odd; one for all axes or one per axis (z, y, x).
        dilation: spacing of the kernel's taps.
        groups: channel groups; Cin: depthwise.
        bias: whether to add (Cout,).
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: an even kernel size, or ``groups`` does not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Axes,
        dilation: Axes = 1,
        groups: int = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kind = type(self).__name__
        kernel = check.odd(check.at_least(kernel_size, self.ndim, "kernel_size", 1, kind), kind)
        spacing = check.at_least(dilation, self.ndim, "dilation", 1, kind)
        same = tuple(k // 2 * d for k, d in zip(kernel, spacing))
        super().__init__(in_channels, out_channels, kernel, 1, same, spacing, groups, bias, device, dtype)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, Cin) to (N, Cout) on the same sites."""
        self._check(x)
        return functional.subm_conv(x, self.weight, self.kernel_size, self.bias, self.dilation, self.groups, name=self)


class SparseConv(ConvNd):
    """Convolution that makes its own output sites, as a dense one would, or fills prescribed ones.

    Args:
        in_channels: Cin.
        out_channels: Cout.
        kernel_size: one for all axes or one per axis (z, y, x), as the next three.
        stride: of the output grid.
        padding: zeros before and behind the grid.
        dilation: spacing of the kernel's taps.
        groups: channel groups; Cin: depthwise.
        bias: whether to add (Cout,).
        out_rule: "dense": every site whose window touches an active one; "floor": ``floor(coordinate / stride)`` only.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: an argument is too small or unknown, or ``groups`` does not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Axes,
        stride: Axes = 1,
        padding: Axes = 0,
        dilation: Axes = 1,
        groups: int = 1,
        bias: bool = True,
        out_rule: str = "dense",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device, dtype)
        self.out_rule = check.check_rule(out_rule, type(self).__name__)

    def forward(self, x: SparseTensor, sites: Sites | None = None) -> SparseTensor:
        """(N, Cin) to (M, Cout); ``sites``, a tensor or a set, prescribes the M output sites."""
        self._check(x)
        return functional.sparse_conv(
            x,
            self.weight,
            self.kernel_size,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.out_rule,
            sites,
            name=self,
        )

    def extra_repr(self) -> str:
        """As of every convolution, and the rule of output sites."""
        rule = "" if self.out_rule == "dense" else f", out_rule={self.out_rule!r}"
        return super().extra_repr() + rule


class SubMConv1d(SubMConv):
    """Submanifold convolution over one axis; see ``SubMConv``."""

    ndim = 1


class SubMConv2d(SubMConv):
    """Submanifold convolution over two axes; see ``SubMConv``."""

    ndim = 2


class SubMConv3d(SubMConv):
    """Submanifold convolution over three axes; see ``SubMConv``."""

    ndim = 3


class SubMConv4d(SubMConv):
    """Submanifold convolution over four axes; see ``SubMConv``."""

    ndim = 4


class SparseConv1d(SparseConv):
    """Convolution over one axis; see ``SparseConv``."""

    ndim = 1


class SparseConv2d(SparseConv):
    """Convolution over two axes; see ``SparseConv``."""

    ndim = 2


class SparseConv3d(SparseConv):
    """Convolution over three axes; see ``SparseConv``."""

    ndim = 3


class SparseConv4d(SparseConv):
    """Convolution over four axes; see ``SparseConv``."""

    ndim = 4
