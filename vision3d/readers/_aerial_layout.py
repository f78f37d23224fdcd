# SPDX-License-Identifier: Apache-2.0
"""Where the objects of an aerial scene stand: alone, or in rows with a pixel or three between neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vision3d.readers._aerial_ground import Ground
from vision3d.readers._aerial_shapes import KINDS

Float = NDArray[np.float64]
TRIES = 20  # places looked at before an object or a row is given up
FAILURES = 12  # objects or rows given up before the scene counts as full
BORDER_PX = 1.0  # an object keeps at least this far inside the image: none is cut
ALONE_PX = 6.0
ROWS_APART_PX = 2.5


@dataclass(frozen=True)
class Place:
    """One kind of scene.

    Attributes:
        terrains: choices of ground, most of it first.
        water: there is a shore.
        roads, clutter: how much of these.
        classes: class -> how often it is chosen.
        rows: share of objects that stand in rows.
    """

    terrains: tuple[tuple[str, ...], ...]
    water: bool
    roads: int
    clutter: float
    classes: Mapping[str, float]
    rows: float


@dataclass(frozen=True)
class Item:
    """An object: its class, its centre in pixels, length along the heading and width, and the heading in radians."""

    kind: str
    center: Float
    length: float
    width: float
    heading: float

    def corners(self, grow_px: float = 0.0) -> Float:
        """(4, 2) front left, front right, back right, back left; with ``grow_px`` more on every side."""
        ahead = np.array([np.cos(self.heading), np.sin(self.heading)]) * (self.length / 2 + grow_px)
        right = np.array([-np.sin(self.heading), np.cos(self.heading)]) * (self.width / 2 + grow_px)
        return np.stack([ahead - right, ahead + right, -ahead + right, -ahead - right]) + self.center


@dataclass
class Layout:
    """Objects and the paint between them.

    Attributes:
        lines: (2, 2) ends of painted lines.
    """

    items: list[Item] = field(default_factory=list)
    lines: list[Float] = field(default_factory=list)


FIELDS = (("grass", "soil"), ("dry grass", "wood", "soil"), ("sand", "dry grass"), ("grass", "wood"), ("soil", "sand"))
PAVED = (("asphalt",), ("concrete",), ("asphalt", "grass"), ("concrete", "grass"), ("soil", "concrete"))
PLACES: dict[str, Place] = {
    "car park": Place(PAVED, False, 0, 0.35, {"small-vehicle": 4, "large-vehicle": 1}, 0.85),
    "marina": Place(FIELDS + PAVED, True, 0, 0.3, {"ship": 4, "harbor": 0.7, "small-vehicle": 1}, 0.8),
    "depot": Place(PAVED, False, 0, 0.3, {"large-vehicle": 3, "storage-tank": 2, "small-vehicle": 1}, 0.85),
    "apron": Place(PAVED, False, 1, 0.25, {"plane": 3, "large-vehicle": 1, "small-vehicle": 1}, 0.7),
    "country": Place(
        FIELDS,
        False,
        1,
        1.0,
        dict.fromkeys(("plane", "small-vehicle", "large-vehicle"), 1) | {"storage-tank": 1, "tennis-court": 0.7},
        0.0,
    ),
    "coast": Place(FIELDS, True, 0, 0.7, {"ship": 3, "harbor": 1, "storage-tank": 1, "small-vehicle": 1}, 0.0),
    "town": Place(
        PAVED + FIELDS,
        False,
        2,
        1.0,
        {"small-vehicle": 2, "large-vehicle": 1, "tennis-court": 1, "storage-tank": 1},
        0.2,
    ),
}
DENSE, SPARSE = ("car park", "marina", "depot", "apron"), ("country", "coast", "town")


def lay_out(place: Place, ground: Ground, classes: Sequence[str], count: int, scale: float, rng: Generator) -> Layout:
    """At most ``count`` objects of ``classes`` (fewer where there is no room); none overlaps another or a tall thing.

    ``ground.taken`` is filled up with them. ``scale`` multiplies all sizes.
    """
    layout = Layout()
    names = [name for name in place.classes if name in classes]
    weights = np.array([place.classes[name] for name in names])
    main = rng.uniform(0, np.pi)  # most rows of a scene run alongside or across
    failures = 0
    while len(layout.items) < count and failures < FAILURES:
        left = count - len(layout.items)
        name = names[rng.choice(len(names), p=weights / weights.sum())]
        if left > 1 and rng.random() < place.rows:
            heading = main + rng.choice([0, np.pi / 2]) if rng.random() < 0.75 else rng.uniform(0, np.pi)
            placed = _add_row(layout, ground, name, min(left, int(rng.integers(3, 11))), heading, scale, rng)
        else:
            placed = _add_one(layout, ground, name, scale, rng)
        failures += not placed
    return layout


def _add_one(layout: Layout, ground: Ground, name: str, scale: float, rng: Generator) -> bool:
    size = len(ground.image)
    length, width = _size(name, scale, size, rng)
    for _ in range(TRIES):
        heading = 0.0 if KINDS[name].round else rng.uniform(-np.pi, np.pi)
        item = Item(name, rng.uniform(0, size - 1, 2), length, width, heading)
        if is_free(item, ground, ALONE_PX):
            layout.items.append(item)
            take(item, ground)
            return True
    return False


def _add_row(
    layout: Layout, ground: Ground, name: str, count: int, heading: float, scale: float, rng: Generator
) -> bool:
    """Objects side by side, each turned by a degree or so; where one does not fit, the row has a hole."""
    size, kind = len(ground.image), KINDS[name]
    length, width = _size(name, scale, size, rng)
    if kind.round:
        heading = float(rng.choice([0, np.pi / 2]))
    across = np.array([-np.sin(heading), np.cos(heading)])
    sizes = rng.uniform(0.93, 1.07, (count, 2)) * (length, width)
    turns = rng.normal(0, np.radians(0.7), count).clip(-0.03, 0.03)
    turns += np.pi * (rng.random(count) < 0.4)
    if kind.round:
        sizes[:, 1], turns = sizes[:, 0], np.zeros(count)
    # Half of what each needs along the row, its turn included; between two lie 1 to 3 pixels.
    reach = (sizes[:, 1] * np.abs(np.cos(turns)) + sizes[:, 0] * np.abs(np.sin(turns))) / 2
    steps = reach[1:] + reach[:-1] + rng.uniform(1, 3, count - 1)
    offsets = np.concatenate([[0], np.cumsum(steps)])
    offsets -= offsets.mean()
    full = rng.random(count) > 0.08
    for _ in range(TRIES):
        center = rng.uniform(0, size - 1, 2)
        row = [
            Item(
                name,
                center + across * offset,
                float(sides[0]),
                float(sides[1]),
                0.0 if kind.round else float(heading + turn),
            )
            for offset, sides, turn, there in zip(offsets, sizes, turns, full, strict=True)
            if there
        ]
        row = [item for item in row if is_free(item, ground, ROWS_APART_PX)]
        if len(row) < min(3, count):
            continue
        for item in row:
            take(item, ground)
        layout.items.extend(row)
        if not kind.water and kind.headed and rng.random() < 0.6:
            ahead = np.array([np.cos(heading), np.sin(heading)]) * 0.55 * length
            for middle in (offsets[1:] + offsets[:-1])[:, None] / 2 * across + center:
                ends = np.stack([middle - ahead, middle + ahead])
                u, v = np.clip(np.rint(ends), 0, size - 1).astype(int).T
                if not ground.water[v, u].any():
                    layout.lines.append(ends)
        return True
    return False


def _size(name: str, scale: float, size: int, rng: Generator) -> tuple[float, float]:
    """Length and width of an object that fits the image."""
    kind = KINDS[name]
    low, high = (scale * limit for limit in kind.length_px)
    length = min(float(np.exp(rng.uniform(np.log(low), np.log(high)))), 0.6 * size)
    return length, length / float(rng.uniform(*kind.aspect))


def is_free(item: Item, ground: Ground, clear_px: float) -> bool:
    """Whether the object would lie inside the image, on its element, and ``clear_px`` from all that is there."""
    size, kind = len(ground.image), KINDS[item.kind]
    u, v = (round(float(x)) for x in item.center)
    if not (0 <= u < size and 0 <= v < size) or ground.taken[v, u] or ground.water[v, u] != kind.water:
        return False  # most places fail here, at little cost
    corners = item.corners()
    if corners.min() < BORDER_PX - 0.5 or corners.max() > size - 0.5 - BORDER_PX:
        return False
    grown = item.corners(clear_px)
    low = np.maximum(np.floor(grown.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(grown.max(axis=0)).astype(int) + 1, size)
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    cv2.fillPoly(mask, [np.rint((grown - low) * 16).astype(np.int32)], 1, shift=4)
    there = mask > 0
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    wet = ground.water[window][there]
    on_its_element = wet.all() if kind.water else not wet.any()
    return bool(on_its_element) and not ground.taken[window][there].any()


def take(item: Item, ground: Ground) -> None:
    """Mark what the object covers."""
    cv2.fillPoly(ground.taken, [np.rint(item.corners(0.5) * 16).astype(np.int32)], 255, shift=4)
