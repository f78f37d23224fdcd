# SPDX-License-Identifier: Apache-2.0
"""The truncated Chamfer distance against all pairs of points, and its gradient against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scene_flow.classical.chamfer import Standing, chamfer


def naive(moved: Tensor, standing: Tensor, limit_m2: float) -> Tensor:
    squared = (moved[:, None] - standing[None]).square().sum(dim=2)
    return squared.amin(dim=1).clamp(max=limit_m2).mean() + squared.amin(dim=0).clamp(max=limit_m2).mean()


@pytest.mark.parametrize(("n", "m", "limit_m2"), [(300, 200, 2.0), (300, 200, 0.05), (40, 500, 1e4), (1, 1, 2.0)])
def test_against_all_pairs(n: int, m: int, limit_m2: float) -> None:
    rng = np.random.default_rng(n + m)
    moved = torch.tensor(rng.uniform(-3, 3, (n, 3)), dtype=torch.float32, requires_grad=True)
    standing = rng.uniform(-3, 3, (m, 3)) + 0.2
    value = chamfer(moved, Standing(standing), limit_m2)
    (3 * value).backward()

    twin = moved.detach().double().requires_grad_()
    expected = naive(twin, torch.from_numpy(standing), limit_m2)
    (3 * expected).backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert moved.grad is not None and twin.grad is not None
    torch.testing.assert_close(moved.grad.double(), twin.grad, rtol=1e-5, atol=1e-8)


def test_far_away_is_precise() -> None:
    """At 100 m, where the expanded square of float32 is off by millimetres."""
    moved = torch.tensor([[100.0, 100.0, 1.0]])
    standing = moved.numpy().astype(np.float64) + [0.001, 0, 0]
    assert chamfer(moved, Standing(standing), 2.0).item() == pytest.approx(2e-6, rel=1e-4)


def test_out_of_reach_counts_the_limit_and_pulls_at_nothing() -> None:
    moved = torch.zeros(5, 3, requires_grad=True)
    value = chamfer(moved, Standing(np.full((2, 3), 50.0)), 2.0)
    value.backward()
    assert value.item() == 4.0
    assert moved.grad is not None and not moved.grad.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_a_number_is_passed_on(bad: float) -> None:
    moved = torch.tensor([[0.0, bad, 0.0], [1.0, 0.0, 0.0]])
    assert chamfer(moved, Standing(np.zeros((1, 3))), 2.0).isnan()
