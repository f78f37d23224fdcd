# SPDX-License-Identifier: Apache-2.0
"""Normalisation of the compiled engine as torch operators: two passes over memory forward, two backward."""

from __future__ import annotations

import torch
from torch import Tensor

from vision3d.sparse import _native
from vision3d.sparse.backends.operators import differentiable, fake, operator
from vision3d.sparse.backends.reference import ReferenceBackend
from vision3d.sparse.widening import wide_dtype, widened


@operator("sample_norm")
def norm(
    feats: Tensor, ptr: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised features, and mean and 1 / sqrt(variance + eps) per sample and group."""
    wide = widened(feats).contiguous()
    out = torch.empty_like(wide)
    mean = wide.new_empty((ptr.shape[0] - 1, groups))
    scale = torch.empty_like(mean)
    factor, shift = (None if p is None else p.to(wide.dtype).contiguous() for p in (weight, bias))
    _native.sample_norm(wide, ptr, groups, factor, shift, eps, out, mean, scale, torch.get_num_threads())
    return out.to(feats.dtype), mean, scale


@fake(norm)
def _(feats, ptr, groups, weight, bias, eps):  # type: ignore[no-untyped-def]
    wide = wide_dtype(feats.dtype)
    shape = (ptr.shape[0] - 1, groups)
    return feats.new_empty(feats.shape), feats.new_empty(shape, dtype=wide), feats.new_empty(shape, dtype=wide)


@operator("sample_norm_grad")
def norm_grad(
    grad: Tensor,
    feats: Tensor,
    ptr: Tensor,
    groups: int,
    weight: Tensor | None,
    mean: Tensor,
    scale: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of feats, weight and bias; mean and scale are those of the forward pass."""
    wide = widened(feats).contiguous()
    grad_feats, grad_weight = torch.empty_like(wide), wide.new_empty(feats.shape[1])
    grad_bias = torch.empty_like(grad_weight)
    factor = None if weight is None else weight.to(wide.dtype).contiguous()
    grads = (grad_feats, grad_weight, grad_bias)
    threads = torch.get_num_threads()
    _native.sample_norm_grad(widened(grad).contiguous(), wide, ptr, groups, factor, mean, scale, *grads, threads)
    return grad_feats.to(feats.dtype), grad_weight, grad_bias


@fake(norm_grad)
def _(grad, feats, ptr, groups, weight, mean, scale, eps):  # type: ignore[no-untyped-def]
    return feats.new_empty(feats.shape), mean.new_empty(feats.shape[1]), mean.new_empty(feats.shape[1])


def _setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    feats, ptr, ctx.groups, weight, bias, ctx.eps = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(feats, ptr, weight, output[1], output[2])


def _backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
    feats, ptr, weight, mean, scale = ctx.saved_tensors
    grad_feats, grad_weight, grad_bias = norm_grad(grad, feats, ptr, ctx.groups, weight, mean, scale, ctx.eps)
    return (
        grad_feats,
        None,
        None,
        None if weight is None else grad_weight.to(weight.dtype),
        None if ctx.bias_dtype is None else grad_bias.to(ctx.bias_dtype),
        None,
    )


def _grad_setup(ctx, inputs, output):  # type: ignore[no-untyped-def]
    grad, feats, ptr, ctx.groups, weight, _, _, ctx.eps = inputs
    ctx.save_for_backward(grad, feats, ptr, weight)


def _grad_backward(ctx, *outer):  # type: ignore[no-untyped-def]
    """Second derivatives are rare: the reference computes the first ones anew, in a form that autograd can follow."""
    grad, feats, ptr, weight = ctx.saved_tensors
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in (grad, feats, feats.new_ones(feats.shape[1]))]
        if weight is not None:
            leaves[2] = weight.detach().requires_grad_()
        bias = torch.zeros_like(leaves[2], requires_grad=True)
        out = ReferenceBackend().sample_norm(leaves[1], ptr, ctx.groups, leaves[2], bias, ctx.eps)
        first = torch.autograd.grad(out, (leaves[1], leaves[2], bias), leaves[0], create_graph=True)
        second = torch.autograd.grad(first, leaves, outer, allow_unused=True)
    return second[0], second[1], None, None, second[2] if weight is not None else None, None, None, None


differentiable(norm, _backward, _setup)
differentiable(norm_grad, _grad_backward, _grad_setup)


def sample_norm(
    feats: Tensor, ptr: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """See ``vision3d.sparse.backends.base.Backend.sample_norm``.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    return norm(feats, ptr, groups, weight, bias, eps)[0]
