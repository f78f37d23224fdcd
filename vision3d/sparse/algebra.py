# SPDX-License-Identifier: Apache-2.0
"""Sparse tensors put together and taken apart: concatenation, sums, unions, pruning, samples of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vision3d.sparse.coordinates import CoordinateSet

if TYPE_CHECKING:
    from vision3d.sparse.tensor import SparseTensor


def cat(tensors: Sequence[SparseTensor], dim: int = 1) -> SparseTensor:
    """Concatenate as ``torch.cat`` does the dense tensors (B, C, ...): channels (1), or samples of the batch (0).

    Args:
        tensors: at least one. For channels on the same sites; for samples of the same D, stride and channels.
        dim: 1 or 0.

    Raises:
        ValueError: the tensors do not fit each other; the message names the first that does not fit.
    """
    if not tensors:
        raise ValueError("cat needs at least one tensor")
    if dim not in (0, 1):
        raise ValueError(f"dim must be 0 (samples) or 1 (channels), not {dim}")
    if len(tensors) == 1:
        return tensors[0]
    return _cat_channels(tensors) if dim == 1 else _cat_samples(tensors)


def _cat_channels(tensors: Sequence[SparseTensor]) -> SparseTensor:
    first = tensors[0]
    for index, other in enumerate(tensors[1:], 1):
        _same_sites(first, other, f"cat: tensor {index}")
    return first.with_sorted(torch.cat([t.sorted_feats for t in tensors], 1))


def _cat_samples(tensors: Sequence[SparseTensor]) -> SparseTensor:
    from vision3d.sparse.tensor import SparseTensor

    first = tensors[0]
    parts, start = [], 0
    for index, tensor in enumerate(tensors):
        for name, mine, its in (
            ("axes", first.ndim, tensor.ndim),
            ("stride", first.stride, tensor.stride),
            ("channels", first.n_channels, tensor.n_channels),
            ("spatial_shape", first.spatial_shape, tensor.spatial_shape),
        ):
            if mine != its:
                raise ValueError(f"cat: tensor {index} has {name} {its}, tensor 0 has {mine}")
        coords = tensor.coords.clone()
        coords[:, 0] += start
        parts.append(coords)
        start += tensor.batch_size
    feats = torch.cat([t.feats for t in tensors])
    return SparseTensor(torch.cat(parts), feats, first.spatial_shape, start, first.stride)


def elementwise(
    x: SparseTensor,
    other: SparseTensor | Tensor | float,
    operation: Callable[..., Tensor],
    sign: str,
) -> SparseTensor:
    """``operation`` on features at the same sites, or with a number, or with a tensor that has no spatial extent.

    Such a tensor is (C,), or broadcasts as against the dense tensor (B, C, ...): (C, 1, ...) for all sites alike,
    (B, C, 1, ...) or (B, 1, 1, ...) for the sites of a sample.

    Raises:
        ValueError: the site sets differ; the shape does not fit.
    """
    from vision3d.sparse.tensor import SparseTensor

    if isinstance(other, SparseTensor):
        _same_sites(x, other, f"operand of {sign}")
        if other.n_channels != x.n_channels and other.n_channels != 1 and x.n_channels != 1:
            raise ValueError(f"operand of {sign}: {other.n_channels} and {x.n_channels} channels do not fit")
        return x.with_sorted(operation(x.sorted_feats, other.sorted_feats))
    if isinstance(other, Tensor) and other.ndim > 0:
        other = _per_site(x, other, sign)
    return x.with_sorted(operation(x.sorted_feats, other))


def _per_site(x: SparseTensor, other: Tensor, sign: str) -> Tensor:
    """(1 or C,) or (N, 1 or C) from a tensor that broadcasts against (B, C, ...) and has no spatial extent."""
    from vision3d.sparse.functional.samples import spread_samples

    axes = x.ndim
    shape = (1,) * (axes + 2 - other.ndim) + tuple(other.shape)
    if other.ndim == 1:
        shape = (1, other.shape[0]) + (1,) * axes
    fits = len(shape) == axes + 2 and all(n == 1 for n in shape[2:])
    fits = fits and (shape[0] == 1 or shape[0] == x.batch_size) and (shape[1] == 1 or shape[1] == x.n_channels)
    if not fits:
        raise ValueError(
            f"operand of {sign}: a tensor of shape {tuple(other.shape)} fits neither ({x.n_channels},) nor "
            f"({x.batch_size}, {x.n_channels}{', 1' * axes}); use replace() to set the features of every site"
        )
    if shape[0] == 1:
        return other.reshape(shape[1])
    return spread_samples(other.reshape(shape[:2]), x.sites)


def union_add(x: SparseTensor, other: SparseTensor) -> SparseTensor:
    """Sum over the sites of either; sorted rows. Raises ``ValueError`` when stride, axes or channels differ."""
    from vision3d.sparse.tensor import SparseTensor

    # A traced graph does not know whether two sets are equal; their union is right either way.
    same = x.sites is other.sites if torch.compiler.is_compiling() else x.sites.same_sites(other.sites)
    if same:
        return x.with_sorted(x.sorted_feats + other.sorted_feats)
    _fits(x, other, "union")
    sites = x.sites.union(other.sites)
    dtype = torch.promote_types(x.dtype, other.dtype)
    out = x.sorted_feats.new_zeros((len(sites), x.n_channels), dtype=dtype)
    for tensor in (x, other):
        out = out.index_add(0, sites.rows_of(tensor.sites.coords), tensor.sorted_feats.to(dtype))
    return SparseTensor.on(sites, out)


def intersection(x: SparseTensor, other: SparseTensor) -> SparseTensor:
    """``x`` at the sites that ``other`` has as well, rows in x's order."""
    _fits(x, other, "intersection", channels=False)
    return prune(x, other.sites.rows_of(x.coords) >= 0)


