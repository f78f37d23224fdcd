# SPDX-License-Identifier: Apache-2.0
"""Pooling and upsampling layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from vision3d.sparse import functional
from vision3d.sparse.functional import arguments as check
from vision3d.sparse.functional.arguments import Sites
from vision3d.sparse.tensor import SparseTensor

Axes = int | Sequence[int]


class PoolNd(nn.Module):
    """Window geometry of a pool. Raises ``ValueError`` when an argument is too small or unknown."""

    #: Number of spatial axes; set by the 1d to 4d classes.
    ndim: ClassVar[int]

    def __init__(
        self,
        kernel_size: Axes,
        stride: Axes | None = None,
        padding: Axes = 0,
        out_rule: str = "dense",
    ) -> None:
        super().__init__()
        kind = type(self).__name__
        self.kernel_size = check.at_least(kernel_size, self.ndim, "kernel_size", 1, kind)
        self.stride = self.kernel_size if stride is None else check.at_least(stride, self.ndim, "stride", 1, kind)
        self.padding = check.at_least(padding, self.ndim, "padding", 0, kind)
        self.out_rule = check.check_rule(out_rule, kind)

    def extra_repr(self) -> str:
        """The geometry."""
        rule = "" if self.out_rule == "dense" else f", out_rule={self.out_rule!r}"
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}{rule}"


class SparseMaxPool(PoolNd):
    """Maximum over the active sites of each window.

    Args:
        kernel_size: one for all axes or one per axis (z, y, x), as the next three.
        stride: None: the kernel size.
        padding: of the grid's border.
        dilation: spacing of the window's taps.
        out_rule: "dense": every window that holds a site; "floor": ``floor(coordinate / stride)`` only.
    """

    def __init__(
        self,
        kernel_size: Axes,
        stride: Axes | None = None,
        padding: Axes = 0,
        dilation: Axes = 1,
        out_rule: str = "dense",
    ) -> None:
        super().__init__(kernel_size, stride, padding, out_rule)
        self.dilation = check.at_least(dilation, self.ndim, "dilation", 1, type(self).__name__)

    def forward(self, x: SparseTensor, sites: Sites | None = None) -> SparseTensor:
        """(N, C) to (M, C); ``sites`` prescribes the M output sites."""
        check.check_tensor(x, self, self.ndim)
        return functional.max_pool(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.out_rule, sites, self
        )

    def extra_repr(self) -> str:
        """The geometry."""
        return super().extra_repr() + (f", dilation={self.dilation}" if max(self.dilation) > 1 else "")


class SparseAvgPool(PoolNd):
    """Mean over the active sites of each window.

    Args:
        kernel_size: one for all axes or one per axis (z, y, x), as the next two.
        stride: None: the kernel size.
        padding: of the grid's border.
        count_include_inactive: divide by the window's volume, as the dense pool of the zero-filled grid does.
        out_rule: "dense": every window that holds a site; "floor": ``floor(coordinate / stride)`` only.
    """

    def __init__(
        self,
        kernel_size: Axes,
        stride: Axes | None = None,
        padding: Axes = 0,
        count_include_inactive: bool = False,
        out_rule: str = "dense",
    ) -> None:
        super().__init__(kernel_size, stride, padding, out_rule)
        self.count_include_inactive = count_include_inactive

    def forward(self, x: SparseTensor, sites: Sites | None = None) -> SparseTensor:
        """(N, C) to (M, C); ``sites`` prescribes the M output sites."""
        check.check_tensor(x, self, self.ndim)
        return functional.avg_pool(
            x, self.kernel_size, self.stride, self.padding, self.count_include_inactive, self.out_rule, sites, self
        )

    def extra_repr(self) -> str:
        """The geometry, and what is counted."""
        return super().extra_repr() + (", count_include_inactive=True" if self.count_include_inactive else "")


class SparseGlobalPool(nn.Module):
    """One row per sample: a dense tensor (B, C), or (B, C, 1, ...) with ``keepdim``; a sample without sites gives 0.

    Args:
        mode: "mean", "max" or "sum".
        keepdim: keep one cell per spatial axis, as torch's adaptive pools do.

    Raises:
        ValueError: unknown mode.
    """

    def __init__(self, mode: str = "mean", keepdim: bool = False) -> None:
        super().__init__()
        if mode not in ("mean", "max", "sum"):
            raise ValueError(f'SparseGlobalPool: mode must be "mean", "max" or "sum", not {mode!r}')
        self.mode = mode
        self.keepdim = keepdim

    def forward(self, x: SparseTensor) -> Tensor:
        """(N, C) sites to (B, C)."""
        pooled = functional.global_pool(x, self.mode, self)
        return pooled.view(*pooled.shape, *(1,) * x.ndim) if self.keepdim else pooled

    def extra_repr(self) -> str:
        """The mode."""
        return f"mode={self.mode!r}" + (", keepdim=True" if self.keepdim else "")


class SparseUpsample(nn.Module):
    """Every finer site takes the features of the site it lies in.

    Args:
        scale_factor: one for all axes or one per axis.
    """

    def __init__(self, scale_factor: Axes) -> None:
        super().__init__()
        self.scale_factor = scale_factor

    def forward(self, x: SparseTensor, like: Sites | None = None) -> SparseTensor:
        """(N, C) to (M, C) on the sites of ``like``; None: every cell of every site."""
        return functional.upsample(x, self.scale_factor, like, self)

    def extra_repr(self) -> str:
        """The factor."""
        return f"scale_factor={self.scale_factor}"


class SparseMaxPool1d(SparseMaxPool):
    """Maximum over windows of one axis; see ``SparseMaxPool``."""

    ndim = 1


class SparseMaxPool2d(SparseMaxPool):
    """Maximum over windows of two axes; see ``SparseMaxPool``."""

    ndim = 2


class SparseMaxPool3d(SparseMaxPool):
    """Maximum over windows of three axes; see ``SparseMaxPool``."""

    ndim = 3


class SparseMaxPool4d(SparseMaxPool):
    """Maximum over windows of four axes; see ``SparseMaxPool``."""

    ndim = 4


class SparseAvgPool1d(SparseAvgPool):
    """Mean over windows of one axis; see ``SparseAvgPool``."""

    ndim = 1


class SparseAvgPool2d(SparseAvgPool):
    """Mean over windows of two axes; see ``SparseAvgPool``."""

    ndim = 2


class SparseAvgPool3d(SparseAvgPool):
    """Mean over windows of three axes; see ``SparseAvgPool``."""

    ndim = 3


class SparseAvgPool4d(SparseAvgPool):
    """Mean over windows of four axes; see ``SparseAvgPool``."""

    ndim = 4
