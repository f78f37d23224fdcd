# SPDX-License-Identifier: Apache-2.0
"""Which pixels are known from the points alone: object, background, or neither."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from detection.pointobb.class_map.config import ClassMapConfig
from detection.problem import Float, Int

BACKGROUND = -1
UNKNOWN = -2


def label_map(
    points: Float, labels: Int, shape: tuple[int, int], stride: int, config: ClassMapConfig
) -> NDArray[np.int64]:
    """Labels of the cells of a map: a class, BACKGROUND or UNKNOWN.

    Args:
        points: (N, 2) pixels.
        labels: (N,) classes.
        shape: (rows, columns) of the map.
        stride: pixels per cell; cell k's centre lies at pixel (k + 0.5) * stride - 0.5.

    Returns:
        (rows, columns). Without any point all is background.
    """
    found = np.full(shape, UNKNOWN, np.int64)
    if not len(points):
        found[:] = BACKGROUND
        return found
    apart = nearest(points, config.lone_px)
    y, x = ((np.arange(count, dtype=np.float64) + 0.5) * stride - 0.5 for count in shape)
    clear = np.ones(shape, bool)
    for (px, py), free in zip(points, apart / config.clear, strict=True):
        rows, columns = _near(y, py, free), _near(x, px, free)
        square = (y[rows, None] - py) ** 2 + (x[None, columns] - px) ** 2
        clear[rows, columns] &= square > free**2
    found[clear] = BACKGROUND
    for middle in middles(points, labels):
        _disc(found, x, y, middle, config.between_px, BACKGROUND)
    # Nearer points paint last: a cell between two discs gets the class of the nearer one.
    radius = np.minimum(config.radius_px, apart / 2)
    best = np.full(shape, np.inf)
    for point, label, reach in zip(points, labels, np.maximum(radius, stride * np.sqrt(0.5)), strict=True):
        rows, columns = _near(y, point[1], reach), _near(x, point[0], reach)
        square = (y[rows, None] - point[1]) ** 2 + (x[None, columns] - point[0]) ** 2
        own = (square <= reach**2) & (square < best[rows, columns])
        best[rows, columns][own] = square[own]
        found[rows, columns][own] = label
    return found


def nearest(points: Float, limit: float) -> Float:
    """(N,) distance of each point to the nearest other one, at most ``limit`` pixels."""
    if len(points) < 2:
        return np.full(len(points), limit)
    return np.minimum(cKDTree(points).query(points, k=2)[0][:, 1], limit)


def middles(points: Float, labels: Int) -> Float:
    """(M, 2) half-way points from each point to the nearest other one of its class."""
    found = [np.zeros((0, 2))]
    for kind in np.unique(labels):
        own = points[labels == kind]
        if len(own) > 1:
            found.append((own + own[cKDTree(own).query(own, k=2)[1][:, 1]]) / 2)
    return np.concatenate(found)


def _disc(found: NDArray[np.int64], x: Float, y: Float, center: Float, radius: float, value: int) -> None:
    rows, columns = _near(y, center[1], radius), _near(x, center[0], radius)
    square = (y[rows, None] - center[1]) ** 2 + (x[None, columns] - center[0]) ** 2
    found[rows, columns][square <= radius**2] = value


def _near(centers: Float, at: float, radius: float) -> slice:
    return slice(int(np.searchsorted(centers, at - radius)), int(np.searchsorted(centers, at + radius, "right")))
