# SPDX-License-Identifier: Apache-2.0
"""Reductions over groups of rows: points of a voxel, voxels of a sample, members of a cluster."""

from __future__ import annotations

import torch
from torch import Tensor

from vision3d.sparse.backends import backend_for

MODES = ("sum", "mean", "max", "first")


def segment_reduce(
    values: Tensor,
    index: Tensor | None = None,
    mode: str = "sum",
    *,
    ptr: Tensor | None = None,
    order: Tensor | None = None,
    n_segments: int | None = None,
) -> Tensor:
    """Reduce rows segment by segment. Differentiable; the same result for every number of threads.

    Segments are given in one of two ways: by ``index``, or by ``ptr`` (with ``order`` unless the segments lie one after
    the other in ``values``).

    Args:
        values: (P, C) floating.
        index: (P,) integer: row p belongs to segment ``index[p]``; any order.
        mode: "sum", "mean", "max" (a NaN wins; the gradient goes to the first of equal rows) or "first" (the first row
            of the segment, in the order of ``values`` or of ``order``).
        ptr: (S + 1,) integer, ascending: segment s is ``values[order[ptr[s]:ptr[s + 1]]]``.
        order: (Q,) integer row numbers.
        n_segments: S, with ``index`` only; None: one more than the largest index.

    Returns:
        (S, C), zero for empty segments.

    Raises:
        TypeError: values is not floating, or index, ptr or order is not integer.
        ValueError: shapes do not fit each other, an entry is out of range, ptr descends, or not exactly one of index
            and ptr is given.
    """
    if mode not in MODES:
        raise ValueError(f"unknown reduction {mode!r}; there are: {', '.join(MODES)}")
    if values.ndim != 2:
        raise ValueError(f"values must be (P, C), not of shape {tuple(values.shape)}")
    if not values.is_floating_point():
        raise TypeError(f"values must be floating, not {values.dtype}")
    if (index is None) == (ptr is None):
        raise ValueError("give either index or ptr")
    if index is not None:
        if order is not None:
            raise ValueError("order belongs to ptr; index orders the rows itself")
        order, ptr = _sorted_by(_integers(index, "index", values), values.shape[0], n_segments)
    else:
        assert ptr is not None
        if n_segments is not None:
            raise ValueError("n_segments belongs to index; ptr says how many segments there are")
        order, ptr = _checked(ptr, order, values)
    return backend_for(values).segment_reduce(values, order, ptr, mode)


def _sorted_by(index: Tensor, rows: int, n_segments: int | None) -> tuple[Tensor, Tensor]:
    if index.shape[0] != rows:
        raise ValueError(f"index has {index.shape[0]} entries, values {rows} rows")
    largest = int(index.amax()) if rows else -1
    segments = largest + 1 if n_segments is None else n_segments
    if segments < 0:
        raise ValueError(f"n_segments must not be negative, not {segments}")
    if rows and (int(index.amin()) < 0 or largest >= segments):
        row = int(((index < 0) | (index >= segments)).nonzero()[0, 0])
        raise ValueError(f"index row {row} is {int(index[row])}, but segments are 0 to {segments - 1}")
    ids, order = torch.sort(index, stable=True)
    return order, torch.searchsorted(ids, torch.arange(segments + 1, device=index.device))


def _checked(ptr: Tensor, order: Tensor | None, values: Tensor) -> tuple[Tensor, Tensor]:
    ptr = _integers(ptr, "ptr", values)
    rows = values.shape[0]
    order = torch.arange(rows, device=values.device) if order is None else _integers(order, "order", values)
    if len(ptr) == 0 or int(ptr[0]) < 0 or int(ptr[-1]) > len(order) or bool((ptr[1:] < ptr[:-1]).any()):
        raise ValueError(f"ptr must ascend from 0 or more to at most {len(order)}, the number of ordered rows")
    if len(order) and (int(order.amin()) < 0 or int(order.amax()) >= rows):
        at = int(((order < 0) | (order >= rows)).nonzero()[0, 0])
        raise ValueError(f"order entry {at} is {int(order[at])}, but values has rows 0 to {rows - 1}")
    return order, ptr


def _integers(tensor: Tensor, name: str, values: Tensor) -> Tensor:
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must be integer, not {tensor.dtype}")
    if tensor.ndim != 1:
        raise ValueError(f"{name} must have one axis, not shape {tuple(tensor.shape)}")
    if tensor.device != values.device:
        raise ValueError(f"{name} is on {tensor.device}, values on {values.device}")
    return tensor.long().contiguous()
