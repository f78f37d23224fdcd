# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours against sorting all distances, ties and bad clouds included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scene_flow.networks.neighbours import knn_graph


def by_sorting(points: Tensor, queries: Tensor, k: int) -> list[list[list[int]]]:
    out = []
    for cloud, at in zip(points.double().tolist(), queries.double().tolist()):
        rows = []
        for q in at:
            squared = [sum((a - b) ** 2 for a, b in zip(p, q)) for p in cloud]
            rows.append(sorted(range(len(cloud)), key=lambda i: (squared[i], i))[:k])
        out.append(rows)
    return out


@pytest.mark.parametrize("k", [1, 8, 60])
def test_equals_sorting_all_distances(k: int) -> None:
    points = torch.randn(2, 60, 3, generator=torch.Generator().manual_seed(0))
    graph = knn_graph(points, k)
    assert graph.rows.tolist() == by_sorting(points, points, k)
    assert graph.rows.dtype == torch.int64
    assert torch.equal(graph.rows[..., 0], torch.arange(60).expand(2, 60))
    for sample, centre, j in ((0, 3, 0), (1, 59, k - 1)):
        expected = points[sample, graph.rows[sample, centre, j]] - points[sample, centre]
        assert torch.equal(graph.offsets[sample, centre, j], expected)


def test_other_centres() -> None:
    points, queries = torch.randn(2, 40, 3), torch.randn(2, 7, 3)
    graph = knn_graph(points, 5, queries)
    assert graph.rows.tolist() == by_sorting(points, queries, 5)
    assert graph.offsets.shape == (2, 7, 5, 3)


def test_of_equally_near_points_the_lower_row_comes_first() -> None:
    """On a grid nearly all is tied; 40 copies of one point are tied beyond any number of spare candidates."""
    line = torch.arange(5.0)
    grid = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1).reshape(1, -1, 3)
    grid = grid[:, torch.randperm(125, generator=torch.Generator().manual_seed(1))]
    assert knn_graph(grid, 10).rows.tolist() == by_sorting(grid, grid, 10)
    copies = torch.cat([grid, grid[:, :1].expand(1, 40, 3)], 1)
    assert knn_graph(copies, 4).rows.tolist() == by_sorting(copies, copies, 4)
    assert knn_graph(copies[:, -40:], 4).rows[0, 20].tolist() == [0, 1, 2, 3]


def test_gradients_reach_the_points() -> None:
    points = torch.randn(1, 9, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: knn_graph(p, 4).offsets, points)


def test_clouds_that_have_no_such_graph() -> None:
    points = torch.randn(2, 20, 3)
    with pytest.raises(ValueError, match="at least 32 points; this has 20"):
        knn_graph(points, 32)
    with pytest.raises(ValueError, match="at least 1 points"):
        knn_graph(points[:, :0], 0)
    points[1, 7, 2] = torch.nan
    with pytest.raises(ValueError, match="points: row 7 of sample 1 is not finite"):
        knn_graph(points, 4)
    with pytest.raises(ValueError, match="queries: row 0 of sample 0 is not finite"):
        knn_graph(points[:1], 4, torch.full((1, 1, 3), torch.inf))
    with pytest.raises(ValueError, match=r"points must be \(2, N, 3\), not \(2, 20, 2\)"):
        knn_graph(points[..., :2], 4)
