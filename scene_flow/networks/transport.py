# SPDX-License-Identifier: Apache-2.0
"""Soft correspondence by optimal transport, and the flow and confidence that it means (FLOT, Puy et al., ECCV 2020)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from scene_flow.networks.neighbours import knn_graph
from scene_flow.networks.sinkhorn import GUARD, Kernel, RowSums, sinkhorn
from scene_flow.networks.sparse_kernel import SparseKernel
from scene_flow.networks.tiled_kernel import TiledKernel

Fallback = bool | Literal["neighbours"]
NEIGHBOURS = 8  # of an unmatched point, that lend it their flow
SPREAD_M = 0.5  # at which confidence falls to exp(-1)


class Transported(NamedTuple):
    """A row per source point.

    Attributes:
        flow: (B, N, 3) metres: where the plan sends the point, minus the point.
        confidence: (B, N) in [0, 1], 0 where unmatched; without gradient.
        matched: (B, N) bool.
    """

    flow: Tensor
    confidence: Tensor
    matched: Tensor


class Transport(nn.Module):
    """Cost 1 - cosine of the features within a radius, T iterations of unbalanced Sinkhorn, mean target of each point.

    eps = exp(``epsilon``) + floor and gamma = exp(``gamma``) are learned. All pairs are looked at in tiles, with or
    without gradients, so that no (N, M) matrix is held; with ``support`` only given candidates are.

    Mass. N times the row sum of the plan, r, is 1 for a point that hands over its whole mass. r is 0 without a target
    within the radius, and about 1e8 times the point's row of K b where that is far below the iterations' guard of
    1e-8: where every target in reach looks different. A point with r below ``threshold`` is unmatched.

    Confidence. The largest cosine within the radius (negative: 0), times exp(-spread / 0.5 m), the spread being the
    root mean square distance of the plan's targets from their mean: is there anything like the point, and is it in one
    place? It does not depend on how dense the clouds are, as the largest share of a row would. On KITTI frames 2 and
    3 (FLOT's weights for 8192 points) it ranks a point that is right to 10 cm above one that is not with probability
    0.81 / 0.85, and one whose counterpart is there above one whose was cut out with 0.93 / 0.93; the largest share
    has 0.82 / 0.67 and 0.50 / 0.36.

    Guard. The original divides by (row sum + 1e-8), which pulls every target towards the origin: by 0.7 mm at 35 m with
    2048 points, but by 3 cm with 90,000, as row sums fall with N. Matched points are divided exactly here; with
    ``fallback=False`` the guard is kept as it was.

    Always computed in float32, whatever autocast says: factors reach exp(-80).

    Args:
        eps_floor: smallest eps.
        eps_init: start of the logarithm of the learned part.
        iterations: T; 0 is plain attention.
        radius_m: metres; fits what moves between scans taken at 10 Hz. May be infinite.
        log_domain: for eps below 0.02, whose factors underflow; without guards, see ``scene_flow.networks.sinkhorn``.
        fallback: an unmatched point gets flow 0; with "neighbours" the mean flow of the 8 nearest matched points; with
            False -p, as in the published code.
        threshold: of r.
        tile: source points at a time; None: 256 on a CPU (at 8192 x 8192 four times faster than all at once), 4096
            elsewhere.

    Raises:
        ValueError: an unknown fallback.
    """

    def __init__(
        self,
        eps_floor: float = 0.03,
        eps_init: float = 0.0,
        iterations: int = 1,
        radius_m: float = 10.0,
        log_domain: bool = False,
        fallback: Fallback = True,
        threshold: float = 1e-3,
        tile: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(fallback, bool) and fallback != "neighbours":
            raise ValueError(f'fallback must be True, False or "neighbours", not {fallback!r}')
        self.eps_floor = eps_floor
        self.iterations = iterations
        self.radius_m = radius_m
        self.log_domain = log_domain
        self.fallback = fallback
        self.threshold = threshold
        self.tile = tile
        self.epsilon = nn.Parameter(torch.full((1,), float(eps_init)))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(
        self, source: Tensor, target: Tensor, f: Tensor, g: Tensor, support: Tensor | None = None
    ) -> Transported:
        """Match B pairs of clouds.

        Args:
            source: (B, N, 3) metres.
            target: (B, M, 3) metres.
            f: (B, N, C) features of the source, of any length.
            g: (B, M, C) features of the target.
            support: (B, N, K) int64 rows of the target, none twice; -1 is nobody. None: all targets.

        Raises:
            ValueError: shapes that do not fit each other, or an empty cloud.
        """
        _check(source, target, f, g, support)
        with torch.autocast(source.device.type, enabled=False):
            kind = torch.promote_types(f.dtype, torch.float32)
            source, target, f, g = (x.to(kind) for x in (source, target, _unit(f.to(kind)), _unit(g.to(kind))))
            eps = self.epsilon.to(kind).exp() + self.eps_floor
            gamma = self.gamma.to(kind).exp()
            each = []
            for i in range(len(source)):
                pair = source[i], target[i], f[i], g[i], eps
                kernel = self._kernel(pair, None if support is None else support[i])
                plan = sinkhorn(kernel, gamma / (gamma + eps), self.iterations)
                each.append(self._flow(source[i], plan, eps.detach()))
        return Transported(*(torch.stack(parts) for parts in zip(*each)))

    def _kernel(self, pair: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], support: Tensor | None) -> Kernel:
        tile = self.tile or (256 if pair[0].device.type == "cpu" else 4096)
        settings = (self.radius_m, self.log_domain, tile)
        return TiledKernel(*pair, *settings) if support is None else SparseKernel(*pair, *settings, support)

    def _flow(self, source: Tensor, plan: RowSums, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        matched = plan.total.detach() * len(source) >= self.threshold
        best_cosine = (1 + eps * plan.best).clamp(0.0, 1.0)
        confidence = (best_cosine * (-plan.spread / SPREAD_M).exp()).masked_fill(~matched, 0.0)
        if self.fallback is False:
            flow = (source + plan.offset) * (plan.total / (plan.total + GUARD))[:, None] - source
            return flow, confidence, matched
        flow = plan.offset.masked_fill(~matched[:, None], 0.0)
        if self.fallback == "neighbours" and bool(matched.any()) and not bool(matched.all()):
            flow = _lend(source, flow, matched)
        return flow, confidence, matched


def _lend(source: Tensor, flow: Tensor, matched: Tensor) -> Tensor:
    """The flow with unmatched points given the mean of their nearest matched ones."""
    own, other = matched.nonzero()[:, 0], (~matched).nonzero()[:, 0]
    near = knn_graph(source[own].detach()[None], min(NEIGHBOURS, len(own)), source[other].detach()[None]).rows[0]
    return flow.index_copy(0, other, flow[own[near]].mean(1))


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + GUARD).sqrt()


def _check(source: Tensor, target: Tensor, f: Tensor, g: Tensor, support: Tensor | None) -> None:
    batch = len(source)
    for name, points in (("source", source), ("target", target)):
        if points.ndim != 3 or points.shape[2] != 3 or len(points) != batch or points.shape[1] == 0:
            raise ValueError(f"{name} must be ({batch}, N, 3) with N at least 1, not {tuple(points.shape)}")
    for name, features, points in (("f", f, source), ("g", g, target)):
        if features.ndim != 3 or features.shape[:2] != points.shape[:2] or features.shape[2] != f.shape[2]:
            wanted = (*points.shape[:2], f.shape[-1])
            raise ValueError(f"features {name} must be {wanted}, not {tuple(features.shape)}")
    if support is not None and (support.ndim != 3 or support.shape[:2] != source.shape[:2]):
        raise ValueError(f"support must be {(*source.shape[:2], 'K')}, not {tuple(support.shape)}")
