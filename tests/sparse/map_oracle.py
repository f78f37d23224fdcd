# SPDX-License-Identifier: Apache-2.0
"""Clouds, and kernel maps by brute force: a dictionary of sites and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor

from vision3d.sparse.kernel_map import BLOCK_ROWS, KernelMap

LOW, HIGH = -(2**31), 2**31 - 1
Site = tuple[int, ...]
Pairs = list[tuple[int, int]]


def random_cloud(seed: int, ndim: int, most: int = 40, samples: int = 2, extent: int | None = None) -> Tensor:
    """Up to `most` distinct sites in random order, around the origin."""
    generator = torch.Generator().manual_seed(seed)
    width = extent or {1: 60, 2: 9, 3: 5, 4: 3}[ndim]
    batch = torch.randint(0, samples, (most, 1), generator=generator)
    space = torch.randint(-width, width, (most, ndim), generator=generator)
    coords = torch.unique(torch.cat([batch, space], 1), dim=0).int()
    return coords[torch.randperm(len(coords), generator=generator)]


def cloud_of(sites: Sequence[Site], ndim: int) -> Tensor:
    """(N, 1 + D) int32, also of no sites."""
    return torch.tensor(sites, dtype=torch.int32).reshape(len(sites), 1 + ndim)


def shaped_clouds(ndim: int) -> dict[str, Tensor]:
    """Clouds that break engines, by name."""
    cube = list(product(range(4), repeat=ndim))
    zeros = (0,) * (ndim - 1)
    sites: dict[str, list[Site]] = {
        "empty": [],
        "one": [(0, *zeros, 5)],
        "one far out": [(3, *(LOW,) * ndim)],
        "line along the last axis": [(0, *zeros, x) for x in range(-70, 70)],
        "line along the first axis": [(0, z, *zeros) for z in range(-70, 70)],
        "diagonal": [(0, *(x,) * ndim) for x in range(70)],
        "cube": [(1, *site) for site in cube],
        "checkerboard": [(0, *site) for site in cube if sum(site) % 2 == 0],
        "corners far apart": [(0, *(x * 10_000 for x in site)) for site in product(range(2), repeat=ndim)],
        "low end": [(0, *(LOW + x for x in site)) for site in cube],
        "high end": [(0, *(HIGH - x for x in site)) for site in cube],
        "both ends of the last axis": [(0, *zeros, x) for x in (LOW, LOW + 1, -1, 0, HIGH - 1, HIGH)],
        "negative": [(0, *(-x - 1 for x in site)) for site in cube],
        "a sample left out": [(b, *site) for b in (0, 2, 2**31 - 1) for site in cube[:6]],
    }
    if ndim > 1:
        sites["plane"] = [(0, x, y, *(7,) * (ndim - 2)) for x in range(9) for y in range(9)]
    return {name: cloud_of(found, ndim) for name, found in sites.items()}


def rows_of(coords: Tensor) -> dict[Site, int]:
    return {tuple(site): row for row, site in enumerate(coords.tolist())}


def offsets(kernel_size: Sequence[int]) -> Iterator[Site]:
    return product(*(range(k) for k in kernel_size))


def brute_pairs(
    coords: Tensor,
    out: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[Pairs]:
    """(input row, output row) of every kernel offset."""
    rows, sites = rows_of(coords), out.tolist()
    found: list[Pairs] = []
    for offset in offsets(kernel_size):
        shift = [k * d - p for k, d, p in zip(offset, dilation, padding)]
        wanted = [(b, *(o * s + a for o, s, a in zip(site, stride, shift))) for b, *site in sites]
        found.append([(rows[site], row) for row, site in enumerate(wanted) if site in rows])
    return found


def brute_subm(coords: Tensor, kernel_size: Sequence[int], dilation: Sequence[int]) -> list[Pairs]:
    padding = [k // 2 * d for k, d in zip(kernel_size, dilation)]
    return brute_pairs(coords, coords, kernel_size, (1,) * len(padding), padding, dilation)


def brute_sites(
    coords: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out_shape: Sequence[int] | None = None,
    transposed: bool = False,
) -> list[Site]:
    """Sorted output sites of a strided or transposed convolution."""
    found = set()
    for b, *site in coords.tolist():
        for offset in offsets(kernel_size):
            reach = [k * d for k, d in zip(offset, dilation)]
            if transposed:
                out = tuple(i * s - p + r for i, s, p, r in zip(site, stride, padding, reach))
            else:
                moved = [i + p - r for i, p, r in zip(site, padding, reach)]
                if any(m % s for m, s in zip(moved, stride)):
                    continue
                out = tuple(m // s for m, s in zip(moved, stride))
            if out_shape is None or all(0 <= o < n for o, n in zip(out, out_shape)):
                found.add((b, *out))
    return sorted(found)


def pairs_of(kernel_map: KernelMap) -> list[Pairs]:
    """The pairs of every kernel offset, by the documented reading of the map."""
    found = []
    for offset in range(kernel_map.volume):
        rows_in, rows_out = kernel_map.pairs_of(offset)
        found.append(list(zip(rows_in.tolist(), rows_out.tolist())))
    return found


def check_tables(m: KernelMap) -> None:
    """Pointers span the pairs, lists ascend on both sides, block tables count what they say."""
    ptr = m.list_ptr.tolist()
    assert ptr[0] == 0 and ptr[-1] == len(m.pair_in) == len(m.pair_out)
    assert len(ptr) - 1 == (m.volume // 2 if m.mirrored else m.volume)
    for rows, table, n in ((m.pair_in, m.block_in, m.n_in), (m.pair_out, m.block_out, m.n_out)):
        blocks = (n + BLOCK_ROWS - 1) // BLOCK_ROWS
        assert table.shape == (len(ptr) - 1, blocks + 1)
        for index, (begin, end) in enumerate(pairwise(ptr)):
            listed = rows[begin:end]
            assert bool((listed[1:] > listed[:-1]).all())
            below = [int((listed < BLOCK_ROWS * block).sum()) for block in range(blocks + 1)]
            assert table[index].tolist() == below


def assert_same(found: Any, wanted: Any) -> None:
    """Equal values, dtypes and shapes, through tuples and kernel maps."""
    if isinstance(wanted, Tensor):
        assert (found.dtype, found.shape, found.device) == (wanted.dtype, wanted.shape, wanted.device)
        assert torch.equal(found, wanted)
    elif isinstance(wanted, KernelMap):
        assert_same(tuple(vars(found).values()), tuple(vars(wanted).values()))
    elif isinstance(wanted, tuple):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted):
            assert_same(a, b)
    else:
        assert found == wanted


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
