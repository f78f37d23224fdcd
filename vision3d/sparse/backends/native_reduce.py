# SPDX-License-Identifier: Apache-2.0
"""Pooling and segment reductions of the compiled engine as torch operators, with their adjoints.

Arithmetic is float32 or float64; float16 and bfloat16 are storage: they are widened at the door. A maximum keeps the
row that won (int32, as large as the output) when a gradient will be asked for, and nothing otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vision3d.sparse import _native
from vision3d.sparse.backends.operators import differentiable, fake, operator
from vision3d.sparse.kernel_map import KernelMap
from vision3d.sparse.widening import widened


@operator("pool_sum")
def pool_sum(
    feats: Tensor,
    pair_in: Tensor,
    pair_out: Tensor,
    list_ptr: Tensor,
    block_in: Tensor,
    block_out: Tensor,
    n_out: int,
    volume: int,
    mirrored: bool,
) -> Tensor:
    """(n_out, C): the sum of every output's inputs, in offset order."""
    wide = widened(feats).contiguous()
    out = wide.new_empty((n_out, feats.shape[1]))
    tables = (pair_in, pair_out, list_ptr, block_in, block_out)
    _native.pool(wide, *tables, volume, mirrored, False, out, None, torch.get_num_threads())
    return out.to(feats.dtype)


@fake(pool_sum)
def _(feats, pair_in, pair_out, list_ptr, block_in, block_out, n_out, volume, mirrored):  # type: ignore[no-untyped-def]
    return feats.new_empty((n_out, feats.shape[1]))


def _pool_sum_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    feats, *tables, _, ctx.volume, ctx.mirrored = inputs
    ctx.n_in = feats.shape[0]
    ctx.save_for_backward(*tables)


def _pool_sum_backward(ctx, grad):  # type: ignore[no-untyped-def]
    pair_in, pair_out, list_ptr, block_in, block_out = ctx.saved_tensors
    grad = pool_sum(grad, pair_out, pair_in, list_ptr, block_out, block_in, ctx.n_in, ctx.volume, ctx.mirrored)
    return (grad, *(None,) * 8)


differentiable(pool_sum, _pool_sum_backward, _pool_sum_setup)


@operator("pool_max")
def pool_max(
    feats: Tensor,
    pair_in: Tensor,
    pair_out: Tensor,
    list_ptr: Tensor,
    block_in: Tensor,
    block_out: Tensor,
    n_out: int,
    volume: int,
    mirrored: bool,
    keep_source: bool,
) -> tuple[Tensor, Tensor]:
    """(n_out, C) largest inputs, and the rows they came from: int32 of the same shape, -1 where an output has no input;
    (0, C) unless ``keep_source``."""
    wide = widened(feats).contiguous()
    out = wide.new_empty((n_out, feats.shape[1]))
    source = out.new_empty((n_out if keep_source else 0, feats.shape[1]), dtype=torch.int32)
    tables = (pair_in, pair_out, list_ptr, block_in, block_out)
    kept = source if keep_source else None
    _native.pool(wide, *tables, volume, mirrored, True, out, kept, torch.get_num_threads())
    return out.to(feats.dtype), source


@fake(pool_max)
def _(feats, pair_in, pair_out, list_ptr, block_in, block_out, n_out, volume, mirrored, keep_source):  # type: ignore[no-untyped-def]
    rows = n_out if keep_source else 0
    return feats.new_empty((n_out, feats.shape[1])), feats.new_empty((rows, feats.shape[1]), dtype=torch.int32)


@operator("scatter_rows")
def scatter_rows(grad: Tensor, source: Tensor, n: int) -> Tensor:
    """(n, C): ``out[source[s, c], c] += grad[s, c]``; negative sources are skipped."""
    wide = widened(grad).contiguous()
    out = wide.new_empty((n, grad.shape[1]))
    _native.scatter_rows(wide, source, out, torch.get_num_threads())
    return out.to(grad.dtype)


@fake(scatter_rows)
def _(grad, source, n):  # type: ignore[no-untyped-def]
    return grad.new_empty((n, grad.shape[1]))


def _scatter_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.n = inputs[2]
    ctx.save_for_backward(inputs[1])


def _scatter_backward(ctx, grad):  # type: ignore[no-untyped-def]
    (source,) = ctx.saved_tensors
    if ctx.n == 0:
        return grad.new_zeros(source.shape), None, None
    return grad.gather(0, source.clamp(min=0).long()).masked_fill(source < 0, 0), None, None


differentiable(scatter_rows, _scatter_backward, _scatter_setup)


def _max_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    ctx.n = inputs[0].shape[0]
    ctx.unused = len(inputs) - 1
    ctx.kept = inputs[-1]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _max_backward(ctx, grad, _):  # type: ignore[no-untyped-def]
    (source,) = ctx.saved_tensors
    if not ctx.kept:
        raise RuntimeError("a maximum without keep_source has no gradient")
    return (scatter_rows(grad, source, ctx.n), *(None,) * ctx.unused)


differentiable(pool_max, _max_backward, _max_setup)


