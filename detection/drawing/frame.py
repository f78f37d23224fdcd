# SPDX-License-Identifier: Apache-2.0
"""An image at the size it is shown at, and boxes and points in its pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from vision3d import canvas
from vision3d.canvas import Picture, Rgb
from vision3d.geometry import rotated

Float = NDArray[np.float64]

LOW_PX, WIDTH_PX, HEIGHT_PX = 640, 1280, 1600
# Bright lines are to stand out from the ground: colours are kept, but bent a third towards grey and darkened.
_GREY_SHARE, _LIGHT = 0.35, 0.8
_SHIFT = 4
# Smaller crosses stand so close that their rims would hide the ground.
_RIM_FROM_PX = 3.0
# One dash and one gap, in shown pixels.
_PERIOD_PX = 8.0


@dataclass(frozen=True)
class Frame:
    """A picture (H, W, 3) to draw on, and the factor from image pixels to its own.

    Attributes:
        picture: drawn on in place.
        factor: shown pixels per image pixel.
        corner_px: image pixel at the picture's upper left corner, (2,).
    """

    picture: Picture
    factor: float
    corner_px: Float

    @classmethod
    def around(cls, image: NDArray[np.uint8], bold: bool = False) -> Frame:
        """A copy of (H, W, 3) ``image``, 640 to 1280 pixels wide and at most 1600 high; dimmed unless ``bold``."""
        h, w = image.shape[:2]
        factor = min(max(1.0, LOW_PX / w), WIDTH_PX / w, HEIGHT_PX / h)
        picture: Picture = image.copy()
        if factor != 1.0:
            picture = canvas.resize(image, (max(1, round(w * factor)), max(1, round(h * factor))))
        if not bold:
            grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
            grey = np.repeat(grey[..., None], 3, axis=2)
            canvas.blend(picture, grey, _GREY_SHARE)
            picture = cv2.convertScaleAbs(picture, alpha=_LIGHT).astype(np.uint8)
        return cls(np.ascontiguousarray(picture), factor, np.array([-0.5, -0.5]))

    def place(self, points: Float) -> Float:
        """(..., 2) image pixels in the picture's; pixel centres are integers in both."""
        return (points - self.corner_px) * self.factor - 0.5

    def crop(self, image: NDArray[np.uint8], centre: Float, side_px: float) -> Frame:
        """The square of ``side_px`` image pixels around ``centre``, shown 640 pixels wide."""
        h, w = image.shape[:2]
        side = int(max(8, min(side_px, h, w)))
        x, y = (int(np.clip(round(c - side / 2), 0, limit - side)) for c, limit in zip(centre, (w, h), strict=True))
        part = Frame.around(np.ascontiguousarray(image[y : y + side, x : x + side]))
        return replace(part, corner_px=np.array([x - 0.5, y - 0.5]))

    def outline(self, boxes: Float, color: Rgb, width_px: int = 1) -> None:
        """Closed lines around (N, 5) boxes, in image pixels."""
        corners = self._corners(boxes)
        lines = list(np.rint(corners * (1 << _SHIFT)).astype(np.int32))
        if lines:
            cv2.polylines(self.picture, lines, True, color, width_px, cv2.LINE_AA, _SHIFT)

    def dashes(self, boxes: Float, color: Rgb, width_px: int = 1) -> None:
        """Dashed lines around (N, 5) boxes; corners are always drawn, so that the smallest box shows."""
        corners = self._corners(boxes)
        start, side = corners.reshape(-1, 2), (np.roll(corners, -1, 1) - corners).reshape(-1, 2)
        periods = np.maximum(1, np.rint(np.linalg.norm(side, axis=1) / _PERIOD_PX)).astype(np.int64)
        line = np.repeat(np.arange(len(start)), periods + 1)
        first = np.repeat(np.cumsum(periods + 1) - (periods + 1), periods + 1)
        at, count = np.arange(len(line)) - first, periods[line]
        begin, end = np.maximum(at - 0.25, 0.0) / count, np.minimum(at + 0.25, count) / count
        a, b = (start[line] + part[:, None] * side[line] for part in (begin, end))
        canvas.segments(self.picture, a, b, color, width_px)

    def crosses(self, points: Float, radius_px: float, color: Rgb) -> None:
        """Crosses of ``radius_px`` shown pixels at (N, 2) image pixels, with a dark rim from 3 pixels on."""
        placed = self.place(points)
        if radius_px >= _RIM_FROM_PX:
            canvas.crosses(self.picture, placed, radius_px, canvas.BLACK, 3)
        canvas.crosses(self.picture, placed, radius_px, color, 1)

    def _corners(self, boxes: Float) -> Float:
        """(K, 4, 2) shown pixels of the boxes that OpenCV can draw."""
        corners = self.place(rotated.corners(boxes)) if len(boxes) else np.zeros((0, 4, 2))
        return corners[canvas.drawable(*(corners[:, i] for i in range(4)))]
