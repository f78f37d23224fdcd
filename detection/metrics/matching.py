# SPDX-License-Identifier: Apache-2.0
"""Which detection found which object, at several IoU limits: the greedy assignments of VOC (and DOTA) and of COCO."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.metrics.config import MetricsConfig
from detection.metrics.image import ScoredImage
from detection.metrics.overlaps import Overlaps

Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

FALSE, TRUE, IGNORED = 0, 1, -1

# 0.50, 0.55 ... 0.95 as the nearest doubles of the decimals, which steps of 0.05 would miss.
THRESHOLDS: tuple[float, ...] = tuple(i / 100 for i in range(50, 100, 5))


@dataclass(frozen=True)
class Matches:
    """What M detections of an image turned out to be, at T IoU limits.

    Attributes:
        kinds: (T, M) int8: TRUE, FALSE or IGNORED.
        objects: (T, M) the object that a true or ignored detection stands for; -1 for a false one.
    """

    kinds: NDArray[np.int8]
    objects: Int


def match_image(image: ScoredImage, config: MetricsConfig, thresholds: tuple[float, ...] = THRESHOLDS) -> Matches:
    """Give the detections of ``image``, best score first, to its objects of the same class.

    Objects that do not count take any number of detections, which then are ignored. Classes do not touch one another,
    so that one pass serves them all.
    """
    pairs = image.own
    shape = (len(thresholds), len(image.boxes))
    kinds, objects = np.full(shape, FALSE, dtype=np.int8), np.full(shape, -1, dtype=np.int64)
    for i, limit in enumerate(thresholds):
        passing = pairs.where(pairs.iou > limit if config.strict else pairs.iou >= limit)
        match = match_best if config.match == "voc" else match_free
        kinds[i], objects[i] = match(passing, image.counts)
    return Matches(kinds, objects)


def match_best(passing: Overlaps, counts: Bool) -> tuple[NDArray[np.int8], Int]:
    """VOC: a detection goes to the object of highest IoU, and is false if that one is taken.

    That the best object is looked for among the passing pairs only changes nothing: if any passes, the best does.
    """
    kinds = np.full(passing.shape[0], FALSE, dtype=np.int8)
    _, best = passing.best_columns()
    rows = np.flatnonzero(best >= 0)
    counted = counts[best[rows]]
    kinds[rows[~counted]] = IGNORED
    candidates = rows[counted]
    _, first = np.unique(best[candidates], return_index=True)
    kinds[candidates[first]] = TRUE
    return kinds, np.where(kinds == FALSE, -1, best)


def match_free(passing: Overlaps, counts: Bool) -> tuple[NDArray[np.int8], Int]:
    """COCO: a detection goes to the best object that counts and is free, else to one that does not count."""
    kinds = np.full(passing.shape[0], FALSE, dtype=np.int8)
    objects = np.full(passing.shape[0], -1, dtype=np.int64)
    taken = np.zeros(passing.shape[1], dtype=bool)
    order = np.lexsort((passing.columns, -passing.iou, ~counts[passing.columns], passing.rows))
    for row, column in zip(passing.rows[order], passing.columns[order], strict=True):
        if objects[row] >= 0 or taken[column]:
            continue
        objects[row] = column
        taken[column] = counts[column]
        kinds[row] = TRUE if counts[column] else IGNORED
    return kinds, objects