@operator("segment_reduce")
def reduce_rows(values: Tensor, order: Tensor, ptr: Tensor, mode: str) -> Tensor:
    """(S, C): "sum", "mean" or "first" of ``values[order[ptr[s]:ptr[s + 1]]]``."""
    wide = widened(values).contiguous()
    out = wide.new_empty((ptr.shape[0] - 1, values.shape[1]))
    _native.segment_reduce(wide, order, ptr, mode, out, torch.get_num_threads())
    return out.to(values.dtype)


@fake(reduce_rows)
def _(values, order, ptr, mode):  # type: ignore[no-untyped-def]
    return values.new_empty((ptr.shape[0] - 1, values.shape[1]))


@operator("segment_spread")
def spread_rows(grad: Tensor, order: Tensor, ptr: Tensor, n: int, mode: str) -> Tensor:
    """(n, C): the adjoint of ``segment_reduce``."""
    wide = widened(grad).contiguous()
    out = wide.new_empty((n, grad.shape[1]))
    _native.segment_spread(wide, order, ptr, mode, out, torch.get_num_threads())
    return out.to(grad.dtype)


@fake(spread_rows)
def _(grad, order, ptr, n, mode):  # type: ignore[no-untyped-def]
    return grad.new_empty((n, grad.shape[1]))


def _reduce_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    values, order, ptr, ctx.mode = inputs
    ctx.n = values.shape[0]
    ctx.save_for_backward(order, ptr)


def _reduce_backward(ctx, grad):  # type: ignore[no-untyped-def]
    order, ptr = ctx.saved_tensors
    return spread_rows(grad, order, ptr, ctx.n, ctx.mode), None, None, None


def _spread_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    _, order, ptr, _, ctx.mode = inputs
    ctx.save_for_backward(order, ptr)


def _spread_backward(ctx, grad):  # type: ignore[no-untyped-def]
    order, ptr = ctx.saved_tensors
    return reduce_rows(grad, order, ptr, ctx.mode), None, None, None, None


differentiable(reduce_rows, _reduce_backward, _reduce_setup)
differentiable(spread_rows, _spread_backward, _spread_setup)


@operator("segment_max")
def max_rows(values: Tensor, order: Tensor, ptr: Tensor, keep_source: bool) -> tuple[Tensor, Tensor]:
    """(S, C) largest values per segment, and the rows they came from, as in ``pool_max``."""
    wide = widened(values).contiguous()
    out = wide.new_empty((ptr.shape[0] - 1, values.shape[1]))
    source = out.new_empty((out.shape[0] if keep_source else 0, values.shape[1]), dtype=torch.int32)
    _native.segment_max(wide, order, ptr, out, source if keep_source else None, torch.get_num_threads())
    return out.to(values.dtype), source


@fake(max_rows)
def _(values, order, ptr, keep_source):  # type: ignore[no-untyped-def]
    segments = ptr.shape[0] - 1
    rows = segments if keep_source else 0
    return values.new_empty((segments, values.shape[1])), values.new_empty((rows, values.shape[1]), dtype=torch.int32)


differentiable(max_rows, _max_backward, _max_setup)


def pool(feats: Tensor, kernel_map: KernelMap, mode: str) -> Tensor:
    """See ``vision3d.sparse.backends.base.Backend.pool``.

    Raises:
        TypeError: feats is not floating.
        ValueError: unknown mode, or feats does not fit the map.
    """
    m = kernel_map
    if mode not in ("max", "sum"):
        raise ValueError(f"unknown pooling mode {mode!r}; there are: max, sum")
    if feats.ndim != 2 or feats.shape[0] != m.n_in:
        raise ValueError(f"feats is of shape {tuple(feats.shape)}, the kernel map has {m.n_in} inputs")
    _check_floating(feats, "feats")
    tables = (m.pair_in, m.pair_out, m.list_ptr, m.block_in, m.block_out)
    if mode == "sum":
        return pool_sum(feats, *tables, m.n_out, m.volume, m.mirrored)
    return pool_max(feats, *tables, m.n_out, m.volume, m.mirrored, _records(feats))[0]


def segment_reduce(values: Tensor, order: Tensor, ptr: Tensor, mode: str) -> Tensor:
    """See ``vision3d.sparse.backends.base.Backend.segment_reduce``.

    Raises:
        TypeError: values is not floating.
        ValueError: unknown mode, values not (P, C), ptr not ascending inside order.
        IndexError: an entry of order is no row of values.
    """
    if mode not in ("sum", "mean", "max", "first"):
        raise ValueError(f"unknown reduction {mode!r}; there are: sum, mean, max, first")
    if values.ndim != 2:
        raise ValueError(f"values must be (P, C), not of shape {tuple(values.shape)}")
    _check_floating(values, "values")
    if mode == "max":
        return max_rows(values, order, ptr, _records(values))[0]
    return reduce_rows(values, order, ptr, mode)


def _records(values: Tensor) -> bool:
    return values.requires_grad and torch.is_grad_enabled()


def _check_floating(values: Tensor, name: str) -> None:
    if not values.is_floating_point():
        raise TypeError(f"{name} must be floating, not {values.dtype}")
