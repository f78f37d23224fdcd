# SPDX-License-Identifier: Apache-2.0
"""Basins of objects: a watershed of the image from markers at the points, inside their Voronoi cells.

Source: the Voronoi watershed loss of Point2RBox-v2 (Yu et al., CVPR 2025), without its thresholds per class.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.pointobb.layout.voronoi import cells, ridges
from detection.problem import Float, Image
from vision3d.geometry import rotated

BACKGROUND = 1  # labels of the markers; object i has i + 2
PIXEL = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])  # corners of a pixel around its centre
FEWEST = 6  # pixels of a basin that says something


@dataclass(frozen=True)
class Basins:
    """Pixels of each of N objects, sorted by object.

    Attributes:
        pixels: (M, 2) x, y.
        owner: (M,) ascending.
        count: number of objects N.
    """

    pixels: Float
    owner: NDArray[np.int64]
    count: int

    def sizes(self) -> NDArray[np.int64]:
        """(N,) pixels of each object's basin."""
        return np.bincount(self.owner, minlength=self.count)

    def boxes(self, angles: Float) -> tuple[Float, NDArray[np.bool_]]:
        """The smallest boxes with given angles (N,) radians around the basins.

        Returns:
            (N, 5) boxes, not le90: theta is the angle given; and (N,) whether the basin has enough pixels. The others'
            rows are 0.
        """
        found = np.zeros((self.count, 5))
        valid = self.sizes() >= FEWEST
        if not len(self.owner):
            return found, valid
        c, s = np.cos(angles), np.sin(angles)
        x, y = self.pixels.T
        along, across = x * c[self.owner] + y * s[self.owner], y * c[self.owner] - x * s[self.owner]
        starts = np.flatnonzero(np.r_[True, np.diff(self.owner) > 0])
        rows = self.owner[starts]
        low = np.stack([np.minimum.reduceat(v, starts) for v in (along, across)], 1) - 0.5
        high = np.stack([np.maximum.reduceat(v, starts) for v in (along, across)], 1) + 0.5
        middle = (low + high) / 2
        found[rows, 0] = middle[:, 0] * c[rows] - middle[:, 1] * s[rows]
        found[rows, 1] = middle[:, 0] * s[rows] + middle[:, 1] * c[rows]
        found[rows, 2:4] = high - low
        found[rows, 4] = angles[rows]
        found[~valid] = 0
        return found, valid

    def tight(self) -> tuple[Float, NDArray[np.bool_]]:
        """The smallest rectangles around the basins, of any angle: (N, 5) le90 and (N,) as of :meth:`boxes`."""
        valid = self.sizes() >= FEWEST
        found = np.zeros((self.count, 5))
        ends = np.cumsum(self.sizes())
        for i in np.flatnonzero(valid):
            # Pixels are squares: their corners are wrapped, not their centres.
            middle = self.pixels[ends[i] - self.sizes()[i] : ends[i]]
            hull = cv2.convexHull(middle.astype(np.float32)).reshape(-1, 2).astype(np.float64)
            found[i] = rotated.enclosing_box((hull[:, None] + PIXEL).reshape(-1, 2))
        return found, valid

    def axes(self) -> tuple[Float, Float]:
        """(N,) directions of the long axes of the basins in radians, and (N,) how long they are.

        The second is 1 - (short deviation / long deviation), 0 for round basins and those with too few pixels.
        """
        size = np.maximum(self.sizes(), 1)
        mean = np.stack([np.bincount(self.owner, v, self.count) / size for v in self.pixels.T], 1)
        u, v = (self.pixels - mean[self.owner]).T
        xx, yy, xy = (np.bincount(self.owner, w, self.count) / size for w in (u * u, v * v, u * v))
        angle = 0.5 * np.arctan2(2 * xy, xx - yy)
        half, root = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        ratio = np.sqrt(np.maximum(half - root, 0) / np.maximum(half + root, 1e-12))
        return angle, np.where(self.sizes() >= FEWEST, 1 - ratio, 0.0)


