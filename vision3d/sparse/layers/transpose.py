# SPDX-License-Identifier: Apache-2.0
"""Transposed convolutions: one that generates sites, and one that restores those a strided layer read."""

from __future__ import annotations

import torch

from vision3d.sparse import functional
from vision3d.sparse.functional import arguments as check
from vision3d.sparse.functional.arguments import Sites
from vision3d.sparse.layers.conv import Axes, ConvNd, SparseConv
from vision3d.sparse.tensor import SparseTensor


class SparseConvTranspose(ConvNd):
    """Transposed convolution that generates sites: input i spreads to ``i * stride - padding + k * dilation``.

    Args:
        in_channels: Cin.
        out_channels: Cout.
        kernel_size: one for all axes or one per axis (z, y, x), as the other four.
        stride: of the input grid, in cells of the output grid.
        padding: cells cut from both ends of the output.
        output_padding: enlarges the declared spatial shape at its end.
        groups: channel groups.
        bias: whether to add (Cout,).
        dilation: spacing of the kernel's taps.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: an argument is too small, or ``groups`` does not divide the channels.
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Axes,
        stride: Axes = 1,
        padding: Axes = 0,
        output_padding: Axes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Axes = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device, dtype)
        self.output_padding = check.at_least(output_padding, self.ndim, "output_padding", 0, type(self).__name__)

    def forward(self, x: SparseTensor, sites: Sites | None = None) -> SparseTensor:
        """(N, Cin) to (M, Cout); ``sites``, a tensor or a set, prescribes the M output sites."""
        self._check(x)
        return functional.conv_transpose(
            x,
            self.weight,
            self.kernel_size,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
            sites,
            name=self,
        )

    def extra_repr(self) -> str:
        """As of every convolution, and the output padding."""
        extra = f", output_padding={self.output_padding}" if any(self.output_padding) else ""
        return super().extra_repr() + extra


class SparseInverseConv(ConvNd):
    """Transposed convolution that restores the sites a strided layer read, in their order.

    Args:
        in_channels: Cin.
        out_channels: Cout.
        kernel_size: that of the partner, as the next three; left out where ``like`` is given.
        stride: see above.
        padding: see above.
        dilation: see above.
        groups: channel groups.
        bias: whether to add (Cout,).
        like: the partner layer, whose geometry to take.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        TypeError: neither ``kernel_size`` nor ``like``; ``like`` is not a SparseConv.
        ValueError: an argument is too small, or ``groups`` does not divide the channels.
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Axes | None = None,
        stride: Axes = 1,
        padding: Axes = 0,
        dilation: Axes = 1,
        groups: int = 1,
        bias: bool = True,
        like: SparseConv | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kind = type(self).__name__
        if like is not None:
            if not isinstance(like, SparseConv):
                raise TypeError(f"{kind}: like must be the partner SparseConv, not {type(like).__name__}")
            kernel_size, stride, padding, dilation = like.kernel_size, like.stride, like.padding, like.dilation
        if kernel_size is None:
            raise TypeError(f"{kind}: needs kernel_size, or like= with the partner layer")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, device, dtype)

    def forward(self, x: SparseTensor, like: Sites | None = None) -> SparseTensor:
        """(N, Cin) to (M, Cout) on the sites of ``like``; None: those that the partner layer read."""
        self._check(x)
        return functional.inverse_conv(
            x,
            self.weight,
            self.kernel_size,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            like,
            name=self,
        )


class SparseConvTranspose1d(SparseConvTranspose):
    """Transposed convolution over one axis; see ``SparseConvTranspose``."""

    ndim = 1


class SparseConvTranspose2d(SparseConvTranspose):
    """Transposed convolution over two axes; see ``SparseConvTranspose``."""

    ndim = 2


class SparseConvTranspose3d(SparseConvTranspose):
    """Transposed convolution over three axes; see ``SparseConvTranspose``."""

    ndim = 3


class SparseConvTranspose4d(SparseConvTranspose):
    """Transposed convolution over four axes; see ``SparseConvTranspose``."""

    ndim = 4


class SparseInverseConv1d(SparseInverseConv):
    """Inverse convolution over one axis; see ``SparseInverseConv``."""

    ndim = 1


class SparseInverseConv2d(SparseInverseConv):
    """Inverse convolution over two axes; see ``SparseInverseConv``."""

    ndim = 2


class SparseInverseConv3d(SparseInverseConv):
    """Inverse convolution over three axes; see ``SparseInverseConv``."""

    ndim = 3


class SparseInverseConv4d(SparseInverseConv):
    """Inverse convolution over four axes; see ``SparseInverseConv``."""

    ndim = 4
