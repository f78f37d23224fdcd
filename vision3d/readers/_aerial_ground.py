# SPDX-License-Identifier: Apache-2.0
"""The ground of an aerial scene: terrain with texture, water, roads, and things that nobody labelled."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Rgb = tuple[float, float, float]

# Terrain -> colour and how strongly its texture varies, in grey levels.
TERRAINS: dict[str, tuple[Rgb, float]] = {
    "grass": ((86, 104, 62), 9),
    "dry grass": ((134, 128, 88), 10),
    "soil": ((140, 118, 92), 11),
    "sand": ((176, 162, 132), 7),
    "asphalt": ((90, 91, 94), 6),
    "concrete": ((150, 148, 142), 6),
    "wood": ((50, 66, 44), 14),
}
WATERS: tuple[Rgb, ...] = ((46, 72, 86), (30, 46, 58), (60, 92, 88))
WAVELENGTHS_PX = (128, 64, 32, 16, 8, 4)


@dataclass
class Ground:
    """What lies under the objects.

    Attributes:
        image: (S, S, 3) float32 RGB, 0 to 255.
        water: (S, S) bool.
        taken: (S, S) uint8, non-zero where an object must not stand (trees, houses; later other objects).
        tall: outlines (K, 2) of houses and trees in pixels with their heights in pixels: they cast shadows.
    """

    image: Float32
    water: NDArray[np.bool_]
    taken: NDArray[np.uint8]
    tall: list[tuple[NDArray[np.float64], float, Rgb]] = field(default_factory=list)


def octaves(rng: Generator, size: int, fall: float = 0.6) -> Float32:
    """(S, S) noise of several wavelengths, mean about 0 and spread about 1; each octave ``fall`` of the one before."""
    out, energy = np.zeros((size, size), np.float32), 0.0
    for step, wavelength in enumerate(WAVELENGTHS_PX):
        cells = max(2, round(size / wavelength)) + 2
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        out += np.float32(fall**step) * np.asarray(cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC))
        energy += fall ** (2 * step)
    return out / np.float32(0.8 * np.sqrt(energy))


def terrain(rng: Generator, size: int, kind: str) -> Float32:
    """(S, S, 3) of one terrain, with a tint of its own; fields of crops have furrows."""
    color, strength = TERRAINS[kind]
    shade = octaves(rng, size, rng.uniform(0.5, 0.9)) * np.float32(strength * rng.uniform(0.6, 1.4))
    if kind in ("soil", "dry grass", "grass") and rng.random() < 0.4:
        shade += furrows(rng, size)
    image = np.asarray(color, np.float32) * np.float32(rng.uniform(0.75, 1.25)) + rng.normal(0, 3, 3).astype(np.float32)
    hue = octaves(rng, size, 0.3)[..., None] * rng.normal(0, 1.5, 3).astype(np.float32)
    return np.asarray(image + shade[..., None] + hue, np.float32)


def furrows(rng: Generator, size: int) -> Float32:
    """(S, S) stripes of a ploughed or mown field."""
    angle, wavelength = rng.uniform(0, np.pi), rng.uniform(4, 12)
    v, u = np.mgrid[:size, :size].astype(np.float32)
    phase = (u * np.cos(angle) + v * np.sin(angle)) * (2 * np.pi / wavelength)
    return np.asarray(np.sin(phase) * rng.uniform(2, 6), np.float32)


def split_plane(rng: Generator, size: int, wave_px: float) -> Float32:
    """(S, S) signed pixels to a wavy line through the middle part of the image."""
    angle, at = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.7, 2) * size
    v, u = np.mgrid[:size, :size].astype(np.float32)
    distance = (u - np.float32(at[0])) * np.float32(np.cos(angle)) + (v - np.float32(at[1])) * np.float32(np.sin(angle))
    return np.asarray(distance + np.float32(wave_px) * octaves(rng, size, 0.4), np.float32)


def mix(image: Float32, other: Float32, distance_px: Float32, soft_px: float = 1.0) -> None:
    """Lay ``other`` over ``image`` where the distance is positive, in place, with an edge ``soft_px`` wide."""
    weight = np.clip(distance_px / np.float32(2 * soft_px) + np.float32(0.5), 0, 1)[..., None]
    image += weight * (other - image)


def make_ground(rng: Generator, size: int, kinds: tuple[str, ...], water: bool) -> Ground:
    """A mosaic of terrains, the first of ``kinds`` the most, with a shore where ``water`` is asked for."""
    image = terrain(rng, size, kinds[0])
    for kind in kinds[1:]:
        if rng.random() < 0.5:
            distance = split_plane(rng, size, rng.uniform(0, 3)) - np.float32(rng.uniform(0, 0.25) * size)
        else:
            distance = (octaves(rng, size, 0.35) - np.float32(rng.uniform(0.4, 1.2))) * np.float32(12)
        mix(image, terrain(rng, size, kind), distance, rng.uniform(0.5, 3))
    wet = np.zeros((size, size), bool)
    if water:
        distance = split_plane(rng, size, rng.uniform(1, 5)) + np.float32(rng.uniform(0.1, 0.3) * size)
        wet = distance > 0
        color = np.asarray(WATERS[rng.integers(len(WATERS))], np.float32) * np.float32(rng.uniform(0.8, 1.3))
        waves = octaves(rng, size, rng.uniform(0.6, 1.0)) * np.float32(rng.uniform(2, 5))
        sea = color + waves[..., None] * np.asarray((0.9, 1.0, 1.1), np.float32)
        depth = np.clip(distance / np.float32(40), 0, 1)[..., None]
        mix(image, np.asarray(sea + (1 - depth) * np.asarray((14, 18, 12), np.float32), np.float32), distance)
    ground = Ground(image, wet, np.zeros((size, size), np.uint8))
    return ground


def add_roads(ground: Ground, rng: Generator, count: int) -> None:
    """Roads from border to border, some with a dashed middle line; none on water."""
    size = len(ground.image)
    for _ in range(count):
        angle, at = rng.uniform(0, np.pi), rng.uniform(0.15, 0.85, 2) * size
        bend = rng.uniform(-0.25, 0.25)
        along = np.linspace(-1.5 * size, 1.5 * size, 40)
        direction, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        line = at + along[:, None] * direction + (bend * along**2 / size)[:, None] * across
        width = rng.uniform(7, 16)
        mask, dashes = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
        fixed = np.rint(line * 16).astype(np.int32)
        cv2.polylines(mask, [fixed], False, 255, round(width), cv2.LINE_AA, 4)
        if rng.random() < 0.6:
            for start, stop in zip(fixed[::2], fixed[1::2], strict=True):
                cv2.line(dashes, start.tolist(), stop.tolist(), 255, 1, cv2.LINE_AA, 4)
        dry = np.where(ground.water, 0, 1).astype(np.float32)
        kind = rng.choice(["asphalt", "asphalt", "concrete", "soil"])
        weight = (mask.astype(np.float32) / 255 * dry)[..., None]
        ground.image += weight * (terrain(rng, size, str(kind)) - ground.image)
        ground.image += (dashes.astype(np.float32) / 255 * dry)[..., None] * np.float32(rng.uniform(20, 60))


def add_clutter(ground: Ground, rng: Generator, amount: float) -> None:
    """Houses, trees, stains and stones that are no objects; ``amount`` 1 is a lot for 256 x 256 pixels."""
    size = len(ground.image)
    area = (size / 256) ** 2
    for _ in range(rng.poisson(14 * amount * area)):
        _stain(ground, rng)
    for _ in range(rng.poisson(2.0 * amount * area)):
        _house(ground, rng)
    for _ in range(rng.poisson(7 * amount * area)):
        _tree(ground, rng)


def _stain(ground: Ground, rng: Generator) -> None:
    """A flat spot, line or stone, lighter or darker than what is around it."""
    size = len(ground.image)
    at, half = rng.uniform(0, size, 2), rng.uniform(1.5, 12, 2) * (1, rng.uniform(0.2, 1))
    mask = np.zeros((size, size), np.uint8)
    angle = float(rng.uniform(0, 180))
    box = (float(at[0]), float(at[1])), (2 * float(half[0]), 2 * float(half[1])), angle
    if rng.random() < 0.6:
        cv2.ellipse(mask, box, 255, cv2.FILLED, cv2.LINE_AA)
    else:
        cv2.fillPoly(mask, [np.rint(cv2.boxPoints(box) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    ground.image += (mask.astype(np.float32) / 255)[..., None] * (rng.normal(0, 14) + rng.normal(0, 4, 3)).astype(
        np.float32
    )


def _house(ground: Ground, rng: Generator) -> None:
    size = len(ground.image)
    length, angle = rng.uniform(22, 60), float(rng.uniform(0, np.pi))
    width = length * rng.uniform(0.5, 0.95)
    at = rng.uniform(0, size, 2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (length / 2, width / 2) @ turn + at
    grey = rng.uniform(70, 190)
    color = tuple(float(c) for c in np.clip(grey * np.array([1.0, rng.uniform(0.75, 1), rng.uniform(0.65, 1)]), 0, 255))
    _raise(ground, outline, rng.uniform(5, 11), (color[0], color[1], color[2]))


def _tree(ground: Ground, rng: Generator) -> None:
    size = len(ground.image)
    at, radius = rng.uniform(0, size, 2), rng.uniform(3, 9)
    around = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    outline = at + radius * rng.uniform(0.75, 1.1, (14, 1)) * np.column_stack([np.cos(around), np.sin(around)])
    green = rng.uniform(45, 95)
    _raise(ground, outline, rng.uniform(2, 6), (0.7 * green, green, 0.55 * green))


def _raise(ground: Ground, outline: NDArray[np.float64], height: float, color: Rgb) -> None:
    """Put up something tall, unless it would stand in water or on another thing."""
    mask = np.zeros_like(ground.taken)
    cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], 255, shift=4)
    where = mask > 0
    if ground.water[where].any() or ground.taken[where].any():
        return
    ground.taken |= np.asarray(cv2.dilate(mask, np.ones((5, 5), np.uint8)), np.uint8)
    ground.tall.append((outline, height, color))
