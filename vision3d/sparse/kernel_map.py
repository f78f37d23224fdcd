# SPDX-License-Identifier: Apache-2.0
"""Kernel maps: which input row meets which output row under which kernel offset.

A map is a handful of plain integer tensors, so that it passes through ``torch.library`` operators and
``torch.compile`` as it is. Both row numbers of a list ascend, in every list: an order-preserving translation
and scaling turns one into the other. So a block of output rows owns one contiguous range of every list, and so
does a block of input rows: forward pass and input gradient read the same map from its two sides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from torch import Tensor

#: Rows per entry of ``block_in`` and ``block_out``.
BLOCK_ROWS = 64


@dataclass(frozen=True)
class KernelMap:
    """All pairs (input row, output row), one list per kernel offset.

    Kernel offsets are numbered in C order, the last axis fastest, as in ``weight.view(K, Cin, Cout)``.

    Attributes:
        pair_in: (P,) int32 input rows, list after list, ascending within a list.
        pair_out: (P,) int32 output rows, ascending within a list.
        list_ptr: (L + 1,) int64, on the CPU: list ``l`` is ``pair_*[list_ptr[l]:list_ptr[l + 1]]``.
        block_in: (L, ceil(n_in / 64) + 1) int32: number of pairs of list ``l`` whose input row is below ``64 * b``.
        block_out: (L, ceil(n_out / 64) + 1) int32: the same for the output rows.
        n_in: number of input rows.
        n_out: number of output rows.
        kernel_size: kernel extent of each of the D axes; K is their product.
        mirrored: submanifold form. L = (K - 1) / 2 lists stand for the offsets after the centre: list ``l`` is offset
            ``(K + 1) / 2 + l``; offset ``(K - 3) / 2 - l`` is the same list with its two sides swapped; the centre is
            the identity and is not stored. Otherwise L = K and list ``l`` is offset ``l``.
    """

    pair_in: Tensor
    pair_out: Tensor
    list_ptr: Tensor
    block_in: Tensor
    block_out: Tensor
    n_in: int
    n_out: int
    kernel_size: tuple[int, ...]
    mirrored: bool

    @property
    def volume(self) -> int:
        """K, the number of kernel offsets."""
        return prod(self.kernel_size)

    @property
    def n_pairs(self) -> int:
        """Pairs over all offsets: ``2 * n_pairs * Cin * Cout`` is the useful arithmetic of a convolution."""
        stored = self.pair_in.shape[0]
        return 2 * stored + self.n_in if self.mirrored else stored

    @property
    def nbytes(self) -> int:
        """Memory of the map."""
        tensors = (self.pair_in, self.pair_out, self.list_ptr, self.block_in, self.block_out)
        return sum(t.numel() * t.element_size() for t in tensors)

    def transposed(self) -> KernelMap:
        """The map read from its other side: outputs become inputs, under the same offset numbers."""
        return replace(
            self,
            pair_in=self.pair_out,
            pair_out=self.pair_in,
            block_in=self.block_out,
            block_out=self.block_in,
            n_in=self.n_out,
            n_out=self.n_in,
        )

    def pairs_of(self, offset: int) -> tuple[Tensor, Tensor]:
        """(input rows, output rows) of one kernel offset, int64; for oracles and tests, not for speed."""
        import torch

        index, swapped = offset, False
        if self.mirrored:
            centre = self.volume // 2
            if offset == centre:
                rows = torch.arange(self.n_in, device=self.pair_in.device)
                return rows, rows
            swapped = offset < centre
            index = centre - 1 - offset if swapped else offset - centre - 1
        span = slice(int(self.list_ptr[index]), int(self.list_ptr[index + 1]))
        rows_in, rows_out = self.pair_in[span].long(), self.pair_out[span].long()
        return (rows_out, rows_in) if swapped else (rows_in, rows_out)
