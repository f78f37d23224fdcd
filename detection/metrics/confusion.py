# SPDX-License-Identifier: Apache-2.0
"""Which class was taken for which: counts of true classes against found ones, with the background as a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.metrics.config import MetricsConfig
from detection.metrics.image import ScoredImage, scored_images
from detection.metrics.matching import IGNORED, TRUE, match_best, match_free
from vision3d.types import BoxResult, BoxTruth, Table

Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

BACKGROUND = "background"
IOU = 0.5


@dataclass(frozen=True)
class Confusion:
    """Counts over all images.

    Attributes:
        names: the C classes and then the background.
        counts: (C + 1, C + 1) int64, true class by found class. The last column counts missed objects, the last row
            detections where there is no object; their common cell is 0.
    """

    names: tuple[str, ...]
    counts: Int


def confusion_exhibit(confusion: Confusion) -> Table:
    """The counts as a table of a report, without the classes that nobody has seen."""
    used = (confusion.counts.sum(axis=0) + confusion.counts.sum(axis=1)) > 0
    used[-1] = True
    names = [name for name, seen in zip(confusion.names, used, strict=True) if seen]
    counts = confusion.counts[used][:, used].tolist()
    rows = tuple((name, *row) for name, row in zip(names, counts, strict=True))
    note = (
        "True classes down, found ones across; missed objects are in the last column, false detections in the last row."
    )
    return Table("confusion", "Which class was taken for which", ("true \\ found", *names), rows, note)


def confusion_matrix(
    results: Sequence[BoxResult], truths: Sequence[BoxTruth], config: MetricsConfig | None = None
) -> Confusion:
    """Detections of a score of at least ``config.confusion_score`` against objects at an IoU of 0.5, over all images.

    An object first goes to a detection of its own class; what is left is matched whatever the class. A detection on an
    object that does not count, or a second one on the same object, is left out of the first and counted as background
    in the second case.

    Raises:
        ValueError, UserError: as :func:`detection.metrics.image.scored_images`.
    """
    config = config or MetricsConfig()
    counts = np.zeros((0, 0), dtype=np.int64)
    names: tuple[str, ...] = (BACKGROUND,)
    for image in scored_images(results, truths, config):
        if not len(counts):
            names = (*image.classes, BACKGROUND)
            counts = np.zeros((len(names), len(names)), dtype=np.int64)
        _count(image, config, counts)
    return Confusion(names, counts if len(counts) else np.zeros((1, 1), dtype=np.int64))


def found_objects(image: ScoredImage, shown: Bool, config: MetricsConfig) -> tuple[Int, Bool]:
    """What each of the ``shown`` (M,) detections stands for at an IoU of 0.5, first by class, then whatever the class.

    Returns:
        (M,) object or -1, each object at most once among those that count; (M,) detections to be left out, because
        they lie on an object that does not count.
    """
    passes = image.overlaps.iou > IOU if config.strict else image.overlaps.iou >= IOU
    passing = image.overlaps.where(passes & shown[image.overlaps.rows])
    own = passing.where(image.labels[passing.rows] == image.true_labels[passing.columns])
    kinds, objects = match_best(own, image.counts) if config.match == "voc" else match_free(own, image.counts)
    stands_for = np.where(kinds == TRUE, objects, -1)
    left_out = kinds == IGNORED
    taken = np.zeros(len(image.counts), dtype=bool)
    taken[stands_for[stands_for >= 0]] = True
    # A second detection of its own class is a duplicate, not a confusion with its neighbour's class.
    settled = np.zeros(len(image.boxes), dtype=bool)
    settled[own.rows] = True
    rest = passing.where(~settled[passing.rows] & ~taken[passing.columns])
    kinds, objects = match_free(rest, image.counts)
    stands_for = np.where(kinds == TRUE, objects, stands_for)
    return stands_for, left_out | (kinds == IGNORED)


def _count(image: ScoredImage, config: MetricsConfig, counts: Int) -> None:
    background = len(counts) - 1
    shown = (image.scores >= config.confusion_score) | (image.ids is not None)
    stands_for, left_out = found_objects(image, shown, config)
    shown &= ~left_out
    missed = image.counts.copy()
    missed[stands_for[stands_for >= 0]] = False
    # Row -1 of the object labels, for detections that stand for none, is the background.
    true = np.append(image.true_labels, background)[stands_for]
    np.add.at(counts, (true[shown], image.labels[shown]), 1)
    counts[:-1, background] += np.bincount(image.true_labels[missed], minlength=background)
