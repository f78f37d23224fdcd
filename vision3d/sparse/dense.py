# SPDX-License-Identifier: Apache-2.0
"""Sparse tensors from and to dense grids and torch's COO tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vision3d.sparse.tensor import SparseTensor


def to_dense(
    x: SparseTensor, spatial_shape: Sequence[int] | None = None, origin: Sequence[int] | None = None
) -> Tensor:
    """(B, C, *spatial_shape), zero where no site is.

    Args:
        x: the tensor.
        spatial_shape: extent per axis; None: the tensor's own, or from ``origin`` to the largest coordinate.
        origin: coordinate of the grid's first cell; None: 0 (or the smallest coordinate where any is negative and the
            tensor has no spatial shape).

    Raises:
        ValueError: a site lies outside the grid.
    """
    coords = x.sites.coords[:, 1:].long()
    if origin is None:
        unbounded = x.spatial_shape is None and len(x) > 0
        low = coords.amin(0).clamp(max=0) if unbounded and spatial_shape is None else coords.new_zeros(x.ndim)
    else:
        low = coords.new_tensor(list(origin))
    shape = spatial_shape if spatial_shape is not None else x.spatial_shape
    place = coords - low
    if shape is None:
        shape = (place.amax(0) + 1).tolist() if len(x) else [0] * x.ndim
    shape = tuple(int(n) for n in shape)
    if len(shape) != x.ndim:
        raise ValueError(f"spatial_shape has {len(shape)} axes, the tensor {x.ndim}")
    # The sites of a set lie in its own grid.
    checked = x.spatial_shape is not None and spatial_shape is None and origin is None
    outside = None if checked else ((place < 0) | (place >= place.new_tensor(shape))).any(1)
    if outside is not None and torch.compiler.is_compiling():
        torch._assert_async(outside.logical_not().all(), "a site lies outside the dense grid")
    elif outside is not None and bool(outside.any()):
        row = x.sites.coords[int(outside.nonzero()[0, 0])]
        raise ValueError(
            f"site {tuple(row.tolist())} lies outside the dense grid {shape} that starts at {low.tolist()}"
        )
    flat = x.sites.coords[:, 0].long()
    cells = x.batch_size
    for axis, size in enumerate(shape):
        flat = flat * size + place[:, axis]
        cells *= size
    grid = x.sorted_feats.new_zeros((cells, x.n_channels)).index_copy(0, flat, x.sorted_feats)
    return grid.view(x.batch_size, *shape, x.n_channels).movedim(-1, 1).contiguous()


def from_dense(values: Tensor, mask: Tensor | None = None) -> SparseTensor:
    """See ``SparseTensor.from_dense``. Raises ``ValueError`` when ``mask`` is not (B, *shape) bool."""
    from vision3d.sparse.tensor import SparseTensor

    if values.ndim < 3:
        raise ValueError(f"values must be (B, C, *shape), not of shape {tuple(values.shape)}")
    shape = (values.shape[0], *values.shape[2:])
    if mask is None:
        mask = (values.detach() != 0).any(1)
    elif tuple(mask.shape) != shape or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool of shape {shape}, not {mask.dtype} of shape {tuple(mask.shape)}")
    places = mask.nonzero()
    feats = values.movedim(1, -1)[places.unbind(1)]
    return SparseTensor(places.int(), feats, shape[1:], shape[0], assume_sorted_unique=True)


def to_torch_sparse(x: SparseTensor) -> Tensor:
    """See ``SparseTensor.to_torch_sparse``."""
    if x.spatial_shape is None:
        raise ValueError("a COO tensor needs a spatial_shape")
    size = (x.batch_size, *x.spatial_shape, x.n_channels)
    return torch.sparse_coo_tensor(
        x.sites.coords.t().long(), x.sorted_feats, size, is_coalesced=True, check_invariants=True
    )


def from_torch_sparse(values: Tensor) -> SparseTensor:
    """See ``SparseTensor.from_torch_sparse``."""
    from vision3d.sparse.tensor import SparseTensor

    if values.layout != torch.sparse_coo or values.dense_dim() != 1 or values.sparse_dim() < 2:
        raise ValueError("a hybrid COO tensor (B, *shape, C) with one dense axis is needed")
    values = values.coalesce()
    shape = tuple(values.shape[1:-1])
    coords = values.indices().t().int().contiguous()
    return SparseTensor(coords, values.values(), shape, values.shape[0], assume_sorted_unique=True)
