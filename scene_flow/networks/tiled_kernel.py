# SPDX-License-Identifier: Apache-2.0
"""The kernel exp(-(1 - cosine) / eps) of all pairs within a radius, never held: computed tile by tile in every sweep.

Its two sums have derivatives of their own here. Torch's would keep every tile, and torch's checkpoints, beside costing
more, leave small results between large freed tiles, which the C library's heap then cannot reuse: at 12,000 points it
grew by the very 576 MB that tiles are to avoid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene_flow.networks.sinkhorn import LOG_ZERO, RowSums, is_log_zero

_BOX_SLACK = 1 + 1e-4  # of the radius, for the rounding of a test that must never miss a pair


class TiledKernel:
    """See ``scene_flow.networks.sinkhorn.Kernel``; memory beyond the inputs is O(N + M + tile M).

    Args:
        source: (N, 3) metres.
        target: (M, 3) metres.
        f: (N, C) of length 1.
        g: (M, C) of length 1.
        eps: (1,) temperature.
        radius_m: support; may be infinite.
        log: keep logarithms of the entries.
        tile: source points at a time.
    """

    def __init__(
        self,
        source: Tensor,
        target: Tensor,
        f: Tensor,
        g: Tensor,
        eps: Tensor,
        radius_m: float,
        log: bool,
        tile: int,
    ) -> None:
        self.shape = (len(source), len(target))
        self.log = log
        self._source, self._target, self._learned = source, target, (f, g, eps)
        parts = compact_parts(source.detach(), tile)
        self._pairs = _Pairs(source.detach(), target.detach(), radius_m, log, parts)

    def columns(self, a: Tensor) -> Tensor:
        """(N,) to (M,)."""
        out: Tensor = _Columns.apply(self._pairs, *self._learned, a)
        return out

    def rows(self, b: Tensor) -> RowSums:
        """(M,) to sums of N rows."""
        total, offset, spread, best = _Rows.apply(self._pairs, *self._learned, b, self._target)
        # The difference is zero and carries the gradient of the centre.
        return RowSums(total, offset - (self._source - self._source.detach()), spread, best)


@dataclass(frozen=True)
class _Pairs:
    """What is fixed about the pairs; tensors here carry no gradient."""

    source: Tensor
    target: Tensor
    radius_m: float
    log: bool
    parts: list[Tensor]

    def tiles(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of a tile's source points, and of the targets within the radius of their bounding box."""
        for part in self.parts:
            points = self.source[part]
            outside = torch.maximum(points.amin(0) - self.target, self.target - points.amax(0)).clamp_(min=0)
            yield part, (outside.square_().sum(1) <= (self.radius_m * _BOX_SLACK) ** 2).nonzero()[:, 0]

    def logarithms(self, part: Tensor, near: Tensor, f: Tensor, g: Tensor, eps: Tensor) -> Tensor:
        """(n, m) of a tile's entries, far pairs included."""
        return (f[part] @ self.take(g, near).T).sub_(1).div_(eps)

    def away(self, part: Tensor, near: Tensor) -> Tensor:
        """(n, m) far pairs. From differences, so that a pair's answer does not depend on its tile."""
        x, y, z = self.source[part].T[:, :, None]
        u, v, w = self.target[near].T
        return (x - u).square_().add_((y - v).square_()).add_((z - w).square_()) >= self.radius_m**2

    def take(self, g: Tensor, near: Tensor) -> Tensor:
        """Rows of the target's features, not copied where it is all of them."""
        return g if len(near) == len(g) else g[near]

    def middle(self, part: Tensor) -> Tensor:
        """(3,) about which a tile's coordinates are taken: squares of large numbers would cancel in the spread."""
        return self.source[part].mean(0)


class _Columns(torch.autograd.Function):
    """K^T a, or its logarithm."""

    @staticmethod
    def forward(ctx: Any, pairs: _Pairs, f: Tensor, g: Tensor, eps: Tensor, a: Tensor) -> Tensor:
        """(M,)."""
        out = a.new_full((len(g),), LOG_ZERO if pairs.log else 0.0)
        for part, near in pairs.tiles():
            x = pairs.logarithms(part, near, f, g, eps)
            away = pairs.away(part, near)
            if pairs.log:
                found = x.masked_fill_(away, LOG_ZERO).add_(a[part, None]).logsumexp(0)
                out[near] = torch.logaddexp(out[near], found)
            else:
                out.index_add_(0, near, a[part] @ x.exp_().masked_fill_(away, 0.0))
        ctx.save_for_backward(f, g, eps, a, out)
        ctx.pairs = pairs
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """With respect to f, g, eps and a."""
        f, g, eps, a, out = ctx.saved_tensors
        pairs: _Pairs = ctx.pairs
        found = _Gradients(f, g, eps)
        grad_a = torch.zeros_like(a)
        for part, near in pairs.tiles():
            x = pairs.logarithms(part, near, f, g, eps)
            share = (x + a[part, None]).sub_(out[near]).exp_() if pairs.log else x.exp().mul_(a[part, None])
            at_x = share.mul_(grads[0][near]).masked_fill_(pairs.away(part, near), 0.0)
            grad_a[part] = at_x.sum(1)
            found.add(pairs, part, near, x, at_x)
        return None, found.f, found.g, found.eps, grad_a if pairs.log else grad_a / a


