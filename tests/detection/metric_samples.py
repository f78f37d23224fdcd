# SPDX-License-Identifier: Apache-2.0
"""Truths and results for the tests of box metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry import rotated
from vision3d.types import BoxResult, BoxTruth

Float = NDArray[np.float64]
CLASSES = ("ship", "plane", "truck")


def truth_of(
    boxes: Sequence[Sequence[float]] | Float,
    labels: Sequence[int] | None = None,
    difficult: Sequence[int] | None = None,
    quads: Float | None = None,
    classes: tuple[str, ...] = CLASSES,
) -> BoxTruth:
    array = rotated.canonical(np.array(boxes, dtype=np.float64).reshape(-1, 5))
    n = len(array)
    return BoxTruth(
        boxes=array,
        labels=np.array(labels if labels is not None else [0] * n, dtype=np.int64),
        difficult=np.array(difficult if difficult is not None else [0] * n, dtype=np.uint8),
        quads=rotated.corners(array) if quads is None else quads,
        classes=classes,
        size=(0, 0),
    )


def result_of(
    name: str,
    boxes: Sequence[Sequence[float]] | Float,
    scores: Sequence[float] | Float,
    labels: Sequence[int] | NDArray[np.int64] | None = None,
    ids: Sequence[int] | None = None,
    classes: tuple[str, ...] = CLASSES,
) -> BoxResult:
    array = rotated.canonical(np.array(boxes, dtype=np.float64).reshape(-1, 5))
    return BoxResult(
        name=name,
        status="ok",
        boxes=array,
        scores=np.array(scores, dtype=np.float64),
        labels=np.array(labels if labels is not None else [0] * len(array), dtype=np.int64),
        ids=None if ids is None else np.array(ids, dtype=np.int64),
        classes=classes,
    )


def row_of_boxes(n: int, step: float = 100.0) -> Float:
    """``n`` boxes of 40 x 10 pixels that do not touch."""
    return np.array([[step * i, 50.0, 40.0, 10.0, 0.3] for i in range(n)])


def random_scene(
    rng: np.random.Generator, images: int, objects: int = 12, detections: int = 20
) -> tuple[list[BoxResult], list[BoxTruth]]:
    """Crowded images with difficult objects, equal scores, near misses, repeats and wrong classes."""
    results, truths = [], []
    for i in range(images):
        n = int(rng.integers(0, objects))
        boxes = np.column_stack(
            [rng.uniform(0, 120, (n, 2)), rng.uniform(8, 50, (n, 2)), rng.uniform(-np.pi / 2, np.pi / 2, n)]
        )
        truths.append(truth_of(boxes, list(rng.integers(0, 3, n)), list(rng.integers(0, 6, n) // 4)))
        m = int(rng.integers(0, detections)) if n else 0
        of = rng.integers(0, max(n, 1), m)
        found = truths[-1].boxes[of] + rng.normal(0, 1, (m, 5)) * [3, 3, 1, 1, 0.06]
        found[:, 2:4] = np.maximum(found[:, 2:4], 2.0)
        labels = np.where(rng.random(m) < 0.85, truths[-1].labels[of], rng.integers(0, 3, m))
        results.append(result_of(f"image{(7 * i) % images:03d}", found, np.round(rng.random(m), 1), labels))
    return results, truths


def values(metrics: Sequence[object]) -> dict[str, float]:
    return {m.name: m.value for m in metrics}
