# SPDX-License-Identifier: Apache-2.0
"""Boxes out of a map of scores: principal axes around a point, then out along them to where the object ends."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from detection.pointobb.class_map.config import ClassMapConfig
from detection.problem import Float
from vision3d.geometry import rotated

Scores = NDArray[np.float32]

GRID = 41  # samples per side of the window whose principal axes are taken
STEP_PX = 0.5  # of the walk
PASSES = 3  # the window follows the box that was found in it
SMALLEST_PX = 2.0


def walk(scores: Scores, points: Float, others: Float, config: ClassMapConfig) -> Float:
    """Boxes of points of one class.

    Args:
        scores: (H, W) of the class, per pixel, in [0, 1].
        points: (N, 2) pixels.
        others: (M, 2) all points of the image, these among them: a walk ends half-way to any of them.

    Returns:
        (N, 5) le90.
    """
    tree = cKDTree(others)
    own = tree.query(points)[1]
    window = np.full(len(points), config.window_px)
    boxes = np.zeros((len(points), 5))
    for _ in range(PASSES):
        angle = axis_of(scores, points, window, config)
        ends = np.stack([_reach(scores, points, angle + k * np.pi / 2, tree, own, config) for k in range(4)], 1)
        c, s = np.cos(angle), np.sin(angle)
        along, across = (ends[:, 0] - ends[:, 2]) / 2, (ends[:, 1] - ends[:, 3]) / 2
        boxes[:, 0] = points[:, 0] + along * c - across * s
        boxes[:, 1] = points[:, 1] + along * s + across * c
        boxes[:, 2] = np.maximum(ends[:, 0] + ends[:, 2], SMALLEST_PX)
        boxes[:, 3] = np.maximum(ends[:, 1] + ends[:, 3], SMALLEST_PX)
        boxes[:, 4] = angle
        window = np.clip(boxes[:, 2:4].max(1) / 2, 4.0, config.longest_px)
    return np.asarray(rotated.canonical(boxes))


def axis_of(scores: Scores, points: Float, radius: Float, config: ClassMapConfig) -> Float:
    """(N,) radians of the long principal axis of the scores within ``radius`` (N,) pixels of each point.

    A pixel counts for a point by its share among all points of the class, so that neighbours keep what is theirs.
    """
    steps = np.linspace(-1, 1, GRID)
    u, v = (grid[None] * radius[:, None, None] for grid in np.meshgrid(steps, steps))
    x, y = points[:, 0, None, None] + u, points[:, 1, None, None] + v
    weight = sample(scores, x, y) * (u**2 + v**2 <= radius[:, None, None] ** 2)
    count = min(5, len(points))  # farther points have no share
    apart = cKDTree(points).query(np.stack([x, y], -1), k=[*range(1, count + 1)])[0]
    away = np.hypot(u, v)
    share = np.exp((apart[..., :1] - apart) / config.damping_px).sum(-1)
    weight = weight * np.exp((apart[..., 0] - away) / config.damping_px) / share
    xx, yy, xy = ((weight * part).sum((1, 2)) for part in (u * u, v * v, u * v))
    return np.asarray(0.5 * np.arctan2(2 * xy, xx - yy))


def _reach(
    scores: Scores, points: Float, angle: Float, tree: cKDTree, own: NDArray[np.intp], config: ClassMapConfig
) -> Float:
    """(N,) pixels from each point in a direction to where the map falls, or half-way to a neighbour."""
    steps = np.arange(0, config.longest_px, STEP_PX)
    x = points[:, 0, None] + steps * np.cos(angle)[:, None]
    y = points[:, 1, None] + steps * np.sin(angle)[:, None]
    height, width = scores.shape
    value = sample(scores, x, y)
    start = value[:, :1]
    over = value < config.stop * start
    over |= (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
    last = _first(over)
    # Only the part of the walk that is left is looked up: most walks are short.
    for row, end in enumerate(last):
        owner = tree.query(np.stack([x[row, :end], y[row, :end]], -1))[1]
        last[row] = min(end, _first((owner != own[row])[None])[0])
    return np.asarray(np.maximum(last - 0.5, 0) * STEP_PX)


def _first(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) position of the first True of each row; the length of the row where there is none."""
    if not mask.shape[1]:
        return np.zeros(len(mask), np.int64)
    return np.where(mask.any(1), mask.argmax(1), mask.shape[1]).astype(np.int64)


def sample(scores: Scores, x: Float, y: Float) -> Float:
    """Bilinear values of (H, W) at pixels x and y of any shape; the border goes on outside."""
    height, width = scores.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    x0, y0 = np.minimum(x.astype(np.int64), max(width - 2, 0)), np.minimum(y.astype(np.int64), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = x - x0, y - y0
    top = scores[y0, x0] * (1 - fx) + scores[y0, x1] * fx
    bottom = scores[y1, x0] * (1 - fx) + scores[y1, x1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy)
