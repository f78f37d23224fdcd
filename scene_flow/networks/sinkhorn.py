# SPDX-License-Identifier: Apache-2.0
"""Unbalanced optimal transport by Sinkhorn's iterations, on any kernel that can multiply (Chizat et al. 2018; FLOT).

Between N source points of mass 1/N and M targets of mass 1/M, with the kernel K = exp(-cost / eps) and the exponent
w = gamma / (gamma + eps), an iteration is

    b = ((1/M) / (K^T a + 1e-8))^w        a = ((1/N) / (K b + 1e-8))^w        starting from a = 1/N

and the plan is P = diag(a) K diag(b). Without iterations P = K, which is plain attention. In the log domain the same is
done with logarithms and without the 1e-8: where nothing underflows and the sums are far above 1e-8, it is equal.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from torch import Tensor

GUARD = 1e-8
# Stands for log 0: unlike -inf it has gradients, and no sum of real logarithms comes near it.
LOG_ZERO = -1e30


class RowSums(NamedTuple):
    """Of a kernel whose columns are weighted, a row per source point.

    Attributes:
        total: (N,) sums of the rows; their logarithms in the log domain.
        offset: (N, 3) metres, the weighted mean of the targets minus the source point; any number in an empty row.
        spread: (N,) metres, root mean square distance of the targets from that mean; without gradient.
        best: (N,) the row's largest logarithm of K, before weighting; without gradient.
    """

    total: Tensor
    offset: Tensor
    spread: Tensor
    best: Tensor


class Kernel(Protocol):
    """(N, M) numbers, or their logarithms if ``log``, that may never be in memory together."""

    shape: tuple[int, int]
    log: bool

    def columns(self, a: Tensor) -> Tensor:
        """(N,) weights of the rows to (M,) sums K^T a; both in logarithms if ``log``."""
        ...

    def rows(self, b: Tensor) -> RowSums:
        """(M,) weights of the columns, in logarithms if ``log``, to sums over the columns."""
        ...


def sinkhorn(kernel: Kernel, exponent: Tensor, iterations: int) -> RowSums:
    """The row sums of the plan P, never as logarithms. Two sweeps over the kernel per iteration, one if there is none.

    Args:
        kernel: see above.
        exponent: w, in (0, 1].
        iterations: T.

    Raises:
        ValueError: iterations below 0.
    """
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, not {iterations}")
    return (_with_logarithms if kernel.log else _plain)(kernel, exponent, iterations)


def _plain(kernel: Kernel, exponent: Tensor, iterations: int) -> RowSums:
    n, m = kernel.shape
    a, b = exponent.new_full((n,), 1 / n), exponent.new_ones(m)
    if iterations == 0:
        return kernel.rows(b)
    for _ in range(iterations):
        b = ((1 / m) / (kernel.columns(a) + GUARD)) ** exponent
        sums = kernel.rows(b)
        a = ((1 / n) / (sums.total + GUARD)) ** exponent
    return sums._replace(total=a * sums.total)


def _with_logarithms(kernel: Kernel, exponent: Tensor, iterations: int) -> RowSums:
    n, m = kernel.shape
    a, b = exponent.new_full((n,), -math.log(n)), exponent.new_zeros(m)
    if iterations == 0:
        sums = kernel.rows(b)
        return sums._replace(total=sums.total.exp())
    for _ in range(iterations):
        b = _scaling(kernel.columns(a), m, exponent)
        sums = kernel.rows(b)
        a = _scaling(sums.total, n, exponent)
    return sums._replace(total=(a + sums.total).exp())


def _scaling(total: Tensor, count: int, exponent: Tensor) -> Tensor:
    """Logarithm of ((1/count) / exp(total))^w; an empty row or column, where nothing moves, is left alone."""
    empty = is_log_zero(total)
    return (exponent * (-math.log(count) - total.masked_fill(empty, 0.0))).masked_fill(empty, 0.0)


def is_log_zero(x: Tensor) -> Tensor:
    """Where a logarithm stands for 0, after sums that have shifted it a little."""
    return x.detach() < LOG_ZERO / 2
