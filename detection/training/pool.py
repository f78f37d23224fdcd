# SPDX-License-Identifier: Apache-2.0
"""Training images and the crops that are drawn from them. Without boxes of its own a pool knows points only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.problem import Detections, Float, Image, Int
from vision3d.contracts import Reader
from vision3d.errors import DataError
from vision3d.types import LabeledImage

MEAN_RGB = (124, 116, 104)  # ImageNet's, what a padded border is filled with
MEMORY = 2 << 30  # bytes of images kept decoded


@dataclass(frozen=True)
class Example:
    """An image, or a crop of one, with its objects.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        points: (N, 2) pixels of this image or crop. For boxes without points, their centres.
        labels: (N,) classes.
        ids: (N,) position of each object in the whole image's list: the same object has the same id in every crop.
        boxes: (N, 5) le90, or None in a pool that knows points only.
        weights: (N,) how much each box counts, or None.
        index: of the image in the pool.
    """

    image: Image
    points: Float
    labels: Int
    ids: Int
    boxes: Float | None = None
    weights: Float | None = None
    index: int = 0

    def rows(self, chosen: NDArray[Any]) -> Example:
        """The same image with some of its objects, by mask or by position."""
        return replace(
            self,
            points=self.points[chosen],
            labels=self.labels[chosen],
            ids=self.ids[chosen],
            boxes=None if self.boxes is None else self.boxes[chosen],
            weights=None if self.weights is None else self.weights[chosen],
        )

    def flipped(self) -> Example:
        """Left and right exchanged."""
        last = self.image.shape[1] - 1
        points = self.points * [-1, 1] + [last, 0]
        boxes = self.boxes
        if boxes is not None:
            from vision3d.geometry import rotated

            boxes = rotated.canonical(boxes * [-1, 1, 1, 1, -1] + [last, 0, 0, 0, 0])
        return replace(self, image=np.ascontiguousarray(self.image[:, ::-1]), points=points, boxes=boxes)


class Pool:
    """The images of a reader as training material, decoded once where memory allows.

    Args:
        train: samples of type ``LabeledImage``.
        crop: side of the crops in pixels.
        boxes: position in ``train`` -> its boxes, classes and scores (pseudo boxes, or the true ones for a detector
            that is trained on them). None: objects are the samples' points, and nothing here can see a true box.

    Raises:
        DataError: there is no object in any image, or images without points where points are needed.
    """

    def __init__(self, train: Reader, crop: int, boxes: Callable[[int], Detections] | None = None) -> None:
        self.crop = crop
        self._train, self._boxes = train, boxes
        self._kept: OrderedDict[int, Example] = OrderedDict()
        self._bytes = 0
        counts = []
        classes: tuple[str, ...] = ()
        for index in range(len(train)):
            sample: LabeledImage = train[index]
            if index and sample.classes != classes:
                raise DataError(sample.name, f"has other classes than {train.key(0)}: one training needs one list")
            classes = sample.classes
            counts.append(len(self._keep(index, sample).points))
        self.classes = classes
        self.counts = np.array(counts)
        self._with_objects = np.flatnonzero(self.counts)
        if not len(self._with_objects):
            what = "points" if boxes is None else "boxes"
            raise DataError(train.name, f"has no {what} in any of its {len(train)} images: there is nothing to learn")

    def __len__(self) -> int:
        return len(self.counts)

    def whole(self, index: int) -> Example:
        """The whole image with all its objects."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        return self._keep(index, self._train[index])

    def draw(self, rng: np.random.Generator, flip: float = 0.0) -> Example:
        """A random crop that holds an object: of an image drawn evenly among those with objects, around one of them.

        Objects whose point (or centre) lies outside leave. Smaller images are padded at the right and bottom.
        """
        index = int(rng.choice(self._with_objects))
        example = self.whole(index)
        center = example.points[rng.integers(len(example.points))]
        height, width = example.image.shape[:2]
        corner = []
        for at, size in zip(center, (width, height)):
            # Every place of the crop that keeps the object inside is as likely as another, within the image.
            low = max(0, min(int(np.ceil(at)) - self.crop + 1, size - self.crop))
            high = max(0, min(int(np.floor(at)), size - self.crop))
            corner.append(int(rng.integers(min(low, high), max(low, high) + 1)))
        found = self.cut(example, corner[0], corner[1])
        return found.flipped() if rng.random() < flip else found

    def cut(self, example: Example, x: int, y: int) -> Example:
        """The crop whose first pixel is (x, y) of the example."""
        crop = self.crop
        part = example.image[y : y + crop, x : x + crop]
        image = part
        if part.shape[:2] != (crop, crop):
            image = np.empty((crop, crop, 3), np.uint8)
            image[:] = MEAN_RGB
            image[: part.shape[0], : part.shape[1]] = part
        moved = example.points - [x, y]
        height, width = part.shape[:2]
        inside = np.all((moved >= -0.5) & (moved < [width - 0.5, height - 0.5]), axis=1)
        boxes = None if example.boxes is None else example.boxes - [x, y, 0, 0, 0]
        return replace(example, image=image, points=moved, boxes=boxes).rows(inside)

    def _keep(self, index: int, sample: LabeledImage) -> Example:
        example = self._example(index, sample)
        self._kept[index] = example
        self._bytes += example.image.nbytes
        while self._bytes > MEMORY and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.image.nbytes
        return example

    def _example(self, index: int, sample: LabeledImage) -> Example:
        if self._boxes is not None:
            found = self._boxes(index)
            ids = np.arange(len(found))
            return Example(sample.image, found.boxes[:, :2], found.labels, ids, found.boxes, found.scores, index)
        if sample.points is None or sample.labels is None:
            raise DataError(
                sample.name, "has no points: click them with `vision3d points`, or use data with labels of objects"
            )
        return Example(sample.image, sample.points, sample.labels, np.arange(len(sample.points)), index=index)
