# SPDX-License-Identifier: Apache-2.0
"""A set of active sites, and every kernel map that was ever asked of it.

The set owns its maps: layers on the same set share them without names, and they die with it. A strided layer keeps
its child set here as well, so two branches that downsample alike get the *same* child.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

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
        self._maps_to: weakref.WeakKeyDictionary[CoordinateSet, dict[tuple[Ints, Ints, Ints, Ints], KernelMap]] = (
            weakref.WeakKeyDictionary()
        )
        #: Number of maps that had to be built (not found in the cache).
        self.builds = 0

    @property
    def ndim(self) -> int:
        """D."""
        return self.coords.shape[1] - 1

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
                (``floor(coordinate / stride)`` only, as in MinkowskiEngine).
        """
        key = (out_rule, kernel_size, stride, padding, dilation, None)
        found = self._children.get(key)
        if found is None:
            backend = backend_for(self.coords)
            shape = self._conv_shape(kernel_size, stride, padding, dilation)
            if out_rule == "floor":
                ones, zeros = (1,) * self.ndim, (0,) * self.ndim
                sites = backend.strided_coords(self.coords, stride, stride, zeros, ones, shape)
            else:
                sites = backend.strided_coords(self.coords, kernel_size, stride, padding, dilation, shape)
            child = self._derived(sites, tuple(a * b for a, b in zip(self.stride, stride)), shape)
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

    def cached_maps(self) -> list[KernelMap]:
        """Every map this set holds, those of its children not included."""
        own = list(self._maps.values()) + [kernel_map for _, kernel_map in self._children.values()]
        return own + [m for maps in self._maps_to.values() for m in maps.values()]

    def _pair_map(
        self, target: CoordinateSet, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints
    ) -> KernelMap:
        self.builds += 1
        backend = backend_for(self.coords)
        return backend.pair_map(
            self.coords, self.keys, self.layout, target.coords, kernel_size, stride, padding, dilation
        )

    def _derived(self, sites: Tensor, stride: Ints, shape: Ints | None) -> CoordinateSet:
        found = backend_for(sites).sort_coords(sites)
        return CoordinateSet(sites, found.keys, found.layout, self.batch_size, stride, shape)

    def _conv_shape(self, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Ints | None:
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
