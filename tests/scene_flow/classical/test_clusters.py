# SPDX-License-Identifier: Apache-2.0
"""Clusters: against chains of steps found one pair at a time, and the mean points that they are found on."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scene_flow.classical.clusters import CELL, cluster, components, thin

Float = NDArray[np.float64]
Int = NDArray[np.int64]


def chains(points: Float, radius_m: float) -> Int:
    """(N,) the smallest row of each point's component, by union-find over every pair."""
    root = list(range(len(points)))

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    for i in range(len(points)):
        for j in range(i):
            if np.linalg.norm(points[i] - points[j]) <= radius_m:
                a, b = sorted((find(i), find(j)))
                root[b] = a
    return np.array([find(i) for i in range(len(points))])


def first_rows(labels: Int) -> Int:
    """(N,) the smallest row with the same label: labels without their names."""
    return np.array([np.flatnonzero(labels == label)[0] for label in labels])


def separate(count: int, apart_m: float, size_m: float, seed: int = 0) -> Float:
    """Random points no two of which are closer than ``apart_m``."""
    rng = np.random.default_rng(seed)
    kept: list[Float] = []
    while len(kept) < count:
        p = rng.uniform(-size_m, size_m, 3)
        if all(np.linalg.norm(p - q) > apart_m for q in kept):
            kept.append(p)
    return np.array(kept)


def test_components_against_union_find() -> None:
    points = np.random.default_rng(0).uniform(0, 10, (200, 3))
    found = components(points, 1.2)
    expected = chains(points, 1.2)
    assert 20 < len(np.unique(expected)) < 180
    np.testing.assert_array_equal(first_rows(found), expected)
    assert set(found) == set(range(found.max() + 1))


def test_a_step_of_exactly_the_radius_counts() -> None:
    points = np.array([[0.0, 0, 0], [0.5, 0, 0], [1.0, 0, 0], [1.5625, 0, 0]])
    np.testing.assert_array_equal(first_rows(components(points, 0.5)), [0, 0, 0, 3])


def test_cluster_of_points_with_a_cell_each_is_union_find() -> None:
    points = separate(200, CELL * 1.0 * np.sqrt(3), 4.0)
    expected = chains(points, 1.0)
    assert 5 < len(np.unique(expected)) < 195
    np.testing.assert_array_equal(first_rows(cluster(points, 1.0)), expected)


def test_order_of_points_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(-6, 6, (600, 3)) * [1, 1, 0.3]
    order = rng.permutation(len(points))
    labels, mixed = cluster(points, 0.8), cluster(points[order], 0.8)
    assert 10 < labels.max() < 590
    same, mixed_same = labels[order][:, None] == labels[order], mixed[:, None] == mixed
    np.testing.assert_array_equal(same, mixed_same)


def test_thin_is_the_mean_of_each_cell() -> None:
    points = np.random.default_rng(4).uniform(-3, 3, (300, 3))
    means, cell = thin(points, 0.7)
    keys = np.floor(points / 0.7).astype(int)
    unique, index = np.unique(keys, axis=0, return_inverse=True)
    np.testing.assert_array_equal(cell, index)
    np.testing.assert_allclose(means, [points[index == k].mean(axis=0) for k in range(len(unique))], atol=1e-12)


def test_thin_of_a_huge_extent() -> None:
    """More cells than 64 bits can number."""
    points = np.array([[0.0, 0, 0], [1e6, 1e6, 1e6], [0.01, 0.01, 0.01], [-1e6, 0, 0]])
    means, cell = thin(points, 0.1)
    assert len(means) == 3 and cell[0] == cell[2] and len({cell[0], cell[1], cell[3]}) == 3
    np.testing.assert_allclose(means[cell[[1, 3]]], points[[1, 3]])


@pytest.mark.parametrize("count", [1, 30])
def test_equal_points_are_one_cluster(count: int) -> None:
    np.testing.assert_array_equal(cluster(np.full((count, 3), 7.0), 0.5), np.zeros(count))
