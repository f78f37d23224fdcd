# SPDX-License-Identifier: Apache-2.0
"""Overlap of rotated boxes with quadrilaterals that are not rectangles: what DOTA's devkit measures.

Sutherland and Hodgman, "Reentrant polygon clipping", 1974, on many pairs at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry import rotated

Float = NDArray[np.float64]


def quad_iou(boxes: Float, quads: Float) -> Float:
    """(K,) IoU of each box (K, 5) with the quadrilateral (K, 4, 2) of the same row, float64, pixels.

    The quadrilateral may run either way around; one of no area has IoU 0.
    """
    if not len(boxes):
        return np.zeros(0)
    # Small numbers near the origin keep their digits; far ones lose them in products of coordinates.
    origin = boxes[:, None, :2]
    corners = rotated.corners(boxes) - origin
    subject = quads - origin
    kept = np.ones(subject.shape[:2], dtype=bool)
    for i in range(4):
        subject, kept = _clip(subject, kept, corners[:, i], corners[:, (i + 1) % 4])
    inter = _area(subject)
    area = boxes[:, 2] * boxes[:, 3]
    other = _area(quads - origin)
    union = area + other - inter
    some = (area > 0) & (other > 0) & (union > 0)
    return np.where(some, np.clip(inter / np.where(some, union, 1.0), 0.0, 1.0), 0.0)


def _area(polygons: Float) -> Float:
    """(K,) areas of (K, n, 2) polygons, by the shoelace formula."""
    x, y = polygons[..., 0], polygons[..., 1]
    return np.abs((x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1)) / 2


def _clip(polygons: Float, kept: NDArray[np.bool_], start: Float, end: Float) -> tuple[Float, NDArray[np.bool_]]:
    """Cut (K, n, 2) polygons by the line from ``start`` to ``end`` (K, 2): what lies on its right on screen stays.

    ``kept`` (K, n) marks the vertices; the rest are copies of the first one, which add no area and no crossing.
    """
    edge = (end - start)[:, None]
    side = edge[..., 0] * (polygons[..., 1] - start[:, None, 1]) - edge[..., 1] * (polygons[..., 0] - start[:, None, 0])
    after, side_after = np.roll(polygons, -1, 1), np.roll(side, -1, 1)
    inside, inside_after = side >= 0, side_after >= 0
    crosses = inside != inside_after
    part = side / np.where(crosses, side - side_after, 1.0)
    crossing = polygons + part[..., None] * (after - polygons)
    k, n = kept.shape
    vertices = np.stack([polygons, crossing], axis=2).reshape(k, 2 * n, 2)
    wanted = np.stack([inside & kept, crosses], axis=2).reshape(k, 2 * n)
    most = max(int(wanted.sum(1).max()), 1)
    order = np.argsort(~wanted, axis=1, kind="stable")[:, :most]
    vertices = np.take_along_axis(vertices, order[..., None], axis=1)
    wanted = np.take_along_axis(wanted, order, axis=1)
    return np.where(wanted[..., None], vertices, vertices[:, :1]), wanted
