# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation over the sites of all processes. Any device and backend of ``torch.distributed``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from vision3d.sparse.functional.normalization import moving_statistics, scale_rows
from vision3d.sparse.widening import widened


def sync_batch_norm(
    feats: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    group: distributed.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """``batch_norm`` in training, of the rows (N, C) of all processes together; any of them may have none.

    Returns:
        The normalised rows of this process, and the number () of rows of all.
    """
    rows = widened(feats)
    own = torch.scalar_tensor(feats.shape[0], dtype=rows.dtype, device=rows.device)
    total = _summed(torch.cat([own[None], rows.sum(0)]), group)
    count = total[0].detach()
    mean = total[1:] / count.clamp(min=1)
    squares = (rows - mean).square().sum(0)
    var = _summed(squares, group) / count.clamp(min=1)
    mean, var = moving_statistics(count, mean, var, running_mean, running_var, momentum)
    return scale_rows(rows - mean, torch.rsqrt(var + eps), weight, bias).to(feats.dtype), count


def _summed(values: Tensor, group: distributed.ProcessGroup | None) -> Tensor:
    summed: Tensor = _AllSum.apply(values, group)
    return summed


class _AllSum(torch.autograd.Function):
    """The sum over processes; what each of them sends back is summed as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: distributed.ProcessGroup | None) -> Tensor:
        ctx.group = group
        total = values.clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _AllSum.apply(grads[0].contiguous(), ctx.group), None