class _Rows(torch.autograd.Function):
    """Total, offset, spread and best of every row, see ``RowSums``."""

    @staticmethod
    def forward(
        ctx: Any, pairs: _Pairs, f: Tensor, g: Tensor, eps: Tensor, b: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N,), (N, 3), (N,), (N,)."""
        total, spread, best = b.new_empty(3, len(f)).unbind()
        offset = b.new_empty(len(f), 3)
        for part, near in pairs.tiles():
            x = pairs.logarithms(part, near, f, g, eps).masked_fill_(pairs.away(part, near), LOG_ZERO)
            best[part] = largest(x)
            middle = pairs.middle(part)
            fold = log_rows if pairs.log else plain_rows
            total[part], mean, spread[part] = fold(x, b[near], pairs.target[near] - middle)
            offset[part] = mean + (middle - pairs.source[part])
        ctx.save_for_backward(f, g, eps, b, total, offset)
        ctx.pairs = pairs
        ctx.mark_non_differentiable(spread, best)
        return total, offset, spread, best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """With respect to f, g, eps, b and the target's points."""
        f, g, eps, b, total, offset = ctx.saved_tensors
        pairs: _Pairs = ctx.pairs
        found = _Gradients(f, g, eps)
        grad_b, grad_target = torch.zeros_like(b), torch.zeros_like(pairs.target)
        for part, near in pairs.tiles():
            x = pairs.logarithms(part, near, f, g, eps)
            if pairs.log:
                weight, at_mean = (x + b[near]).sub_(total[part, None]).exp_(), grads[1][part]
            else:
                weight = x.exp().mul_(b[near])
                at_mean = grads[1][part] / total[part, None].clamp(min=torch.finfo(total.dtype).tiny)
            weight.masked_fill_(pairs.away(part, near), 0.0)
            middle = pairs.middle(part)
            mean, points = offset[part] + pairs.source[part] - middle, pairs.target[near] - middle
            # Of total: 1; of the mean: (point - mean) / total, the 1 / total being in at_mean or in the weight.
            constant = grads[0][part] - (mean * at_mean).sum(1)
            if ctx.needs_input_grad[5]:
                grad_target.index_add_(0, near, weight.T @ at_mean)
            at_x = torch.addmm(constant[:, None], at_mean, points.T).mul_(weight)
            grad_b.index_add_(0, near, at_x.sum(0))
            found.add(pairs, part, near, x, at_x)
        return None, found.f, found.g, found.eps, grad_b if pairs.log else grad_b / b, grad_target


class _Gradients:
    """Sums over tiles of what reaches the features and eps."""

    def __init__(self, f: Tensor, g: Tensor, eps: Tensor) -> None:
        self.f, self.g, self.eps = torch.zeros_like(f), torch.zeros_like(g), torch.zeros_like(eps)
        self._of = f, g, eps

    def add(self, pairs: _Pairs, part: Tensor, near: Tensor, x: Tensor, at_x: Tensor) -> None:
        """Count a tile in: its logarithms (n, m), and the gradient there, which is used up."""
        f, g, eps = self._of
        self.eps -= (x.mul_(at_x)).sum() / eps
        at_cosine = at_x.div_(eps)
        self.f[part] = at_cosine @ pairs.take(g, near)
        self.g.index_add_(0, near, at_cosine.T @ f[part])


def plain_rows(x: Tensor, b: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Total, mean and spread of weighted rows. Takes logarithms (n, m) with (m,) weights and (m, 3) points, or with
    (n, m) and (n, m, 3)."""
    return _moments(x.exp() * b, points)


def log_rows(x: Tensor, b: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same with the logarithms of weights and totals."""
    x = x + b
    top = largest(x)
    empty = is_log_zero(top)
    total, mean, spread = _moments((x - top[:, None]).exp().masked_fill(empty[:, None], 0.0), points)
    return (top + total.masked_fill(empty, 1.0).log()).masked_fill(empty, LOG_ZERO), mean, spread


def _moments(weights: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Total, weighted mean, and root mean square distance from it."""
    columns = torch.cat([points, points.square().sum(-1, keepdim=True), torch.ones_like(points[..., :1])], -1)
    sums = weights @ columns if points.ndim == 2 else (weights[:, None] @ columns)[:, 0]
    total = sums[:, 4]
    some = total.clamp(min=torch.finfo(total.dtype).tiny)
    mean = sums[:, :3] / some[:, None]
    with torch.no_grad():
        spread = (sums[:, 3] / some - mean.square().sum(1)).clamp(min=0).sqrt()
    return total, mean, spread


def largest(x: Tensor) -> Tensor:
    """(n,) largest of (n, m), without gradient; log 0 where m is 0."""
    return x.detach().amax(1) if x.shape[1] else x.new_full((len(x),), LOG_ZERO)


def compact_parts(points: Tensor, tile: int) -> list[Tensor]:
    """Rows of the points in parts of at most ``tile``, halved along the longest side of the bounding box."""
    todo, done = [torch.arange(len(points), device=points.device)], []
    while todo:
        rows = todo.pop()
        if len(rows) <= tile:
            done.append(rows)
            continue
        own = points[rows]
        axis = int((own.amax(0) - own.amin(0)).argmax())
        rows = rows[own[:, axis].argsort(stable=True)]
        # One half is a whole number of tiles, so that few tiles are part empty.
        half = tile * (-(-len(rows) // tile) // 2)
        todo += [rows[half:], rows[:half]]
    return done
