# SPDX-License-Identifier: Apache-2.0
"""A set of active sites, and every kernel map that was ever asked of it.

The set owns its maps: layers on the same set share them without names, and they die with it. A strided layer keeps
its child set here as well, so two branches that downsample alike get the *same* child.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vision3d.sparse.backends import backend_for
from vision3d.sparse.kernel_map import KernelMap

Ints = tuple[int, ...]


class CoordinateSet:
    """N distinct sites of a batch of D-dimensional grids, in sorted order.

    Args:
        coords: (N, 1 + D) int32, sorted lexicographically by (batch, z, y, x), unique.
        keys: (N,) int64, see ``vision3d.sparse.backends.base``.
        layout: (2, 1 + D) int64 on the CPU.
        batch_size: number of samples; empty ones count.
        stride: size of a site in finest-grid units, per axis.
        spatial_shape: extent of the grid per axis, or None where it is unbounded.
        order: (N,) int64: sorted row i is the user's row ``order[i]``; None when the user's order is sorted.
    """

    def __init__(
        self,
        coords: Tensor,
        keys: Tensor,
        layout: Tensor,
        batch_size: int,
        stride: Ints,
        spatial_shape: Ints | None = None,
        order: Tensor | None = None,
    ) -> None:
        self.coords = coords
        self.keys = keys
        self.layout = layout
        self.batch_size = batch_size
        self.stride = stride
        self.spatial_shape = spatial_shape
        self.order = order
        self._inverse: Tensor | None = None
        self._maps: dict[tuple[Ints, Ints], KernelMap] = {}
        self._children: dict[tuple[str, Ints, Ints, Ints, Ints, Ints | None], tuple[CoordinateSet, KernelMap]] = {}
        self._coarse: dict[tuple[Ints, Ints | None], CoordinateSet] = {}
        self._maps_to: weakref.WeakKeyDictionary[CoordinateSet, dict[tuple[Ints, Ints, Ints, Ints], KernelMap]] = (
            weakref.WeakKeyDictionary()
        )
        #: Number of maps that had to be built (not found in the cache).
        self.builds = 0

    @classmethod
    def from_coords(
        cls,
        coords: Tensor,
        spatial_shape: int | Sequence[int] | None = None,
        batch_size: int | None = None,
        stride: int | Sequence[int] = 1,
        assume_sorted_unique: bool = False,
    ) -> CoordinateSet:
        """Validates and sorts. Arguments and errors as in ``vision3d.sparse.SparseTensor``."""
        _check_coords(coords)
        coords = coords.contiguous()
        ndim = coords.shape[1] - 1
        backend = backend_for(coords)
        order: Tensor | None = None
        if assume_sorted_unique:
            keys, layout = backend.index_sorted(coords)
        else:
            found = backend.sort_coords(coords)
            keys, layout, order = found.keys, found.layout, found.order
            coords = found.coords
        shape = None if spatial_shape is None else expand(spatial_shape, ndim, "spatial_shape")
        if shape is not None and not all(0 <= n < 2**31 for n in shape):
            raise ValueError(f"spatial_shape must be from 0 to 2^31 - 1 on every axis, not {spatial_shape}")
        strides = expand(stride, ndim, "stride")
        if any(s < 1 for s in strides):
            raise ValueError(f"stride must be positive, not {stride}")
        batch_size = _check_bounds(coords, layout, batch_size, shape)
        return cls(coords, keys, layout, batch_size, strides, shape, order)

    @property
    def ndim(self) -> int:
        """D."""
        return len(self.stride)

    @property
    def inverse(self) -> Tensor | None:
        """(N,) int64: the user's row r is sorted row ``inverse[r]``; None when the user's order is sorted."""
        if self.order is not None and self._inverse is None:
            inverse = torch.empty_like(self.order)
            inverse[self.order] = torch.arange(self.order.shape[0], device=self.order.device)
            self._inverse = inverse
        return self._inverse

    def __len__(self) -> int:
        return int(self.coords.shape[0])

    def __getstate__(self) -> dict[str, Any]:
        """For copies and data loader processes: maps go along, but for those onto prescribed sets (weak references)."""
        return {**self.__dict__, "_maps_to": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._maps_to = weakref.WeakKeyDictionary()

    def sample_ptr(self) -> Tensor:
        """(batch_size + 1,) int64: rows of sample b are ``ptr[b]:ptr[b + 1]`` (sorted order)."""
        bounds = torch.arange(self.batch_size + 1, device=self.coords.device, dtype=torch.int32)
        return torch.searchsorted(self.coords[:, 0].contiguous(), bounds)

    def subm_map(self, kernel_size: Ints, dilation: Ints) -> KernelMap:
        """The submanifold map of this set onto itself."""
        key = (kernel_size, dilation)
        found = self._maps.get(key)
        if found is None:
            found = backend_for(self.coords).subm_map(self.keys, self.layout, kernel_size, dilation)
            self._maps[key] = found
            self.builds += 1
        return found

    def strided(
        self, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, out_rule: str = "dense"
    ) -> tuple[CoordinateSet, KernelMap]:
        """The child set of a strided layer, and the map onto it.

        Args:
            kernel_size: per axis, as are the other three.
            stride: see above.
            padding: see above.
            dilation: see above.
            out_rule: "dense" (every site whose window touches an active input, as in ``torch.nn.Conv3d``) or "floor"
                (``floor(coordinate / stride)`` only, as in MinkowskiEngine). Layers with this rule and the same stride
                share one child whatever their kernels, and windows that do not overlap make that child as well. With
                stride 1 the child is this set itself.
        """
        shape = self.conv_shape(kernel_size, stride, padding, dilation)
        if out_rule == "floor" and max(stride) == 1 and shape == self.spatial_shape:
            return self, self._map_onto_itself(kernel_size, stride, padding, dilation)
        key = (out_rule, kernel_size, stride, padding, dilation, None)
        found = self._children.get(key)
        if found is None:
            if out_rule == "floor" or (kernel_size == stride and not any(padding) and max(dilation) == 1):
                child = self._floor(stride, shape)
            else:
                backend = backend_for(self.coords)
                sites = backend.strided_coords(self.coords, kernel_size, stride, padding, dilation, shape)
                child = self._derived(sites, _coarser(self.stride, stride), shape)
            found = (child, self._pair_map(child, kernel_size, stride, padding, dilation))
            self._children[key] = found
        return found

    def transposed(
        self, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, output_padding: Ints
    ) -> tuple[CoordinateSet, KernelMap]:
        """The set that a transposed convolution generates, and the map onto it.

        Raises:
            ValueError: the set's stride is not a multiple of the layer's.
        """
        key = ("transposed", kernel_size, stride, padding, dilation, output_padding)
        found = self._children.get(key)
        if found is None:
            shape = None
            if self.spatial_shape is not None:
                shape = tuple(
                    (n - 1) * s - 2 * p + d * (k - 1) + extra + 1
                    for n, k, s, p, d, extra in zip(
                        self.spatial_shape, kernel_size, stride, padding, dilation, output_padding
                    )
                )
            sites = backend_for(self.coords).transposed_coords(
                self.coords, kernel_size, stride, padding, dilation, shape
            )
            child = self._derived(sites, tuple(max(a // b, 1) for a, b in zip(self.stride, stride)), shape)
            back = child._pair_map(self, kernel_size, stride, padding, dilation)
            found = (child, back.transposed())
            self._children[key] = found
        return found

    def map_to(
        self, target: CoordinateSet, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints
    ) -> KernelMap:
        """The map onto a prescribed output set: output sites are those of ``target`` and no others."""
        key = (kernel_size, stride, padding, dilation)
        for made, (child, kernel_map) in self._children.items():
            if child is target and made[1:5] == key and made[0] != "transposed":
                return kernel_map
        known = self._maps_to.setdefault(target, {})
        found = known.get(key)
        if found is None:
            found = self._pair_map(target, kernel_size, stride, padding, dilation)
            known[key] = found
        return found

    def rows_of(self, coords: Tensor) -> Tensor:
        """(M,) int64 sorted row of each (M, 1 + D) int32 coordinate, -1 where the set does not hold it."""
        return backend_for(self.coords).lookup(self.keys, self.layout, coords)

    def same_sites(self, other: CoordinateSet) -> bool:
        """Whether both hold the same sites of the same grid (whatever the users' orders)."""
        if self is other:
            return True
        return (
            self.stride == other.stride
            and self.coords.shape == other.coords.shape
            and self.coords.device == other.coords.device
            and bool(torch.equal(self.coords, other.coords))
        )

    def subset(self, rows: Tensor, first_sample: int = 0, batch_size: int | None = None) -> CoordinateSet:
        """The sites at ascending sorted ``rows`` (M,) int64, in the user's relative order.

        Args:
            rows: which.
            first_sample: subtracted from batch indices.
            batch_size: of the new set; None: as here.
        """
        coords = self.coords.index_select(0, rows)
        if first_sample:
            coords[:, 0] -= first_sample
        keys, layout = backend_for(coords).index_sorted(coords)
        order = None
        if self.order is not None:
            # Rank of each kept user row among the kept ones.
            kept = self.order.index_select(0, rows)
            order = torch.empty_like(kept)
            order[torch.argsort(kept)] = torch.arange(kept.shape[0], device=kept.device)
        size = self.batch_size if batch_size is None else batch_size
        return CoordinateSet(coords, keys, layout, size, self.stride, self.spatial_shape, order)

    def union(self, other: CoordinateSet) -> CoordinateSet:
        """The sites of either, in sorted order."""
        found = backend_for(self.coords).unique_coords(torch.cat([self.coords, other.coords]))
        shape = self.spatial_shape if self.spatial_shape == other.spatial_shape else None
        size = max(self.batch_size, other.batch_size)
        return CoordinateSet(found.coords, found.keys, found.layout, size, self.stride, shape)

    def to(self, device: torch.device | str) -> CoordinateSet:
        """A copy on another device, without maps."""
        order = None if self.order is None else self.order.to(device)
        return CoordinateSet(
            self.coords.to(device),
            self.keys.to(device),
            self.layout,
            self.batch_size,
            self.stride,
            self.spatial_shape,
            order,
        )

    def partner(
        self, child: CoordinateSet, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints
    ) -> tuple[CoordinateSet, KernelMap] | None:
        """The set below this one whose strided layer with this geometry made ``child``, and that layer's map."""
        for key, (made, kernel_map) in self._children.items():
            if made is child and key[1:5] == (kernel_size, stride, padding, dilation) and key[0] != "transposed":
                return self, kernel_map
        for made in dict.fromkeys(made for made, _ in self._children.values()):
            found = made.partner(child, kernel_size, stride, padding, dilation)
            if found is not None:
                return found
        return None

    def cached_maps(self) -> list[KernelMap]:
        """Every map this set holds, those of its children not included."""
        own = list(self._maps.values()) + [kernel_map for _, kernel_map in self._children.values()]
        return own + [m for maps in self._maps_to.values() for m in maps.values()]

    def _map_onto_itself(self, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints) -> KernelMap:
        same = tuple(k // 2 * d for k, d in zip(kernel_size, dilation))
        if padding == same and all(k % 2 for k in kernel_size):
            return self.subm_map(kernel_size, dilation)
        return self.map_to(self, kernel_size, stride, padding, dilation)

    def _floor(self, stride: Ints, shape: Ints | None) -> CoordinateSet:
        found = self._coarse.get((stride, shape))
        if found is None:
            ones, zeros = (1,) * self.ndim, (0,) * self.ndim
            sites = backend_for(self.coords).strided_coords(self.coords, stride, stride, zeros, ones, shape)
            found = self._derived(sites, _coarser(self.stride, stride), shape)
            self._coarse[stride, shape] = found
        return found

    def _pair_map(
        self, target: CoordinateSet, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints
    ) -> KernelMap:
        self.builds += 1
        backend = backend_for(self.coords)
        return backend.pair_map(
            self.coords, self.keys, self.layout, target.coords, kernel_size, stride, padding, dilation
        )

    def _derived(self, sites: Tensor, stride: Ints, shape: Ints | None) -> CoordinateSet:
        keys, layout = backend_for(sites).index_sorted(sites)
        return CoordinateSet(sites, keys, layout, self.batch_size, stride, shape)

    def conv_shape(self, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Ints | None:
        """Extent of a convolution's output grid, as of ``torch.nn.Conv3d``; None where the grid is unbounded.

        Raises:
            ValueError: no output is left.
        """
        if self.spatial_shape is None:
            return None
        shape = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(self.spatial_shape, kernel_size, stride, padding, dilation)
        )
        if any(n < 1 for n in shape):
            raise ValueError(
                f"kernel_size {kernel_size}, dilation {dilation} and padding {padding} leave no output of "
                f"spatial_shape {self.spatial_shape}: would be {shape}"
            )
        return shape


def expand(value: int | Sequence[int], ndim: int, name: str) -> Ints:
    """One integer per axis, from one integer or D of them.

    Raises:
        ValueError: the number of values is not D.
        TypeError: a value is not an integer.
    """
    values = tuple(value) if isinstance(value, Sequence) else (value,) * ndim
    if any(not isinstance(v, int) or isinstance(v, bool) for v in values):
        raise TypeError(f"{name} must be an integer or {ndim} of them, not {value!r}")
    if len(values) != ndim:
        raise ValueError(f"{name} has {len(values)} values for {ndim} axes: {value!r}")
    return values


def _coarser(strides: Ints, factors: Ints) -> Ints:
    return tuple(a * b for a, b in zip(strides, factors))


def _check_coords(coords: Tensor) -> None:
    if coords.ndim != 2 or not 2 <= coords.shape[1] <= 5:
        raise ValueError(
            f"coords must be (N, 1 + D) with D from 1 to 4, batch first, not of shape {tuple(coords.shape)}"
        )
    if coords.dtype != torch.int32:
        raise TypeError(f"coords must be int32, not {coords.dtype}")


def _check_bounds(coords: Tensor, layout: Tensor, batch_size: int | None, shape: Ints | None) -> int:
    """The batch size, after a check of every (sorted) row against it and the grid."""
    if torch.compiler.is_compiling():
        return _check_bounds_later(coords, batch_size, shape)
    n = coords.shape[0]
    largest = int(coords[-1, 0]) if n else -1
    if n and int(layout[0, 0]) < 0:
        raise ValueError(f"batch indices must not be negative: site {tuple(coords[0].tolist())}")
    if batch_size is None:
        batch_size = largest + 1
    elif batch_size < 0 or largest >= batch_size:
        raise ValueError(
            f"batch index {largest} of site {tuple(coords[-1].tolist())} is not below batch_size {batch_size}"
        )
    if shape is None or not n:
        return batch_size
    low = layout[0, 1:].tolist()
    multiplier = layout[1].tolist()
    high = [a + (multiplier[i] // multiplier[i + 1] + 1) // 2 - 1 for i, a in enumerate(low)]
    if any(a < 0 for a in low) or any(b >= size for b, size in zip(high, shape)):
        space = coords[:, 1:]
        outside = ((space < 0) | (space >= space.new_tensor(shape))).any(1)
        site = coords[int(outside.nonzero()[0, 0])]
        raise ValueError(f"site {tuple(site.tolist())} (batch first) lies outside spatial_shape {shape}")
    return batch_size


def _check_bounds_later(coords: Tensor, batch_size: int | None, shape: Ints | None) -> int:
    """The same in a traced graph, which does not know the rows yet: it checks them when it runs."""
    if batch_size is None:
        raise ValueError("batch_size must be given where a SparseTensor is made inside torch.compile or torch.export")
    torch._assert_async((coords[:, 0] < batch_size).all(), "a batch index is not below batch_size")
    if shape is not None:
        space = coords[:, 1:]
        inside = (space >= 0) & (space < space.new_tensor(shape))
        torch._assert_async(inside.all(), "a site lies outside spatial_shape")
    return batch_size
