# SPDX-License-Identifier: Apache-2.0
"""All images of a run put together: the numbers of each class, with one image in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from detection.metrics.average_precision import Curve, area_ap, by_score, eleven_point_ap, precision_recall
from detection.metrics.config import MetricsConfig
from detection.metrics.errors import BoxErrors, box_errors, median
from detection.metrics.image import ScoredImage, scored_images
from detection.metrics.matching import IGNORED, THRESHOLDS, TRUE, Matches, match_image
from vision3d.types import BoxResult, BoxTruth

Float = NDArray[np.float64]
Int = NDArray[np.int64]

AT_50, AT_75 = THRESHOLDS.index(0.5), THRESHOLDS.index(0.75)


@dataclass(frozen=True)
class ClassScores:
    """One class over all images: K detections by falling score and N objects that count.

    Attributes:
        kinds: (T, K) int8 TRUE, FALSE or IGNORED at each of THRESHOLDS.
        scores: (K,).
        iou: (N,) how well each object was boxed, see :meth:`ScoredImage.true_iou`.
        sizes_px: (N,) square root of each object's area.
        found: (N,) objects found at an IoU of 0.5.
        errors: of the boxes found at an IoU of 0.5, or of every box made for a given object.
        not_counted: objects that the protocol leaves out.
        compat: as in MetricsConfig.
    """

    name: str
    kinds: NDArray[np.int8]
    scores: Float
    iou: Float
    sizes_px: Float
    found: NDArray[np.bool_]
    errors: BoxErrors
    not_counted: int
    compat: str

    @property
    def objects(self) -> int:
        """N."""
        return len(self.iou)

    def curve(self, at: int) -> Curve:
        """Precision and recall at the IoU ``THRESHOLDS[at]``; needs an object."""
        return precision_recall(self.kinds[at], self.scores, self.objects)

    @cached_property
    def ap(self) -> Float:
        """(T,) area AP at each of THRESHOLDS."""
        return np.array([area_ap(self.curve(i)) for i in range(len(THRESHOLDS))])

    @cached_property
    def ap50_voc07(self) -> float:
        """11-point AP at an IoU of 0.5."""
        return eleven_point_ap(self.curve(AT_50), self.compat)

    @property
    def recall50(self) -> float:
        """Share of objects found at an IoU of 0.5 by all detections together."""
        return float((self.kinds[AT_50] == TRUE).sum()) / self.objects

    @property
    def precision50(self) -> float:
        """Share of all detections that are true at an IoU of 0.5; 0 without any."""
        used = self.kinds[AT_50] != IGNORED
        return float((self.kinds[AT_50][used] == TRUE).mean()) if used.any() else 0.0

    @property
    def mean_iou(self) -> float:
        """Mean of ``iou``."""
        return float(self.iou.mean())


@dataclass(frozen=True)
class Evaluation:
    """Scores of every class, in the order of the data set's list.

    Attributes:
        images, unanswered: how many there are, and how many have no answer.
    """

    classes: tuple[ClassScores, ...]
    images: int
    unanswered: int

    @property
    def scored(self) -> tuple[ClassScores, ...]:
        """The classes that have an object that counts: means are taken over these."""
        return tuple(c for c in self.classes if c.objects)

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of the other classes."""
        return tuple(c.name for c in self.classes if not c.objects)

    @property
    def objects(self) -> int:
        """Objects that count, of all classes."""
        return sum(c.objects for c in self.classes)

    @property
    def ignored(self) -> int:
        """Detections that are neither right nor wrong at an IoU of 0.5."""
        return int(sum((c.kinds[AT_50] == IGNORED).sum() for c in self.classes))

    def errors(self) -> dict[str, float]:
        """Median errors over all classes: ``angle_deg``, ``centre_px``, ``size``; infinite where nothing was found."""
        found = [c.errors for c in self.scored]
        return {
            "angle_deg": float(np.rad2deg(median(np.concatenate([e.angle_rad for e in found] + [np.zeros(0)])))),
            "centre_px": median(np.concatenate([e.centre_px for e in found] + [np.zeros(0)])),
            "size": median(np.concatenate([e.size for e in found] + [np.zeros(0)])),
        }


@dataclass
class _Part:
    """What one image says of all classes at once; rows belong to detections, objects or error pairs."""

    labels: Int
    scores: Float
    rows: Int
    kinds: NDArray[np.int8]
    object_labels: Int
    iou: Float
    sizes_px: Float
    found: NDArray[np.bool_]
    error_labels: Int
    errors: Float  # (K, 3)
    not_counted: Int


