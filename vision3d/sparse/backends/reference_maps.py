# SPDX-License-Identifier: Apache-2.0
"""Coordinates and kernel maps in plain torch: sort and searchsorted, any device. The oracle of the compiled engine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor

from vision3d.sparse.backends.base import SortedCoords, UniqueCoords
from vision3d.sparse.kernel_map import BLOCK_ROWS, KernelMap

INT32 = torch.iinfo(torch.int32)


def key_layout(coords: Tensor) -> Tensor:
    """(2, 1 + D) int64 on the CPU: see ``vision3d.sparse.backends.base``. Raises ``ValueError`` when keys overflow."""
    columns = coords.shape[1]
    if coords.shape[0] == 0:
        return torch.stack([torch.zeros(columns, dtype=torch.int64), torch.ones(columns, dtype=torch.int64)])
    low = coords.amin(0).tolist()
    high = coords.amax(0).tolist()
    if low[0] < 0:
        row = int((coords[:, 0] < 0).nonzero()[0, 0])
        raise ValueError(f"coords row {row} has the negative batch index {int(coords[row, 0])}")
    extent = [b - a + 1 for a, b in zip(low, high)]
    multiplier = [1] * columns
    for axis in range(columns - 2, -1, -1):
        multiplier[axis] = multiplier[axis + 1] * (2 * extent[axis + 1] - 1)
    if extent[0] * multiplier[0] >= 2**63:
        raise ValueError(f"the extent of coords is too large for 64-bit keys: {extent} (batch first); split the cloud")
    return torch.tensor([low, multiplier], dtype=torch.int64)


def keys_of(coords: Tensor, layout: Tensor) -> Tensor:
    """(N,) int64 keys of rows inside the layout's box."""
    low, multiplier = layout.to(coords.device)
    return ((coords.long() - low) * multiplier).sum(1)


def sort_coords(coords: Tensor) -> SortedCoords:
    """See ``Backend.sort_coords``."""
    layout = key_layout(coords)
    keys, order = torch.sort(keys_of(coords, layout), stable=True)
    same = keys[1:] == keys[:-1]
    if bool(same.any()):
        at = int(same.nonzero()[0, 0])
        first, second = int(order[at]), int(order[at + 1])
        raise ValueError(
            f"coords rows {first} and {second} are both {tuple(coords[first].tolist())}; "
            "merge duplicates first, for instance with vision3d.sparse.voxelize"
        )
    return SortedCoords(coords[order], order, keys, layout)


def index_sorted(coords: Tensor) -> tuple[Tensor, Tensor]:
    """See ``Backend.index_sorted``."""
    layout = key_layout(coords)
    keys = keys_of(coords, layout)
    descends = keys[1:] <= keys[:-1]
    if bool(descends.any()):
        at = int(descends.nonzero()[0, 0])
        raise ValueError(
            f"coords were promised to ascend strictly, but rows {at} and {at + 1} are "
            f"{tuple(coords[at].tolist())} and {tuple(coords[at + 1].tolist())}"
        )
    return keys, layout


