# SPDX-License-Identifier: Apache-2.0
"""One aerial scene: ground, shadows and objects painted at twice the size, then seen through a lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vision3d.readers._aerial_ground import add_clutter, add_roads, make_ground
from vision3d.readers._aerial_layout import DENSE, PLACES, SPARSE, Item, lay_out
from vision3d.readers._aerial_shapes import KINDS, Float, Rgb, shaded

PRESETS: dict[str, tuple[str, ...]] = {"dense": DENSE, "sparse": SPARSE, "mixed": DENSE + SPARSE}
OBJECTS: dict[str, tuple[int, int]] = {"dense": (12, 50), "sparse": (3, 10)}  # for 256 x 256 pixels
FINER = 2  # the scene is painted this many times larger than it is delivered
LEAST_CONTRAST = 13.0  # grey levels between an object's main colour and the ground under it
ATTEMPTS = 20


@dataclass(frozen=True)
class SceneConfig:
    """What is asked for.

    Attributes:
        preset: a key of ``PRESETS``.
        size: side of the image in pixels.
        objects: fewest and most objects; None for what suits preset and size. A crowded scene may get fewer.
        classes: names out of ``KINDS``.
        scale: factor on the size of all objects.
        contrast: factor on how far objects stand out, 0 to 1.
        noise: factor on the sensor's noise and blur.
    """

    preset: str
    size: int
    objects: tuple[int, int] | None
    classes: tuple[str, ...]
    scale: float
    contrast: float
    noise: float


def render(config: SceneConfig, layout_rng: Generator, paint_rng: Generator) -> tuple[NDArray[np.uint8], list[Item]]:
    """(S, S, 3) uint8 image and its objects; at least one of them unless none fits in 20 attempts."""
    names = [n for n in PRESETS[config.preset] if set(PLACES[n].classes) & set(config.classes)]
    for _ in range(ATTEMPTS):
        name = names[layout_rng.integers(len(names))]
        place = PLACES[name]
        area = (config.size / 256) ** 2
        low, high = OBJECTS["dense" if name in DENSE else "sparse"]
        limits = config.objects or (max(1, round(low * area)), max(1, round(high * area)))
        kinds = place.terrains[layout_rng.integers(len(place.terrains))]
        ground = make_ground(paint_rng, config.size, kinds, place.water)
        add_roads(ground, paint_rng, int(paint_rng.integers(place.roads + 1)) if place.roads else 0)
        add_clutter(ground, paint_rng, place.clutter * paint_rng.uniform(0.3, 1.2))
        count = int(layout_rng.integers(limits[0], limits[1] + 1))
        layout = lay_out(place, ground, config.classes, count, config.scale, layout_rng)
        if layout.items:
            break
    canvas = _enlarged(ground.image)
    _paint_lines(canvas, layout.lines, paint_rng)
    sun = paint_rng.uniform(0, 2 * np.pi)
    reach = np.array([np.cos(sun), np.sin(sun)]) * paint_rng.uniform(0.4, 1.4)
    heights = [float(paint_rng.uniform(*KINDS[item.kind].height_px)) * config.scale for item in layout.items]
    looks = [_parts(item, paint_rng) for item in layout.items]
    outlines = [outline for outline, _, _ in ground.tall] + [parts[0][0] for parts in looks]
    _paint_shadows(
        canvas, outlines, [height for _, height, _ in ground.tall] + heights, reach, paint_rng.uniform(0.3, 0.62)
    )
    for outline, height, color in ground.tall:
        _paint_block(canvas, outline, height, color, sun, paint_rng)
    for item, parts in zip(layout.items, looks, strict=True):
        _paint_object(canvas, ground.image, item, parts, config.contrast * paint_rng.uniform(0.35, 1.0))
    return _seen(canvas, config, paint_rng), layout.items


def _parts(item: Item, rng: Generator) -> list[tuple[Float, Rgb]]:
    """The object's polygons in pixels."""
    turn = np.array([[np.cos(item.heading), np.sin(item.heading)], [-np.sin(item.heading), np.cos(item.heading)]])
    size = (item.length, item.width)
    return [(p * size @ turn + item.center, c) for p, c in KINDS[item.kind].parts(rng, item.length / item.width)]


