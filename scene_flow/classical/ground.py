# SPDX-License-Identifier: Apache-2.0
"""Ground of a LiDAR scan: what lies on a smooth surface that has almost nothing below it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from scene_flow.classical.config import GroundConfig
from vision3d.types.clouds import Axes

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


def to_lidar(points: NDArray[np.floating], axes: Axes) -> Float:
    """(N, 3) float64 with x forward, y left and z up."""
    points = np.asarray(points, dtype=np.float64)
    return points if axes == "lidar" else points[:, [2, 0, 1]]


def ground_mask(points: NDArray[np.floating], axes: Axes, config: GroundConfig) -> Bool:
    points = to_lidar(points, axes)
    near = np.hypot(points[:, 0], points[:, 1]) < config.range_m
    ground = np.zeros(len(points), dtype=bool)
    if near.sum() < 10:
        return ground
    support = lowest_of_cells(points[near], config.cell_m)
    surface = Surface.fit(support, config)
    above = points[near, 2] - surface(points[near, :2])
    ground[near] = above < config.height_m
    return ground


def lowest_of_cells(points: Float, cell_m: float, quantile: float = 0.1) -> Float:
    cells = np.floor(points[:, :2] / cell_m).astype(np.int64)
    cells -= cells.min(axis=0)
    key = cells[:, 0] * (cells[:, 1].max() + 1) + cells[:, 1]
    order = np.lexsort((points[:, 2], key))
    key = key[order]
    first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    count = np.diff(np.r_[first, len(key)])
    rank = (quantile * (count - 1)).astype(np.int64)
    return points[order[first + rank]]


class Surface:
    def __init__(self, heights: Float, origin: Float, knot_m: float) -> None:
        self.heights, self.origin, self.knot_m = heights, origin, knot_m

    @classmethod
    def fit(cls, support: Float, config: GroundConfig) -> Surface:
        origin = support[:, :2].min(axis=0) - 1e-6
        shape = tuple((np.ceil((support[:, :2].max(axis=0) - origin) / config.knot_m) + 2).astype(int))
        surface = cls(np.zeros(shape), origin, config.knot_m)
        B = surface.weights(support[:, :2])
        smooth = config.stiffness * curvature(shape)
        weight = np.ones(len(support))
        for scale in (None, 2.0, 1.0, 0.5, 0.25, *[config.scale_m] * 4):
            A = (B.T @ sparse.diags(weight) @ B + smooth).tocsc()
            surface.heights = splu(A).solve(B.T @ (weight * support[:, 2])).reshape(shape)
            residual = support[:, 2] - surface(support[:, :2])
            if scale is None:
                weight = np.where(residual > 0, 0.02, 1.0)
                continue
            above = np.maximum(residual, 0) / max(scale, config.scale_m)
            below = np.maximum(-residual, 0) / max(3 * scale, 3 * config.scale_m)
            weight = 1 / (1 + above**2) ** 2 / (1 + below**2) ** 2
        return surface

    def __call__(self, xy: Float) -> Float:
        return np.asarray(self.weights(xy) @ self.heights.ravel())

    def weights(self, xy: Float):
        nx, ny = self.heights.shape
        at = (xy - self.origin) / self.knot_m
        low = np.clip(np.floor(at).astype(np.int64), 0, [nx - 2, ny - 2])
        f = np.clip(at - low, 0, 1)
        base = low[:, 0] * ny + low[:, 1]
        columns = base[:, None] + np.array([0, 1, ny, ny + 1])
        values = np.stack([(1-f[:,0])*(1-f[:,1]), (1-f[:,0])*f[:,1], f[:,0]*(1-f[:,1]), f[:,0]*f[:,1]], 1)
        indptr = np.arange(0, 4 * len(xy) + 1, 4)
        return sparse.csr_matrix((values.ravel(), columns.ravel(), indptr), shape=(len(xy), nx * ny))


def curvature(shape):
    nx, ny = shape
    def second(n):
        return sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n-2, n)) if n > 2 else sparse.csr_matrix((0, n))
    def firstd(n):
        return sparse.diags([-1.0, 1.0], [0, 1], shape=(n-1, n))
    I = sparse.identity
    parts = [sparse.kron(second(nx), I(ny)), sparse.kron(I(nx), second(ny)), np.sqrt(2) * sparse.kron(firstd(nx), firstd(ny))]
    return sum(p.T @ p for p in parts) + 1e-9 * sparse.identity(nx * ny)
