# SPDX-License-Identifier: Apache-2.0
"""Which point is nearest: the cells of a Voronoi diagram on the pixels of an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from detection.problem import Float

ROWS = 256  # of pixels that are looked up at once, so that memory does not grow with the image


def cells(points: Float, shape: tuple[int, int]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """For every pixel of an image of ``shape`` (H, W): the nearest of (N, 2) points and its distance in pixels.

    Raises:
        ValueError: there is no point.
    """
    if not len(points):
        raise ValueError("cells of no points")
    tree = cKDTree(points)
    height, width = shape
    owner, distance = np.empty(shape, np.int32), np.empty(shape, np.float32)
    for top in range(0, height, ROWS):
        rows = slice(top, min(top + ROWS, height))
        y, x = np.mgrid[rows, :width]
        distance[rows], owner[rows] = tree.query(np.stack([x, y], -1))
    return owner, distance


def ridges(owner: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(H, W) borders of cells, one pixel thick: each step from pixel to pixel into another cell meets them."""
    found = np.zeros(owner.shape, bool)
    found[:, :-1] |= owner[:, :-1] != owner[:, 1:]
    found[:-1] |= owner[:-1] != owner[1:]
    return found


def spacing(points: Float, shape: tuple[int, int]) -> Float:
    """(N,) pixels from each point to the nearest other one; at most half the longer side of the image, for loners."""
    limit = max(shape) / 2
    if len(points) < 2:
        return np.full(len(points), limit)
    return np.minimum(cKDTree(points).query(points, k=2)[0][:, 1], limit)