def _enlarged(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    side = FINER * len(image)
    return np.asarray(cv2.resize(np.clip(image, 0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_LINEAR))


def _fixed(polygon: Float) -> NDArray[np.int32]:
    """Pixels of the delivered image -> sixteenths of a pixel of the larger one, as OpenCV draws."""
    return np.rint(((polygon + 0.5) * FINER - 0.5) * 16).astype(np.int32)


def _fill(canvas: NDArray[np.uint8], polygon: Float, color: Rgb) -> None:
    cv2.fillPoly(canvas, [_fixed(polygon)], color, cv2.LINE_AA, 4)


def _paint_lines(canvas: NDArray[np.uint8], lines: Sequence[Float], rng: Generator) -> None:
    """Marks between parking spaces."""
    grey = float(rng.uniform(140, 225))
    for ends in lines:
        start, stop = _fixed(ends)
        cv2.line(canvas, start.tolist(), stop.tolist(), (grey, grey, grey), 1, cv2.LINE_AA, 4)


def _paint_shadows(
    canvas: NDArray[np.uint8], outlines: Sequence[Float], heights: Sequence[float], reach: Float, strength: float
) -> None:
    """Darken the ground where an outline, pushed along by its height, comes to lie: one sun for all."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    for outline, height in zip(outlines, heights, strict=True):
        # The swept area: each edge with the same edge at the shadow's end, and the end itself.
        end = outline + reach * height
        quads = np.stack([outline, np.roll(outline, -1, axis=0), np.roll(end, -1, axis=0), end], axis=1)
        for polygon in (end, *quads) if height > 0 else ():
            cv2.fillPoly(mask, [_fixed(polygon)], 255, shift=4)
    soft = cv2.GaussianBlur(mask, (0, 0), 0.8)
    darker = 255 - np.rint(strength * soft.astype(np.float32)).astype(np.uint8)
    cv2.multiply(canvas, cv2.merge([darker] * 3), dst=canvas, scale=1 / 255)


def _paint_block(
    canvas: NDArray[np.uint8], outline: Float, height: float, color: Rgb, sun: float, rng: Generator
) -> None:
    """A house (four corners) with two roof slopes, or a tree with a lighter top towards the sun."""
    _fill(canvas, outline, color)
    if len(outline) == 4:
        ridge = np.stack([outline[1] + outline[2], outline[0] + outline[3]]) / 2
        slope, factor = np.concatenate([outline[:2], ridge]), rng.uniform(0.72, 0.92)
    else:
        towards_sun = -0.1 * height * np.array([np.cos(sun), np.sin(sun)])
        slope, factor = outline.mean(axis=0) * 0.3 + outline * 0.7 + towards_sun, 1.2
    _fill(canvas, slope, shaded(color, float(factor)))


def _paint_object(
    canvas: NDArray[np.uint8], ground: NDArray[np.float32], item: Item, parts: Sequence[tuple[Float, Rgb]], keep: float
) -> None:
    """The parts in order, their colours drawn towards the ground's so that only a share ``keep`` of the contrast stays.

    Dark stays on dark where it happens to be, but never so that the object cannot be told from the ground.
    """
    low = np.maximum(np.rint(item.corners().min(axis=0)).astype(int), 0)
    high = np.rint(item.corners().max(axis=0)).astype(int) + 1
    under = ground[low[1] : high[1], low[0] : high[0]].reshape(-1, 3).mean(axis=0)
    main = under + keep * (np.asarray(parts[0][1]) - under)
    apart = float((main - under).mean())
    push = 0.0
    if abs(apart) < LEAST_CONTRAST:
        lighter = apart >= 0 if under.mean() > 60 else True
        push = (LEAST_CONTRAST if lighter else -LEAST_CONTRAST) - apart
    for polygon, color in parts:
        seen = np.clip(under + keep * (np.asarray(color) - under) + push, 0, 255)
        _fill(canvas, polygon, (float(seen[0]), float(seen[1]), float(seen[2])))


def _seen(canvas: NDArray[np.uint8], config: SceneConfig, rng: Generator) -> NDArray[np.uint8]:
    """The image at its own size through blur, haze, a cast of colour and noise."""
    size = config.size
    image = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    blur, sigma = rng.uniform(0.2, 0.8) * config.noise, rng.uniform(1, 5) * config.noise
    if blur > 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(blur)), np.float32)
    gain = rng.uniform(0.75, 1.1) * rng.normal(1, 0.02, 3)
    image = image * gain.astype(np.float32) + np.float32(rng.uniform(-8, 20))
    noise = np.random.default_rng(rng.integers(2**63)).standard_normal(image.shape, np.float32)
    return np.clip(image + np.float32(sigma) * noise + np.float32(0.5), 0, 255).astype(np.uint8)
