# SPDX-License-Identifier: Apache-2.0
"""Points on a sheet of paper: seen from above, or as the sensor sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision3d import canvas
from vision3d.canvas import Picture, Rgb

Float = NDArray[np.float64]

WIDTH, HEIGHT = 480, 360
PAPER: Rgb = (250, 250, 250)
DARK: Rgb = (38, 42, 48)
_FAR_FACTOR = 1.15  # room around the bulk of the points
_NEAREST_M = 0.5


def upright(points: NDArray[np.float32], axes: str) -> Float:
    """(N, 3) float64 as (right, forward, up), metres, of either kind of axes."""
    p = points.astype(np.float64)
    if axes == "lidar":
        return np.stack([-p[:, 1], p[:, 0], p[:, 2]], axis=1)
    return np.stack([-p[:, 0], p[:, 2], p[:, 1]], axis=1)


@dataclass(frozen=True)
class TopView:
    """The world from above, forward upwards, at one scale.

    Attributes:
        centre: (2,) right and forward of the panel's middle, metres.
        px_per_m: scale.
    """

    centre: Float
    px_per_m: float

    @classmethod
    def around(cls, points: Float) -> TopView:
        """A view that holds the bulk of (N, 3) upright points."""
        low, high = np.percentile(points[:, :2], [3, 97], axis=0)
        span = np.maximum(high - low, 0.5) * _FAR_FACTOR
        return cls((low + high) / 2, float(min(WIDTH / span[0], HEIGHT / span[1])))

    def place(self, points: Float) -> tuple[Float, Float]:
        """Pixels (N, 2), and what is drawn later is higher (N,)."""
        uv = (points[:, :2] - self.centre) * [self.px_per_m, -self.px_per_m] + [WIDTH / 2, HEIGHT / 2]
        return uv, points[:, 2]


@dataclass(frozen=True)
class FrontView:
    """What lies before the sensor, in perspective.

    Attributes:
        focal_px: focal length.
        horizon_px: row of what is at the sensor's height.
    """

    focal_px: float
    horizon_px: float

    @classmethod
    def around(cls, points: Float) -> FrontView:
        """A view between 40 and 110 degrees wide that holds the bulk of (N, 3) upright points."""
        ahead = points[points[:, 1] > _NEAREST_M]
        if not len(ahead):
            return cls(WIDTH / 2, HEIGHT / 2)
        slopes = ahead[:, [0, 2]] / ahead[:, 1:2]
        low, high = np.percentile(slopes, [2, 98], axis=0)
        wide = float(np.clip(np.abs([low[0], high[0]]).max(), 0.36, 1.43))
        tall = float(np.clip(high[1] - low[1], 0.1, 2.5))
        focal = min(WIDTH / (2 * wide), HEIGHT / (_FAR_FACTOR * tall))
        return cls(focal, HEIGHT / 2 + focal * float(low[1] + high[1]) / 2)

    def place(self, points: Float) -> tuple[Float, Float]:
        """Pixels (N, 2), NaN behind the sensor, and what is drawn later is nearer (N,)."""
        depth = np.where(points[:, 1] > _NEAREST_M, points[:, 1], np.nan)
        u = WIDTH / 2 + self.focal_px * points[:, 0] / depth
        v = self.horizon_px - self.focal_px * points[:, 2] / depth
        return np.stack([u, v], axis=1), -points[:, 1]


def blank(paper: Rgb = PAPER) -> Picture:
    """An empty panel (HEIGHT, WIDTH, 3)."""
    return np.full((HEIGHT, WIDTH, 3), paper, dtype=np.uint8)


def splat(picture: Picture, view: TopView | FrontView, points: Float, colors: NDArray[np.uint8]) -> None:
    """Draw (N, 3) upright points into the panel in place; ``colors`` is (N, 3), or (3,) for all alike."""
    uv, order_by = view.place(points)
    with np.errstate(invalid="ignore"):
        inside = ((uv >= 0) & (uv < [WIDTH - 1, HEIGHT - 1])).all(axis=1)
    rows = np.flatnonzero(inside)
    rows = rows[np.argsort(order_by[rows], kind="stable")]
    columns, lines = uv[rows].astype(int).T
    ink = np.broadcast_to(colors, points.shape)[rows]
    # Few points are drawn larger, or one would not see them.
    size = 1 if len(rows) > 40_000 else 2 if len(rows) > 5_000 else 3
    for dy in range(size):
        for dx in range(size):
            picture[np.minimum(lines + dy, HEIGHT - 1), np.minimum(columns + dx, WIDTH - 1)] = ink


def titled(picture: Picture, title: str) -> Picture:
    """The panel with a line of text above it."""
    head = np.full((26, picture.shape[1], 3), canvas.PAPER, dtype=np.uint8)
    canvas.put_text(head, canvas.fit_text(title, picture.shape[1] - 12, 14), (6, 13), 14, canvas.INK, "lm")
    framed = picture.copy()
    framed[0], framed[-1], framed[:, 0], framed[:, -1] = canvas.GRID, canvas.GRID, canvas.GRID, canvas.GRID
    return np.concatenate([head, framed])
