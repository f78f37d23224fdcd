# SPDX-License-Identifier: Apache-2.0
"""Row permutations whose gradient is a permutation as well (torch's own gradient of indexing adds, row by row)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return _Permute.apply(grads[0], inverse, order), None, None


def permute(rows: Tensor, order: Tensor | None, inverse: Tensor | None) -> Tensor:
    """``rows[order]`` for a permutation and its inverse; None stands for the identity."""
    if order is None or inverse is None:
        return rows
    result: Tensor = _Permute.apply(rows, order, inverse)
    return result
