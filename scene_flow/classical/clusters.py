# SPDX-License-Identifier: Apache-2.0
"""Clusters: points that a chain of short steps joins, found on one point per small cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Float = NDArray[np.float64]
Int = NDArray[np.int64]

# Cells in which points are joined before distances are looked at, as a share of the radius. A cell's farthest points
# are 0.7 radii apart; smaller cells take longer and give the same clusters.
CELL = 0.4


def cluster(points: Float, radius_m: float) -> Int:
    """(N,) the cluster of each point, 0 to K - 1.

    Points of one cell of ``CELL`` radii are in one cluster, and cells are in one if their mean points are within
    ``radius_m`` of each other or joined by a chain of such cells.

    Args:
        points: (N, 3) finite metres, N at least 1.
    """
    means, cell = thin(points, CELL * radius_m)
    return components(means, radius_m)[cell]


def components(points: Float, radius_m: float) -> Int:
    """(N,) connected components, 0 to K - 1, of the graph that joins points within ``radius_m`` (inclusive)."""
    pairs = cKDTree(points).query_pairs(radius_m, output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(len(points),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def thin(points: Float, cell_m: float) -> tuple[Float, Int]:
    """The mean point of every occupied cell (K, 3), in the order of the cells, and the cell (N,) of every point."""
    cells = np.floor(points / cell_m).astype(np.int64)
    cells -= cells.min(axis=0)
    size = cells.max(axis=0) + 1
    if np.prod(size.astype(np.float64)) < 2**62:
        key = np.ravel_multi_index(tuple(cells.T), tuple(size))
        _, index, count = np.unique(key, return_inverse=True, return_counts=True)
    else:
        _, index, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(index, points[:, k]) for k in range(3)], axis=1)
    return means / count[:, None], index.astype(np.int64)
