# SPDX-License-Identifier: Apache-2.0
"""Sinkhorn's iterations on a kernel in memory: marginals, an oracle in the log domain, and where nothing goes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scene_flow.networks.sinkhorn import GUARD, RowSums, sinkhorn


class Matrix:
    """A kernel that is a matrix of logarithms, and remembers the weights it was last asked for."""

    def __init__(self, logarithms: Tensor, log: bool) -> None:
        self.shape = (logarithms.shape[0], logarithms.shape[1])
        self.log = log
        self.logarithms = logarithms
        self.b = torch.zeros(0)

    def columns(self, a: Tensor) -> Tensor:
        return (self.logarithms + a[:, None]).logsumexp(0) if self.log else a @ self.logarithms.exp()

    def rows(self, b: Tensor) -> RowSums:
        self.b = b
        x = self.logarithms + b if self.log else self.logarithms.exp() * b
        nothing = torch.zeros(len(x), 3, dtype=x.dtype)
        return RowSums(x.logsumexp(1) if self.log else x.sum(1), nothing, nothing[:, 0], nothing[:, 0])

    def plan(self, exponent: Tensor) -> Tensor:
        """The matrix P, from the weights b of the last sweep."""
        n = self.shape[0]
        total = self.rows(self.b).total
        if self.log:
            return (exponent * (-math.log(n) - total)[:, None] + self.logarithms + self.b).exp()
        return ((1 / n) / (total + GUARD))[:, None] ** exponent * self.logarithms.exp() * self.b


def oracle(logarithms: Tensor, exponent: float, iterations: int) -> Tensor:
    """The plan, every sum in the log domain and written out."""
    n, m = logarithms.shape
    u, v = [-math.log(n)] * n, [0.0] * m
    entries = logarithms.tolist()

    def summed(values: list[float]) -> float:
        top = max(values)
        return top + math.log(sum(math.exp(x - top) for x in values))

    for _ in range(iterations):
        v = [exponent * (-math.log(m) - summed([entries[i][j] + u[i] for i in range(n)])) for j in range(m)]
        u = [exponent * (-math.log(n) - summed([entries[i][j] + v[j] for j in range(m)])) for i in range(n)]
    plan = [[math.exp(u[i] + entries[i][j] + v[j]) for j in range(m)] for i in range(n)]
    return torch.tensor(plan, dtype=torch.float64)


def costs(n: int, m: int) -> Tensor:
    """-(1 - cosine) of features that are somewhat alike, over the published network's first eps: down to -30."""
    generator = torch.Generator().manual_seed(0)
    points = (0.4 * torch.randn(k, 3, generator=generator).double() + torch.tensor([1.0, 0, 0]) for k in (n, m))
    f, g = (torch.nn.functional.normalize(x, dim=1) for x in points)
    return (f @ g.T - 1) / 0.031738


@pytest.mark.parametrize("log", [False, True])
def test_with_a_large_gamma_both_marginals_are_kept(log: bool) -> None:
    """Card check 2d."""
    n, m = 30, 24
    exponent = torch.tensor([1e6 / (1e6 + 0.031738)]).double()
    kernel = Matrix(costs(n, m), log)
    sums = sinkhorn(kernel, exponent, 200)
    plan = kernel.plan(exponent)
    assert (plan.sum(1) * n - 1).abs().max() < 1e-3
    assert (plan.sum(0) * m - 1).abs().max() < 1e-3
    assert (sums.total - plan.sum(1)).abs().max() < 1e-12
    assert (plan - oracle(costs(n, m), float(exponent), 200)).abs().max() * n < 1e-3


@pytest.mark.parametrize("iterations", [1, 3])
def test_both_domains_are_equal_where_sums_are_far_from_the_guard(iterations: int) -> None:
    exponent = torch.tensor([1 / 1.031738]).double()
    plain, log = Matrix(costs(30, 24), False), Matrix(costs(30, 24), True)
    totals = [sinkhorn(kernel, exponent, iterations).total for kernel in (plain, log)]
    expected = oracle(costs(30, 24), float(exponent), iterations)
    assert ((totals[0] - totals[1]) / totals[1]).abs().max() < 1e-3
    assert ((log.plan(exponent) - expected).abs() / expected).max() < 1e-9
    assert ((plain.plan(exponent) - expected).abs() / expected).max() < 1e-3


def test_the_log_domain_reaches_where_factors_underflow() -> None:
    """eps of 1e-4 in single precision: exp(-cost / eps) is 0 for all but equal features."""
    exponent = torch.tensor([1.0 / 1.0001])
    far = (costs(30, 24) * 317.38).float()
    assert (far.exp() == 0).all(1).any()
    total = sinkhorn(Matrix(far, True), exponent, 1).total * 30
    assert torch.isfinite(total).all()
    assert total.min() > 0.5
    assert sinkhorn(Matrix(far, False), exponent, 1).total.min() == 0


def test_no_iteration_is_plain_attention() -> None:
    kernel = costs(30, 24)
    for log in (False, True):
        total = sinkhorn(Matrix(kernel, log), torch.tensor([0.5]).double(), 0).total
        assert (total - kernel.exp().sum(1)).abs().max() < 1e-12
    with pytest.raises(ValueError, match="iterations must be at least 0, not -1"):
        sinkhorn(Matrix(kernel, False), torch.tensor([0.5]), -1)
