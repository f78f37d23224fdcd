# SPDX-License-Identifier: Apache-2.0
"""Candidates and cells against brute force; neither depends on the order of the points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scene_flow.networks.local_support import both, cells_at_most, mean_over_cells, one_per_cell, transport_candidates


def street(n: int, seed: int = 0) -> Tensor:
    """(n, 3) float32 points on two walls and a floor, dense near the origin."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3)) * [15, 1, 15]
    points[: n // 3, 1] = 0.0
    points[n // 3 : n // 2, 0] = 4.0
    return torch.from_numpy(points.astype(np.float32))


def test_each_occupied_cell_keeps_the_point_nearest_to_its_centre() -> None:
    points = street(800).double().numpy()
    rows = one_per_cell(points, 2.5)
    cells = np.floor(points / 2.5)
    wanted = []
    for cell in np.unique(cells, axis=0):
        inside = np.flatnonzero((cells == cell).all(1))
        distance = np.linalg.norm(points[inside] - (cell + 0.5) * 2.5, axis=1)
        wanted.append(inside[distance.argmin()])
    assert rows.tolist() == sorted(wanted) and 100 < len(rows) < 700


def test_points_that_are_equally_near_are_told_apart_by_where_they_are() -> None:
    points = np.array([[0.25, 0.5, 0.5], [0.75, 0.5, 0.5], [0.5, 0.25, 0.5]])
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        assert points[order][one_per_cell(points[order], 1.0)].tolist() == [[0.25, 0.5, 0.5]]


def test_candidates_are_the_nearest_kept_points_within_the_radius() -> None:
    source, target = street(150, 1)[None], street(500, 2)[None]
    found = transport_candidates(source, target, 0.7, 20, 3.0)[0]
    kept = one_per_cell(target[0].double().numpy(), 0.7)
    apart = torch.cdist(source[0].double(), target[0, kept].double())
    assert found.shape == (150, 20) and bool((found < 0).any())
    for i in range(150):
        nearest = apart[i].argsort()[:20]
        wanted = [int(kept[j]) for j in nearest if apart[i, j] < 3.0]
        assert found[i].tolist() == wanted + [-1] * (20 - len(wanted))


def test_candidates_of_a_batch_are_those_of_its_samples() -> None:
    source = torch.stack([street(60, 1), street(60, 2)])
    target = torch.stack([street(90, 3), 0.01 * street(90, 4)])  # the second falls into a few cells
    together = transport_candidates(source, target, 0.5, 40, 5.0)
    for b in range(2):
        alone = transport_candidates(source[b : b + 1], target[b : b + 1], 0.5, 40, 5.0)[0]
        assert torch.equal(together[b, :, : alone.shape[1]], alone) and bool(
            (together[b, :, alone.shape[1] :] == -1).all()
        )


def test_candidates_do_not_depend_on_the_order_of_the_target() -> None:
    source, target = street(50, 1)[None], street(400, 2)[None]
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    rows = transport_candidates(source, target, 0.6, 16, 4.0)
    others = transport_candidates(source, target[:, order], 0.6, 16, 4.0)
    assert torch.equal(torch.where(others >= 0, order[others.clamp(min=0)], -1), rows)


def test_a_point_far_from_everything_has_no_candidate() -> None:
    source = torch.tensor([[[0.0, 0, 0], [500.0, 0, 0]]])
    rows = transport_candidates(source, street(100)[None], 0.5, 8, 10.0)[0]
    assert bool((rows[0] >= 0).any()) and rows[1].tolist() == [-1] * 8


def test_rows_of_two_lists_together_are_named_once() -> None:
    first, second = torch.tensor([[[3, 1, -1], [5, 6, 7]]]), torch.tensor([[[1, 2], [-1, -1]]])
    rows = both(first, second)
    assert [sorted(r for r in row if r >= 0) for row in rows[0].tolist()] == [[1, 2, 3], [5, 6, 7]]
    assert rows.shape == (1, 2, 5) and int((rows == -1).sum()) == 4


def test_mean_over_cells() -> None:
    points = torch.stack([street(200), street(200, 1)])
    values = torch.randn(2, 200, 3, generator=torch.Generator().manual_seed(0))
    found = mean_over_cells(values, points, 2.0)
    cells = (points.double() / 2.0).floor()
    for b in range(2):
        for i in range(0, 200, 7):
            inside = (cells[b] == cells[b, i]).all(1)
            assert (found[b, i] - values[b, inside].mean(0)).abs().max() < 1e-5


@pytest.mark.parametrize("most", [8, 100, 700])
def test_cells_are_as_small_as_their_number_allows(most: int) -> None:
    points = street(3000)
    number = cells_at_most(points, most)
    occupied = int(number.max()) + 1
    assert number.shape == (3000,) and torch.equal(number.unique(), torch.arange(occupied))
    assert most / 4 < occupied <= most
    # A cell is a box: points of one cell are near each other in every axis.
    spans = [(points[number == c].amax(0) - points[number == c].amin(0)).amax() for c in range(occupied)]
    assert float(max(spans)) < 2.5 * float(points.max() - points.min()) / most ** (1 / 3)


def test_cells_do_not_depend_on_order_or_on_where_the_cloud_lies() -> None:
    points = (street(500) * 64).round() / 64  # exact sums
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    number = cells_at_most(points, 60)
    assert torch.equal(cells_at_most(points[order], 60), number[order])
    assert torch.equal(cells_at_most(points + torch.tensor([64.0, -32.0, 8.0]), 60), number)


def test_cells_of_a_point_and_of_an_enormous_cloud() -> None:
    assert cells_at_most(torch.ones(5, 3), 8).tolist() == [0] * 5
    spread = torch.tensor([[0.0, 0, 0], [1e7, 0, 0], [0, 1e7, 0], [0, 0, 1e7], [1e7, 1e7, 1e7]])
    assert cells_at_most(spread, 5).unique().numel() == 5
    assert cells_at_most(spread, 1).tolist() == [0] * 5
    assert len(one_per_cell(1e9 * spread.double().numpy(), 0.5)) == 5  # keys beyond 62 bits
