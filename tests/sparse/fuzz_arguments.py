# SPDX-License-Identifier: Apache-2.0
"""Correct calls of the compiled module's functions, for the fuzzer to spoil."""

from __future__ import annotations

from typing import Any

import torch
from fuzz_values import Source, forged_index
from torch import Tensor

from vision3d.sparse import KernelMap, _native
from vision3d.sparse.backends import native_maps

BOXES = ("box_overlap_matrix", "box_overlap_pairs", "points_in_boxes", "box_nms")


def native_arguments(s: Source, name: str) -> list[Any]:
    """A correct call of a function of the compiled module."""
    threads = s.choice((1, 1, 2, 3))
    if name in BOXES:
        return _box_arguments(s, name, threads)
    coords = s.sites()
    ndim = coords.shape[1] - 1
    if name in ("sort_coords", "unique_coords", "index_sorted"):
        return [s.cloud() if s.chance(0.5) else coords, threads]
    keys, layout = _native.index_sorted(coords, 1)
    if s.chance(0.15):
        keys, layout = forged_index(s, keys, layout)
    if name == "lookup":
        return [keys, layout, s.cloud(ndim) if s.chance(0.5) else s.sites(ndim), threads]
    kernel = [s.choice((1, 3, 3, 5, 7)) for _ in range(ndim)]
    dilation = [s.choice((1, 1, 2, 3)) for _ in range(ndim)]
    if name == "subm_map":
        return [keys, layout, kernel, dilation, threads]
    kernel = [s.choice((1, 2, 2, 3, 3, 4)) for _ in range(ndim)]
    stride = [s.choice((1, 2, 2, 3, 7)) for _ in range(ndim)]
    padding = [s.choice((0, 0, 1, 2, -3)) for _ in range(ndim)]
    if name == "output_sites":
        shape = [s.choice((1, 4, 9, 100)) for _ in range(ndim)] if s.chance(0.5) else None
        return [coords, kernel, stride, padding, dilation, shape, s.chance(0.5), threads]
    if name == "pair_map":
        return [keys, layout, s.sites(ndim), kernel, stride, padding, dilation, threads]
    return _arithmetic_arguments(s, name, some_map(s), threads)


def _box_arguments(s: Source, name: str, threads: int) -> list[Any]:
    """Boxes of all sizes, many of them equal or touching, far away at times."""
    a, b = some_boxes(s), some_boxes(s)
    if name == "box_nms":
        labels = torch.randint(0, s.choice((1, 3)), (len(a),), generator=s.generator)
        return [a, labels, s.choice((0.0, 0.1, 0.5, 1.0)), torch.empty(len(a), dtype=torch.uint8)]
    if name == "points_in_boxes":
        return [a[:, :2].contiguous(), b, torch.empty((len(a), len(b)), dtype=torch.uint8), threads]
    if name == "box_overlap_pairs":
        return [a, a.flip(0), s.chance(0.5), torch.empty(len(a), dtype=torch.float64), threads]
    return [a, b, s.chance(0.5), torch.zeros((len(a), len(b)), dtype=torch.float64), threads]


def some_boxes(s: Source) -> Tensor:
    """(N, 5) float64."""
    n, scale = s.rows(), s.choice((1e-200, 1e-9, 1.0, 30.0, 1e7, 1e149))
    rows = s.values(n, 5, dtype=torch.float64)
    rows[:, 2:4] = rows[:, 2:4].abs()
    if s.chance(0.4):
        rows = rows.round()
    rows[:, :4] *= scale
    return rows * s.choice((1.0, 1.0, 0.0)) if s.chance(0.2) else rows


def some_map(s: Source) -> KernelMap:
    """A map of a random cloud: submanifold, strided, or a strided one from its other side."""
    coords = s.sites()
    ndim = coords.shape[1] - 1
    keys, layout = native_maps.index_sorted(coords)
    ones, zeros = (1,) * ndim, (0,) * ndim
    if s.chance(0.5):
        return native_maps.subm_map(keys, layout, tuple(s.choice((1, 3, 3, 5)) for _ in ones), ones)
    kernel, stride = tuple(s.choice((1, 2, 3)) for _ in ones), tuple(s.choice((1, 2, 3)) for _ in ones)
    out = native_maps.strided_coords(coords, kernel, stride, zeros, ones, None)
    found = native_maps.pair_map(coords, keys, layout, out, kernel, stride, zeros, ones)
    return found.transposed() if s.chance(0.3) else found


def _arithmetic_arguments(s: Source, name: str, m: KernelMap, threads: int) -> list[Any]:
    dtype = s.choice((torch.float32, torch.float32, torch.float64))
    groups, inner, outer = s.choice(((1, 4, 4), (1, 1, 1), (1, 3, 17), (1, 16, 40), (2, 3, 5), (5, 1, 1), (33, 1, 1)))
    cin, cout = groups * inner, groups * outer
    tables = [m.pair_in, m.pair_out, m.list_ptr, m.block_in, m.block_out]
    feats, out = s.values(m.n_in, cin, dtype=dtype), torch.empty((m.n_out, cout), dtype=dtype)
    if name == "conv":
        back = s.chance(0.3)
        weight = s.values(m.volume, outer if back else inner, cin if back else cout, dtype=dtype)
        bias = s.values(cout, dtype=dtype) if s.chance(0.5) else None
        return [feats, weight, bias, *tables, m.mirrored, groups, back, s.chance(0.5), out, threads]
    if name == "conv_grad":
        grad = torch.empty((m.volume, inner, cout), dtype=dtype)
        return [feats, s.values(m.n_out, cout, dtype=dtype), *tables, m.mirrored, groups, grad, threads]
    out = torch.empty((m.n_out, cin), dtype=dtype)
    source = torch.empty((m.n_out, cin), dtype=torch.int32)
    if name == "pool":
        kept = source if s.chance(0.5) else None
        return [feats, *tables, m.volume, m.mirrored, s.chance(0.5), out, kept, threads]
    segments = s.below(20)
    ptr = torch.sort(torch.randint(0, len(feats) + 1, (segments + 1,), generator=s.generator)).values
    order = torch.randperm(len(feats), generator=s.generator)
    reduced = torch.empty((segments, cin), dtype=dtype)
    mode = s.choice(("sum", "mean", "first"))
    if name == "segment_reduce":
        return [feats, order, ptr, mode, reduced, threads]
    if name == "segment_max":
        source = torch.empty((segments, cin), dtype=torch.int32)
        return [feats, order, ptr, reduced, source if s.chance(0.5) else None, threads]
    if name == "segment_spread":
        return [s.values(segments, cin, dtype=dtype), order, ptr, mode, torch.empty_like(feats), threads]
    if name == "scatter_rows":
        rows = torch.randint(-1, max(m.n_in, 1), (segments, cin), generator=s.generator).int()
        return [s.values(segments, cin, dtype=dtype), rows, torch.empty_like(feats), threads]
    ptr[0], ptr[-1] = 0, len(feats)
    weight, bias = s.values(cin, dtype=dtype), s.values(cin, dtype=dtype)
    table = torch.zeros((segments, groups), dtype=dtype)
    if name == "sample_norm":
        return [feats, ptr, groups, weight, bias, 1e-5, torch.empty_like(feats), table, table.clone(), threads]
    assert name == "sample_norm_grad", name
    outs = (torch.empty_like(feats), weight.clone(), bias.clone())
    return [s.values(*feats.shape, dtype=dtype), feats, ptr, groups, weight, table, table + 1, *outs, threads]
