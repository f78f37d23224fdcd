# SPDX-License-Identifier: Apache-2.0
"""The kernel exp(-(1 - cosine) / eps) between source points and given candidates only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene_flow.networks.sinkhorn import LOG_ZERO, RowSums
from scene_flow.networks.tiled_kernel import compact_parts, largest, log_rows, plain_rows

_SLICE = 4096  # source points whose candidates' positions are looked at together
_DENSE = 16  # times the candidates of a point: so many different ones in a tile are better multiplied than gathered


class SparseKernel:
    """See ``scene_flow.networks.sinkhorn.Kernel``; K entries per source point, kept between sweeps: O(N K) memory.

    Where the candidates are all targets within the radius, it is the tiled kernel.

    Args:
        source: (N, 3) metres.
        target: (M, 3) metres.
        f: (N, C) of length 1.
        g: (M, C) of length 1.
        eps: (1,) temperature.
        radius_m: support; may be infinite.
        log: keep logarithms of the entries.
        tile: source points, neighbours of each other, whose candidates' features are looked at together.
        candidates: (N, K) int64 rows of the target, none twice in a row; -1 is nobody.
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
        candidates: Tensor,
    ) -> None:
        self.shape = (len(source), len(target))
        self.log = log
        self._rows = candidates.clamp(min=0)
        self._source, self._target = source, target
        away = [offsets.detach().square().sum(2) >= radius_m**2 for _, offsets in self._slices()]
        cosine: Tensor = _Cosines.apply(f, g, self._rows, compact_parts(source.detach(), tile))
        self._logarithms = ((cosine - 1) / eps).masked_fill(torch.cat(away) | (candidates < 0), LOG_ZERO)

    def _slices(self) -> Iterator[tuple[slice, Tensor]]:
        """A slice of the source and where its candidates are, (n, K, 3) metres from the point."""
        for begin in range(0, len(self._source), _SLICE):
            part = slice(begin, begin + _SLICE)
            yield part, self._target[self._rows[part]] - self._source[part, None]

    def columns(self, a: Tensor) -> Tensor:
        """(N,) to (M,)."""
        rows = self._rows.flatten()
        if not self.log:
            return a.new_zeros(self.shape[1]).index_add(0, rows, (self._logarithms.exp() * a[:, None]).flatten())
        x = (self._logarithms + a[:, None]).flatten()
        top = x.new_full((self.shape[1],), LOG_ZERO).scatter_reduce(0, rows, x.detach(), "amax")
        total = torch.zeros_like(top).index_add(0, rows, (x - top[rows]).exp())
        # A target that is a candidate has exp(0) at least once; 0 means that it is nobody's.
        return top + total.clamp(min=0.5).log()

    def rows(self, b: Tensor) -> RowSums:
        """(M,) to sums of N rows."""
        fold = log_rows if self.log else plain_rows
        found = [fold(self._logarithms[part], b[self._rows[part]], offsets) for part, offsets in self._slices()]
        total, offset, spread = (torch.cat(columns) for columns in zip(*found))
        return RowSums(total, offset, spread, largest(self._logarithms))


class _Cosines(torch.autograd.Function):
    """(N, K) products of a source point's features with its candidates'.

    Points near each other have the same candidates: where these are few, a matrix product of all with all, of which K
    columns are kept in a row, costs less than gathering features: a fifth, at K = 256 of a LiDAR scan.
    """

    @staticmethod
    def forward(ctx: Any, f: Tensor, g: Tensor, rows: Tensor, parts: list[Tensor]) -> Tensor:
        """(N, K)."""
        out = f.new_empty(rows.shape)
        for part in parts:
            near, place = _different(rows[part], len(g))
            if len(near) <= _DENSE * rows.shape[1]:
                out[part] = (f[part] @ g[near].T).gather(1, place)
            else:
                out[part] = (_features(g, rows[part]) @ f[part][:, :, None])[:, :, 0]
        ctx.save_for_backward(f, g, rows)
        ctx.parts = parts
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """With respect to f and g."""
        f, g, rows = ctx.saved_tensors
        grad_f, grad_g = torch.empty_like(f), torch.zeros_like(g)
        for part in ctx.parts:
            grad = grads[0][part]
            near, place = _different(rows[part], len(g))
            if len(near) <= _DENSE * rows.shape[1]:
                spread = grad.new_zeros(len(part), len(near)).scatter_add_(1, place, grad)
                grad_f[part] = spread @ g[near]
                grad_g.index_add_(0, near, spread.T @ f[part])
            else:
                grad_f[part] = (grad[:, None] @ _features(g, rows[part]))[:, 0]
                each = grad[:, :, None] * f[part][:, None]
                grad_g.index_add_(0, rows[part].flatten(), each.flatten(0, 1))
        return grad_f, grad_g, None, None


def _features(g: Tensor, rows: Tensor) -> Tensor:
    """(n, K) to (n, K, C)."""
    return g.index_select(0, rows.flatten()).view(*rows.shape, g.shape[1])


def _different(rows: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The different numbers in (n, K) rows, ascending, and for each entry its place among them."""
    used = torch.zeros(m, dtype=torch.bool, device=rows.device)
    used[rows.flatten()] = True
    near = used.nonzero()[:, 0]
    place = torch.empty(m, dtype=torch.int64, device=rows.device)
    place[near] = torch.arange(len(near), device=rows.device)
    return near, place[rows]
