# SPDX-License-Identifier: Apache-2.0
"""Convolution of the compiled engine as torch operators: forward, input gradient (the forward of the mirrored map with
transposed weights) and weight gradient.

Arithmetic is float32 or float64; float16 and bfloat16 are storage: they are widened at the door and sums are float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vision3d.sparse import _native
from vision3d.sparse.backends.operators import differentiable, fake, operator
from vision3d.sparse.kernel_map import KernelMap
from vision3d.sparse.widening import wide_dtype


def _per_group(channels: int, groups: int) -> int:
    if groups < 1:
        raise ValueError(f"groups must be at least 1, not {groups}")
    return channels // groups


@operator("gconv")
def gconv(
    feats: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pair_in: Tensor,
    pair_out: Tensor,
    list_ptr: Tensor,
    block_in: Tensor,
    block_out: Tensor,
    n_out: int,
    mirrored: bool,
    groups: int,
    transpose_weight: bool,
    relu: bool,
) -> Tensor:
    """``out[o] = act(bias + sum_k feats[i] @ weight[k])``; weight (K, Cin / groups, Cout), or that of the layer whose
    outputs are our inputs when ``transpose_weight``."""
    channels = weight.shape[1] * groups if transpose_weight else weight.shape[2]
    dtype = feats.dtype
    wide = wide_dtype(dtype)
    out = torch.empty((n_out, channels), dtype=wide)
    _native.conv(
        feats.to(wide).contiguous(),
        weight.to(wide).contiguous(),
        None if bias is None else bias.to(wide).contiguous(),
        pair_in,
        pair_out,
        list_ptr,
        block_in,
        block_out,
        mirrored,
        groups,
        transpose_weight,
        relu,
        out,
        torch.get_num_threads(),
    )
    return out.to(dtype)


@fake(gconv)
def _(  # type: ignore[no-untyped-def]
    feats,
    weight,
    bias,
    pair_in,
    pair_out,
    list_ptr,
    block_in,
    block_out,
    n_out,
    mirrored,
    groups,
    transpose_weight,
    relu,
):
    channels = weight.shape[1] * groups if transpose_weight else weight.shape[2]
    return feats.new_empty((n_out, channels))


@operator("gconv_grad")
def gconv_grad(
    feats: Tensor,
    grad_out: Tensor,
    pair_in: Tensor,
    pair_out: Tensor,
    list_ptr: Tensor,
    block_in: Tensor,
    block_out: Tensor,
    volume: int,
    mirrored: bool,
    groups: int,
) -> Tensor:
    """(K, Cin / groups, Cout): gradient of the weight."""
    dtype = feats.dtype
    wide = wide_dtype(dtype)
    grad = torch.empty((volume, _per_group(feats.shape[1], groups), grad_out.shape[1]), dtype=wide)
    _native.conv_grad(
        feats.to(wide).contiguous(),
        grad_out.to(wide).contiguous(),
        pair_in,
        pair_out,
        list_ptr,
        block_in,
        block_out,
        mirrored,
        groups,
        grad,
        torch.get_num_threads(),
    )
    return grad.to(dtype)


@fake(gconv_grad)
def _(feats, grad_out, pair_in, pair_out, list_ptr, block_in, block_out, volume, mirrored, groups):  # type: ignore[no-untyped-def]
    return feats.new_empty((volume, _per_group(feats.shape[1], groups), grad_out.shape[1]))


def _setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    feats, weight, bias, *tables, _, ctx.mirrored, ctx.groups, ctx.transposed, ctx.relu = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(feats, weight, output if ctx.relu else None, *tables)


def _backward(ctx, grad):  # type: ignore[no-untyped-def]
    """A convolution is linear in features and in weight: its derivatives are convolutions of the same map, and theirs
    as well."""
    feats, weight, output, *tables = ctx.saved_tensors
    if ctx.relu:
        grad = grad * (output > 0)
    swapped = _swapped(*tables)
    grad_feats = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        form = (ctx.mirrored, ctx.groups, not ctx.transposed, False)
        grad_feats = gconv(grad, weight, None, *swapped, feats.shape[0], *form)
    if ctx.needs_input_grad[1]:
        sides = (grad, feats, *swapped) if ctx.transposed else (feats, grad, *tables)
        grad_weight = gconv_grad(*sides, weight.shape[0], ctx.mirrored, ctx.groups)
    if ctx.has_bias and ctx.needs_input_grad[2]:
        grad_bias = grad.sum(0)
    return (grad_feats, grad_weight, grad_bias, *(None,) * 10)


def _grad_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    feats, grad_out, *tables, _, ctx.mirrored, ctx.groups = inputs
    ctx.save_for_backward(feats, grad_out, *tables)


def _grad_backward(ctx, grad):  # type: ignore[no-untyped-def]
    """``grad`` has the shape of a weight, and stands where the weight stood."""
    feats, grad_out, *tables = ctx.saved_tensors
    form = (ctx.mirrored, ctx.groups)
    grad_feats = grad_grad_out = None
    if ctx.needs_input_grad[0]:
        grad_feats = gconv(grad_out, grad, None, *_swapped(*tables), feats.shape[0], *form, True, False)
    if ctx.needs_input_grad[1]:
        grad_grad_out = gconv(feats, grad, None, *tables, grad_out.shape[0], *form, False, False)
    return (grad_feats, grad_grad_out, *(None,) * 8)


def _swapped(pair_in, pair_out, list_ptr, block_in, block_out):  # type: ignore[no-untyped-def]
    """The tables of the map read from its other side."""
    return pair_out, pair_in, list_ptr, block_out, block_in


differentiable(gconv, _backward, _setup)
differentiable(gconv_grad, _grad_backward, _grad_setup)


def conv(
    feats: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_map: KernelMap,
    groups: int = 1,
    relu: bool = False,
) -> Tensor:
    """See ``vision3d.sparse.backends.base.Backend.conv``.

    Raises:
        TypeError: dtypes differ or are not floating.
        ValueError: shapes do not fit each other or the map.
    """
    if feats.dtype != weight.dtype or not feats.is_floating_point():
        raise TypeError(f"feats ({feats.dtype}) and weight ({weight.dtype}) must share a floating dtype")
    if feats.shape[0] != kernel_map.n_in:
        raise ValueError(f"feats has {feats.shape[0]} rows, the kernel map {kernel_map.n_in} inputs")
    m = kernel_map
    return gconv(
        feats, weight, bias, m.pair_in, m.pair_out, m.list_ptr, m.block_in, m.block_out,
        m.n_out, m.mirrored, groups, False, relu,
    )  # fmt: skip
