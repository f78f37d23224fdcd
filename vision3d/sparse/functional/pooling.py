# SPDX-License-Identifier: Apache-2.0
"""Pooling over active sites, and nearest-neighbour upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from vision3d.sparse.backends import backend_for
from vision3d.sparse.functional import arguments as check
from vision3d.sparse.functional.arguments import Sites
from vision3d.sparse.functional.convolution import inverse_target, strided_target
from vision3d.sparse.functional.samples import reduce_samples
from vision3d.sparse.tensor import SparseTensor
from vision3d.sparse.widening import widened


def max_pool(
    x: SparseTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    out_rule: str = "dense",
    sites: Sites | None = None,
    name: object = "max_pool",
) -> SparseTensor:
    """Maximum over the active sites of each window; what is not active does not count as zero.

    Args:
        x: N sites.
        kernel_size: per axis or one for all, as the next three.
        stride: None: the kernel size.
        padding: of the grid's border.
        dilation: spacing of the window's taps.
        out_rule: "dense": every window that holds a site; "floor": ``floor(coordinate / stride)`` only.
        sites: output set; a window without any input gives 0.
        name: what errors call this call.

    Raises:
        TypeError: not a sparse tensor.
        ValueError: an argument does not fit, or no output is left of the grid.
    """
    return _pool(x, kernel_size, stride, padding, dilation, out_rule, sites, "max", name)[0]


def avg_pool(
    x: SparseTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    count_include_inactive: bool = False,
    out_rule: str = "dense",
    sites: Sites | None = None,
    name: object = "avg_pool",
) -> SparseTensor:
    """Mean over the active sites of each window; with ``count_include_inactive`` over the window's volume, as the dense
    pool of the zero-filled grid. Other arguments and errors as ``max_pool``."""
    check.check_tensor(x, name)
    wide = x.map(widened)
    total, counts = _pool(
        wide, kernel_size, stride, padding, 1, out_rule, sites, "sum", name, not count_include_inactive
    )
    divisor: Tensor | int
    if counts is None:
        divisor = prod(check.at_least(kernel_size, x.ndim, "kernel_size", 1, name))
    else:
        divisor = counts.clamp(min=1).to(wide.dtype)
    return total.with_sorted((total.sorted_feats / divisor).to(x.dtype))


def global_pool(x: SparseTensor, mode: str = "mean", name: object = "global_pool") -> Tensor:
    """(B, C): "mean", "max" or "sum" over the active sites of each sample; a sample without sites gives 0.

    Raises:
        TypeError: not a sparse tensor.
        ValueError: unknown mode.
    """
    check.check_tensor(x, name)
    if mode not in ("mean", "max", "sum"):
        raise ValueError(f'{name}: mode must be "mean", "max" or "sum", not {mode!r}')
    return reduce_samples(x.sorted_feats, x.sites, mode)


def upsample(
    x: SparseTensor, scale_factor: int | Sequence[int], like: Sites | None = None, name: object = "upsample"
) -> SparseTensor:
    """Every finer site takes the features of the site it lies in: ``x[floor(site / scale_factor)]``.

    Args:
        x: N sites.
        scale_factor: per axis or one for all.
        like: the tensor or set of finer sites, for instance the one that was pooled; a site without a parent gets 0.
            None: every cell of every site, as ``torch.nn.Upsample`` does.
        name: what errors call this call.

    Raises:
        TypeError: not a sparse tensor.
        ValueError: an argument does not fit.
    """
    check.check_tensor(x, name)
    scale = check.at_least(scale_factor, x.ndim, "scale_factor", 1, name)
    ones, zeros = (1,) * x.ndim, (0,) * x.ndim
    if like is None:
        target, kernel_map = x.sites.transposed(scale, scale, zeros, ones, zeros)
    else:
        target, kernel_map = inverse_target(x, scale, scale, zeros, ones, like, name)
    return x.derive(target, backend_for(x.sorted_feats).pool(x.sorted_feats, kernel_map, "sum"))


def _pool(
    x: SparseTensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    out_rule: str,
    sites: Sites | None,
    mode: str,
    name: object,
    count: bool = False,
) -> tuple[SparseTensor, Tensor | None]:
    """The pooled tensor and, where asked for, the number (M, 1) of active inputs of each window."""
    check.check_tensor(x, name)
    check.check_rule(out_rule, name)
    kernel = check.at_least(kernel_size, x.ndim, "kernel_size", 1, name)
    steps = kernel if stride is None else check.at_least(stride, x.ndim, "stride", 1, name)
    border = check.at_least(padding, x.ndim, "padding", 0, name)
    spacing = check.at_least(dilation, x.ndim, "dilation", 1, name)
    target, kernel_map = strided_target(x, kernel, steps, border, spacing, out_rule, sites, name)
    backend = backend_for(x.sorted_feats)
    pooled = x.derive(target, backend.pool(x.sorted_feats, kernel_map, mode))
    if not count:
        return pooled, None
    ones = torch.ones((len(x), 1), device=x.device)
    return pooled, backend.pool(ones, kernel_map, "sum")
