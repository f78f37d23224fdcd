# SPDX-License-Identifier: Apache-2.0
"""The reference backend: plain torch, any device, any floating dtype, gradients by autograd. Clear before fast."""

from __future__ import annotations

import torch
from torch import Tensor

from vision3d.sparse.backends import reference_maps
from vision3d.sparse.kernel_map import KernelMap
from vision3d.sparse.widening import wide_dtype, widened


class ReferenceBackend:
    """One matrix product per kernel offset; sums of half precision are kept in float32."""

    name = "reference"

    sort_coords = staticmethod(reference_maps.sort_coords)
    index_sorted = staticmethod(reference_maps.index_sorted)
    unique_coords = staticmethod(reference_maps.unique_coords)
    subm_map = staticmethod(reference_maps.subm_map)
    strided_coords = staticmethod(reference_maps.strided_coords)
    transposed_coords = staticmethod(reference_maps.transposed_coords)
    pair_map = staticmethod(reference_maps.pair_map)
    lookup = staticmethod(reference_maps.lookup)

    def conv(
        self,
        feats: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel_map: KernelMap,
        groups: int = 1,
        relu: bool = False,
    ) -> Tensor:
        """See ``Backend.conv``."""
        if weight.shape[0] != kernel_map.volume:
            raise ValueError(f"weight has {weight.shape[0]} kernel offsets, the kernel map {kernel_map.volume}")
        if feats.shape[0] != kernel_map.n_in:
            raise ValueError(f"feats has {feats.shape[0]} rows, the kernel map {kernel_map.n_in} inputs")
        if feats.shape[1] != weight.shape[1] * groups or weight.shape[2] % groups:
            raise ValueError(f"feats {tuple(feats.shape)} and weight {tuple(weight.shape)} do not fit, groups={groups}")
        wide = wide_dtype(feats.dtype)
        # Widened as a whole, so that the gradient's sums over offsets are wide as well.
        rows, kernels = feats.to(wide), weight.to(wide)
        out = torch.zeros((kernel_map.n_out, weight.shape[2]), dtype=wide, device=feats.device)
        # Autocast would narrow the products again.
        with torch.autocast(feats.device.type, enabled=False):
            for offset in range(kernel_map.volume):
                rows_in, rows_out = kernel_map.pairs_of(offset)
                out = out.index_add(0, rows_out, _product(rows[rows_in], kernels[offset], groups))
        if bias is not None:
            out = out + bias.to(wide)
        return (out.relu() if relu else out).to(feats.dtype)

    def pool(self, feats: Tensor, kernel_map: KernelMap, mode: str) -> Tensor:
        """See ``Backend.pool``."""
        if mode not in ("max", "sum"):
            raise ValueError(f"unknown pooling mode {mode!r}; there are: max, sum")
        wide = wide_dtype(feats.dtype)
        shape = (kernel_map.n_out, feats.shape[1])
        out = torch.zeros(shape, dtype=wide, device=feats.device)
        if mode == "sum":
            rows = feats.to(wide)
            for offset in range(kernel_map.volume):
                rows_in, rows_out = kernel_map.pairs_of(offset)
                out = out.index_add(0, rows_out, rows[rows_in])
            return out.to(feats.dtype)
        best = torch.full(shape, -torch.inf, dtype=feats.dtype, device=feats.device)
        source = torch.full(shape, -1, dtype=torch.int64, device=feats.device)
        values = feats.detach()
        for offset in range(kernel_map.volume):
            rows_in, rows_out = kernel_map.pairs_of(offset)
            # As in torch's max pooling NaN wins over numbers.
            nan = values[rows_in].isnan() & ~best[rows_out].isnan()
            better = (values[rows_in] > best[rows_out]) | nan | (source[rows_out] < 0)
            best[rows_out] = torch.where(better, values[rows_in], best[rows_out])
            source[rows_out] = torch.where(better, rows_in[:, None], source[rows_out])
        if feats.shape[0] == 0:
            # The (empty) sum keeps the result in autograd.
            return out.to(feats.dtype) + feats.sum()
        return torch.where(source >= 0, feats.gather(0, source.clamp(min=0)), 0)

    def segment_reduce(self, values: Tensor, order: Tensor, ptr: Tensor, mode: str) -> Tensor:
        """See ``Backend.segment_reduce``."""
        if mode not in ("sum", "mean", "max", "first"):
            raise ValueError(f"unknown reduction {mode!r}; there are: sum, mean, max, first")
        segments = ptr.shape[0] - 1
        counts = ptr[1:] - ptr[:-1]
        shape = (segments, values.shape[1])
        if mode == "first":
            out = torch.zeros(shape, dtype=values.dtype, device=values.device)
            return out.index_add(0, (counts > 0).nonzero()[:, 0], values[order[ptr[:-1][counts > 0]]])
        wide = wide_dtype(values.dtype)
        ids = torch.repeat_interleave(torch.arange(segments, device=values.device), counts)
        rows = values[order[int(ptr[0]) : int(ptr[-1])]].to(wide)
        if mode == "max":
            return _segment_max(rows, ids, counts).to(values.dtype)
        out = torch.zeros(shape, dtype=wide, device=values.device).index_add(0, ids, rows)
        if mode == "mean":
            out = out / counts.clamp(min=1)[:, None]
        return out.to(values.dtype)

    def sample_norm(
        self, feats: Tensor, ptr: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        """See ``Backend.sample_norm``."""
        samples, channels = ptr.shape[0] - 1, feats.shape[1]
        counts = ptr[1:] - ptr[:-1]
        ids = torch.repeat_interleave(torch.arange(samples, device=feats.device), counts)
        size = (counts.clamp(min=1) * (channels // groups))[:, None]
        wide = widened(feats)

        def means(values: Tensor) -> Tensor:
            """(B, C): mean over the rows of a sample and the channels of a group, for each of its channels."""
            sums = values.new_zeros((samples, channels)).index_add(0, ids, values)
            over_group = sums.view(samples, groups, channels // groups).sum(2) / size
            return over_group.repeat_interleave(channels // groups, 1)

        centred = wide - means(wide)[ids]
        out = centred * torch.rsqrt(means(centred * centred) + eps)[ids]
        if weight is not None:
            out = out * weight
        if bias is not None:
            out = out + bias
        return out.to(feats.dtype)


def _segment_max(rows: Tensor, ids: Tensor, counts: Tensor) -> Tensor:
    """Maxima of the rows of each segment; ties go to the first row, so that its gradient is that of the engine."""
    index = ids[:, None].expand_as(rows)
    values = rows.detach()
    best = values.new_full((len(counts), rows.shape[1]), -torch.inf).scatter_reduce(0, index, values, "amax")
    wins = (values == best[ids]) | values.isnan()
    place = torch.arange(len(rows), device=rows.device)[:, None].expand_as(rows)
    none = len(rows)
    first = place.new_full(best.shape, none).scatter_reduce(0, index, torch.where(wins, place, none), "amin")
    if none == 0:
        return torch.zeros_like(best) + rows.sum()
    return torch.where(first < none, rows.gather(0, first.clamp(max=none - 1)), 0)


def _product(rows: Tensor, weight: Tensor, groups: int) -> Tensor:
    """(P, Cin) by (Cin / groups, Cout), group by group."""
    if groups == 1:
        return rows @ weight
    parts = rows.reshape(rows.shape[0], groups, weight.shape[0]).transpose(0, 1)
    kernels = weight.reshape(weight.shape[0], groups, weight.shape[1] // groups).transpose(0, 1)
    return (parts @ kernels).transpose(0, 1).reshape(rows.shape[0], weight.shape[1])