def unique_coords(coords: Tensor) -> UniqueCoords:
    """See ``Backend.unique_coords``."""
    layout = key_layout(coords)
    keys, order = torch.sort(keys_of(coords, layout), stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    starts = first.nonzero()[:, 0]
    inverse = torch.empty_like(order)
    inverse[order] = first.cumsum(0) - 1
    ptr = torch.cat([starts, starts.new_tensor([len(keys)])])
    return UniqueCoords(coords[order[starts]], keys[starts], layout, inverse, order, ptr)


def lookup(keys: Tensor, layout: Tensor, coords: Tensor) -> Tensor:
    """See ``Backend.lookup``."""
    if keys.shape[0] == 0 or coords.shape[0] == 0:
        return torch.full((coords.shape[0],), -1, dtype=torch.int64, device=coords.device)
    return _rows(keys, layout, coords.long())


def _rows(keys: Tensor, layout: Tensor, coords: Tensor) -> Tensor:
    """Row of each int64 coordinate or -1. The box of the layout is at least as large as the cloud's."""
    low, multiplier = layout.to(coords.device)
    place = coords - low
    inside = (place >= 0).all(1)
    # Beyond 2 E - 2 a coordinate would alias the next line; the batch column is bounded by the largest key.
    if coords.shape[1] > 1:
        inside &= (place[:, 1:] < (multiplier[:-1] // multiplier[1:])).all(1)
    inside &= place[:, 0] <= keys[-1] // multiplier[0]
    key = torch.where(inside, (torch.where(inside[:, None], place, 0) * multiplier).sum(1), -1)
    at = torch.searchsorted(keys, key).clamp(max=keys.shape[0] - 1)
    return torch.where(keys[at] == key, at, -1)


def subm_map(keys: Tensor, layout: Tensor, kernel_size: Sequence[int], dilation: Sequence[int]) -> KernelMap:
    """See ``Backend.subm_map``."""
    if any(k % 2 == 0 for k in kernel_size):
        raise ValueError(f"a submanifold convolution needs an odd kernel_size, not {tuple(kernel_size)}")
    n = keys.shape[0]
    multiplier = layout[1].tolist()
    extent = [(multiplier[i] // multiplier[i + 1] + 1) // 2 for i in range(len(multiplier) - 1)]
    lists = []
    for offset in list(_offsets(kernel_size))[prod(kernel_size) // 2 + 1 :]:
        step = [(k - size // 2) * d for k, size, d in zip(offset, kernel_size, dilation)]
        if n == 0 or any(abs(s) >= e for s, e in zip(step, extent)):
            lists.append((keys[:0], keys[:0]))
            continue
        target = keys + sum(s * m for s, m in zip(step, multiplier[1:]))
        at = torch.searchsorted(keys, target).clamp(max=n - 1)
        rows_out = (keys[at] == target).nonzero()[:, 0]
        lists.append((at[rows_out], rows_out))
    return _packed(lists, n, n, kernel_size, True, keys.device)


def pair_map(
    in_coords: Tensor,
    in_keys: Tensor,
    in_layout: Tensor,
    out_coords: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> KernelMap:
    """See ``Backend.pair_map``."""
    n_in, n_out = in_coords.shape[0], out_coords.shape[0]
    base = out_coords.long()
    base[:, 1:] = base[:, 1:] * base.new_tensor(stride) - base.new_tensor(padding)
    lists = []
    for offset in _offsets(kernel_size):
        target = base.clone()
        target[:, 1:] += base.new_tensor([k * d for k, d in zip(offset, dilation)])
        rows = _rows(in_keys, in_layout, target) if n_in and n_out else base.new_full((n_out,), -1)
        rows_out = (rows >= 0).nonzero()[:, 0]
        lists.append((rows[rows_out], rows_out))
    return _packed(lists, n_in, n_out, kernel_size, False, in_coords.device)


def strided_coords(
    coords: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out_shape: Sequence[int] | None,
) -> Tensor:
    """See ``Backend.strided_coords``."""
    found = []
    for offset in _offsets(kernel_size):
        shift = coords.new_tensor([p - k * d for p, k, d in zip(padding, offset, dilation)], dtype=torch.int64)
        moved = coords[:, 1:].long() + shift
        steps = moved.new_tensor(stride)
        keep = (moved % steps == 0).all(1)
        sites = torch.div(moved[keep], steps, rounding_mode="floor")
        found.append(torch.cat([coords[keep, :1].long(), sites], 1))
    return _distinct(found, coords, out_shape)


def transposed_coords(
    coords: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out_shape: Sequence[int] | None,
) -> Tensor:
    """See ``Backend.transposed_coords``."""
    base = coords[:, 1:].long()
    base = base * base.new_tensor(stride) - base.new_tensor(padding)
    found = []
    for offset in _offsets(kernel_size):
        sites = base + base.new_tensor([k * d for k, d in zip(offset, dilation)])
        found.append(torch.cat([coords[:, :1].long(), sites], 1))
    return _distinct(found, coords, out_shape)


def _distinct(found: list[Tensor], coords: Tensor, out_shape: Sequence[int] | None) -> Tensor:
    sites = torch.cat(found)
    if out_shape is not None:
        sites = sites[((sites[:, 1:] >= 0) & (sites[:, 1:] < sites.new_tensor(out_shape))).all(1)]
    if sites.numel() and (int(sites.amin()) < INT32.min or int(sites.amax()) > INT32.max):
        raise ValueError("an output coordinate does not fit 32 bits; move the cloud towards the origin")
    return unique_coords(sites.to(coords.dtype)).coords


def _offsets(kernel_size: Sequence[int]) -> product[tuple[int, ...]]:
    return product(*(range(k) for k in kernel_size))


def _packed(
    lists: list[tuple[Tensor, Tensor]],
    n_in: int,
    n_out: int,
    kernel_size: Sequence[int],
    mirrored: bool,
    device: torch.device,
) -> KernelMap:
    """A map from one (input rows, output rows) per list."""
    empty = [torch.empty(0, dtype=torch.int64, device=device)]
    pairs_in = [rows for rows, _ in lists]
    pairs_out = [rows for _, rows in lists]
    ptr = torch.tensor([0] + [len(rows) for rows in pairs_in]).cumsum(0)
    return KernelMap(
        torch.cat(pairs_in or empty).int(),
        torch.cat(pairs_out or empty).int(),
        ptr,
        _blocks(pairs_in, n_in, device),
        _blocks(pairs_out, n_out, device),
        n_in,
        n_out,
        tuple(kernel_size),
        mirrored,
    )


def _blocks(rows: list[Tensor], n: int, device: torch.device) -> Tensor:
    edges = torch.arange((n + BLOCK_ROWS - 1) // BLOCK_ROWS + 1, device=device) * BLOCK_ROWS
    tables = [torch.searchsorted(r, edges).int() for r in rows]
    return torch.stack(tables) if tables else torch.empty((0, len(edges)), dtype=torch.int32, device=device)
