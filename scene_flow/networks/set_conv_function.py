# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a SetConv on one sample, in chunks that stay in the cache, and its exact derivative.

Plain torch holds about ten tensors of (N k, O) for the backward pass and streams each through memory. Here one is kept
(the second layer before its norm), everything else is made anew chunk by chunk. Measured at N = 8192, k = 32, 64 to 128
channels, seconds of one core: forward 0.50 and with the backward pass 1.5, against 1.7 and 3.7 with torch's layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

SLOPE = 0.1  # of LeakyReLU
EPS = 1e-5  # added to the variance, instance norm's usual


class Norm(NamedTuple):
    """Instance norm of (R, O) rows: ``x * scale + shift``, and what its derivative needs, each (O,)."""

    scale: Tensor
    shift: Tensor
    mean: Tensor
    rstd: Tensor

    def activated(self, x: Tensor) -> Tensor:
        """LeakyReLU of the normed rows."""
        return functional.leaky_relu_(torch.addcmul(self.shift, x, self.scale), SLOPE)

    def backward(self, x: Tensor, grad: Tensor, sums: tuple[Tensor, Tensor], count: int) -> Tensor:
        """(R, O) gradient at x; ``sums`` over all rows: of the gradient, and of the gradient times the normed x."""
        along = -self.scale * self.rstd * sums[1] / count
        constant = -self.scale * sums[0] / count - along * self.mean
        return torch.addcmul(constant, x, along).addcmul_(grad, self.scale)


class Moments:
    """Mean and variance of rows that come in chunks, combined by Chan's formula, so that nothing cancels."""

    def __init__(self, like: Tensor) -> None:
        self.count = 0
        self.mean = torch.zeros_like(like)
        self.squares = torch.zeros_like(like)

    def add(self, x: Tensor) -> None:
        """Count (R, O) rows in."""
        rows = len(x)
        mean = x.sum(0) / rows
        # Faster than torch.var_mean by half: 34 against 95 ms for 262,144 x 128.
        squares = (x - mean).square_().sum(0)
        total = self.count + rows
        step = mean - self.mean
        self.squares += squares + step.square() * (self.count * rows / total)
        self.mean += step * (rows / total)
        self.count = total

    def norm(self, weight: Tensor, bias: Tensor) -> Norm:
        """The instance norm that these rows ask for."""
        rstd = (self.squares / self.count + EPS).rsqrt()
        scale = weight * rstd
        return Norm(scale, bias - self.mean * scale, self.mean, rstd)


