# SPDX-License-Identifier: Apache-2.0
"""The kernel exp(-(1 - cosine) / eps) between source points and given candidates only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scene_flow.networks.sinkhorn import LOG_ZERO, RowSums
from scene_flow.networks.tiled_kernel import largest, log_rows, plain_rows


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
        tile: source points whose candidates' features are gathered at a time.
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
        self._offsets = target[self._rows] - source[:, None]
        away = self._offsets.detach().square().sum(2) >= radius_m**2
        cosine: Tensor = _Cosines.apply(f, g, self._rows, tile)
        self._logarithms = ((cosine - 1) / eps).masked_fill(away | (candidates < 0), LOG_ZERO)

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
        return RowSums(*fold(self._logarithms, b[self._rows], self._offsets), largest(self._logarithms))


class _Cosines(torch.autograd.Function):
    """(N, K) products of a source point's features with its candidates', gathered for ``tile`` points at a time."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, g: Tensor, rows: Tensor, tile: int) -> Tensor:
        """(N, K)."""
        out = f.new_empty(rows.shape)
        for begin in range(0, len(f), tile):
            part = slice(begin, begin + tile)
            out[part] = (g[rows[part]] @ f[part, :, None])[:, :, 0]
        ctx.save_for_backward(f, g, rows)
        ctx.tile = tile
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """With respect to f and g."""
        f, g, rows = ctx.saved_tensors
        grad_f, grad_g = torch.empty_like(f), torch.zeros_like(g)
        for begin in range(0, len(f), ctx.tile):
            part = slice(begin, begin + ctx.tile)
            grad = grads[0][part]
            grad_f[part] = (grad[:, None] @ g[rows[part]])[:, 0]
            grad_g.index_add_(0, rows[part].flatten(), (grad[:, :, None] * f[part, None]).flatten(0, 1))
        return grad_f, grad_g, None, None
