# SPDX-License-Identifier: Apache-2.0
"""The area that two boxes share, by clipping one in the frame of the other: plain numpy, many pairs at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry.rotated.corners import CORNER_SIGNS

Float = NDArray[np.float64]


def shared_area(a: Float, b: Float) -> Float:
    """Areas (P,) of the intersections of boxes a (P, 5) and b (P, 5); the same for (a, b) and (b, a).

    One is moved into the frame of the other (only differences of centres and angles enter, so far-away boxes lose
    nothing) and clipped by its four sides in turn (Sutherland and Hodgman, 1974). No tolerance is needed.
    """
    first = _comes_first(a, b)[:, None]
    same = (a == b).all(axis=1)
    a, b = np.where(first, b, a), np.where(first, a, b)
    polygon = _in_frame(a, b)
    count = np.full(len(a), 4)
    half = 0.5 * b[:, 2:4]
    for axis in (0, 1):
        for sign in (1.0, -1.0):
            polygon, count = _clip(polygon, count, axis, sign, half[:, axis])
    rows = np.arange(polygon.shape[1])
    there = rows < count[:, None]
    after = np.where(rows + 1 < count[:, None], rows + 1, 0)
    following = np.take_along_axis(polygon, after[..., None], axis=1)
    cross = polygon[..., 0] * following[..., 1] - polygon[..., 1] * following[..., 0]
    area = np.maximum(0.5 * np.sum(np.where(there, cross, 0.0), axis=1), 0.0)
    return np.where(same, a[:, 2] * a[:, 3], area)


def _comes_first(a: Float, b: Float) -> NDArray[np.bool_]:
    """A fixed choice of whose frame is used, so that the order of a pair does not matter to the last bit."""
    first = np.zeros(len(a), bool)
    open_ = np.ones(len(a), bool)
    keys = [(b[:, 2] * b[:, 3], a[:, 2] * a[:, 3]), (b[:, 2], a[:, 2]), (a[:, 0], b[:, 0]), (a[:, 1], b[:, 1])]
    for less, than in [*keys, (a[:, 4], b[:, 4])]:
        first |= open_ & (less < than)
        open_ &= less == than
    return first


def _in_frame(a: Float, b: Float) -> Float:
    """Corners (P, 4, 2) of ``a`` as seen from the centre and along the sides of ``b``."""
    ca, sa, cb, sb = np.cos(a[:, 4]), np.sin(a[:, 4]), np.cos(b[:, 4]), np.sin(b[:, 4])
    c, s = (ca * cb + sa * sb)[:, None], (sa * cb - ca * sb)[:, None]
    d = a[:, :2] - b[:, :2]
    local = CORNER_SIGNS * a[:, None, 2:4]
    x = (d[:, 0] * cb + d[:, 1] * sb)[:, None] + (c * local[..., 0] - s * local[..., 1])
    y = (d[:, 1] * cb - d[:, 0] * sb)[:, None] + (s * local[..., 0] + c * local[..., 1])
    return np.stack([x, y], axis=-1)


def _clip(
    polygon: Float, count: NDArray[np.int64], axis: int, sign: float, limit: Float
) -> tuple[Float, NDArray[np.int64]]:
    """Convex polygons (P, K, 2) with ``count`` corners each, cut to where sign * coordinate <= limit."""
    pairs, width = polygon.shape[:2]
    rows = np.arange(width)
    there = rows < count[:, None]
    after = np.where(rows + 1 < count[:, None], rows + 1, 0)
    following = np.take_along_axis(polygon, after[..., None], axis=1)
    here, ahead = sign * polygon[..., axis] - limit[:, None], sign * following[..., axis] - limit[:, None]
    keep = there & (here <= 0)
    crosses = there & ((here <= 0) != (ahead <= 0))
    part = here / np.where(crosses, here - ahead, 1.0)
    crossing = polygon + part[..., None] * (following - polygon)
    crossing[..., axis] = sign * limit[:, None]

    # Each corner leaves itself, a crossing, both or nothing; these move up to close the gaps.
    offered = np.stack([polygon, crossing], axis=2).reshape(pairs, 2 * width, 2)
    wanted = np.stack([keep, crosses], axis=2).reshape(pairs, 2 * width)
    count = wanted.sum(axis=1)
    order = np.argsort(~wanted, axis=1, kind="stable")[:, : max(1, int(count.max(initial=1)))]
    return np.take_along_axis(offered, order[..., None], axis=1), count