class SetConvFunction(torch.autograd.Function):
    """(N, O) from one sample's graph; see ``scene_flow.networks.set_conv``. Differentiable once."""

    @staticmethod
    def forward(
        ctx: Any,
        pointwise: Tensor,
        rows: Tensor,
        offsets: Tensor,
        w1: Tensor,
        s1: Tensor,
        b1: Tensor,
        w2: Tensor,
        s2: Tensor,
        b2: Tensor,
        w3: Tensor,
        s3: Tensor,
        b3: Tensor,
        chunk: int,
        keep: bool,
    ) -> Tensor:
        """Forward.

        Args:
            ctx: torch's.
            pointwise: (N, O) the first product's part from the neighbours' signals.
            rows: (N, k) int64.
            offsets: (N, k, 3) metres.
            w1: (O, 3) the first product's part for offsets.
            s1: (O,) scale of the first norm.
            b1: (O,) shift of the first norm; the other layers' are named alike.
            w2: (O, O).
            s2: see above.
            b2: see above.
            w3: (O, O).
            s3: see above.
            b3: see above.
            chunk: points at a time.
            keep: whether a backward pass may follow.
        """
        points, k = rows.shape
        first = _first(pointwise, rows, offsets, w1)
        norm1 = _moments(points, chunk, s1, first).norm(s1, b1)

        second = pointwise.new_empty(points * k if keep else 0, len(w2))

        def make_second(part: slice) -> Tensor:
            x2 = norm1.activated(first(part)) @ w2.T
            if keep:
                second[_pairs(part, k)] = x2
            return x2

        norm2 = _moments(points, chunk, s2, make_second).norm(s2, b2)
        # Norm and LeakyReLU grow with x where the scale is positive: the largest of the neighbours can be found before
        # them. Where it is negative, the sign goes into the product.
        sign = torch.where(s3 < 0, -1.0, 1.0).to(s3.dtype)
        w3_signed = w3 * sign[:, None]
        top = torch.empty_like(pointwise)
        which = torch.empty(pointwise.shape if keep else (0,), dtype=torch.int16, device=rows.device)

        def make_third(part: slice) -> Tensor:
            x2 = second[_pairs(part, k)] if keep else make_second(part)
            x3 = norm2.activated(x2) @ w3_signed.T
            if keep:
                top[part], index = x3.view(-1, k, x3.shape[1]).max(1)
                which[part] = index.to(torch.int16)
            else:
                top[part] = x3.view(-1, k, x3.shape[1]).amax(1)
            return x3

        norm3 = _moments(points, chunk, s3, make_third).norm(s3.abs(), b3)
        out = norm3.activated(top)
        if keep:
            kept = (pointwise, rows, offsets, w1, w2, w3_signed, sign, second, top, which, out)
            ctx.save_for_backward(*kept, *norm1, *norm2, *norm3)
            ctx.chunk = chunk
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """From the largest values back to the points, a sweep over the chunks per layer."""
        kept = ctx.saved_tensors
        pointwise, rows, offsets, w1, w2, w3, sign, second, top, which, out = kept[:11]
        norm1, norm2, norm3 = (Norm(*kept[i : i + 4]) for i in (11, 15, 19))
        points, k = rows.shape
        pairs = points * k
        first = _first(pointwise, rows, offsets, w1)

        grad_out = _through_leaky(grads[0], out)
        sums3 = grad_out.sum(0), (grad_out * (top - norm3.mean) * norm3.rstd).sum(0)
        grad2 = torch.empty_like(second)  # at the second norm's output, later at the first one's
        grad_w3, grad_w2, grad_w1 = torch.zeros_like(w3), torch.zeros_like(w2), torch.zeros_like(w1)
        sums2 = torch.zeros_like(sums3[0]), torch.zeros_like(sums3[0])
        sums1 = torch.zeros_like(sums3[0]), torch.zeros_like(sums3[0])
        for part in _parts(points, ctx.chunk):
            x2 = second[_pairs(part, k)]
            h2 = norm2.activated(x2)
            x3 = h2 @ w3.T
            of_largest = torch.zeros_like(x3).view(-1, k, x3.shape[1])
            of_largest.scatter_(1, which[part, None].long(), grad_out[part, None])
            grad3 = norm3.backward(x3, of_largest.view_as(x3), sums3, pairs)
            grad_w3.addmm_(grad3.T, h2)
            grad2[_pairs(part, k)] = _count(_through_leaky(grad3 @ w3, h2), x2, norm2, sums2)
        for part in _parts(points, ctx.chunk):
            x1 = first(part)
            h1 = norm1.activated(x1)
            at2 = norm2.backward(second[_pairs(part, k)], grad2[_pairs(part, k)], sums2, pairs)
            grad_w2.addmm_(at2.T, h1)
            grad2[_pairs(part, k)] = _count(_through_leaky(at2 @ w2, h1), x1, norm1, sums1)
        grad_pointwise = torch.zeros_like(pointwise)
        grad_offsets = torch.empty_like(offsets) if ctx.needs_input_grad[2] else None
        for part in _parts(points, ctx.chunk):
            at1 = norm1.backward(first(part), grad2[_pairs(part, k)], sums1, pairs)
            grad_pointwise.index_add_(0, rows[part].flatten(), at1)
            grad_w1.addmm_(at1.T, offsets[part].reshape(-1, 3))
            if grad_offsets is not None:
                grad_offsets[part] = (at1 @ w1).view(-1, k, 3)
        of_norms = (sums1[1], sums1[0]), (sums2[1], sums2[0]), (sums3[1] * sign, sums3[0])
        grad_w3 *= sign[:, None]
        head = (grad_pointwise, None, grad_offsets, grad_w1)
        return *head, *of_norms[0], grad_w2, *of_norms[1], grad_w3, *of_norms[2], None, None


def _first(pointwise: Tensor, rows: Tensor, offsets: Tensor, w1: Tensor) -> Callable[[slice], Tensor]:
    """The first product of a chunk: (pairs, O)."""

    def product(part: slice) -> Tensor:
        gathered = pointwise.index_select(0, rows[part].flatten())
        return gathered.addmm_(offsets[part].reshape(-1, 3), w1.T)

    return product


def _moments(points: int, chunk: int, like: Tensor, make: Callable[[slice], Tensor]) -> Moments:
    moments = Moments(like)
    for part in _parts(points, chunk):
        moments.add(make(part))
    return moments


def _parts(points: int, chunk: int) -> Iterator[slice]:
    return (slice(begin, min(begin + chunk, points)) for begin in range(0, points, chunk))


def _pairs(part: slice, k: int) -> slice:
    return slice(part.start * k, part.stop * k)


def _through_leaky(grad: Tensor, out: Tensor) -> Tensor:
    """The gradient before a LeakyReLU from the one after it and its output, which has the input's sign."""
    return torch.ops.aten.leaky_relu_backward(grad, out, SLOPE, True)


def _count(grad: Tensor, x: Tensor, norm: Norm, sums: tuple[Tensor, Tensor]) -> Tensor:
    """Add to the sums that the norm's derivative needs; returns the gradient."""
    sums[0].add_(grad.sum(0))
    sums[1].add_(((x - norm.mean).mul_(norm.rstd).mul_(grad)).sum(0))
    return grad
