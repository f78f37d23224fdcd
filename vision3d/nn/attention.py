# SPDX-License-Identifier: Apache-2.0
"""Exact softmax attention of every query to every key, without the matrix of weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tile: int | None = None,
    scale: float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """softmax(scale q k^T + bias) v, one head, differentiable, in memory that grows with N + M, not their product.

    On a CPU torch's fused kernel does it unless ``tile`` is given. Measured at N = M = 8192, D = E = 64, seconds of one
    core: forward 0.22, backward 0.57, against 0.33 and 0.85 in tiles of 256; neither holds the 268 MB of weights. The
    kernel needs a head axis and D = E: without them torch silently falls back to the full matrix (+690 MB).

    Args:
        q: (B, N, D) queries.
        k: (B, M, D) keys.
        v: (B, M, E) values.
        tile: queries at a time; their weights are computed again in the backward pass. None: the fused kernel on a
            CPU where it applies, otherwise tiles of 256 on a CPU and of 1024 elsewhere.
        scale: None is D ** -0.5.
        bias: (B, M) added to a key's logits, such as the logarithm of how many points the key stands for.

    Raises:
        ValueError: shapes do not fit each other, no keys, or a tile below 1.
    """
    if q.ndim != 3 or k.ndim != 3 or v.ndim != 3:
        raise ValueError(f"q, k and v must have 3 axes, not {q.ndim}, {k.ndim} and {v.ndim}")
    if q.shape[0] != k.shape[0] or q.shape[2] != k.shape[2] or k.shape[:2] != v.shape[:2] or k.shape[1] == 0:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(f"q, k and v must be (B, N, D), (B, M, D) and (B, M, E) with M at least 1, not {shapes}")
    if bias is not None and bias.shape != k.shape[:2]:
        raise ValueError(f"bias must be {tuple(k.shape[:2])}, one per key, not {tuple(bias.shape)}")
    if tile is not None and tile < 1:
        raise ValueError(f"tile must be at least 1, not {tile}")
    scale = q.shape[2] ** -0.5 if scale is None else scale
    # Torch's kernel leaves a mask's gradient to the full matrix.
    fused = q.device.type == "cpu" and q.shape[2] == v.shape[2] and (bias is None or not bias.requires_grad)
    if tile is None and fused:
        mask = None if bias is None else bias[:, None, None].to(q.dtype)
        return functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], mask, scale=scale)[:, 0]

    tile = tile or (256 if q.device.type == "cpu" else 1024)
    out: Tensor = _Tiled.apply(q, k, v, k.new_zeros(k.shape[:2]) if bias is None else bias, scale, tile)
    return out


class _Tiled(torch.autograd.Function):
    """Attention a tile of queries at a time; the backward pass computes a tile's weights again."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, tile: int) -> Tensor:
        """(B, N, E)."""
        # Written into one result: small tensors left between large freed ones make the C library's heap grow.
        out = q.new_empty(*q.shape[:2], v.shape[2])
        for begin in range(0, q.shape[1], tile):
            part = slice(begin, begin + tile)
            out[:, part] = _weights(q[:, part], k, bias, scale) @ v
        ctx.save_for_backward(q, k, v, bias, out)
        ctx.scale, ctx.tile = scale, tile
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """With respect to q, k, v and bias."""
        q, k, v, bias, out = ctx.saved_tensors
        grad_q, grad_k, grad_v, grad_bias = (torch.zeros_like(x) for x in (q, k, v, bias))
        for begin in range(0, q.shape[1], ctx.tile):
            part = slice(begin, begin + ctx.tile)
            grad = grads[0][:, part]
            weights = _weights(q[:, part], k, bias, ctx.scale)
            grad_v += weights.mT @ grad
            along = (grad * out[:, part]).sum(2, keepdim=True)
            at_logits = (grad @ v.mT).sub_(along).mul_(weights)
            grad_bias += at_logits.sum(1)
            grad_q[:, part] = at_logits @ k * ctx.scale
            grad_k += at_logits.mT @ q[:, part] * ctx.scale
        return grad_q, grad_k, grad_v, grad_bias, None, None


def _weights(q: Tensor, k: Tensor, bias: Tensor, scale: float) -> Tensor:
    """(B, n, M)."""
    return torch.softmax((q * scale @ k.mT).add_(bias[:, None]), -1)
