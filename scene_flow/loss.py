# SPDX-License-Identifier: Apache-2.0
"""What a flow network is trained on: distance to the true flow, and agreement among points that look alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def flow_loss(flow: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of ``|flow - truth|`` over valid points and the three axes (SCTN, L_s).

    Args:
        flow: (B, N, 3) metres.
        truth: (B, N, 3) metres; where it is not valid it may hold anything, NaN included.
        valid: (B, N) bool; None: all.

    Returns:
        A scalar; zero where no point is valid.

    Raises:
        ValueError: shapes differ.
    """
    if flow.shape != truth.shape:
        raise ValueError(f"flow is {tuple(flow.shape)}, the truth {tuple(truth.shape)}")
    if valid is not None:
        truth = torch.where(valid[..., None], truth, flow.detach())
    return _mean_over((flow - truth).abs().mean(-1), valid)


def fsc_loss(
    flow: Tensor,
    features: Tensor,
    rows: Tensor,
    valid: Tensor | None = None,
    tau: float = 0.45,
    clamp: bool = False,
) -> Tensor:
    """Feature-aware spatial consistency (Li et al., "SCTN", AAAI 2022): neighbours that look alike move alike.

    The mean over valid points i of ``1 / (k - 1) * sum_n w_in |flow_n - flow_i|`` over the neighbours n of i, where
    ``w_in = 1 - exp(-cos(F_i, F_n) / tau)``. The features only weigh: no gradient reaches them.

    Args:
        flow: (B, N, 3) metres.
        features: (B, N, C) of the same points.
        rows: (B, N, k) int64 neighbours of every point, itself included, k at least 2.
        valid: (B, N) bool, points i that count; None: all.
        tau: temperature of the weight.
        clamp: no weight below 0. Features that point apart have a negative one, which rewards different flows without
            bound; the published code has it so.

    Returns:
        A scalar; zero where no point is valid.

    Raises:
        ValueError: tau is not positive; otherwise as :func:`smoothness_loss`.
    """
    if not tau > 0:
        raise ValueError(f"tau must be positive, not {tau}")
    _check(flow, rows)
    unit = F.normalize(features.detach(), dim=-1)
    similarity = torch.einsum("bnc,bnkc->bnk", unit, neighbours_of(unit, rows))
    weights = 1 - torch.exp(-similarity / tau)
    return smoothness_loss(flow, rows, valid, weights.clamp(min=0) if clamp else weights)


def smoothness_loss(flow: Tensor, rows: Tensor, valid: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """Weighted mean length of the difference between a point's flow and its neighbours'.

    Args:
        flow: (B, N, 3) metres.
        rows: (B, N, k) int64 neighbours of every point, itself included, k at least 2.
        valid: (B, N) bool, points that count; None: all.
        weights: (B, N, k) of the neighbours; None: 1, the plain smoothness that blurs borders of motion.

    Raises:
        ValueError: rows do not fit the flow, or k is less than 2.
    """
    _check(flow, rows)
    # vector_norm has gradient 0 at 0, where a point is compared with itself.
    apart = torch.linalg.vector_norm(neighbours_of(flow, rows) - flow[:, :, None], dim=-1)
    if weights is not None:
        apart = apart * weights
    return _mean_over(apart.sum(-1) / (rows.shape[-1] - 1), valid)


def neighbours_of(values: Tensor, rows: Tensor) -> Tensor:
    """(B, N, k, C): the rows of ``values`` (B, M, C) that ``rows`` (B, N, k) names."""
    batch = torch.arange(len(values), device=values.device)[:, None, None]
    return values[batch, rows]


def _check(flow: Tensor, rows: Tensor) -> None:
    if rows.shape[:-1] != flow.shape[:-1] or rows.shape[-1] < 2:
        batch, n = flow.shape[:2]
        raise ValueError(f"rows must be ({batch}, {n}, k) with k at least 2, not {tuple(rows.shape)}")


def _mean_over(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of (B, N) over valid entries, zero where there are none."""
    if valid is None:
        return values.mean()
    return torch.where(valid, values, 0).sum() / valid.sum().clamp(min=1)
