# SPDX-License-Identifier: Apache-2.0
"""A grid that knows at each node how far the nearest point of a cloud is."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

# Measured: 20.3. A cell holds its nearest cell as three int32, the distance, and copies of its occupancy.
BYTES_PER_CELL = 21
SLAB_CELLS = 2**20


class DistanceField:
    """Distances to a cloud in a box: exact between nodes and the cloud's points, which are rounded to nodes.

    Args:
        cloud: (M, 3) metres, M at least 1.
        around: (N, 3) metres: the box holds these points, too.
        cell_m: spacing of the nodes; a larger one is taken where the box needs more memory than allowed.
        most_mb: most memory while the field is made.

    Attributes:
        cell_m: the spacing that was taken.
        origin: (3,) metres, the node at index 0.
        distance_m: (X, Y, Z) float32.
    """

    def __init__(
        self, cloud: NDArray[np.floating], around: NDArray[np.floating], cell_m: float, most_mb: float = 1024
    ) -> None:
        cloud = np.asarray(cloud, dtype=np.float64)
        low = np.minimum(cloud.min(axis=0), around.min(axis=0)).astype(np.float64)
        high = np.maximum(cloud.max(axis=0), around.max(axis=0)).astype(np.float64)
        self.cell_m = affordable_cell(high - low, cell_m, most_mb)
        self.origin = low - self.cell_m
        occupied = np.zeros(nodes(high - low, self.cell_m), dtype=bool)
        occupied[tuple(np.rint((cloud - self.origin) / self.cell_m).astype(np.int64).T)] = True
        self.distance_m = torch.from_numpy(distances(occupied, self.cell_m))
        self._origin = torch.from_numpy(self.origin)
        self._last = torch.tensor(self.distance_m.shape, dtype=torch.float64) - 1

    def __call__(self, points: Tensor) -> Tensor:
        """(N,) metres at the points (N, 3), trilinear between nodes; differentiable.

        Outside of the box, the way to the box is added: a bound from above, with a gradient that leads back.
        """
        at = (points.double() - self._origin) / self.cell_m
        inside = at.clamp(min=torch.zeros(3, dtype=at.dtype), max=self._last)
        # grid_sample wants -1 to 1, the last axis first.
        where = (2 * inside / self._last - 1).flip(1).float()[None, None, None]
        found = functional.grid_sample(self.distance_m[None, None], where, align_corners=True, padding_mode="border")
        outside_m = torch.linalg.vector_norm(at - inside, dim=1) * self.cell_m
        return found.reshape(-1) + outside_m.float()


def nodes(extent_m: NDArray[np.float64], cell_m: float) -> tuple[int, int, int]:
    """Nodes per axis of a box of this extent: at least one more than it needs on every side."""
    x, y, z = (int(n) for n in np.ceil(extent_m / cell_m) + 3)
    return x, y, z


def affordable_cell(extent_m: NDArray[np.float64], cell_m: float, most_mb: float) -> float:
    """``cell_m``, or the least multiple of it by a power of 1.05 with which the field fits into the memory."""
    most_cells = max(most_mb * 1e6 / BYTES_PER_CELL, 64)  # a box of 4 x 4 x 4 always fits
    while np.prod(np.ceil(extent_m / cell_m) + 3) > most_cells:
        cell_m *= 1.05
    return float(cell_m)


def distances(occupied: NDArray[np.bool_], cell_m: float) -> NDArray[np.float32]:
    """(X, Y, Z) metres from each node to the nearest occupied one, of which there must be one."""
    # Distances from the nearest nodes, slab by slab: scipy's own distances go by way of whole float64 arrays.
    nearest = ndimage.distance_transform_edt(~occupied, return_distances=False, return_indices=True)
    out = np.empty(occupied.shape, dtype=np.float32)
    _, y, z = (np.arange(n) for n in occupied.shape)
    slab = max(1, SLAB_CELLS // (len(y) * len(z)))
    for start in range(0, len(out), slab):
        rows = slice(start, start + slab)
        x = np.arange(start, start + len(out[rows]))
        squared = (nearest[0, rows] - x[:, None, None]).astype(np.float64) ** 2
        squared += (nearest[1, rows] - y[:, None]) ** 2
        squared += (nearest[2, rows] - z) ** 2
        out[rows] = np.sqrt(squared) * cell_m
    return out
