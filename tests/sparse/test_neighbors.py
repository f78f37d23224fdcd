# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vision3d.sparse import SparseTensor
from vision3d.sparse.neighbors import knn


def tensor(n: int, span: int, batch: int = 1, seed: int = 0, stride: int = 1, ndim: int = 3) -> SparseTensor:
    """Voxels in no order."""
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randint(0, batch, (n, 1), generator=generator)
    coords = torch.cat([sample, torch.randint(-span, span, (n, ndim), generator=generator)], 1).unique(dim=0).int()
    coords = coords[torch.randperm(len(coords), generator=generator)]
    feats = torch.randn(len(coords), 4, generator=generator, dtype=torch.float64)
    return SparseTensor(coords, feats, batch_size=batch, stride=stride)


def by_sorting(x: SparseTensor, points: Tensor, batch: Tensor, k: int, scale: Tensor) -> tuple[Tensor, Tensor]:
    """All distances of a sample's voxels, ties in coordinate order; points and scale are (z, y, x)."""
    rows = torch.full((len(points), k), -1)
    distances = torch.full((len(points), k), torch.inf, dtype=torch.float64)
    coords = x.coords.tolist()
    for p, point in enumerate(points.double()):
        ranked = []
        for row, site in enumerate(coords):
            if site[0] == int(batch[p]):
                centre = (torch.tensor(site[1:], dtype=torch.float64) + 0.5) * scale
                ranked.append((round(float((centre - point).square().sum()), 9), site, row))
        for place, (squared, _, row) in enumerate(sorted(ranked)[:k]):
            rows[p, place], distances[p, place] = row, squared**0.5
    return rows, distances


@pytest.mark.parametrize("k", [1, 3, 9])
def test_equals_sorting_all_distances(k: int) -> None:
    x = tensor(80, 5, batch=3)
    points = 6 * torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    batch = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(2))
    found = knn(x, points, k, batch_index=batch, axes="zyx")
    rows, distances = by_sorting(x, points, batch, k, torch.ones(3, dtype=torch.float64))
    assert torch.equal(found.rows, rows)
    assert torch.allclose(found.distances, distances, atol=1e-8)


@pytest.mark.parametrize("k", [1, 2, 5, 8, 20])
def test_ties_are_taken_in_the_order_of_coordinates(k: int) -> None:
    """Corners and centres of a full grid: 8, 24, 6, 12 voxels are equally near."""
    axis = torch.arange(-3, 3)
    coords = torch.cartesian_prod(torch.tensor([0]), axis, axis, axis).int()
    shuffle = torch.randperm(len(coords), generator=torch.Generator().manual_seed(3))
    x = SparseTensor(coords[shuffle], torch.zeros(len(coords), 1))
    points = torch.tensor([[0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [0.5, 0.5, 0.5], [0.5, 0.0, 0.0]])
    found = knn(x, points, k, axes="zyx")
    rows, _ = by_sorting(x, points, torch.zeros(4), k, torch.ones(3, dtype=torch.float64))
    assert torch.equal(found.rows, rows)
    # Whatever the order of the voxels and the number of threads, the sites are the same.
    plain = SparseTensor(coords, torch.zeros(len(coords), 1))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        again = knn(plain, points, k, axes="zyx")
    finally:
        torch.set_num_threads(before)
    assert torch.equal(plain.coords[again.rows], x.coords[found.rows])


def test_voxel_size_origin_stride_and_axes() -> None:
    x = tensor(60, 4, stride=2)
    size, origin = torch.tensor([0.3, 0.1, 0.2]), torch.tensor([5.0, -1.0, 0.5])
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(4)) + origin
    found = knn(x, points, 4, voxel_size=size, origin=origin)
    scale = 2 * size.flip(0).double()
    rows, distances = by_sorting(x, (points.double() - origin.double()).flip(1), torch.zeros(20), 4, scale)
    assert torch.equal(found.rows, rows)
    assert torch.allclose(found.distances, distances, atol=1e-7)


def test_fewer_voxels_than_neighbours() -> None:
    x = SparseTensor(torch.tensor([[0, 4], [0, 1], [2, 0]]).int(), torch.zeros(3, 1), batch_size=3)
    found = knn(x, torch.tensor([[0.0], [0.0], [9.0]]), 3, batch_index=torch.tensor([0, 1, 2]))
    assert found.rows.tolist() == [[1, 0, -1], [-1, -1, -1], [2, -1, -1]]
    assert found.distances.tolist() == [[1.5, 4.5, torch.inf], [torch.inf] * 3, [8.5, torch.inf, torch.inf]]


def test_nothing_to_find_and_nothing_to_ask() -> None:
    nothing = SparseTensor(torch.empty(0, 4, dtype=torch.int32), torch.empty(0, 1), batch_size=1)
    assert knn(nothing, torch.zeros(2, 3), 2).rows.tolist() == [[-1, -1], [-1, -1]]
    assert knn(tensor(10, 3), torch.empty(0, 3), 2).rows.shape == (0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be at least 1"),
        ({"points": torch.zeros(2, 2)}, "points have 2 columns, the tensor 3 axes"),
        ({"points": torch.full((2, 3), torch.nan)}, "row 0 is not finite"),
        ({"points": torch.full((2, 3), 1e200, dtype=torch.float64)}, r"row 0 .* more than 2\^50 voxels"),
        ({"batch_index": None}, "the tensor has 2 samples; say by batch_index"),
        ({"batch_index": torch.tensor([0, 2])}, "batch_size is 2, but batch_index speaks of 3 samples"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"points": torch.zeros(2, 3), "k": 1, "batch_index": torch.zeros(2).long()}
    with pytest.raises(ValueError, match=message):
        knn(tensor(20, 3, batch=2), **{**good, **change})
