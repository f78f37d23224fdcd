# SPDX-License-Identifier: Apache-2.0
"""What the objects of an aerial scene look like from above: polygons in a frame of length 1 and width 1.

x points forward and y to the right, both from -0.5 to 0.5; the first part is the outline, and it touches all four
sides, so that the object's box is the exact smallest rectangle of its kind around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Float = NDArray[np.float64]
Rgb = tuple[float, float, float]
Part = tuple[Float, Rgb]


@dataclass(frozen=True)
class Kind:
    """A class of objects.

    Attributes:
        length_px: shortest and longest; the length lies along the heading.
        aspect: smallest and largest length / width.
        height_px: lowest and highest, for the shadow.
        water: it lies on water, not on land.
        headed: it has a front.
        round: it has no direction at all; its box is drawn along the image's axes, as annotators do.
        parts: (random numbers, aspect) -> outline and details, in the order to draw them.
    """

    length_px: tuple[float, float]
    aspect: tuple[float, float]
    height_px: tuple[float, float]
    water: bool
    headed: bool
    round: bool
    parts: Callable[[Generator, float], list[Part]]


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Float:
    """(4, 2) corners."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def rounded(x: float, y: float, power: float, count: int = 28) -> Float:
    """(count, 2) points of a superellipse with half axes x and y: power 2 is an ellipse, more is boxier."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    return np.column_stack([x * np.sign(c) * np.abs(c) ** (2 / power), y * np.sign(s) * np.abs(s) ** (2 / power)])


def paint(rng: Generator, *choices: Rgb) -> Rgb:
    """One of the colours, a little off."""
    color = np.clip(np.asarray(choices[rng.integers(len(choices))]) + rng.normal(0, 8, 3), 0, 255)
    return float(color[0]), float(color[1]), float(color[2])


def shaded(color: Rgb, factor: float) -> Rgb:
    """The colour, lighter (above 1) or darker."""
    return min(255.0, color[0] * factor), min(255.0, color[1] * factor), min(255.0, color[2] * factor)


WHITE: Rgb = (225, 226, 226)
GREY: Rgb = (140, 142, 145)
DARK: Rgb = (44, 45, 50)
GLASS: Rgb = (36, 42, 52)


def plane(rng: Generator, aspect: float) -> list[Part]:
    """A fuselage with swept wings and a tailplane."""
    body = paint(rng, WHITE, WHITE, (196, 198, 200), (120, 124, 120))
    half = rng.uniform(0.05, 0.075)  # of the wing span
    root, sweep, chord = rng.uniform(0.06, 0.16), rng.uniform(0.12, 0.28), rng.uniform(0.13, 0.2)
    tip = root - sweep
    tail = rng.uniform(0.16, 0.22)
    right = [
        (0.5, 0.0),
        (0.44, 0.7 * half),
        (0.36, half),
        (root, half),
        (tip + 0.02, 0.5),
        (tip - 0.04, 0.5),
        (root - chord, half),
        (-0.34, 0.8 * half),
        (-0.46, tail),
        (-0.5, tail),
        (-0.47, 0.3 * half),
    ]
    outline = np.array(right + [(x, -y) for x, y in right[:0:-1]])
    parts: list[Part] = [(outline, body)]
    parts.append((rounded(0.42, 0.45 * half, 2.5, 16) + (0.03, 0.0), shaded(body, 1.1)))
    parts.append((rectangle(0.4, -0.5 * half, 0.43, 0.5 * half), GLASS))
    for side in (-1.0, 1.0):
        at = side * rng.uniform(0.18, 0.22)
        parts.append((rounded(0.05, 0.022, 3, 12) + (root - 0.35 * sweep, at), shaded(body, 0.7)))
    return parts


def ship(rng: Generator, aspect: float) -> list[Part]:
    """A hull with a pointed bow, a deck, a bridge and some cargo."""
    hull = paint(rng, WHITE, (150, 60, 48), (60, 66, 80), GREY, (110, 90, 70))
    shoulder, stern = rng.uniform(0.12, 0.3), rng.uniform(0.28, 0.46)
    right = [(0.5, 0.0), (0.5 * (0.5 + shoulder) + 0.03, 0.33), (shoulder, 0.5), (-0.38, 0.5), (-0.5, stern)]
    outline = np.array(right + [(x, -y) for x, y in right[:0:-1]])
    deck = paint(rng, (178, 160, 130), (150, 150, 150), (200, 200, 196), (92, 110, 96))
    parts: list[Part] = [(outline, hull), (outline * (0.88, 0.7), deck)]
    parts.append((rectangle(-0.42, -0.3, -0.42 + rng.uniform(0.1, 0.22), 0.3), paint(rng, WHITE, (210, 205, 190))))
    for start in np.arange(-0.12, rng.uniform(-0.1, 0.28), 0.13):
        parts.append((rectangle(start, -0.26, start + 0.1, 0.26), paint(rng, (150, 70, 50), (70, 90, 130), GREY, DARK)))
    return parts


def small_vehicle(rng: Generator, aspect: float) -> list[Part]:
    """A car: body, two dark windows, a roof between them."""
    body = paint(rng, WHITE, WHITE, GREY, DARK, DARK, (150, 38, 36), (44, 66, 120), (176, 170, 150))
    parts: list[Part] = [(rounded(0.5, 0.5, 5), body)]
    parts.append((rectangle(0.08, -0.38, 0.24, 0.38), GLASS))
    parts.append((rectangle(-0.36, -0.36, -0.25, 0.36), GLASS))
    parts.append((rectangle(-0.24, -0.36, 0.08, 0.36), shaded(body, rng.uniform(1.02, 1.2))))
    return parts


def large_vehicle(rng: Generator, aspect: float) -> list[Part]:
    """A lorry or a bus: a long box, behind a cab where it is a lorry."""
    load = paint(rng, WHITE, WHITE, (190, 188, 180), (70, 84, 120), (120, 60, 50), (70, 74, 70))
    parts: list[Part] = [(rounded(0.5, 0.5, 12), load)]
    if rng.random() < 0.7:
        cab = paint(rng, WHITE, (150, 40, 36), (50, 70, 130), (60, 60, 62))
        parts.append((rectangle(0.27, -0.5, 0.3, 0.5), DARK))
        parts.append((rectangle(0.3, -0.46, 0.5, 0.46), cab))
        parts.append((rectangle(0.42, -0.42, 0.47, 0.42), GLASS))
    else:
        parts.append((rectangle(0.43, -0.42, 0.48, 0.42), GLASS))
        parts.append((rectangle(-0.2, -0.25, -0.05, 0.25), shaded(load, 0.75)))
        parts.append((rectangle(0.12, -0.25, 0.25, 0.25), shaded(load, 0.75)))
    return parts


def storage_tank(rng: Generator, aspect: float) -> list[Part]:
    """A round tank: wall, roof, and a dark half inside where the roof floats."""
    wall = paint(rng, WHITE, (206, 204, 196), (170, 172, 170), (120, 104, 92))
    parts: list[Part] = [(rounded(0.5, 0.5, 2, 40), wall), (rounded(0.44, 0.44, 2, 36), shaded(wall, 0.88))]
    if rng.random() < 0.4:
        parts.append((rounded(0.36, 0.36, 2, 32) + rng.uniform(-0.05, 0.05, 2), shaded(wall, 0.7)))
    angle = rng.uniform(0, 2 * np.pi)
    ray = np.array([np.cos(angle), np.sin(angle)])
    side = 0.02 * np.array([-ray[1], ray[0]])
    parts.append((np.stack([side, 0.46 * ray + side, 0.46 * ray - side, -side]), shaded(wall, 0.75)))
    parts.append((rounded(0.06, 0.06, 2, 12), shaded(wall, 1.1)))
    return parts


def tennis_court(rng: Generator, aspect: float) -> list[Part]:
    """Two colours, white lines and a net."""
    green, blue, red, brown = (64, 98, 70), (62, 92, 132), (150, 82, 66), (138, 112, 84)
    outer = paint(rng, green, blue, red, brown)
    inner = paint(rng, green, blue, red, outer)
    x, y, line = 0.33, 0.28, 0.006
    parts: list[Part] = [(rectangle(-0.5, -0.5, 0.5, 0.5), outer), (rectangle(-x, -y, x, y), inner)]
    for at in (-x, -0.17, 0.17, x):
        parts.append((rectangle(at - line, -y, at + line, y), WHITE))
    for at in (-y, -0.75 * y, 0.75 * y, y):
        parts.append((rectangle(-x, at - aspect * line, x, at + aspect * line), WHITE))
    parts.append((rectangle(-0.17, -aspect * line, 0.17, aspect * line), WHITE))
    parts.append((rectangle(-0.008, -0.36, 0.008, 0.36), DARK))
    return parts


def harbor(rng: Generator, aspect: float) -> list[Part]:
    """A pier with planks and a few things on it."""
    deck = paint(rng, (168, 160, 146), (140, 120, 98), (120, 120, 122))
    parts: list[Part] = [(rectangle(-0.5, -0.5, 0.5, 0.5), deck)]
    for at in np.linspace(-0.42, 0.42, 8):
        parts.append((rectangle(at - 0.004, -0.46, at + 0.004, 0.46), shaded(deck, 0.78)))
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(-0.4, 0.34), rng.uniform(-0.35, 0.1)
        parts.append((rectangle(x, y, x + 0.06, y + 0.25), paint(rng, WHITE, DARK, (150, 70, 50))))
    return parts


# In the order of DOTA's table. Pixels at scale 1; together from 16 to 120 px long, from square to 5:1.
KINDS: dict[str, Kind] = {
    "plane": Kind((30, 64), (0.9, 1.25), (2, 5), False, True, False, plane),
    "small-vehicle": Kind((16, 24), (1.8, 2.5), (1.5, 2.5), False, True, False, small_vehicle),
    "large-vehicle": Kind((32, 60), (2.8, 5.0), (3, 5), False, True, False, large_vehicle),
    "ship": Kind((24, 100), (2.4, 5.0), (2, 5), True, True, False, ship),
    "tennis-court": Kind((56, 96), (1.6, 2.1), (0, 0), False, False, False, tennis_court),
    "storage-tank": Kind((16, 46), (1.0, 1.0), (4, 9), False, False, True, storage_tank),
    "harbor": Kind((60, 120), (3.0, 5.0), (1, 2), True, False, False, harbor),
}
