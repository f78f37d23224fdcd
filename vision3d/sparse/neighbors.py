# SPDX-License-Identifier: Apache-2.0
"""The k nearest active voxels of a point, exact, by scipy's kd-tree (one per sample, on the CPU)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vision3d.sparse.coordinates import CoordinateSet
from vision3d.sparse.tensor import SparseTensor
from vision3d.sparse.voxelize import batch_column, grid_position, per_column

_FAR = 2.0**50  # beyond it float64 does not tell neighbouring voxels apart safely
_SPARE = 5  # candidates beyond k: on a grid, distances are often equal


class Neighbors(NamedTuple):
    """Nearest voxels of P points, the nearest first; among equally near ones the first in sorted order.

    Attributes:
        rows: (P, k) int64 rows of ``x.feats`` and ``x.coords``; -1 where a sample has fewer than k voxels.
        distances: (P, k) float64 metres from the point to the voxel's centre; infinite where the row is -1.
    """

    rows: Tensor
    distances: Tensor


def knn(
    x: SparseTensor,
    points: Tensor,
    k: int,
    *,
    voxel_size: float | Sequence[float] | Tensor = 1.0,
    origin: float | Sequence[float] | Tensor = 0.0,
    batch_index: Tensor | None = None,
    lengths: Sequence[int] | Tensor | None = None,
    axes: str = "xyz",
) -> Neighbors:
    """The k active voxels of a point's sample whose centres are nearest to it.

    Args:
        x: N voxels; voxel i is centred at ``origin + (i + 0.5) * stride * voxel_size``.
        points: (P, D), and the other arguments, as in ``vision3d.sparse.devoxelize``.
        k: at least 1.
        voxel_size: see above.
        origin: see above.
        batch_index: see above.
        lengths: see above.
        axes: see above.

    Raises:
        ValueError: k is less than 1; otherwise as ``vision3d.sparse.devoxelize``.
    """
    position, batch, size = placed(x, points, voxel_size, origin, batch_index, lengths, axes)
    rows, distances = nearest_rows(x.sites, position.detach(), batch, k, size)
    if x.sites.order is not None:
        rows = torch.where(rows >= 0, x.sites.order[rows.clamp(min=0)], -1) if len(x) else rows
    return Neighbors(rows, distances)


def placed(
    x: SparseTensor,
    points: Tensor,
    voxel_size: float | Sequence[float] | Tensor,
    origin: float | Sequence[float] | Tensor,
    batch_index: Tensor | None,
    lengths: Sequence[int] | Tensor | None,
    axes: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Where points lie among the voxels of ``x``, checked; arguments and errors as in ``vision3d.sparse.devoxelize``.

    Returns:
        (P, D) float64 positions in units of x's voxels, engine's axis order, differentiable; (P,) int64 samples; (D,)
        float64 metres per unit.
    """
    position = grid_position(points, voxel_size, origin, axes)
    if points.shape[1] != x.ndim:
        raise ValueError(f"points have {points.shape[1]} columns, the tensor {x.ndim} axes")
    if points.device != x.device:
        raise ValueError(f"points are on {points.device}, the tensor on {x.device}")
    if batch_index is None and lengths is None and x.batch_size > 1:
        raise ValueError(
            f"the tensor has {x.batch_size} samples; say by batch_index or lengths which one points are in"
        )
    batch, _ = batch_column(points, batch_index, lengths, max(x.batch_size, 1))
    stride = position.new_tensor(x.stride)
    position = position / stride
    far = (position.detach().abs() > _FAR).any(1)
    if bool(far.any()):
        row = int(far.nonzero()[0, 0])
        raise ValueError(f"points row {row} = {tuple(points[row].tolist())} is more than 2^50 voxels from the origin")
    size = per_column(voxel_size, points, "voxel_size")
    return position, batch, (size.flip(0) if axes == "xyz" else size) * stride


def nearest_rows(sites: CoordinateSet, position: Tensor, batch: Tensor, k: int, size: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted rows (P, k) and distances (P, k) of the nearest sites, ties in sorted order.

    Args:
        sites: the voxels.
        position: (P, D) float64, in units of the sites, engine's axis order.
        batch: (P,) int64.
        k: number of neighbours.
        size: (D,) float64, metres per unit and axis.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    rows = torch.full((len(position), k), -1, dtype=torch.int64, device=position.device)
    distances = torch.full(rows.shape, torch.inf, dtype=torch.float64, device=position.device)
    ptr = sites.sample_ptr().tolist()
    # In units of the first axis, cubic voxels have exact coordinates, so that equal distances are equal.
    centres = (sites.coords[:, 1:].double() + 0.5) * (size / size[0])
    position = position * (size / size[0])
    for sample in range(sites.batch_size):
        begin, end = ptr[sample], ptr[sample + 1]
        chosen = (batch == sample).nonzero()[:, 0]
        if begin == end or len(chosen) == 0:
            continue
        found, squared = _search(centres[begin:end], position[chosen], min(k, end - begin))
        rows[chosen, : found.shape[1]] = found + begin
        distances[chosen, : found.shape[1]] = squared.sqrt() * size[0]
    return rows, distances


def _search(centres: Tensor, position: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rows and squared distances (P, k) in (distance, row) order."""
    from scipy.spatial import cKDTree

    tree = cKDTree(centres.cpu().numpy(), balanced_tree=False)
    n, p = len(centres), len(position)
    rows = torch.empty((p, k), dtype=torch.int64, device=centres.device)
    squared = torch.empty((p, k), dtype=torch.float64, device=centres.device)
    left = torch.arange(p, device=centres.device)
    wanted = min(n, k + _SPARE)
    while len(left):
        near = tree.query(position[left].cpu().numpy(), list(range(1, wanted + 1)), workers=torch.get_num_threads())[1]
        candidates = torch.from_numpy(near).to(centres.device, torch.int64).sort(1)[0]
        distance = (centres[candidates] - position[left, None]).square().sum(2)
        # Stable, and candidates ascend: equal distances stay in row order.
        distance, best = distance.sort(dim=1, stable=True)
        rows[left] = candidates.gather(1, best[:, :k])
        squared[left] = distance[:, :k]
        # The k-th may be tied with one that the tree left out; the margin covers the tree's rounding.
        open_ties = (distance[:, -1] <= distance[:, k - 1] * (1 + 1e-9)) & (wanted < n)
        left = left[open_ties]
        wanted = min(n, 2 * wanted)
    return rows, squared
