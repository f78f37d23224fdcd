# SPDX-License-Identifier: Apache-2.0
"""Coordinates and kernel maps of the compiled engine as torch operators: radix sort and merges of sorted streams.

The operators take and return plain tensors and integers; sizes that depend on the data are unbacked for
``torch.compile``. The functions below them are the backend's primitives, see ``vision3d.sparse.backends.base``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from vision3d.sparse import _native
from vision3d.sparse.backends.base import SortedCoords, UniqueCoords
from vision3d.sparse.backends.operators import fake, operator
from vision3d.sparse.kernel_map import BLOCK_ROWS, KernelMap


@operator("sort_coords")
def _sort_coords(coords: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _native.sort_coords(_int32(coords), torch.get_num_threads())


@fake(_sort_coords)
def _(coords):  # type: ignore[no-untyped-def]
    rows, columns = coords.shape
    long = coords.new_empty(rows, dtype=torch.int64)
    return coords.new_empty((rows, columns)), long, torch.empty_like(long), _fake_layout(coords)


@operator("index_sorted")
def _index_sorted(coords: Tensor) -> tuple[Tensor, Tensor]:
    return _native.index_sorted(_int32(coords), torch.get_num_threads())


@fake(_index_sorted)
def _(coords):  # type: ignore[no-untyped-def]
    return coords.new_empty(coords.shape[0], dtype=torch.int64), _fake_layout(coords)


@operator("unique_coords")
def _unique_coords(coords: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _native.unique_coords(_int32(coords), torch.get_num_threads())


@fake(_unique_coords)
def _(coords):  # type: ignore[no-untyped-def]
    rows, columns = coords.shape
    found = torch.library.get_ctx().new_dynamic_size()
    long = coords.new_empty(rows, dtype=torch.int64)
    return (
        coords.new_empty((found, columns)),
        coords.new_empty(found, dtype=torch.int64),
        _fake_layout(coords),
        long,
        torch.empty_like(long),
        coords.new_empty(found + 1, dtype=torch.int64),
    )


@operator("lookup")
def _lookup(keys: Tensor, layout: Tensor, coords: Tensor) -> Tensor:
    return _native.lookup(_int64(keys), _int64(layout), _int32(coords), torch.get_num_threads())


@fake(_lookup)
def _(keys, layout, coords):  # type: ignore[no-untyped-def]
    return coords.new_empty(coords.shape[0], dtype=torch.int64)


@operator("subm_map")
def _subm_map(
    keys: Tensor, layout: Tensor, kernel_size: Sequence[int], dilation: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _native.subm_map(_int64(keys), _int64(layout), kernel_size, dilation, torch.get_num_threads())


@fake(_subm_map)
def _(keys, layout, kernel_size, dilation):  # type: ignore[no-untyped-def]
    return _fake_map(keys, keys.shape[0], keys.shape[0], prod(kernel_size) // 2)


@operator("pair_map")
def _pair_map(
    in_keys: Tensor,
    in_layout: Tensor,
    out_coords: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _native.pair_map(
        _int64(in_keys), _int64(in_layout), _int32(out_coords),
        kernel_size, stride, padding, dilation, torch.get_num_threads(),
    )  # fmt: skip


@fake(_pair_map)
def _(in_keys, in_layout, out_coords, kernel_size, stride, padding, dilation):  # type: ignore[no-untyped-def]
    return _fake_map(in_keys, in_keys.shape[0], out_coords.shape[0], prod(kernel_size))


@operator("output_sites")
def _output_sites(
    coords: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out_shape: Sequence[int] | None,
    transposed: bool,
) -> Tensor:
    return _native.output_sites(
        _int32(coords), kernel_size, stride, padding, dilation, out_shape, transposed, torch.get_num_threads()
    )


@fake(_output_sites)
def _(coords, kernel_size, stride, padding, dilation, out_shape, transposed):  # type: ignore[no-untyped-def]
    return coords.new_empty((torch.library.get_ctx().new_dynamic_size(), coords.shape[1]))


def sort_coords(coords: Tensor) -> SortedCoords:
    """See ``Backend.sort_coords``."""
    return SortedCoords(*_sort_coords(coords))


def index_sorted(coords: Tensor) -> tuple[Tensor, Tensor]:
    """See ``Backend.index_sorted``."""
    keys, layout = _index_sorted(coords)
    return keys, layout


def unique_coords(coords: Tensor) -> UniqueCoords:
    """See ``Backend.unique_coords``."""
    return UniqueCoords(*_unique_coords(coords))


def lookup(keys: Tensor, layout: Tensor, coords: Tensor) -> Tensor:
    """See ``Backend.lookup``."""
    return _lookup(keys, layout, coords)


def subm_map(keys: Tensor, layout: Tensor, kernel_size: Sequence[int], dilation: Sequence[int]) -> KernelMap:
    """See ``Backend.subm_map``."""
    if any(k % 2 == 0 for k in kernel_size):
        raise ValueError(f"a submanifold convolution needs an odd kernel_size, not {tuple(kernel_size)}")
    n = keys.shape[0]
    pair_in, pair_out, ptr, block_in, block_out = _subm_map(keys, layout, kernel_size, dilation)
    return KernelMap(pair_in, pair_out, ptr, block_in, block_out, n, n, tuple(kernel_size), True)


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
    pair_in, pair_out, ptr, block_in, block_out = _pair_map(
        in_keys, in_layout, out_coords, kernel_size, stride, padding, dilation
    )
    n_in, n_out = in_keys.shape[0], out_coords.shape[0]
    return KernelMap(pair_in, pair_out, ptr, block_in, block_out, n_in, n_out, tuple(kernel_size), False)


def strided_coords(
    coords: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out_shape: Sequence[int] | None,
) -> Tensor:
    """See ``Backend.strided_coords``."""
    return _output_sites(coords, kernel_size, stride, padding, dilation, out_shape, False)


def transposed_coords(
    coords: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out_shape: Sequence[int] | None,
) -> Tensor:
    """See ``Backend.transposed_coords``."""
    return _output_sites(coords, kernel_size, stride, padding, dilation, out_shape, True)


def _int32(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.int32 or tensor.ndim != 2:
        raise TypeError(f"coords must be (N, 1 + D) int32, not {tuple(tensor.shape)} {tensor.dtype}")
    return tensor.detach().contiguous()


def _int64(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.int64:
        raise TypeError(f"keys and layouts must be int64, not {tensor.dtype}")
    return tensor.detach().contiguous()


def _fake_layout(coords: Tensor) -> Tensor:
    return torch.empty((2, coords.shape[1]), dtype=torch.int64, device="cpu")


def _fake_map(keys: Tensor, n_in: int, n_out: int, lists: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    pairs = torch.library.get_ctx().new_dynamic_size()
    rows = keys.new_empty(pairs, dtype=torch.int32)
    blocks_in, blocks_out = ((n + BLOCK_ROWS - 1) // BLOCK_ROWS + 1 for n in (n_in, n_out))
    return (
        rows,
        torch.empty_like(rows),
        torch.empty(lists + 1, dtype=torch.int64, device="cpu"),
        keys.new_empty((lists, blocks_in), dtype=torch.int32),
        keys.new_empty((lists, blocks_out), dtype=torch.int32),
    )
