# SPDX-License-Identifier: Apache-2.0
"""The nouns that the parts of oriented detection share; ``vision3d.types.images`` says what a box is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Detections:
    """Boxes with classes and scores in one image or tile, M of them.

    Attributes:
        boxes: (M, 5) float64 le90, pixels of that image.
        scores: (M,) float64 in [0, 1].
        labels: (M,) int64.
        ids: (M,) int64 annotations that the boxes stand for, or None.
    """

    boxes: Float
    scores: Float
    labels: Int
    ids: Int | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Detections:
        """The detections of some rows, in their order."""
        ids = None if self.ids is None else self.ids[rows]
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows], ids)

    @classmethod
    def none(cls) -> Detections:
        """No detection."""
        return cls(np.zeros((0, 5)), np.zeros(0), np.zeros(0, np.int64))


class Detector(Protocol):
    """Finds boxes in images that it takes whole; large images are cut before and merged after."""

    classes: tuple[str, ...]

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Detections of each (H, W, 3) uint8 RGB image, rotated NMS done, in that image's pixels."""
        ...


class Labeller(Protocol):
    """Makes one box per point."""

    def label(self, image: Image, points: Float, labels: Int) -> tuple[Float, Float]:
        """(N, 2) pixels and (N,) classes -> (N, 5) boxes and (N,) scores in [0, 1], rows as given."""
        ...
