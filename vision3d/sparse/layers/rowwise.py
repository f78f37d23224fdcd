# SPDX-License-Identifier: Apache-2.0
"""Layers that treat every site alike and by itself: torch's own, on the features.

Given a plain tensor they are torch's layers, so a head behind a global pool is written with the same classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vision3d.sparse.functional import arguments as check
from vision3d.sparse.functional.samples import spread_samples
from vision3d.sparse.tensor import SparseTensor


class SparseModule(nn.Module):
    """Any module that maps (N, C) rows to (N, C') rows one by one, on sparse tensors.

    Args:
        module: for instance ``torch.nn.Softplus()``.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:
        """(N, C) to (N, C') on the same sites."""
        return _on_rows(self.module, x)


class SparseLinear(nn.Linear):
    """``torch.nn.Linear`` at every site: the 1 x 1 x 1 convolution under its other name."""

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:  # type: ignore[override]
        """(N, in_features) to (N, out_features) on the same sites."""
        if isinstance(x, SparseTensor):
            check.check_tensor(x, self, channels=self.in_features)
        return _on_rows(super().forward, x)


class SparseReLU(nn.Module):
    """``torch.nn.ReLU``, never in place: sparse tensors are immutable."""

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:
        """(N, C) to (N, C) on the same sites."""
        return _on_rows(torch.relu, x)


class SparseLeakyReLU(nn.LeakyReLU):
    """``torch.nn.LeakyReLU``, never in place. Args: ``negative_slope``."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope)

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:  # type: ignore[override]
        """(N, C) to (N, C) on the same sites."""
        return _on_rows(super().forward, x)


class SparsePReLU(nn.PReLU):
    """``torch.nn.PReLU``: one slope, or one per channel."""

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:  # type: ignore[override]
        """(N, C) to (N, C) on the same sites."""
        return _on_rows(super().forward, x)


class SparseGELU(nn.GELU):
    """``torch.nn.GELU``."""

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:  # type: ignore[override]
        """(N, C) to (N, C) on the same sites."""
        return _on_rows(super().forward, x)


class SparseSiLU(nn.Module):
    """``torch.nn.SiLU``, never in place."""

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:
        """(N, C) to (N, C) on the same sites."""
        return _on_rows(nn.functional.silu, x)


class SparseSigmoid(nn.Sigmoid):
    """``torch.nn.Sigmoid``."""

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:  # type: ignore[override]
        """(N, C) to (N, C) on the same sites."""
        return _on_rows(super().forward, x)


class SparseDropout(nn.Dropout):
    """``torch.nn.Dropout``: single features, independently, never in place. Args: ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:  # type: ignore[override]
        """(N, C) to (N, C) on the same sites."""
        return _on_rows(super().forward, x)


class SparseDropPath(nn.Module):
    """Stochastic depth: in training, whole samples of a residual branch are zeroed and the rest scaled up.

    Args:
        p: probability of a sample to be dropped, in [0, 1].

    Raises:
        ValueError: p is not a probability.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"SparseDropPath: p must be in [0, 1], not {p}")
        self.p = p

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, C) to (N, C) on the same sites."""
        check.check_tensor(x, self)
        if not self.training or self.p == 0:
            return x
        keep = 1 - self.p
        kept = torch.rand((x.batch_size, 1), device=x.device) < keep
        factor = kept.to(x.dtype) / max(keep, torch.finfo(x.dtype).tiny)
        return x.map(lambda f: f * spread_samples(factor, x.sites))

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


def _on_rows(function: Callable[[Tensor], Tensor], x: SparseTensor | Tensor) -> SparseTensor | Tensor:
    return x.map(function) if isinstance(x, SparseTensor) else function(x)
