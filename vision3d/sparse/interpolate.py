# SPDX-License-Identifier: Apache-2.0
"""From voxels to points, and from one voxel set to another.

Voxel i of a tensor with stride s covers ``[i * s, (i + 1) * s)`` voxel sizes from the origin; its centre is at
``(i + 0.5) * s``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from vision3d.sparse.backends import backend_for
from vision3d.sparse.coordinates import CoordinateSet
from vision3d.sparse.neighbors import nearest_rows, placed
from vision3d.sparse.tensor import SparseTensor
from vision3d.sparse.voxelize import INT32

MODES = ("trilinear", "nearest", "idw", "index")


def devoxelize(
    x: SparseTensor,
    points: Tensor,
    mode: str = "trilinear",
    *,
    voxel_size: float | Sequence[float] | Tensor = 1.0,
    origin: float | Sequence[float] | Tensor = 0.0,
    batch_index: Tensor | None = None,
    lengths: Sequence[int] | Tensor | None = None,
    axes: str = "xyz",
    fallback: SparseTensor | Sequence[SparseTensor] = (),
    k: int = 3,
) -> Tensor:
    """Features at points. Differentiable in the features and, for "trilinear" and "idw", in the points.

    Args:
        x: N voxels with C channels.
        points: (P, D) floating, metres (or voxels, with the default ``voxel_size``), columns in the order of ``axes``;
            for "index" (P,) integer rows of ``x.feats``, as ``voxelize`` returns them; -1 reads zeros.
        mode: "trilinear": between the centres of the up to 2^D voxels around the point; weights are renormalised over
            those that exist. "nearest": the voxel that contains the point. "idw": the ``k`` nearest active voxels of
            the sample, at any distance d, with weights 1 / (d^2 + 1e-8) as in PointNet++ (Qi et al., 2017; d in voxel
            units of the last axis). "index": row ``points[p]``.
        voxel_size: metres, of the finest grid (stride 1): one number or D, in the order of the point columns.
        origin: corner of voxel 0, metres, one number or D, in the order of the point columns.
        batch_index: (P,) integer, the sample of each point; None: all in the only sample.
        lengths: instead of ``batch_index``: number of points per sample.
        axes: "xyz" (point columns start with x) or "zyx" (the order of coordinates); see ``vision3d.sparse.voxelize``.
        fallback: coarser tensors with C channels. A point that finds no voxel takes the feature of the voxel that
            contains it in the first of these that has one, and zero when none has.
        k: number of neighbours of "idw".

    Returns:
        (P, C), of the dtype of ``x``.

    Raises:
        TypeError: points is not floating (integer for "index").
        ValueError: unknown mode, shapes that do not fit, a point that is not finite, a sample that ``x`` has not.
        IndexError: for "index", a row that ``x`` has not.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; there are: {', '.join(MODES)}")
    if mode == "index":
        return _rows_at(x, points)
    position, batch, size = placed(x, points, voxel_size, origin, batch_index, lengths, axes)
    chain = [fallback] if isinstance(fallback, SparseTensor) else list(fallback)
    return _sampled(x, position, batch, mode, size / size[-1], k, chain)


def interpolate(
    x: SparseTensor,
    target: SparseTensor | CoordinateSet,
    mode: str = "nearest",
    *,
    fallback: SparseTensor | Sequence[SparseTensor] = (),
    k: int = 3,
) -> SparseTensor:
    """The features of ``x`` at the centres of other voxels, usually of a finer stride.

    Args:
        x: N voxels.
        target: where to; its own features play no part.
        mode: "nearest" (the voxel of x that contains the centre, so the parent of a finer site), "trilinear" or "idw",
            as in ``devoxelize``.
        fallback: as in ``devoxelize``.
        k: as in ``devoxelize``.

    Returns:
        A tensor on the sites of ``target``; zero where nothing is found.

    Raises:
        ValueError: unknown mode; axes or batch sizes differ.
    """
    if mode not in MODES[:-1]:
        raise ValueError(f"unknown mode {mode!r}; there are: {', '.join(MODES[:-1])}")
    sites = target.sites if isinstance(target, SparseTensor) else target
    if sites.ndim != x.ndim or sites.batch_size != x.batch_size:
        raise ValueError(
            f"target has {sites.ndim} axes and batch size {sites.batch_size}, the tensor {x.ndim} and {x.batch_size}"
        )
    centres = sites.coords[:, 1:].double() + 0.5
    position = centres * centres.new_tensor(sites.stride) / centres.new_tensor(x.stride)
    size = centres.new_tensor(x.stride)
    chain = [fallback] if isinstance(fallback, SparseTensor) else list(fallback)
    feats = _sampled(x, position, sites.coords[:, 0].long(), mode, size / size[-1], k, chain)
    return target.with_sorted(feats) if isinstance(target, SparseTensor) else x.derive(sites, feats)


def _sampled(
    x: SparseTensor, position: Tensor, batch: Tensor, mode: str, size: Tensor, k: int, chain: list[SparseTensor]
) -> Tensor:
    """(P, C) features at positions in units of x's voxels."""
    if mode == "trilinear":
        rows, weights = _corners(x.sites, position, batch)
    elif mode == "idw":
        rows, weights = _inverse_distance(x.sites, position, batch, size, k)
    else:
        rows = _containing(x.sites, position.detach(), batch)[:, None]
        weights = torch.ones_like(rows, dtype=torch.float64)
    out = weighted_rows(x.sorted_feats, rows, weights)
    missing = ((rows < 0) | (weights == 0)).all(1)
    for index, coarse in enumerate(chain):
        if (coarse.ndim, coarse.batch_size, coarse.n_channels) != (x.ndim, x.batch_size, x.n_channels):
            raise ValueError(f"fallback {index} is {coarse}, which has not the axes, batch and channels of {x}")
        left = missing.nonzero()[:, 0]
        scale = position.new_tensor(x.stride) / position.new_tensor(coarse.stride)
        rows = _containing(coarse.sites, position.detach()[left] * scale, batch[left])
        values = weighted_rows(coarse.sorted_feats, rows[:, None], torch.ones_like(rows[:, None], dtype=torch.float64))
        out = out.index_copy(0, left, values.to(out.dtype))
        missing = missing.index_copy(0, left, rows < 0)
    return out