def flood(image: Image, points: Float, core: Float, limit: Float, blur_px: float, contrast: float = 30.0) -> Basins:
    """Basins of N points. No basin crosses a border between the points' Voronoi cells.

    A border whose colour is not the object's is a source of background, as in Point2RBox-v2. Where neighbours touch,
    it has the object's own colour; background would then flow from it into the objects, so it is a wall there.

    Args:
        image: (H, W, 3) uint8.
        points: (N, 2) pixels; those outside of the image have no basin.
        core: (N, 5) boxes; the ellipse in each marks its object, at least the pixel of the point.
        limit: (N, 5) boxes; outside of all ellipses in them is background.
        blur_px: standard deviation of the blur before.
        contrast: difference in a channel, of 255, from which on a border has another colour than the object.
    """
    height, width = image.shape[:2]
    if not len(points):
        return Basins(np.zeros((0, 2)), np.zeros(0, np.int64), 0)
    owner, _ = cells(points, (height, width))
    blurred = _blurred(image, blur_px)
    markers = np.full((height, width), BACKGROUND, np.int32)
    _paint(markers, owner, limit, np.zeros(len(points), np.int32))
    ground, wall = _borders(blurred, owner, points, contrast)
    markers[ground] = BACKGROUND
    _paint(markers, owner, core, np.arange(len(points), dtype=np.int32) + BACKGROUND + 1)
    # Pixels unlike all around them are flooded last: nothing gets past.
    blurred[wall] = np.where(blurred[wall] < 128, 255, 0)
    # The frame of an image belongs to no basin in OpenCV; a pixel more all around keeps objects at the border whole.
    padded = cv2.copyMakeBorder(blurred, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    flooded = cv2.copyMakeBorder(markers, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    cv2.watershed(padded, flooded)
    label = flooded[1:-1, 1:-1] - BACKGROUND - 1
    y, x = np.nonzero((label >= 0) & (label == owner))
    of = label[y, x].astype(np.int64)
    order = np.argsort(of, kind="stable")
    return Basins(np.stack([x, y], 1)[order].astype(np.float64), of[order], len(points))


def _borders(
    image: Image, owner: NDArray[np.int32], points: Float, contrast: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(H, W) borders of cells that are background, and those that are walls."""
    height, width = owner.shape
    border = ridges(owner)
    x, y = np.clip(np.rint(points), 0, [width - 1, height - 1]).astype(np.int64).T
    rows, columns = np.nonzero(border)
    own = image[y, x].astype(np.int16)[owner[rows, columns]]
    other = np.abs(image[rows, columns].astype(np.int16) - own).max(1) > contrast
    ground, wall = np.zeros_like(border), np.zeros_like(border)
    ground[rows[other], columns[other]] = True
    wall[rows[~other], columns[~other]] = True
    return ground, wall


def disks(points: Float, radius: Float | float) -> Float:
    """(N, 5) square boxes around points (N, 2) whose ellipses have the radius, one or (N,) pixels."""
    side = np.broadcast_to(2 * np.asarray(radius, np.float64), len(points))
    return np.column_stack([points, side, side, np.zeros(len(points))])


def _paint(markers: NDArray[np.int32], owner: NDArray[np.int32], boxes: Float, values: NDArray[np.int32]) -> None:
    """Set the pixels of the ellipse in each box that lie in the cell of its point, in place."""
    height, width = markers.shape
    hulls = rotated.hulls(boxes)
    for i, (box, hull) in enumerate(zip(boxes, hulls, strict=True)):
        x0, y0 = (max(int(np.floor(v)), 0) for v in hull[:2])
        x1, y1 = min(int(np.ceil(hull[2])) + 1, width), min(int(np.ceil(hull[3])) + 1, height)
        if x0 >= x1 or y0 >= y1:
            continue
        y, x = np.mgrid[y0:y1, x0:x1]
        c, s = np.cos(box[4]), np.sin(box[4])
        u, v = (x - box[0]) * c + (y - box[1]) * s, (y - box[1]) * c - (x - box[0]) * s
        inside = (2 * u / max(box[2], 1.5)) ** 2 + (2 * v / max(box[3], 1.5)) ** 2 <= 1
        markers[y0:y1, x0:x1][inside & (owner[y0:y1, x0:x1] == i)] = values[i]


def _blurred(image: Image, deviation_px: float) -> Image:
    """A blurred copy."""
    return image.copy() if deviation_px == 0 else np.asarray(cv2.GaussianBlur(image, (0, 0), deviation_px), np.uint8)
