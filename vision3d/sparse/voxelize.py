# SPDX-License-Identifier: Apache-2.0
"""From points to voxels.

Points have their columns in the order ``axes`` says: "xyz" (x first, as point clouds are stored; the default) or "zyx"
(x last, the order of ``SparseTensor.coords``). Voxel sizes and origins are given in the order of the point columns;
coordinates and spatial shapes are always in the engine's order (batch, z, y, x).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vision3d.sparse.backends import backend_for
from vision3d.sparse.coordinates import CoordinateSet, expand
from vision3d.sparse.tensor import SparseTensor

INT32 = torch.iinfo(torch.int32)
REDUCTIONS = ("mean", "sum", "max", "first")


@dataclass(frozen=True)
class Voxelized:
    """Voxels, and the way back to the points; ``tensor, index = voxelize(...)`` takes it apart.

    Attributes:
        tensor: one site per occupied voxel, in sorted order.
        index: (P,) int64: point p lies in row ``index[p]`` of ``tensor``.
    """

    tensor: SparseTensor
    index: Tensor

    def __iter__(self) -> Iterator[Any]:
        return iter((self.tensor, self.index))


def voxelize(
    points: Tensor,
    feats: Tensor | None,
    voxel_size: float | Sequence[float] | Tensor,
    *,
    batch_index: Tensor | None = None,
    lengths: Sequence[int] | Tensor | None = None,
    origin: float | Sequence[float] | Tensor = 0.0,
    reduce: str = "mean",
    spatial_shape: int | Sequence[int] | None = None,
    batch_size: int | None = None,
    axes: str = "xyz",
) -> Voxelized:
    """Collect points into voxels: coordinate ``floor((point - origin) / voxel_size)``, computed in float64.

    The result does not depend on the number of threads. With "mean", "sum" and "max" neither does it depend on the
    order of the points (sums up to rounding); "first" takes the point that comes first in ``points``.

    Args:
        points: (P, D) floating, metres, D = 1 to 4, columns in the order of ``axes``.
        feats: (P, C) floating features of the points, differentiable; None: the points themselves, so that the mean
            feature of a voxel is the mean position of its points, in the column order and dtype of ``points``.
        voxel_size: metres, one number or D of them in the order of the point columns.
        batch_index: (P,) integer, the sample of each point, in any order; None: one sample.
        lengths: instead of ``batch_index``: the number of points of each sample, samples following each other.
        origin: corner of voxel 0 in metres, one number or D of them in the order of the point columns.
        reduce: "mean", "sum", "max" or "first", over the points of a voxel.
        spatial_shape: extent of the grid in voxels, (z, y, x); points outside are an error. None: unbounded.
        batch_size: number of samples; None: what ``lengths`` says, or one more than the largest batch index.
        axes: "xyz": point columns are x, y, z (or x, y; or x, y, z, t) and are reversed to make coordinates;
            "zyx": they are in the order of coordinates already.

    Raises:
        TypeError: points or feats is not floating, batch_index is not integer.
        ValueError: shapes or devices do not fit each other, a point is not finite, or lies outside ``spatial_shape``
            or beyond 32-bit voxel coordinates; the message names the first such row.
    """
    if reduce not in REDUCTIONS:
        raise ValueError(f"unknown reduction {reduce!r}; there are: {', '.join(REDUCTIONS)}")
    position = grid_position(points, voxel_size, origin, axes)
    batch, batch_size = batch_column(points, batch_index, lengths, batch_size)
    feats = points if feats is None else feats
    if feats.ndim != 2 or feats.shape[0] != points.shape[0]:
        raise ValueError(f"feats must be ({points.shape[0]}, C), one row per point, not {tuple(feats.shape)}")
    if not feats.is_floating_point():
        raise TypeError(f"feats must be floating, not {feats.dtype}")
    if feats.device != points.device:
        raise ValueError(f"feats is on {feats.device}, points on {points.device}")
    ndim = points.shape[1]
    shape = None if spatial_shape is None else expand(spatial_shape, ndim, "spatial_shape")
    cells = _cells(points, position.detach(), shape)
    backend = backend_for(points)
    found = backend.unique_coords(torch.cat([batch.int()[:, None], cells], 1))
    sites = CoordinateSet(found.coords, found.keys, found.layout, batch_size, (1,) * ndim, shape)
    values = backend.segment_reduce(feats, found.order, found.ptr, reduce)
    return Voxelized(SparseTensor.on(sites, values), found.inverse)


def grid_position(
    points: Tensor, voxel_size: float | Sequence[float] | Tensor, origin: float | Sequence[float] | Tensor, axes: str
) -> Tensor:
    """(P, D) float64: ``(points - origin) / voxel_size`` with columns in the engine's order; differentiable.

    Raises:
        TypeError: points is not floating.
        ValueError: points is not (P, D), D = 1 to 4, or a row is not finite; a wrong voxel_size, origin or axes.
    """
    if points.ndim != 2 or not 1 <= points.shape[1] <= 4:
        raise ValueError(f"points must be (P, D) with D from 1 to 4, not of shape {tuple(points.shape)}")
    if not points.is_floating_point():
        raise TypeError(f"points must be floating, not {points.dtype}")
    if axes not in ("xyz", "zyx"):
        raise ValueError(f'axes must be "xyz" (point columns start with x) or "zyx" (they end with x), not {axes!r}')
    finite = points.detach().isfinite().all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0, 0])
        raise ValueError(f"points row {row} is not finite: {tuple(points[row].tolist())}; drop such points first")
    size = per_column(voxel_size, points, "voxel_size")
    if not bool((size > 0).all()):
        raise ValueError(f"voxel_size must be positive, not {voxel_size}")
    position = (points.double() - per_column(origin, points, "origin")) / size
    return position.flip(1) if axes == "xyz" else position


def batch_column(
    points: Tensor,
    batch_index: Tensor | None,
    lengths: Sequence[int] | Tensor | None,
    batch_size: int | None,
) -> tuple[Tensor, int]:
    """((P,) int64 sample of each point, number of samples); arguments and errors as in ``voxelize``."""
    n = points.shape[0]
    if lengths is not None:
        if batch_index is not None:
            raise ValueError("give batch_index or lengths, not both")
        counts = torch.as_tensor(lengths, device=points.device)
        if counts.ndim != 1 or counts.is_floating_point() or bool((counts < 0).any()) or int(counts.sum()) != n:
            raise ValueError(f"lengths must be counts that sum to the {n} points, not {lengths}")
        batch = torch.repeat_interleave(torch.arange(len(counts), device=points.device), counts)
        return batch, _samples(len(counts), batch_size, "lengths")
    if batch_index is None:
        return torch.zeros(n, dtype=torch.int64, device=points.device), _samples(1, batch_size, "points")
    if batch_index.is_floating_point() or batch_index.is_complex() or batch_index.dtype == torch.bool:
        raise TypeError(f"batch_index must be integer, not {batch_index.dtype}")
    if tuple(batch_index.shape) != (n,):
        raise ValueError(f"batch_index must be ({n},), one entry per point, not {tuple(batch_index.shape)}")
    batch = batch_index.to(points.device, torch.int64)
    if n and int(batch.amin()) < 0:
        row = int((batch < 0).nonzero()[0, 0])
        raise ValueError(f"batch_index row {row} is negative: {int(batch[row])}")
    return batch, _samples(int(batch.amax()) + 1 if n else 0, batch_size, "batch_index")


def _samples(found: int, batch_size: int | None, name: str) -> int:
    if batch_size is not None and batch_size < found:
        raise ValueError(f"batch_size is {batch_size}, but {name} speaks of {found} samples")
    size = found if batch_size is None else batch_size
    if size > INT32.max:
        raise ValueError(f"a batch of {size} samples does not fit 32 bits")
    return size


def _cells(points: Tensor, position: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    """(P, D) int32 voxel coordinates, every one of them within 32 bits and ``shape``."""
    cells = position.floor()
    low = cells.new_tensor([INT32.min if shape is None else 0] * cells.shape[1])
    high = cells.new_tensor([INT32.max] * cells.shape[1] if shape is None else [n - 1 for n in shape])
    outside = ((cells < low) | (cells > high)).any(1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0, 0])
        where = "beyond 32 bits; enlarge voxel_size or set origin"
        if shape is not None:
            where = f"outside spatial_shape {shape}; crop the points first"
        site = tuple(int(c) for c in cells[row].tolist())
        raise ValueError(f"points row {row} = {tuple(points[row].tolist())} falls into voxel {site}, {where}")
    return cells.int()


def per_column(value: float | Sequence[float] | Tensor, points: Tensor, name: str) -> Tensor:
    """(D,) float64 on the points' device."""
    columns = torch.as_tensor(value, dtype=torch.float64, device=points.device)
    if columns.ndim > 1 or (columns.ndim == 1 and columns.shape[0] != points.shape[1]):
        raise ValueError(f"{name} must be one number or {points.shape[1]}, one per point column, not {value}")
    if not bool(columns.isfinite().all()):
        raise ValueError(f"{name} must be finite, not {value}")
    return columns.expand(points.shape[1])
