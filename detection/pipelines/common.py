# SPDX-License-Identifier: Apache-2.0
"""What every pipeline of oriented detection does with its results: measure, draw, write."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from detection.config import OutputConfig
from detection.problem import Detections
from vision3d.errors import DataError, UserError
from vision3d.types import BoxResult, BoxTruth, Exhibit, LabeledImage, Metric

C = TypeVar("C", bound=OutputConfig)


class BoxPipeline(Generic[C]):
    """Results that are oriented boxes. A pipeline adds ``step``, and what it has to fit."""

    samples: type = LabeledImage
    result_type: type = BoxResult

    def __init__(self, config: C) -> None:
        self.config = config

    def failure(self, name: str, reason: str) -> BoxResult:
        """The result of an image that could not be read, or whose step raised."""
        return BoxResult(name=name, status="bad_input", reason=reason)

    def score(self, results: Sequence[BoxResult], truths: Sequence[BoxTruth]) -> list[Metric]:
        """AP in the field's protocols, mean IoU, errors of matches; failures are images without boxes."""
        from detection.metrics.table import score_boxes

        return score_boxes(results, truths, self.config.metrics)

    def draw(
        self, model: Any, sample: LabeledImage, result: BoxResult, truth: BoxTruth | None = None
    ) -> NDArray[np.uint8]:
        """The image with the boxes found, the points given and, where known, the true boxes."""
        from detection.drawing.sheet import draw_boxes

        return draw_boxes(sample, result, truth)

    def exhibit(self, model: Any, results: Sequence[BoxResult], truths: Sequence[BoxTruth]) -> Exhibit:
        """Precision-recall curves, tables by class and confusions; nothing where there is no truth."""
        from detection.metrics.charts import boxes_exhibit

        return boxes_exhibit(results, truths, self.config.metrics)

    def export(self, results: Sequence[BoxResult], folder: Path) -> None:
        """The formats of ``config.write``, each in a file or folder of its own."""
        from detection.pipelines.formats import write_results

        write_results(results, folder, self.config.write)

    def write_tables(self, results: Sequence[BoxResult], truths: Sequence[BoxTruth], folder: Path) -> None:
        """``per_class.csv``, ``confusion.csv`` and ``verdicts.csv``."""
        from detection.metrics.files import write_tables

        write_tables(results, truths, self.config.metrics, folder)


def box_result(
    sample: LabeledImage,
    found: Detections,
    classes: tuple[str, ...],
    began_s: float,
    extra: Mapping[str, Any] | None = None,
) -> BoxResult:
    """Detections as the result of a sample; ``began_s`` is when the step began on ``time.perf_counter``."""
    height, width = sample.image.shape[:2]
    return BoxResult(
        name=sample.name,
        status="ok",
        boxes=np.ascontiguousarray(found.boxes, dtype=np.float64).reshape(-1, 5),
        scores=np.ascontiguousarray(found.scores, dtype=np.float64),
        labels=np.ascontiguousarray(found.labels, dtype=np.int64),
        ids=None if found.ids is None else np.ascontiguousarray(found.ids, dtype=np.int64),
        classes=classes,
        size=(width, height),
        timing_ms={"boxes": (time.perf_counter() - began_s) * 1e3},
        extra=dict(extra or {}),
    )


def require_points(sample: LabeledImage) -> None:
    """Raises:
    DataError: the image has no points.
    """
    if sample.points is None or sample.labels is None:
        raise DataError(
            sample.name,
            "has no points, and a box is made for each: click them with `vision3d points`, or use a detector",
        )


def require_classes(sample: LabeledImage, classes: tuple[str, ...], used: NDArray[np.int64] | None = None) -> list[str]:
    """Refuse a model on data that it cannot know; data without any list of classes is fine.

    Args:
        classes: of the model.
        used: (N,) labels that the model is to answer for; all of these it must know.

    Returns:
        classes of the data that the model was not taught.

    Raises:
        UserError: the two have no class in common.
        DataError: the model does not know a class that is used.
    """
    unknown = [name for name in sample.classes if name not in classes]
    needed = set(unknown) if used is None else {sample.classes[label] for label in used}
    missing = [name for name in unknown if name in needed]
    text = (
        f"class '{unknown[0] if unknown else ''}' of the data is unknown to the model, which was taught: "
        f"{', '.join(classes)}; name the data's classes alike by ?classes=..."
    )
    if unknown and len(unknown) == len(sample.classes):
        raise UserError(text)  # all images alike
    if used is not None and missing:
        raise DataError(sample.name, text.replace(unknown[0], missing[0], 1))
    return unknown
