# SPDX-License-Identifier: Apache-2.0
"""Colours and text for pictures drawn on arrays: what every task's ``draw`` and the report share.

The palette is that of Okabe and Ito (Color Universal Design, 2008): its hues stay apart for people with
protan, deutan and tritan vision. Meaning is never carried by hue alone: see the shapes in each drawing.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

Rgb = tuple[int, int, int]
Picture = NDArray[np.uint8]

BLACK: Rgb = (0, 0, 0)
ORANGE: Rgb = (230, 159, 0)
SKY: Rgb = (86, 180, 233)
GREEN: Rgb = (0, 158, 115)
YELLOW: Rgb = (240, 228, 66)
BLUE: Rgb = (0, 114, 178)
VERMILLION: Rgb = (213, 94, 0)
PURPLE: Rgb = (204, 121, 167)

INK: Rgb = (31, 35, 40)
MUTED: Rgb = (101, 109, 118)
GRID: Rgb = (225, 228, 232)
PAPER: Rgb = (255, 255, 255)

# The order in which series take colours: the one that keeps the closest pair of the first four farthest apart under
# every kind of sight (tests/test_canvas.py measures it). Yellow never: too faint on paper.
SERIES: tuple[Rgb, ...] = (BLUE, VERMILLION, SKY, INK, PURPLE, GREEN, ORANGE)

# OpenCV draws at positions in sixteenths of a pixel.
_SHIFT = 4
_SUBPIXEL = 1 << _SHIFT

_PLAIN = {"×": "x", "σ": "s", "–": "-", "—": "-", "−": "-", "∞": "inf", "µ": "u", "→": "->", "…": "..."}


def hex_color(color: Rgb) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*color)


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    # Pillow carries this face itself, so the same text gives the same pixels on every machine.
    return ImageFont.load_default(size=size_px)


def plain(text: str) -> str:
    """The text in the characters that the built-in face has: one line of Latin letters, ``?`` for others."""
    text = "".join(_PLAIN.get(c, c) for c in text)
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" or c in "°±·" else "?" for c in text)


def text_width(text: str, size_px: int = 14) -> int:
    """Pixels that ``text`` takes in width."""
    return int(np.ceil(_font(size_px).getlength(plain(text))))


def fit_text(text: str, width_px: int, size_px: int = 14) -> str:
    """``text``, its end replaced by dots where it would be wider than ``width_px``."""
    if text_width(text, size_px) <= width_px:
        return text
    while text and text_width(text + "...", size_px) > width_px:
        text = text[:-1]
    return text.rstrip() + "..." if text else ""


def put_text(
    picture: Picture, text: str, xy: tuple[int, int], size_px: int = 14, color: Rgb = INK, anchor: str = "la"
) -> None:
    """Write one anti-aliased line into ``picture`` (H, W, 3) in place.

    ``xy`` is the pixel that ``anchor`` names, in Pillow's letters: horizontally l, m, r; vertically
    a (ascender), m (middle), s (baseline), d (descender).
    """
    canvas = PilImage.fromarray(picture)
    ImageDraw.Draw(canvas).text(xy, plain(text), fill=color, font=_font(size_px), anchor=anchor)
    picture[...] = np.asarray(canvas)


def fit_width(picture: Picture, low: int = 640, high: int = 1280) -> tuple[Picture, float]:
    """A copy of ``picture`` (H, W, 3) whose width lies in [low, high], and the factor it was scaled by."""
    h, w = picture.shape[:2]
    factor = min(max(1.0, low / w), high / w) if w < low or w > high else 1.0
    if factor == 1.0:
        return picture.copy(), 1.0
    return resize(picture, (max(1, round(w * factor)), max(1, round(h * factor)))), factor


def resize(picture: Picture, size: tuple[int, int]) -> Picture:
    """``picture`` at (width, height): area averages when shrinking, cubic when enlarging."""
    shrink = size[0] < picture.shape[1]
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC))


def drawable(*points_px: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) whether all given pixels (N, 2) are finite and near enough for OpenCV's fixed-point coordinates."""
    ok = np.ones(len(points_px[0]), dtype=bool)
    for uv in points_px:
        with np.errstate(invalid="ignore"):
            ok &= (np.abs(uv) < 1e4).all(axis=1)
    return ok


def dots(picture: Picture, uv_px: NDArray[np.float64], radius_px: float, color: Rgb) -> None:
    """Filled anti-aliased discs at (N, 2) sub-pixel positions, in place; pixels that are NaN are skipped."""
    radius = max(1, round(radius_px * _SUBPIXEL))
    for u, v in _fixed(uv_px[drawable(uv_px)]):
        cv2.circle(picture, (u, v), radius, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def crosses(picture: Picture, uv_px: NDArray[np.float64], radius_px: float, color: Rgb, width_px: int = 1) -> None:
    """Diagonal anti-aliased crosses at (N, 2) sub-pixel positions, in place."""
    r = np.array([radius_px, radius_px])
    mirrored = np.array([radius_px, -radius_px])
    segments(picture, uv_px - r, uv_px + r, color, width_px)
    segments(picture, uv_px - mirrored, uv_px + mirrored, color, width_px)


def segments(
    picture: Picture, from_px: NDArray[np.float64], to_px: NDArray[np.float64], color: Rgb, width_px: int = 1
) -> None:
    """Anti-aliased lines between (N, 2) and (N, 2) sub-pixel positions, in place."""
    ok = drawable(from_px, to_px)
    for a, b in zip(_fixed(from_px[ok]), _fixed(to_px[ok]), strict=True):
        cv2.line(picture, a, b, color, width_px, cv2.LINE_AA, _SHIFT)


def blend(picture: Picture, over: Picture, alpha: float) -> None:
    """Lay ``over`` on ``picture`` with opacity ``alpha`` (0 to 1), in place."""
    picture[...] = cv2.addWeighted(over, alpha, picture, 1.0 - alpha, 0.0)


def _fixed(uv_px: NDArray[np.float64]) -> list[tuple[int, int]]:
    return [(int(u), int(v)) for u, v in np.rint(uv_px * _SUBPIXEL)]