def weighted_rows(feats: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """(P, C): ``sum_k weights[p, k] * feats[rows[p, k]]``, rows of -1 left out; differentiable in feats and weights.

    Args:
        feats: (N, C) floating; sums of half precision are kept in float32.
        rows: (P, K) int64.
        weights: (P, K) floating.
    """
    n = feats.shape[0]
    wide = torch.float32 if feats.dtype in (torch.float16, torch.bfloat16) else feats.dtype
    # A row of zeros stands for what is missing: whatever row 0 holds, it does not leak.
    padded = torch.cat([feats.to(wide), feats.new_zeros((1, feats.shape[1]), dtype=wide)])
    rows = torch.where(rows >= 0, rows, n)
    out = embedding_bag(rows, padded, mode="sum", per_sample_weights=weights.to(wide), padding_idx=n)
    return out.to(feats.dtype)


def _corners(sites: CoordinateSet, position: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and weights (P, 2^D) of the voxels whose centres surround each position."""
    shifted = position - 0.5
    base = shifted.detach().floor()
    part = shifted - base
    weights = torch.ones_like(part[:, :1])
    for axis in range(sites.ndim):
        pair = torch.stack([1 - part[:, axis], part[:, axis]], 1)
        weights = (weights[:, :, None] * pair[:, None]).flatten(1)
    rows = _corner_rows(sites, base, batch)
    return rows, _normalised(torch.where(rows >= 0, weights, 0))


def _corner_rows(sites: CoordinateSet, base: Tensor, batch: Tensor) -> Tensor:
    """(P, 2^D) sorted rows of the cells ``base + {0, 1}^D``, the last axis fastest; -1 where there is none."""
    ndim = sites.ndim
    rows = torch.full((len(base), 2**ndim), -1, dtype=torch.int64, device=base.device)
    if len(sites) == 0 or len(base) == 0:
        return rows
    low, high = (end(sites.coords[:, 1:].double(), 0) for end in (torch.amin, torch.amax))
    if bool((low == INT32.min).any()):
        corners = [base + base.new_tensor(corner) for corner in product((0, 1), repeat=ndim)]
        return torch.stack([_lookup(sites, cells, batch) for cells in corners], 1)
    # Points share cells: the distinct ones are paired with the sites in one pass, as a kernel of size 2 would be.
    near = ((base >= low - 1) & (base <= high)).all(1).nonzero()[:, 0]
    backend = backend_for(sites.coords)
    cells = backend.unique_coords(torch.cat([batch[near, None], base[near].long()], 1).int())
    ones = (1,) * ndim
    pairs = backend.pair_map(sites.coords, sites.keys, sites.layout, cells.coords, (2,) * ndim, ones, (0,) * ndim, ones)
    table = rows.new_full((len(cells.coords), 2**ndim), -1)
    offset = torch.repeat_interleave(pairs.list_ptr.diff()).to(table.device)
    table[pairs.pair_out.long(), offset] = pairs.pair_in.long()
    return rows.index_copy_(0, near, table[cells.inverse])


def _inverse_distance(
    sites: CoordinateSet, position: Tensor, batch: Tensor, size: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Rows and weights (P, k) of the nearest sites."""
    rows, _ = nearest_rows(sites, position.detach(), batch, k, size)
    if len(sites) == 0:
        return rows, torch.zeros_like(rows, dtype=torch.float64)
    centres = sites.coords[rows.clamp(min=0), 1:].double() + 0.5
    squared = ((centres - position[:, None]) * size).square().sum(2)
    return rows, _normalised(torch.where(rows >= 0, 1 / (squared + 1e-8), 0))


def _normalised(weights: Tensor) -> Tensor:
    total = weights.sum(1, keepdim=True)
    return weights / torch.where(total > 0, total, 1)


def _containing(sites: CoordinateSet, position: Tensor, batch: Tensor) -> Tensor:
    return _lookup(sites, position.floor(), batch)


def _lookup(sites: CoordinateSet, cells: Tensor, batch: Tensor) -> Tensor:
    """(P,) sorted row of each float64 cell, -1 where there is none; cells beyond 32 bits have none."""
    inside = ((cells >= INT32.min) & (cells <= INT32.max)).all(1)
    coords = torch.cat([batch[:, None], torch.where(inside[:, None], cells, 0).long()], 1).int()
    return torch.where(inside, sites.rows_of(coords), -1)


def _rows_at(x: SparseTensor, index: Tensor) -> Tensor:
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise TypeError(f'for mode "index" points must be integer rows, not {index.dtype}')
    if index.ndim != 1:
        raise ValueError(f'for mode "index" points must be (P,), not of shape {tuple(index.shape)}')
    if len(index) and (int(index.amin()) < -1 or int(index.amax()) >= len(x)):
        at = int(((index < -1) | (index >= len(x))).nonzero()[0, 0])
        raise IndexError(f"index row {at} is {int(index[at])}, but the tensor has rows 0 to {len(x) - 1}")
    feats = x.feats
    if len(index) and int(index.amin()) < 0:
        feats = torch.cat([feats, feats.new_zeros((1, x.n_channels))])
        index = torch.where(index >= 0, index, len(x))
    return feats.index_select(0, index)
