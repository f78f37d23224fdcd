# SPDX-License-Identifier: Apache-2.0
"""Where the windows of an image lie, and which objects belong to which.

Pixel centres lie at integer coordinates, so that a window of side s at (x, y) covers [x - 0.5, x + s - 0.5] in x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.dota.config import SplitConfig, WindowConfig

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

ALIKE = 0.01  # windows whose filled part differs by less count as equally full
CUT = 1e-6  # part of an object's area that may be missing before it counts as cut
CHUNK = 20_000  # pairs of an object and a window in memory at once


@dataclass(frozen=True)
class Window:
    """A square of an image, in that image's pixels.

    Attributes:
        x: column of its first pixel.
        y: row of its first pixel.
        size: side.
        rate: the scale it stands for: the side at rate 1 over this one.
    """

    x: int
    y: int
    size: int
    rate: float = 1.0

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """x from, y from, x to, y to."""
        return self.x - 0.5, self.y - 0.5, self.x + self.size - 0.5, self.y + self.size - 0.5


def starts(length: int, size: int, gap: int) -> list[int]:
    """First pixels of windows along a side: ``size - gap`` apart, the last shifted back to the border."""
    if length <= size:
        return [0]
    step = size - gap
    count = -(-(length - size) // step) + 1
    return [min(step * i, length - size) for i in range(count)]


def grid(width: int, height: int, config: WindowConfig) -> list[Window]:
    """Windows that cover every pixel at every rate, row by row; they stick out of images that are smaller."""
    return [
        Window(x, y, size, rate)
        for rate, (size, gap) in zip(config.rates, config.sizes, strict=True)
        for y in starts(height, size, gap)
        for x in starts(width, size, gap)
    ]


def split_windows(width: int, height: int, config: SplitConfig) -> list[Window]:
    """The windows of :func:`grid` that are filled enough to be worth a tile (MMRotate's rule).

    As windows are shifted back at the border, all windows of a rate are filled alike and stay or go together: what
    stays still covers every pixel.
    """
    windows = grid(width, height, config)
    filled = [min(w.size, width) * min(w.size, height) / w.size**2 for w in windows]
    if max(filled) <= config.min_filled:
        return [w for w, part in zip(windows, filled, strict=True) if part > max(filled) - ALIKE]
    return [w for w, part in zip(windows, filled, strict=True) if part > config.min_filled]


def parts_inside(quads: Float, bounds: Float) -> Float:
    """Which part of each quadrilateral's area lies in each axis-parallel rectangle.

    Moving every point of a polygon's outline to the nearest point of the rectangle leaves how often the outline goes
    round each inner point, so the area that the moved outline encloses is that of the intersection. Each edge is broken
    where it meets the rectangle's four lines; in between the moved edge is straight and the shoelace formula exact.

    Args:
        quads: (N, 4, 2).
        bounds: (M, 4) x from, y from, x to, y to.

    Returns:
        (N, M) in [0, 1]; 0 for a quadrilateral without area.
    """
    parts = np.zeros((len(quads), len(bounds)))
    if parts.size == 0:
        return parts
    low, high = quads.min(1), quads.max(1)
    near = np.all((high[:, None] > bounds[None, :, :2]) & (low[:, None] < bounds[None, :, 2:]), axis=2)
    rows, columns = np.nonzero(near)
    for at in range(0, len(rows), CHUNK):
        n, m = rows[at : at + CHUNK], columns[at : at + CHUNK]
        parts[n, m] = _parts(quads[n], bounds[m])
    return parts


def _parts(quads: Float, bounds: Float) -> Float:
    """As :func:`parts_inside` for P pairs: (P, 4, 2) and (P, 4) -> (P,)."""
    middle = quads.mean(1, keepdims=True)  # areas are differences of products: keep the factors small
    start = quads - middle
    limits = bounds.reshape(-1, 2, 2) - middle
    along = np.roll(start, -1, axis=1) - start
    safe = np.where(along == 0, 1.0, along)
    meets = (limits[:, None] - start[:, :, None]) / safe[:, :, None]  # (P, 4 edges, 2 limits, 2 axes)
    meets = np.sort(np.clip(np.where(along[:, :, None] == 0, 0.0, meets), 0, 1).reshape(len(quads), 4, 4), axis=2)
    steps = np.concatenate([np.zeros((len(quads), 4, 1)), meets], axis=2)[..., None]
    points = (start[:, :, None] + steps * along[:, :, None]).reshape(len(quads), 20, 2)
    inside = np.abs(_area(np.clip(points, limits[:, :1], limits[:, 1:])))
    whole = np.abs(_area(start))
    return np.where(whole > 0, np.clip(inside / np.where(whole > 0, whole, 1), 0, 1), 0)


def _area(points: Float) -> Float:
    """Signed areas of (P, K, 2) outlines."""
    following = np.roll(points, -1, axis=1)
    return 0.5 * np.sum(points[..., 0] * following[..., 1] - points[..., 1] * following[..., 0], axis=1)


@dataclass(frozen=True)
class Share:
    """The objects of a window.

    Attributes:
        rows: (K,) which objects, ascending.
        cut: (K,) those that the window's border cuts.
        forced: (K,) those that it holds only because no window holds enough of them.
    """

    rows: Int
    cut: Bool
    forced: Bool


def share_out(quads: Float, windows: Sequence[Window], size: tuple[int, int], keep: float) -> list[Share]:
    """Which objects belong to which window: those that it holds by at least ``keep`` of their area.

    An object that no window holds by so much belongs to the one that holds most of it (the first of equals), so that
    none is lost; only those that touch no window at all belong to none.

    Args:
        quads: (N, 4, 2) corners in the image.
        size: (width, height) of the image: what its border cuts is not cut by the window.

    Returns:
        A share per window.
    """
    bounds = np.array([w.bounds for w in windows]).reshape(-1, 4)
    width, height = size
    parts = parts_inside(quads, bounds)
    shown = parts_inside(quads, np.array([[-0.5, -0.5, width - 0.5, height - 0.5]]))
    # Equal up to rounding counts as enough: a quarter of 28 pixels is 0.7 or 0.7 less a bit.
    kept = parts >= keep - 1e-9
    lost = np.flatnonzero(~kept.any(1) & (parts.max(1, initial=0) > 0))
    kept[lost, parts[lost].argmax(1) if len(lost) else lost] = True
    cut = parts < np.minimum(shown, 1) - CUT
    shares = []
    for m in range(len(windows)):
        rows = np.flatnonzero(kept[:, m])
        shares.append(Share(rows, cut[rows, m], np.isin(rows, lost)))
    return shares
