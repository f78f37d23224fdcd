# SPDX-License-Identifier: Apache-2.0
"""Voxels along space-filling curves, cut into patches of equal length: the neighbourhoods of serialized attention.

Wu et al., "Point Transformer V3" (CVPR 2024), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vision3d.sparse import CoordinateSet
from vision3d.sparse.serialize import hilbert_key, morton_key

#: Curves by name; "trans" swaps the two last axes, x and y.
ORDERS = ("z", "z-trans", "hilbert", "hilbert-trans")
#: Of a key, for all axes together: 2^16 sites per axis in 3D, 2^24 in 2D; the rest is the batch index.
KEY_BITS = 48


@dataclass(frozen=True)
class PatchLayout:
    """Which rows meet in which patch.

    A patch holds K rows of one sample that follow each other on the curve. A sample's last patch is filled up from the
    patch before it; a sample with fewer than K rows has one patch, with a mask over what is missing.

    Attributes:
        rows: (P, K) int64 sorted rows of each patch; masked places repeat the sample's last row.
        place: (N,) int64 where a sorted row's own result lies among P * K; of a borrowed row there are two.
        mask: (P, 1, 1, K) bool, false where nothing is; None when all patches are full.
    """

    rows: Tensor
    place: Tensor
    mask: Tensor | None


def check_order(order: str) -> str:
    """Raises ``ValueError`` for an unknown order."""
    if order not in ORDERS:
        raise ValueError(f"unknown order {order!r}; there are: {', '.join(ORDERS)}")
    return order


def curve_order(sites: CoordinateSet, order: str = "z") -> Tensor:
    """(N,) int64 sorted rows, sample after sample, along a curve through each sample's bounding box.

    The order of a sample depends on that sample alone, and not on where it lies.

    Args:
        sites: N sites.
        order: one of ``ORDERS``.

    Raises:
        ValueError: no such order, a sample too wide for its key, or D is not 2 or 3.
    """
    check_order(order)
    batch, space = sites.coords[:, 0].long(), sites.coords[:, 1:].long()
    index = batch[:, None].expand_as(space)
    low = space.new_zeros((sites.batch_size, sites.ndim)).scatter_reduce(0, index, space, "amin", include_self=False)
    space = space - low[batch]
    if order.endswith("-trans"):
        space = torch.cat([space[:, :-2], space[:, -2:].flip(1)], 1)
    key = morton_key if order.startswith("z") else hilbert_key
    # The depth is fixed: with the batch's extent, one sample would change the curve through another.
    return torch.argsort(key(torch.cat([batch[:, None], space], 1), KEY_BITS // sites.ndim))


def patch_layout(sites: CoordinateSet, curve: Tensor, patch_size: int) -> PatchLayout:
    """Cut a curve into patches.

    Args:
        sites: N sites.
        curve: (N,) int64 from ``curve_order``.
        patch_size: largest number of rows in a patch; the largest sample's size when that is smaller.

    Raises:
        ValueError: ``patch_size`` is not positive.
    """
    if patch_size < 1:
        raise ValueError(f"patch_size must be positive, not {patch_size}")
    ptr = sites.sample_ptr()
    counts = ptr[1:] - ptr[:-1]
    length = max(1, min(patch_size, int(counts.max()) if len(sites) else 1))
    patches = (counts + length - 1) // length
    first_patch = patches.cumsum(0) - patches
    device = curve.device
    sample = torch.repeat_interleave(torch.arange(sites.batch_size, device=device), patches)
    number = torch.arange(sample.shape[0], device=device) - first_patch[sample]
    start = _start(number, counts[sample], length)
    position = start[:, None] + torch.arange(length, device=device)
    full = position < counts[sample][:, None]
    rows = curve[ptr[sample][:, None] + torch.minimum(position, counts[sample][:, None] - 1)]
    # The curve runs sample after sample, as the sorted rows do.
    batch = sites.coords[:, 0].long()
    along = torch.arange(len(sites), device=device) - ptr[batch]
    own = along // length
    slot = along - _start(own, counts[batch], length)
    place = torch.empty_like(curve)
    place[curve] = (first_patch[batch] + own) * length + slot
    return PatchLayout(rows, place, None if bool(full.all()) else full[:, None, None])


class CurvePatches:
    """Curves and patches of one set of sites, made when first asked for, for all layers on these sites.

    Args:
        sites: N sites.
        orders: curves; layer i takes number i, around again.
    """

    def __init__(self, sites: CoordinateSet, orders: Sequence[str]) -> None:
        self.sites = sites
        self.orders = tuple(orders)
        self._curves: dict[str, Tensor] = {}
        self._layouts: dict[tuple[str, int], PatchLayout] = {}

    def layout(self, number: int, patch_size: int) -> PatchLayout:
        """The patches of layer ``number``."""
        order = self.orders[number % len(self.orders)]
        if order not in self._curves:
            self._curves[order] = curve_order(self.sites, order)
        if (order, patch_size) not in self._layouts:
            self._layouts[order, patch_size] = patch_layout(self.sites, self._curves[order], patch_size)
        return self._layouts[order, patch_size]


def _start(number: Tensor, count: Tensor, length: int) -> Tensor:
    """Position on the curve at which a sample's patch begins: the last one ends where the sample does."""
    return torch.minimum(number * length, (count - length).clamp(min=0))
