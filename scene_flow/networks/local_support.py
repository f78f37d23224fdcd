# SPDX-License-Identifier: Apache-2.0
"""What keeps clouds of LiDAR size affordable: few candidates a point, few keys a cloud, chosen in N log N steps.

Nothing here depends on the order of the points, and nothing is drawn at random.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision3d.sparse import segment_reduce

_GROWTH = 2**0.25  # of the edge of a cell, while there are too many of them
_CELLS_PER_AXIS = 2**20  # three axes of 20 bits and a key is 60 bits long

Float = NDArray[np.float64]
Int = NDArray[np.int64]


def transport_candidates(centres: Tensor, target: Tensor, cell_m: float, neighbours: int, radius_m: float) -> Tensor:
    """The target points near each centre, the target being thinned to one point per cell.

    Args:
        centres: (B, N, 3) metres.
        target: (B, M, 3) metres.
        cell_m: edge of a cell.
        neighbours: at most this many.
        radius_m: all are nearer than this.

    Returns:
        (B, N, K) int64 rows of the target, the nearest first; -1 where there are no more. K is at most ``neighbours``.
    """
    found = [_nearest(at, cloud, cell_m, neighbours, radius_m) for at, cloud in zip(_arrays(centres), _arrays(target))]
    width = max(rows.shape[1] for rows in found)
    padded = [np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=-1) for rows in found]
    return torch.from_numpy(np.stack(padded)).to(centres.device)


def _nearest(at: Float, cloud: Float, cell_m: float, neighbours: int, radius_m: float) -> Int:
    from scipy.spatial import cKDTree

    kept = one_per_cell(cloud, cell_m)
    k = min(neighbours, len(kept))
    threads = torch.get_num_threads()
    _, near = cKDTree(cloud[kept]).query(at, list(range(1, k + 1)), distance_upper_bound=radius_m, workers=threads)
    return np.append(kept, -1)[near]  # scipy marks what is missing by the number of points


def both(first: Tensor, second: Tensor) -> Tensor:
    """(B, N, K + L) the rows of (B, N, K) and (B, N, L) together, each once; -1 for the rest."""
    rows = torch.cat([first, second], -1).sort(dim=-1)[0]
    again = rows[..., 1:] == rows[..., :-1]
    rows[..., 1:][again] = -1
    return rows


def mean_over_cells(values: Tensor, points: Tensor, cell_m: float) -> Tensor:
    """(B, N, C) the mean of ``values`` over the points of each point's cell of edge ``cell_m``."""
    means = []
    for value, cloud in zip(values, _arrays(points)):
        cells = np.floor(cloud / cell_m)
        number = torch.from_numpy(_numbered(cells - cells.min(0))).to(values.device)
        means.append(segment_reduce(value, number, "mean")[number])
    return torch.stack(means)


def one_per_cell(points: Float, cell_m: float) -> Int:
    """(K,) ascending rows: of every occupied cell of edge ``cell_m``, the point nearest to its centre."""
    cells = np.floor(points / cell_m)
    off_centre = np.square(points / cell_m - cells - 0.5).sum(1)
    cell_of = _numbered(cells - cells.min(0))
    # Equally near points of one cell are told apart by where they are, never by their row.
    order = np.lexsort((*points.T[::-1], off_centre, cell_of))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.diff(cell_of[order]) > 0
    return np.sort(order[first])


def cells_at_most(points: Tensor, most: int) -> Tensor:
    """(N,) int64: the number of the cell that each point is in, for cells so large that at most ``most`` are occupied.

    Cells start at the cloud's lowest corner. Their edge is the smallest that does, up to a factor of 2^(1/4).

    Args:
        points: (N, 3) metres, N at least 1.
        most: at least 1.
    """
    position = points.detach().double().cpu().numpy()
    position = position - position.min(0)
    extent = max(float(position.max()), 1e-6)
    # Cells of extent / sqrt(most) would hold a sheet that fills its square: a scan fills far less, so start finer.
    edge = max(extent / _CELLS_PER_AXIS, 0.02 * extent / most**0.5)
    numbers = _numbered(np.floor(position / edge))
    while numbers.max() >= most:
        edge *= _GROWTH
        numbers = _numbered(np.floor(position / edge))
    return torch.from_numpy(numbers).to(points.device)


def _numbered(cells: Float) -> Int:
    """(N,) number from 0 of each of the (N, 3) non-negative whole cells, in the order of their coordinates."""
    size = cells.max(0) + 1
    if float(np.prod(size)) < 2.0**62:
        key = (cells[:, 0].astype(np.int64) * int(size[1]) + cells[:, 1].astype(np.int64)) * int(size[2])
        return np.unique(key + cells[:, 2].astype(np.int64), return_inverse=True)[1]
    return np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)


def _arrays(clouds: Tensor) -> list[Float]:
    return list(clouds.detach().double().cpu().numpy())
