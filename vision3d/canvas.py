# SPDX-License-Identifier: Apache-2.0
"""Colours and text for pictures drawn on arrays: what every task's ``draw`` and the report share.

The palette is that of Okabe and Ito (Color Universal Design, 2008): its hues stay apart for people with
protan, deutan and tritan vision. Meaning is never carried by hue alone: see the shapes in each drawing.
"""

from __future__ import annotations

import unicodedata
from functools import cache

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

# The order in which series take colours: strong contrast on white first, yellow never (too faint on paper).
SERIES: tuple[Rgb, ...] = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, MUTED)

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
