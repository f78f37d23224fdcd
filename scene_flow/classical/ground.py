# SPDX-License-Identifier: Apache-2.0
"""Ground of a scan: what lies on a smooth surface that has almost nothing below it.

The surface is a grid of heights with little curvature, fitted to the low points of small cells by least squares whose
weights forget what stands above it. The sensor's height need not be known, and the ground may slope and bend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from scene_flow.classical.config import GroundConfig
from scene_flow.classical.frames import to_lidar
from vision3d.types.clouds import Axes

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

FEWEST = 10  # points that a surface is fitted to
LOW = 0.1  # the share of a cell's points below its low point: single echoes from below the ground do not count
# Weights forget what stands higher than this, in turn: houses first, then cars, then kerbs.
ABOVE_AT_FIRST = 0.02
SCALES_M = (2.0, 1.0, 0.5, 0.25)
FINAL_PASSES = 4
BELOW = 3.0  # what lies below the surface is forgotten at this times the height: it is rarely wrong


def ground_mask(points: NDArray[np.floating], axes: Axes, config: GroundConfig) -> Bool:
    """(N,) which of the points (N, 3, metres) are ground. None is, where the scan shows no surface to stand on.

    Whatever lies below the surface is ground, too: nothing drives there.
    """
    points = to_lidar(points, axes)
    ground = np.zeros(len(points), dtype=bool)
    near = np.hypot(points[:, 0], points[:, 1]) < config.range_m
    if near.sum() < FEWEST:
        return ground
    surface = fit_surface(low_points(points[near], config.cell_m), config)
    above_m = points[near, 2] - surface(points[near, :2])
    # Ground is dense, and right above it there is little. Where somebody took it away, the surface rests on the feet
    # of things, which go on upwards as densely as they begin.
    on = np.count_nonzero(np.abs(above_m) < config.height_m / 2)
    over = np.count_nonzero((above_m > config.height_m) & (above_m < 2 * config.height_m))
    if on >= config.min_contrast * over:
        ground[near] = above_m < config.height_m
    return ground


def low_points(points: Float, cell_m: float) -> Float:
    """(K, 3) one low point of each occupied cell of the ground plan: a tenth of the cell's points are lower."""
    cells = np.floor(points[:, :2] / cell_m).astype(np.int64)
    order = np.lexsort((points[:, 1], points[:, 0], points[:, 2], cells[:, 1], cells[:, 0]))
    cells = cells[order]
    first = np.flatnonzero(np.r_[True, (np.diff(cells, axis=0) != 0).any(axis=1)])
    count = np.diff(np.r_[first, len(cells)])
    return points[order[first + (LOW * (count - 1)).astype(np.int64)]]


@dataclass(frozen=True)
class Surface:
    """Heights at the knots of a grid, bilinear between them, and constant beyond.

    Attributes:
        heights: (X, Y) metres.
        origin: (2,) metres, the first knot.
        knot_m: spacing of the knots.
    """

    heights: Float
    origin: Float
    knot_m: float

    def __call__(self, xy: Float) -> Float:
        """(N,) heights at (N, 2)."""
        return np.asarray(_bilinear(xy, self.origin, self.knot_m, self.heights.shape) @ self.heights.ravel())


def fit_surface(support: Float, config: GroundConfig) -> Surface:
    """The smooth surface under the points (K, 3), K at least 1.

    At first all points pull, those above it little. Then the weights are 1 / (1 + (height / scale)^2)^2 (Geman and
    McClure), with scales that shrink to ``config.scale_m``.
    """
    origin = support[:, :2].min(axis=0)
    steps = np.floor((support[:, :2].max(axis=0) - origin) / config.knot_m).astype(np.int64)
    shape = int(steps[0]) + 2, int(steps[1]) + 2
    B = _bilinear(support[:, :2], origin, config.knot_m, shape)
    stiff = config.stiffness * _curvature(shape)

    def solved(weight: Float) -> Float:
        normal = (B.T @ sparse.diags(weight) @ B + stiff).tocsc()
        return np.asarray(splu(normal).solve(B.T @ (weight * support[:, 2])))

    heights = solved(np.ones(len(support)))
    heights = solved(np.where(support[:, 2] > B @ heights, ABOVE_AT_FIRST, 1.0))
    for scale_m in (*(max(s, config.scale_m) for s in SCALES_M), *[config.scale_m] * FINAL_PASSES):
        above_m = support[:, 2] - B @ heights
        scaled = np.where(above_m > 0, above_m, above_m / BELOW) / scale_m
        heights = solved(1 / (1 + scaled**2) ** 2)
    return Surface(heights.reshape(shape), origin, config.knot_m)


def _bilinear(xy: Float, origin: Float, knot_m: float, shape: tuple[int, ...]) -> Any:
    """(N, X Y) sparse weights of the knots at each point."""
    nx, ny = shape
    at = (xy - origin) / knot_m
    low = np.clip(np.floor(at).astype(np.int64), 0, [nx - 2, ny - 2])
    fx, fy = np.clip(at - low, 0, 1).T
    columns = (low[:, 0] * ny + low[:, 1])[:, None] + np.array([0, 1, ny, ny + 1])
    weights = np.stack([(1 - fx) * (1 - fy), (1 - fx) * fy, fx * (1 - fy), fx * fy], axis=1)
    starts = np.arange(0, 4 * len(xy) + 1, 4)
    return sparse.csr_matrix((weights.ravel(), columns.ravel(), starts), shape=(len(xy), nx * ny))


def _curvature(shape: tuple[int, int]) -> Any:
    """(X Y, X Y) sparse: the sum of squared second differences of heights h is h.T @ this @ h."""
    nx, ny = shape
    across = [sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(max(n - 2, 0), n)) for n in shape]
    slope = [sparse.diags([-1.0, 1.0], [0, 1], shape=(n - 1, n)) for n in shape]
    parts = [
        sparse.kron(across[0], sparse.identity(ny)),
        sparse.kron(sparse.identity(nx), across[1]),
        np.sqrt(2) * sparse.kron(*slope),
    ]
    # A plane has no curvature, and too few points do not say which: the least of heights, then.
    return sum((part.T @ part for part in parts), 1e-9 * sparse.identity(nx * ny))