def prune(x: SparseTensor, mask: Tensor) -> SparseTensor:
    """The sites where ``mask`` (N,) bool, in the user's order, is true; rows keep their order.

    Raises:
        TypeError: mask is not bool.
        ValueError: it has not one entry per row.
    """
    from vision3d.sparse.tensor import SparseTensor

    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, not {mask.dtype}")
    if tuple(mask.shape) != (len(x),):
        raise ValueError(f"mask must be of shape ({len(x)},), one entry per row, not {tuple(mask.shape)}")
    sites = x.sites
    kept = mask if sites.order is None else mask[sites.order]
    rows = kept.nonzero()[:, 0]
    return SparseTensor.on(sites.subset(rows), x.sorted_feats.index_select(0, rows))


def samples(x: SparseTensor, start: int, stop: int | None) -> SparseTensor:
    """Samples ``start`` to ``stop - 1`` (only ``start`` when None), renumbered from 0; rows keep their order."""
    from vision3d.sparse.tensor import SparseTensor

    stop = start + 1 if stop is None else stop
    ptr = x.sites.sample_ptr()
    rows = torch.arange(int(ptr[start]), int(ptr[stop]), device=x.device)
    sites = x.sites.subset(rows, first_sample=start, batch_size=stop - start)
    return SparseTensor.on(sites, x.sorted_feats[int(ptr[start]) : int(ptr[stop])])


def _same_sites(x: SparseTensor, other: SparseTensor, what: str) -> None:
    if x.sites is other.sites:
        return
    if torch.compiler.is_compiling():
        _check_same_later(x, other, what)
        return
    if x.sites.same_sites(other.sites):
        return
    _fits(x, other, what, channels=False)
    mine: CoordinateSet = x.sites
    missing = (mine.rows_of(other.sites.coords) < 0).nonzero()
    extra = (other.sites.rows_of(mine.coords) < 0).nonzero()
    site = other.sites.coords[missing[0, 0]] if len(missing) else mine.coords[extra[0, 0]]
    raise ValueError(
        f"{what}: the site sets differ ({len(other)} and {len(x)} sites; for instance only one has "
        f"{tuple(site.tolist())}); use union() to add over the sites of either"
    )


def _check_same_later(x: SparseTensor, other: SparseTensor, what: str) -> None:
    """A traced graph compares the sites when it runs."""
    _fits(x, other, what, channels=False)
    torch._check(len(x) == len(other))
    torch._assert_async((x.sites.coords == other.sites.coords).all(), f"{what}: the site sets differ")


def _fits(x: SparseTensor, other: SparseTensor, what: str, channels: bool = True) -> None:
    pairs = [("axes", other.ndim, x.ndim), ("stride", other.stride, x.stride), ("device", other.device, x.device)]
    if channels:
        pairs.append(("channels", other.n_channels, x.n_channels))
    for name, its, mine in pairs:
        if its != mine:
            raise ValueError(f"{what}: {name} {its} and {mine} differ")
