# SPDX-License-Identifier: Apache-2.0
"""Colours of classes, verdicts and angles."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from detection.metrics.verdicts import Verdict
from vision3d import canvas
from vision3d.canvas import Rgb

# Bright ones first: they lie on asphalt, grass and water. Ink and grid colours would drown there.
_CLASSES: tuple[Rgb, ...] = (
    canvas.ORANGE,
    canvas.SKY,
    canvas.YELLOW,
    canvas.VERMILLION,
    canvas.GREEN,
    canvas.PURPLE,
    canvas.BLUE,
)
TRUE: Rgb = (255, 255, 255)
DIFFICULT: Rgb = (165, 170, 178)

VERDICT_COLORS: dict[Verdict, Rgb] = {
    "true": canvas.GREEN,
    "duplicate": canvas.SKY,
    "confused": canvas.PURPLE,
    "loose": canvas.YELLOW,
    "background": canvas.VERMILLION,
    "ignored": DIFFICULT,
    "unknown": DIFFICULT,
}


def class_color(label: int) -> Rgb:
    """The colour of a class, the same in every picture; after seven they come again, paler, then darker."""
    round_, place = divmod(label, len(_CLASSES))
    color = np.array(_CLASSES[place], dtype=np.float64)
    if round_ % 3 == 1:
        color += (255.0 - color) * 0.55
    elif round_ % 3 == 2:
        color *= 0.6
    r, g, b = np.rint(color).astype(int)
    return int(r), int(g), int(b)


def angle_colors(angles: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(N, 3) a hue per axis: angles (N,) that differ by pi have the same."""
    hues = np.mod(angles / np.pi, 1.0)
    wheel = np.array([colorsys.hsv_to_rgb(i / 180, 0.85, 1.0) for i in range(180)])
    return np.rint(255 * wheel[np.floor(hues * 180).astype(np.int64) % 180]).astype(np.uint8)
