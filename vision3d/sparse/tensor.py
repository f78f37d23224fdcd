# SPDX-License-Identifier: Apache-2.0
"""SparseTensor: features on the active sites of a batch of grids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from vision3d.sparse import algebra, dense, torch_functions
from vision3d.sparse.coordinates import CoordinateSet
from vision3d.sparse.permutation import permute


class SparseTensor:
    """N active sites (voxels) with C channels each. Immutable: layers return new tensors on shared coordinates.

    ``coords`` and ``feats`` show rows in the user's order. The engine works in sorted order (``sites.coords``,
    ``sorted_feats``); rows are permuted once, here at the border, never per layer. Sets that layers make are in sorted
    order from the start.

    Args:
        coords: (N, 1 + D) int32, batch index first, then (z, y, x); D = 1, 2, 3, or 4 with time. Negative is fine.
            Voxel i covers ``[i * s, (i + 1) * s)``.
        feats: (N, C) floating, on the same device.
        spatial_shape: extent of the grid per axis; sites outside are an error. None: unbounded.
        batch_size: number of samples; None: one more than the largest batch index.
        stride: size of a site in finest-grid units.
        assume_sorted_unique: coords ascend strictly; skips the sort (the promise is checked in one pass).

    Raises:
        TypeError: wrong dtype.
        ValueError: wrong shape or device, duplicates, a site outside the grid or the batch.
    """

    def __init__(
        self,
        coords: Tensor,
        feats: Tensor,
        spatial_shape: int | Sequence[int] | None = None,
        batch_size: int | None = None,
        stride: int | Sequence[int] = 1,
        assume_sorted_unique: bool = False,
    ) -> None:
        sites = CoordinateSet.from_coords(coords, spatial_shape, batch_size, stride, assume_sorted_unique)
        self.sites = sites
        self.sorted_feats = permute(_checked(feats, sites), sites.order, sites.inverse)
        self._root = sites

    @classmethod
    def on(cls, sites: CoordinateSet, sorted_feats: Tensor, root: CoordinateSet | None = None) -> SparseTensor:
        """A tensor on an existing set, from features in sorted order.

        Args:
            sites: the set.
            sorted_feats: (N, C), row i belongs to ``sites.coords[i]``.
            root: the set this one was derived from, if any; the tensor keeps it, and the maps it owns, alive.
        """
        tensor = cls.__new__(cls)
        tensor.sites = sites
        tensor.sorted_feats = _checked(sorted_feats, sites)
        tensor._root = sites if root is None else root
        return tensor

    def derive(self, sites: CoordinateSet, sorted_feats: Tensor) -> SparseTensor:
        """A tensor on a set derived from this one's (a strided layer's child, say). What layers return."""
        return SparseTensor.on(sites, sorted_feats, self._root)

    def with_sorted(self, sorted_feats: Tensor) -> SparseTensor:
        """Other features, in sorted order, on the same sites."""
        return self.derive(self.sites, sorted_feats)

    def replace(self, feats: Tensor) -> SparseTensor:
        """Other features (N, C'), in the user's order, on the same sites."""
        return self.with_sorted(permute(_checked(feats, self.sites), self.sites.order, self.sites.inverse))

    def map(self, function: Callable[[Tensor], Tensor]) -> SparseTensor:
        """``function`` applied to the features; it must treat rows alike (activation, dropout, linear layer)."""
        return self.with_sorted(function(self.sorted_feats))

    @property
    def coords(self) -> Tensor:
        """(N, 1 + D) int32, the user's order."""
        inverse = self.sites.inverse
        return self.sites.coords if inverse is None else self.sites.coords[inverse]

    @property
    def feats(self) -> Tensor:
        """(N, C), the user's order."""
        return permute(self.sorted_feats, self.sites.inverse, self.sites.order)

    @property
    def root(self) -> CoordinateSet:
        """The set that this tensor's set was derived from; itself for a tensor that no layer made."""
        return self._root

    @property
    def ndim(self) -> int:
        """D, the number of spatial axes."""
        return self.sites.ndim

    @property
    def n_channels(self) -> int:
        """C."""
        return int(self.sorted_feats.shape[1])

    @property
    def stride(self) -> tuple[int, ...]:
        """Size of a site in finest-grid units, per axis."""
        return self.sites.stride

    @property
    def spatial_shape(self) -> tuple[int, ...] | None:
        """Extent of the grid per axis, None where it is unbounded."""
        return self.sites.spatial_shape

    @property
    def batch_size(self) -> int:
        """Number of samples."""
        return self.sites.batch_size

    @property
    def dtype(self) -> torch.dtype:
        """Of the features."""
        return self.sorted_feats.dtype

    @property
    def device(self) -> torch.device:
        """Of features and coordinates."""
        return self.sorted_feats.device

    @property
    def requires_grad(self) -> bool:
        """Whether the features take part in autograd."""
        return self.sorted_feats.requires_grad

    def __len__(self) -> int:
        return len(self.sites)

    def sample(self, index: int) -> SparseTensor:
        """One sample of the batch, as a batch of one; rows keep their order. Raises ``IndexError``."""
        return algebra.samples(self, range(self.batch_size)[index], None)

    def __getitem__(self, index: int | slice) -> SparseTensor:
        """``x[i]``: sample i as a batch of one; ``x[a:b]``: the samples a to b - 1, renumbered from 0."""
        if isinstance(index, slice):
            start, stop, step = index.indices(self.batch_size)
            if step != 1:
                raise ValueError(f"samples can be sliced with step 1 only, not {step}")
            return algebra.samples(self, start, max(start, stop))
        return self.sample(index)

    def prune(self, mask: Tensor) -> SparseTensor:
        """The sites where ``mask`` (N,) bool, in the user's order, is true."""
        return algebra.prune(self, mask)

    def union(self, other: SparseTensor) -> SparseTensor:
        """Sum over the sites of either; a site that one lacks counts zero there. Rows are sorted."""
        return algebra.union_add(self, other)

    def __add__(self, other: SparseTensor | Tensor | float) -> SparseTensor:
        return algebra.elementwise(self, other, torch.add, "+")

    def __sub__(self, other: SparseTensor | Tensor | float) -> SparseTensor:
        return algebra.elementwise(self, other, torch.sub, "-")

    def __mul__(self, other: SparseTensor | Tensor | float) -> SparseTensor:
        return algebra.elementwise(self, other, torch.mul, "*")

    def __truediv__(self, other: SparseTensor | Tensor | float) -> SparseTensor:
        return algebra.elementwise(self, other, torch.div, "/")

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Tensor | float) -> SparseTensor:
        return -self + other

    def __neg__(self) -> SparseTensor:
        return self.map(torch.neg)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Row-wise functions, arithmetic with tensors, ``torch.cat``: see ``vision3d.sparse.torch_functions``."""
        return torch_functions.call(function, args, kwargs or {})

    def permute(self, *dims: int) -> SparseTensor:
        """Of the dense tensor (B, C, ...), to channels-last or back: this tensor itself. Others: ``ValueError``."""
        return torch_functions.permute(self, dims)

    def mean(self, dim: Sequence[int], keepdim: bool = False) -> Tensor:
        """(B, C): mean over the active sites of each sample; ``dim`` must be all spatial axes of (B, C, ...)."""
        return torch_functions.mean(self, dim, keepdim)

    def dense(self, spatial_shape: Sequence[int] | None = None, origin: Sequence[int] | None = None) -> Tensor:
        """(B, C, *spatial_shape) with zeros elsewhere; see ``vision3d.sparse.dense.to_dense``."""
        return dense.to_dense(self, spatial_shape, origin)

    @staticmethod
    def from_dense(values: Tensor, mask: Tensor | None = None) -> SparseTensor:
        """From (B, C, *shape); sites are where ``mask`` (B, *shape) is true, or where any channel is not zero."""
        return dense.from_dense(values, mask)

    def to_torch_sparse(self) -> Tensor:
        """Hybrid COO tensor (B, *spatial_shape, C), coalesced. Needs a ``spatial_shape``, and no negative site."""
        return dense.to_torch_sparse(self)

    @staticmethod
    def from_torch_sparse(values: Tensor) -> SparseTensor:
        """From a hybrid COO tensor (B, *shape, C) with one dense axis; duplicates are summed."""
        return dense.from_torch_sparse(values)

    def to(self, *args: torch.device | torch.dtype | str, non_blocking: bool = False) -> SparseTensor:
        """As ``torch.Tensor.to``: a dtype changes the features, a device moves features and coordinates."""
        feats = self.sorted_feats.to(*args, non_blocking=non_blocking)  # type: ignore[call-overload]
        if feats.device == self.sites.coords.device:
            return self.with_sorted(feats)
        return SparseTensor.on(self.sites.to(feats.device), feats)

    def cpu(self) -> SparseTensor:
        """On the CPU."""
        return self.to("cpu")

    def cuda(self) -> SparseTensor:
        """On the current CUDA device."""
        return self.to("cuda")

    def float(self) -> SparseTensor:
        """Features as float32."""
        return self.to(torch.float32)

    def double(self) -> SparseTensor:
        """Features as float64."""
        return self.to(torch.float64)

    def detach(self) -> SparseTensor:
        """The same values, outside autograd; coordinates and maps are shared."""
        return self.map(torch.Tensor.detach)

    def clone(self) -> SparseTensor:
        """A copy of the features; coordinates and maps are shared."""
        return self.map(torch.clone)

    def requires_grad_(self, requires_grad: bool = True) -> SparseTensor:
        """Makes the features (sorted order, a leaf) record gradients; returns self."""
        self.sorted_feats.requires_grad_(requires_grad)
        return self

    def __repr__(self) -> str:
        parts = [
            f"N={len(self)}",
            f"C={self.n_channels}",
            f"batch_size={self.batch_size}",
            f"stride={_short(self.stride)}",
        ]
        if self.spatial_shape is not None:
            cells = self.batch_size * prod(self.spatial_shape)
            parts += [f"spatial_shape={self.spatial_shape}", f"fill={100 * len(self) / max(cells, 1):.2f} %"]
        maps = self.sites.cached_maps()
        parts += [f"dtype={str(self.dtype).removeprefix('torch.')}", f"device={self.device}"]
        parts += [f"maps={len(maps)} ({sum(m.nbytes for m in maps) / 2**20:.2f} MiB)"]
        return f"SparseTensor({', '.join(parts)})"


def _checked(feats: Tensor, sites: CoordinateSet) -> Tensor:
    if feats.ndim != 2:
        raise ValueError(f"feats must be (N, C), not of shape {tuple(feats.shape)}")
    if not feats.is_floating_point():
        raise TypeError(f"feats must be floating, not {feats.dtype}")
    if feats.shape[0] != sites.coords.shape[0]:
        raise ValueError(f"feats has {feats.shape[0]} rows, coords {sites.coords.shape[0]}")
    if feats.device != sites.coords.device:
        raise ValueError(f"feats is on {feats.device}, coords on {sites.coords.device}")
    return feats


def _short(values: tuple[int, ...]) -> str:
    return str(values[0]) if len(set(values)) == 1 else str(values)
