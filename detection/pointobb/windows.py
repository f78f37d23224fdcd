# SPDX-License-Identifier: Apache-2.0
"""Labelling of images that are too large to be worked on at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from detection.problem import Float, Image, Int

WINDOW, OVERLAP = 1536, 384  # pixels


def label_with_network(
    net: nn.Module, image: Image, points: Float, labels: Int, one: Callable[[Image, Float, Int], tuple[Float, Float]]
) -> tuple[Float, Float]:
    """:func:`label_in_windows` of 1536 px with the network in eval mode; it is left in the mode that it was in."""
    if not len(points):
        return np.zeros((0, 5)), np.zeros(0)
    training = net.training
    net.eval()
    try:
        return label_in_windows(image, points, labels, WINDOW, OVERLAP, one)
    finally:
        net.train(training)


def label_in_windows(
    image: Image,
    points: Float,
    labels: Int,
    window: int,
    overlap: int,
    one: Callable[[Image, Float, Int], tuple[Float, Float]],
) -> tuple[Float, Float]:
    """Boxes and scores for all points, each answered in the window whose centre is nearest to it.

    ``one`` gets every point of its window, for they bound each other; images that fit a window go in whole.

    Args:
        image: (H, W, 3) uint8.
        points: (N, 2) pixels.
        labels: (N,).
        window: side of the windows in pixels.
        overlap: of neighbouring windows in pixels, less than ``window``.
        one: image, points and labels of a window -> (n, 5) boxes and (n,) scores, in the window's pixels.

    Returns:
        (N, 5) and (N,), rows as given.
    """
    height, width = image.shape[:2]
    if max(height, width) <= window:
        return one(image, points, labels)
    boxes, scores = np.zeros((len(points), 5)), np.zeros(len(points))
    left, top = window_starts(width, window, overlap), window_starts(height, window, overlap)
    column = _nearest(points[:, 0], left, min(window, width))
    row = _nearest(points[:, 1], top, min(window, height))
    for i, y in enumerate(top):
        for j, x in enumerate(left):
            answered = (row == i) & (column == j)
            if not answered.any():
                continue
            part = image[y : y + window, x : x + window]
            moved = points - [x, y]
            inside = (moved >= -0.5).all(1) & (moved < [part.shape[1] - 0.5, part.shape[0] - 0.5]).all(1)
            here = inside | answered  # a point beyond the image's border belongs to the border's window
            found, score = one(np.ascontiguousarray(part), moved[here], labels[here])
            own = answered[here]
            boxes[answered] = found[own] + [x, y, 0, 0, 0]
            scores[answered] = score[own]
    return boxes, scores


def window_starts(length: int, window: int, overlap: int) -> list[int]:
    """First pixels of windows that cover ``length`` pixels; the last one is shifted back to end with the image.

    Raises:
        ValueError: windows that do not move on.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"overlap {overlap} of windows of {window}: must be at least 0 and less than a window")
    if length <= window:
        return [0]
    starts = list(range(0, length - window, window - overlap))
    return [*starts, length - window]


def _nearest(at: Float, starts: list[int], side: int) -> Int:
    centres = np.array(starts) + (side - 1) / 2
    return np.abs(at[:, None] - centres).argmin(1)
