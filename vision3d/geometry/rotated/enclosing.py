# SPDX-License-Identifier: Apache-2.0
"""The smallest rectangle around points: quadrilaterals of label files, outlines of regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry.rotated.boxes import canonical
from vision3d.geometry.rotated.corners import check_points

Float = NDArray[np.float64]

PAIRS = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [1, 3]])  # sides and diagonals of a quadrilateral


def from_corners(quads: ArrayLike) -> Float:
    """The smallest rectangle around each quadrilateral (N, 4, 2): boxes (N, 5) in le90; exact for rectangles.

    A smallest rectangle has a side along an edge of the convex hull, and the hull of four points has its edges among
    their six pairs; so the best of six directions is the answer, crossed or concave quadrilaterals included.

    Raises:
        ValueError: another shape, or a coordinate that is not finite; names the first bad row.
    """
    quads = np.asarray(quads, dtype=np.float64)
    if quads.size == 0:
        return np.zeros((0, 5))
    if quads.ndim == 2 and quads.shape[1] == 8:
        quads = quads.reshape(-1, 4, 2)
    if quads.ndim != 3 or quads.shape[1:] != (4, 2):
        raise ValueError(f"quads must have the shape (N, 4, 2) or (N, 8), not {quads.shape}")
    good = np.isfinite(quads).all(axis=(1, 2))
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"quads[{row}] = {quads[row].ravel().tolist()}: not finite")
    directions = quads[:, PAIRS[:, 1]] - quads[:, PAIRS[:, 0]]
    return _smallest(quads, directions)


def enclosing_box(points: ArrayLike) -> Float:
    """The smallest rectangle around points (N, 2), N >= 1: one box (5,) in le90, by rotating callipers on their hull.

    Raises:
        ValueError: no points, another shape, or a coordinate that is not finite.
    """
    points = check_points(points)
    if len(points) == 0:
        raise ValueError("no points to enclose")
    hull = convex_hull(points)
    return _smallest(hull[None], (np.roll(hull, -1, axis=0) - hull)[None])[0]


def convex_hull(points: ArrayLike) -> Float:
    """Corners (K, 2) of the convex hull of points (N, 2), those on its edges left out (Andrew's monotone chain)."""
    points = np.unique(check_points(points), axis=0)
    if len(points) < 3:
        return points

    def chain(rows: list[list[float]]) -> list[list[float]]:
        kept: list[list[float]] = []
        for x, y in rows:
            while len(kept) >= 2:
                (x0, y0), (x1, y1) = kept[-2], kept[-1]
                if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                    break
                kept.pop()
            kept.append([x, y])
        return kept[:-1]

    rows = points.tolist()
    return np.array(chain(rows) + chain(rows[::-1]))


def _smallest(points: Float, directions: Float) -> Float:
    """The smallest of the rectangles around points (N, K, 2) with a side along one of directions (N, D, 2)."""
    length = np.hypot(directions[..., 0], directions[..., 1])
    # Long edges know their direction best, so they come first among rectangles of equal area.
    order = np.argsort(-length, axis=1, kind="stable")
    length = np.take_along_axis(length, order, axis=1)
    axis = np.take_along_axis(directions, order[..., None], axis=1)
    axis = np.where(length[..., None] > 0, axis / np.where(length > 0, length, 1.0)[..., None], [1.0, 0.0])

    middle = points.mean(axis=1, keepdims=True)
    local = points - middle
    along = np.einsum("nkc,ndc->ndk", local, axis)
    across = np.einsum("nkc,ndc->ndk", local, np.stack([-axis[..., 1], axis[..., 0]], axis=-1))
    w, h = np.ptp(along, axis=2), np.ptp(across, axis=2)
    area = w * h
    least = area.min(axis=1, keepdims=True)
    extent = np.maximum(w, h).max(axis=1, keepdims=True)
    best = np.argmax(area <= least * (1 + 1e-12) + 1e-15 * extent**2, axis=1)
    row = np.arange(len(points))

    u = 0.5 * (along.min(axis=2) + along.max(axis=2))[row, best]
    v = 0.5 * (across.min(axis=2) + across.max(axis=2))[row, best]
    c, s = axis[row, best, 0], axis[row, best, 1]
    centre = middle[:, 0] + np.stack([c * u - s * v, s * u + c * v], axis=1)
    return canonical(np.column_stack([centre, w[row, best], h[row, best], np.arctan2(s, c)]))
