# SPDX-License-Identifier: Apache-2.0
"""What a backend must offer. Everything works on plain tensors in sorted row order.

Sorted order is lexicographic in ``(batch, z, y, x)``. A key is a row's place in a box that is as large as the
cloud, with a guard as wide as the box behind every axis::

    key = sum_i (coords[:, i] - layout[0, i]) * layout[1, i]        layout: (2, 1 + D) int64, on the CPU

``layout[0]`` is the minimum of each column and ``layout[1]`` its multiplier (1 for the last column). The number of
places along axis i >= 1 is ``F_i = layout[1, i - 1] // layout[1, i] = 2 * E_i - 1`` with ``E_i`` the extent of the
cloud, so that ``key + sum_i d_i * layout[1, i]`` is the key of the neighbour at offset d and of nothing else, for every
``|d_i| < E_i``; beyond that there is no neighbour. Keys are below 2^63 or an error is raised: nothing ever wraps.
An empty cloud has minimum 0 and multiplier 1 everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from vision3d.sparse.kernel_map import KernelMap


class SortedCoords(NamedTuple):
    """Coordinates in sorted order.

    Attributes:
        coords: (N, 1 + D) int32, sorted, unique.
        order: (N,) int64: sorted row i was row ``order[i]`` of the input.
        keys: (N,) int64, strictly ascending.
        layout: (2, 1 + D) int64 on the CPU, see the module.
    """

    coords: Tensor
    order: Tensor
    keys: Tensor
    layout: Tensor


class UniqueCoords(NamedTuple):
    """Distinct coordinates in sorted order.

    Attributes:
        coords: (M, 1 + D) int32, sorted, unique.
        keys: (M,) int64.
        layout: (2, 1 + D) int64 on the CPU.
        inverse: (N,) int64: input row r lies in unique row ``inverse[r]``.
        order: (N,) int64: input rows sorted by unique row, ties in input order.
        ptr: (M + 1,) int64: the input rows of unique row m are ``order[ptr[m]:ptr[m + 1]]``.
    """

    coords: Tensor
    keys: Tensor
    layout: Tensor
    inverse: Tensor
    order: Tensor
    ptr: Tensor


class Backend(Protocol):
    """One implementation of the engine's primitives."""

    name: str

    def sort_coords(self, coords: Tensor) -> SortedCoords:
        """Sort (N, 1 + D) int32 rows, D = 1..4.

        Raises:
            ValueError: two rows are equal (message names both row numbers and the coordinate), a batch index is
                negative, or the extent is too large for the key.
        """
        ...

    def index_sorted(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """(keys, layout) of rows that ascend strictly already. Raises ``ValueError`` where they do not."""
        ...

    def unique_coords(self, coords: Tensor) -> UniqueCoords:
        """Distinct rows of (N, 1 + D) int32 coordinates. Errors as ``sort_coords``, duplicates being welcome."""
        ...

    def subm_map(self, keys: Tensor, layout: Tensor, kernel_size: Sequence[int], dilation: Sequence[int]) -> KernelMap:
        """Submanifold map (mirrored form): input = output coordinate + (k - centre) * dilation; odd kernels only."""
        ...

    def strided_coords(
        self,
        coords: Tensor,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        out_shape: Sequence[int] | None,
    ) -> Tensor:
        """Sorted unique (M, 1 + D) int32 output sites of a strided convolution, the dense rule.

        Site o is in when ``o * stride - padding + k * dilation`` is an active input for some k; with ``out_shape``,
        only 0 <= o < out_shape.
        """
        ...

    def transposed_coords(
        self,
        coords: Tensor,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        out_shape: Sequence[int] | None,
    ) -> Tensor:
        """Sorted unique output sites ``i * stride - padding + k * dilation`` of a transposed convolution."""
        ...

    def pair_map(
        self,
        in_coords: Tensor,
        in_keys: Tensor,
        in_layout: Tensor,
        out_coords: Tensor,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> KernelMap:
        """General map between two sorted sets: input = output * stride - padding + k * dilation, per batch index."""
        ...

    def lookup(self, keys: Tensor, layout: Tensor, coords: Tensor) -> Tensor:
        """(M,) int64 row of each (M, 1 + D) int32 coordinate in the sorted set, -1 where it is not."""
        ...

    def conv(
        self,
        feats: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel_map: KernelMap,
        groups: int = 1,
        relu: bool = False,
    ) -> Tensor:
        """``out[o] = act(bias + sum_k feats[i(o, k)] @ weight[k])``, differentiable in feats, weight and bias.

        Args:
            feats: (n_in, Cin) floating.
            weight: (K, Cin / groups, Cout), groups in order of output channels as in ``torch.nn.Conv3d``.
            bias: (Cout,) or None.
            kernel_map: the pairs; K must fit.
            groups: channel groups; ``groups == Cin`` is depthwise.
            relu: clamp at zero in the epilogue.
        """
        ...

    def pool(self, feats: Tensor, kernel_map: KernelMap, mode: str) -> Tensor:
        """``mode`` "max" or "sum" over the active inputs of every output, differentiable. No input: 0.

        The gradient of a maximum goes to the first of equal inputs in offset order.
        """
        ...

    def segment_reduce(self, values: Tensor, order: Tensor, ptr: Tensor, mode: str) -> Tensor:
        """(S, C): "sum", "mean", "max" or "first" of ``values[order[ptr[s]:ptr[s + 1]]]``; empty segments give 0.

        Sums run in the given order, so results are the same for every thread count. Differentiable.
        """
        ...

    def sample_norm(
        self, feats: Tensor, ptr: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        """(N, C) in which every group of channels of every sample has mean 0 and variance 1, then ``* weight + bias``.

        Args:
            feats: (N, C) floating; rows ``ptr[b]:ptr[b + 1]`` are sample b.
            ptr: (B + 1,) int64, from 0 to N.
            groups: divides C; C itself: one mean per channel.
            weight: (C,) or None.
            bias: (C,) or None.
            eps: added to the variance.
        """
        ...
