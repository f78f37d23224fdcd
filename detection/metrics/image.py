# SPDX-License-Identifier: Apache-2.0
"""One result beside its truth: detections by falling score, objects, and which overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.metrics.config import MetricsConfig
from detection.metrics.overlaps import Overlaps, overlaps
from vision3d.errors import UserError
from vision3d.types import BoxResult, BoxTruth

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

# MMRotate ignores objects whose mark is above this number, and no mark is.
MMROTATE_MOST = 100


@dataclass(frozen=True)
class ScoredImage:
    """M detections by falling score (equal scores in their own order) and N objects of one image.

    Attributes:
        answered: whether the method gave an answer at all; without one there are no detections.
        classes: of the truth; ``labels`` index them. Detections of other classes are left out.
        rows: (M,) each detection's row in the result.
        boxes, scores, labels: (M, 5), (M,), (M,).
        ids: (M,) row of the object that a box was made for, or None for a detector.
        true_boxes, true_labels: (N, 5), (N,).
        counts: (N,) objects that are scored; a detection on one of the others is neither right nor wrong.
        overlaps: of all detections with all objects, whatever their class.
    """

    name: str
    answered: bool
    classes: tuple[str, ...]
    rows: Int
    boxes: Float
    scores: Float
    labels: Int
    ids: Int | None
    true_boxes: Float
    true_labels: Int
    counts: Bool
    overlaps: Overlaps

    @property
    def own(self) -> Overlaps:
        """The overlaps of detections and objects of the same class."""
        pairs = self.overlaps
        return pairs.where(self.labels[pairs.rows] == self.true_labels[pairs.columns])

    def made_for(self) -> tuple[Int, Int]:
        """Detections and the objects they were made for, by ids; the best-scored one where several claim an object.

        A box that was made for a point beside all objects (id -1) is in neither.
        """
        if self.ids is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        objects, first = np.unique(self.ids, return_index=True)
        known = objects >= 0
        return first[known].astype(np.int64), objects[known]

    def true_iou(self) -> Float:
        """(N,) how well each object was boxed.

        With ids, the IoU of the object's own box, 0 where it has none; else the best of all detections of its class.
        """
        if self.ids is None:
            return self.own.best_rows()[0]
        row, column = self.made_for()
        box_of = np.full(len(self.true_boxes), -1, dtype=np.int64)
        box_of[column] = row
        pairs = self.overlaps.where(box_of[self.overlaps.columns] == self.overlaps.rows)
        iou = np.zeros(len(self.true_boxes))
        iou[pairs.columns] = pairs.iou
        return iou


def score_image(result: BoxResult, truth: BoxTruth, config: MetricsConfig) -> ScoredImage:
    """``result`` beside ``truth``. A result that is not ok has no detections.

    Raises:
        UserError: the result does not belong to the truth (image size, ids, no class in common), or holds boxes or
            scores that are not numbers. The message names the image.
    """
    boxes, scores, labels, ids = _detections(result, truth)
    order = np.argsort(-scores, kind="stable")
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    names = result.classes or truth.classes
    places = {name: i for i, name in enumerate(truth.classes)}
    to_truth = np.array([places.get(name, -1) for name in names], dtype=np.int64)
    labels = to_truth[labels]
    known = labels >= 0
    if len(labels) and not any(name in places for name in names):
        raise UserError(
            f"{result.name}: the result's classes ({', '.join(names[:3])}...) and the truth's "
            f"({', '.join(truth.classes[:3])}...) have none in common"
        )
    try:
        pairs = overlaps(boxes[known], truth.boxes, truth.quads if config.shapes == "quads" else None)
    except ValueError as error:
        raise UserError(f"{result.name}: boxes cannot be scored: {error}") from None
    return ScoredImage(
        name=result.name,
        answered=result.status == "ok",
        classes=truth.classes,
        rows=order[known].astype(np.int64),
        boxes=boxes[known],
        scores=scores[known],
        labels=labels[known],
        ids=None if ids is None else ids[order][known],
        true_boxes=truth.boxes,
        true_labels=truth.labels,
        counts=counting(truth, config),
        overlaps=pairs,
    )


def counting(truth: BoxTruth, config: MetricsConfig) -> Bool:
    """(N,) objects that are scored under the named protocol."""
    if config.difficult == "devkit-1.0":
        return truth.difficult == 0
    if config.difficult == "devkit-1.5":
        return np.ones(len(truth.difficult), dtype=bool)
    return truth.difficult <= MMROTATE_MOST


def scored_images(
    results: Sequence[BoxResult], truths: Sequence[BoxTruth], config: MetricsConfig
) -> Iterator[ScoredImage]:
    """The images one after the other, each read when it is asked for.

    Raises:
        ValueError: there are more results than truths, or fewer.
        UserError: as :func:`score_image`; or two truths have different classes.
    """
    if len(results) != len(truths):
        raise ValueError(f"{len(results)} results for {len(truths)} truths")
    classes: tuple[str, ...] | None = None
    for i in range(len(truths)):
        result, truth = results[i], truths[i]
        if classes is not None and truth.classes != classes:
            raise UserError(f"{result.name}: its truth has other classes than the images before it")
        classes = truth.classes
        yield score_image(result, truth, config)


def _detections(result: BoxResult, truth: BoxTruth) -> tuple[Float, Float, Int, Int | None]:
    """(M, 5) boxes, (M,) scores, labels and ids of a result, looked over."""
    name = result.name
    if result.status != "ok" or result.boxes is None or result.scores is None or result.labels is None:
        return np.zeros((0, 5)), np.zeros(0), np.zeros(0, np.int64), None
    boxes, scores, labels, ids = result.boxes, result.scores, result.labels, result.ids
    if not len(boxes) == len(scores) == len(labels) == (len(boxes) if ids is None else len(ids)):
        raise UserError(f"{name}: the result has {len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels")
    if truth.size != result.size and (0, 0) not in (truth.size, result.size):
        raise UserError(
            f"{name}: the result is of an image of {result.size[0]} x {result.size[1]} pixels, the truth of one of "
            f"{truth.size[0]} x {truth.size[1]}: it was made on other data, so run it anew"
        )
    if not np.isfinite(scores).all():
        raise UserError(f"{name}: score {int(np.flatnonzero(~np.isfinite(scores))[0])} is not a number")
    classes = result.classes or truth.classes
    if len(labels) and (labels.min() < 0 or labels.max() >= len(classes)):
        raise UserError(f"{name}: the result has labels outside of its {len(classes)} classes")
    if ids is not None and len(ids) and (ids.min() < -1 or ids.max() >= len(truth.boxes)):
        raise UserError(f"{name}: the result has ids outside of the truth's {len(truth.boxes)} objects")
    return (
        np.asarray(boxes, dtype=np.float64).reshape(-1, 5),
        np.asarray(scores, dtype=np.float64),
        np.asarray(labels, dtype=np.int64),
        None if ids is None else np.asarray(ids, dtype=np.int64),
    )