def evaluate(results: Sequence[BoxResult], truths: Sequence[BoxTruth], config: MetricsConfig) -> Evaluation:
    """Scores of ``results``, where ``results[i]`` belongs to ``truths[i]``; both may be read lazily.

    Raises:
        ValueError, UserError: as :func:`detection.metrics.image.scored_images`.
    """
    parts: list[_Part] = []
    names: list[str] = []
    classes: tuple[str, ...] = ()
    unanswered = 0
    for image in scored_images(results, truths, config):
        classes = image.classes
        names.append(image.name)
        unanswered += not image.answered
        parts.append(_part(image, match_image(image, config)))
    # Detections of equal score are taken by image name, so that the order of reading changes nothing.
    place = np.empty(len(names), dtype=np.int64)
    place[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    joined = _join(parts)
    images = np.repeat(place, [len(part.labels) for part in parts])
    order = by_score(joined.scores, images, joined.rows)
    scores = tuple(_of_class(i, name, joined, order, config.compat) for i, name in enumerate(classes))
    return Evaluation(scores, len(names), unanswered)


def error_pairs(image: ScoredImage, matches: Matches) -> tuple[Int, Int]:
    """Detections and objects that count, whose differences are worth measuring.

    Boxes made for given objects are all measured. A detector's are measured where they found one, at an IoU of 0.5.
    """
    if image.ids is not None:
        rows, objects = image.made_for()
    else:
        rows = np.flatnonzero(matches.kinds[AT_50] == TRUE)
        objects = matches.objects[AT_50][rows]
    whole = image.counts[objects] & (image.true_boxes[objects, 2:4] > 0).all(axis=1)
    return rows[whole], objects[whole]


def _part(image: ScoredImage, matches: Matches) -> _Part:
    counts = image.counts
    rows, objects = error_pairs(image, matches)
    errors = box_errors(image.boxes[rows], image.true_boxes[objects])
    found = np.zeros(len(counts), dtype=bool)
    found[matches.objects[AT_50][matches.kinds[AT_50] == TRUE]] = True
    return _Part(
        labels=image.labels,
        scores=image.scores,
        rows=image.rows,
        kinds=matches.kinds,
        object_labels=image.true_labels[counts],
        iou=image.true_iou()[counts],
        sizes_px=np.sqrt(image.true_boxes[counts, 2] * image.true_boxes[counts, 3]),
        found=found[counts],
        error_labels=image.true_labels[objects],
        errors=np.stack([errors.angle_rad, errors.centre_px, errors.size], axis=1),
        not_counted=np.bincount(image.true_labels[~counts], minlength=len(image.classes)),
    )


def _join(parts: Sequence[_Part]) -> _Part:
    empty = _Part(
        labels=np.zeros(0, np.int64),
        scores=np.zeros(0),
        rows=np.zeros(0, np.int64),
        kinds=np.zeros((len(THRESHOLDS), 0), np.int8),
        object_labels=np.zeros(0, np.int64),
        iou=np.zeros(0),
        sizes_px=np.zeros(0),
        found=np.zeros(0, bool),
        error_labels=np.zeros(0, np.int64),
        errors=np.zeros((0, 3)),
        not_counted=np.zeros(0, np.int64),
    )
    parts = [empty, *parts]
    return _Part(
        labels=np.concatenate([p.labels for p in parts]),
        scores=np.concatenate([p.scores for p in parts]),
        rows=np.concatenate([p.rows for p in parts]),
        kinds=np.concatenate([p.kinds for p in parts], axis=1),
        object_labels=np.concatenate([p.object_labels for p in parts]),
        iou=np.concatenate([p.iou for p in parts]),
        sizes_px=np.concatenate([p.sizes_px for p in parts]),
        found=np.concatenate([p.found for p in parts]),
        error_labels=np.concatenate([p.error_labels for p in parts]),
        errors=np.concatenate([p.errors for p in parts]),
        not_counted=np.sum([p.not_counted for p in parts[1:]], axis=0) if len(parts) > 1 else empty.not_counted,
    )


def _of_class(label: int, name: str, all_of: _Part, order: Int, compat: str) -> ClassScores:
    rows = order[all_of.labels[order] == label]
    objects = all_of.object_labels == label
    errors = all_of.errors[all_of.error_labels == label]
    return ClassScores(
        name=name,
        kinds=all_of.kinds[:, rows],
        scores=all_of.scores[rows],
        iou=all_of.iou[objects],
        sizes_px=all_of.sizes_px[objects],
        found=all_of.found[objects],
        errors=BoxErrors(errors[:, 0], errors[:, 1], errors[:, 2]),
        not_counted=int(all_of.not_counted[label]),
        compat=compat,
    )
