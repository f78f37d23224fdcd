# SPDX-License-Identifier: Apache-2.0
"""One value per sample from its sites, and one value per site from its sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vision3d.sparse.backends import backend_for
from vision3d.sparse.coordinates import CoordinateSet


def reduce_samples(values: Tensor, sites: CoordinateSet, mode: str) -> Tensor:
    """(B, C) "sum", "mean" or "max" over the sites of each sample, of ``values`` (N, C) in sorted order.

    A sample without sites gives 0. Sums run in row order, whatever the number of threads.
    """
    return _reduce(values, sites.sample_ptr(), mode)


def spread_samples(values: Tensor, sites: CoordinateSet) -> Tensor:
    """(N, C): the row of ``values`` (B, C) that belongs to the sample of each site, sorted order."""
    samples = sites.coords[:, 0].long()
    spread: Tensor = _Spread.apply(values, samples, sites.sample_ptr())
    return spread


class _Spread(torch.autograd.Function):
    """Rows of a sample are contiguous, so the gradient is a segment sum; torch's own would add row by row."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, samples: Tensor, ptr: Tensor) -> Tensor:
        ctx.save_for_backward(ptr)
        return values.index_select(0, samples)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (ptr,) = ctx.saved_tensors
        return _reduce(grads[0], ptr, "sum"), None, None


def _reduce(values: Tensor, ptr: Tensor, mode: str) -> Tensor:
    order = torch.arange(values.shape[0], device=values.device)
    return backend_for(values).segment_reduce(values, order, ptr, mode)
