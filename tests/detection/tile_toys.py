# SPDX-License-Identifier: Apache-2.0
"""Images whose pixels tell where they are, objects in them, and a detector that knows all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.dota.windows import parts_inside
from detection.problem import Detections
from vision3d.geometry import rotated
from vision3d.types.images import BoxTruth, LabeledImage

Float = NDArray[np.float64]
CLASSES = ("plane", "ship", "small-vehicle")


def position_image(width: int, height: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: 12 bits of x and 12 bits of y in the three colours of each pixel."""
    image = np.empty((height, width, 3), np.uint8)
    x = np.arange(width, dtype=np.uint16)[None]
    y = np.arange(height, dtype=np.uint16)[:, None]
    image[..., 0] = x & 255
    image[..., 1] = (x >> 8) | ((y >> 8) << 4)
    image[..., 2] = y & 255
    return image


def position(pixel: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(2,) x and y of a pixel of :func:`position_image`."""
    red, green, blue = (int(value) for value in pixel)
    return np.array([red | (green & 15) << 8, blue | (green >> 4) << 8])


def rows_of_boxes(width: int, height: int, count: int, seed: int = 0) -> tuple[Float, NDArray[np.int64]]:
    """(N, 5) le90 boxes in dense rows, 1 to 3 px apart, lying or standing, and (N,) classes."""
    rng = np.random.default_rng(seed)
    columns = round(np.sqrt(count * width / height))
    cell = np.array([width / columns, height / -(-count // columns)])
    boxes = []
    for i in range(count):
        centre = (np.array([i % columns, i // columns]) + 0.5) * cell - 0.5
        sides = cell - rng.uniform(1, 3)
        upright = rng.random() < 0.5
        long, room = sides[::-1] if upright else sides
        boxes.append([*centre, long, min(long, room) * rng.uniform(0.3, 1), -np.pi / 2 if upright else 0.0])
    return rotated.canonical(np.array(boxes)), rng.integers(0, len(CLASSES), count)


def truth_of(boxes: Float, labels: Any, size: tuple[int, int], difficult: Any = None) -> BoxTruth:
    count = len(boxes)
    flags = np.zeros(count, np.uint8) if difficult is None else np.asarray(difficult, np.uint8)
    return BoxTruth(boxes, np.asarray(labels, np.int64), flags, rotated.corners(boxes), CLASSES, size)


class KnowingDetector:
    """Finds every object that it sees at least ``keep`` of, wherever the image was cut and however it was turned."""

    classes = CLASSES

    def __init__(self, boxes: Float, labels: NDArray[np.int64], keep: float = 0.7, scale: float = 1.0) -> None:
        self.boxes, self.labels, self.keep, self.scale = boxes, labels, keep, scale
        self.quads = rotated.corners(boxes)
        self.batches: list[int] = []
        self.shapes: list[tuple[int, ...]] = []

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        self.batches.append(len(images))
        self.shapes += [image.shape for image in images]
        return [self._detect(image) for image in images]

    def _detect(self, image: NDArray[np.uint8]) -> Detections:
        origin = position(image[0, 0])
        right, down = position(image[0, 1]) - origin, position(image[1, 0]) - origin
        axes = np.stack([right, down], 1)  # columns: one step right and one step down, in the whole image
        height, width = image.shape[:2]
        ends = origin + np.array([[0, 0], [width - 1, height - 1]]) @ axes.T
        low, high = ends.min(0) - 0.5, ends.max(0) + 0.5
        rows = np.flatnonzero(parts_inside(self.quads, np.array([[*low, *high]]))[:, 0] >= self.keep)
        corners = (self.quads[rows] - origin) @ axes  # axes is orthogonal with steps of one pixel
        # A little less sure of what it sees less of; the same in every view.
        part = parts_inside(self.quads[rows], np.array([[*low, *high]]))[:, 0]
        return Detections(rotated.from_corners(corners), 0.5 + 0.4 * part, self.labels[rows])


class Memory:
    """A reader of what is in memory."""

    samples = LabeledImage

    def __init__(
        self, items: Sequence[LabeledImage], truths: Sequence[BoxTruth | None], bad: Mapping[int, str] | None = None
    ) -> None:
        self.name = "memory"
        self.items, self.truths = items, truths
        self.bad: Mapping[int, str] = bad or {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> LabeledImage:
        return self.items[index]

    def key(self, index: int) -> str:
        return self.items[index].name

    def truth(self, index: int) -> BoxTruth | None:
        return self.truths[index]


def matched(found: Float, wanted: Float) -> Float:
    """(N,) for each wanted box the distance of its corners to those of the nearest found one, in pixels."""
    a, b = rotated.corners(found), rotated.corners(wanted)
    out = []
    for corners, box in zip(b, wanted, strict=True):
        near = a[np.hypot(*(found[:, :2] - box[:2]).T) < 1]
        distances = [np.abs(np.sort(quad, 0) - np.sort(corners, 0)).max() for quad in near]
        out.append(min(distances, default=np.inf))
    return np.array(out)
