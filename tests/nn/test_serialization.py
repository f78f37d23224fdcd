# SPDX-License-Identifier: Apache-2.0
"""Curves through voxels and their patches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_clouds import random_cloud, shifted

from vision3d.nn.serialization import ORDERS, curve_order, patch_layout
from vision3d.sparse import SparseTensor


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_curve_visits_every_row_once_sample_after_sample(order: str, ndim: int) -> None:
    x = random_cloud(100, samples=(0, 2, 3), ndim=ndim)
    curve = curve_order(x.sites, order)
    assert torch.equal(curve.sort().values, torch.arange(len(x)))
    batch = x.sites.coords[curve, 0]
    assert bool((batch[1:] >= batch[:-1]).all())


def test_z_order_interleaves_the_bits() -> None:
    """All 4 x 4 sites: the order of the interleaved bits, quadrant after quadrant."""
    coords = torch.tensor([[0, y, x] for y in range(4) for x in range(4)], dtype=torch.int32)
    sites = SparseTensor(coords, torch.zeros(16, 1)).sites
    quadrants = [tuple((sites.coords[i, 1:] // 2).tolist()) for i in curve_order(sites, "z")]
    assert all(len(set(quadrants[i : i + 4])) == 1 for i in range(0, 16, 4))
    assert quadrants[::4] != [quadrants[0]] * 4


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("order", ["hilbert", "hilbert-trans"])
def test_neighbours_on_a_hilbert_curve_touch(ndim: int, order: str) -> None:
    axes = [torch.arange(8)] * ndim
    coords = torch.cartesian_prod(torch.zeros(1, dtype=torch.int64), *axes).int()
    sites = SparseTensor(coords, torch.zeros(len(coords), 1)).sites
    path = sites.coords[curve_order(sites, order), 1:]
    assert bool(((path[1:] - path[:-1]).abs().sum(1) == 1).all())


@pytest.mark.parametrize("order", ["z", "hilbert"])
def test_trans_is_the_curve_of_the_transposed_cloud(order: str) -> None:
    x = random_cloud(80)
    other = SparseTensor(x.coords[:, [0, 1, 3, 2]].contiguous(), x.feats)
    path = x.sites.coords[curve_order(x.sites, f"{order}-trans")]
    expected = other.sites.coords[curve_order(other.sites, order)][:, [0, 1, 3, 2]]
    assert torch.equal(path, expected)


@pytest.mark.parametrize("order", ORDERS)
def test_order_of_a_sample_depends_on_that_sample_alone(order: str) -> None:
    x = random_cloud(60)
    far = SparseTensor(torch.tensor([[1, 4000, -70, 9]], dtype=torch.int32), torch.zeros(1, 3))
    alone, beside = x.sample(0), torch.cat([x.sample(0).coords, far.coords])
    both = SparseTensor(beside, torch.zeros(len(beside), 3))
    expected = alone.sites.coords[curve_order(alone.sites, order)]
    assert torch.equal(both.sites.coords[curve_order(both.sites, order)][: len(alone)], expected)
    moved = shifted(x, (-1000, 5, 77))
    assert torch.equal(curve_order(moved.sites, order), curve_order(x.sites, order))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    patch_size=st.integers(1, 9),
)
def test_patches_hold_what_they_should(counts: list[int], patch_size: int) -> None:
    """Against the rule spelled out in Python."""
    rows = [[b, i] for b, n in enumerate(counts) for i in range(n)]
    coords = torch.tensor(rows, dtype=torch.int32).reshape(-1, 2)
    sites = SparseTensor(coords, torch.zeros(len(coords), 1), batch_size=len(counts)).sites
    layout = patch_layout(sites, torch.arange(len(rows)), patch_size)
    length = max(1, min(patch_size, max(counts)))
    expected, first = [], 0
    for n in counts:
        for begin in range(0, n, length):
            begin = min(begin, max(n - length, 0))
            expected.append([first + i for i in range(begin, min(begin + length, n))])
        first += n
    assert layout.rows.shape == (len(expected), length)
    mask = torch.ones_like(layout.rows, dtype=torch.bool) if layout.mask is None else layout.mask[:, 0, 0]
    for found, keep, wanted in zip(layout.rows, mask, expected):
        assert found[keep].tolist() == wanted
        # What is masked is a row of the same sample, so that nothing of another can leak.
        assert set(found.tolist()) == set(wanted)
    assert layout.rows.flatten()[layout.place].tolist() == list(range(len(rows)))
    assert mask.flatten()[layout.place].all()
    # A row's own result comes from its own patch, not from the one that borrows it.
    ranks = [i for n in counts for i in range(n)]
    patch_of = [0, *torch.tensor([-(-n // length) for n in counts]).cumsum(0).tolist()]
    samples = [b for b, n in enumerate(counts) for _ in range(n)]
    assert (layout.place // length).tolist() == [patch_of[b] + i // length for b, i in zip(samples, ranks)]


def test_what_does_not_fit_is_named() -> None:
    x = random_cloud(10)
    with pytest.raises(ValueError, match="unknown order 'peano'; there are: z, z-trans, hilbert"):
        curve_order(x.sites, "peano")
    with pytest.raises(ValueError, match="patch_size must be positive, not 0"):
        patch_layout(x.sites, curve_order(x.sites), 0)
