# SPDX-License-Identifier: Apache-2.0
"""A FitContext in memory, and readers of images made of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vision3d.types import BoxTruth, LabeledImage

T = TypeVar("T")


@dataclass
class Context:
    """``store`` may be shared between two contexts, ``lines`` is the log."""

    seed: int = 0
    store: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    stop_after: int | None = None
    """Raises KeyboardInterrupt in the middle of making the entry after so many."""

    def cached(self, key: str, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        if key not in self.store:
            made = make()
            if self.stop_after is not None and len(self.store) >= self.stop_after:
                raise KeyboardInterrupt
            self.store[key] = made
        return self.store[key]

    def has(self, key: str) -> bool:
        return key in self.store

    def forget(self, key: str) -> None:
        self.store.pop(key, None)

    def progress(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        return iter(items)

    def log(self, message: str) -> None:
        self.lines.append(message)


class ImageReader:
    """Samples from memory; ``truths`` may be absent, and then asking for one fails the test."""

    samples: type = LabeledImage

    def __init__(self, images: list[LabeledImage], truths: list[BoxTruth] | None = None) -> None:
        self.name = "memory"
        self.bad: Mapping[int, str] = {}
        self.images, self.truths = images, truths

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> LabeledImage:
        return self.images[index]

    def key(self, index: int) -> str:
        return self.images[index].name

    def truth(self, index: int) -> BoxTruth:
        assert self.truths is not None, "a true box was asked for"
        return self.truths[index]


def noise_image(name: str, size: tuple[int, int], points: Any, labels: Any = None, seed: int = 0) -> LabeledImage:
    """Noise of (width, height) with points."""
    width, height = size
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    labels = np.zeros(len(points), np.int64) if labels is None else np.asarray(labels, dtype=np.int64)
    return LabeledImage(name, image, ("a", "b", "c"), points, labels, np.arange(len(points)))
