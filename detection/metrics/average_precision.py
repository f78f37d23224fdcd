# SPDX-License-Identifier: Apache-2.0
"""Precision, recall and average precision: the area of VOC 2010 and later, and the 11 points of VOC 2007 and DOTA."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.metrics.matching import IGNORED, TRUE

Float = NDArray[np.float64]
Int = NDArray[np.int64]

# A recall of 3/10 is to reach the point 0.3 whatever the last bit of the division.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Curve:
    """Precision and recall after each of K detections, best score first; ignored ones are left out.

    Attributes:
        recall, precision: (K,) in [0, 1].
        scores: (K,) score of each detection.
    """

    recall: Float
    precision: Float
    scores: Float


def by_score(scores: Float, images: Int, rows: Int) -> Int:
    """(K,) order of detections from best to worst; equals by image, then by row, so no sort can change a number."""
    return np.lexsort((rows, images, -scores)).astype(np.int64)


def precision_recall(kinds: NDArray[np.int8], scores: Float, objects: int) -> Curve:
    """The curve of detections in their order.

    Args:
        kinds: (K,) TRUE, FALSE or IGNORED.
        scores: (K,) falling.
        objects: how many there are to find, above 0.
    """
    used = kinds != IGNORED
    true = np.cumsum(kinds[used] == TRUE)
    seen = np.arange(1, len(true) + 1)
    return Curve(true / objects, true / seen, scores[used])


def area_ap(curve: Curve) -> float:
    """Area under the curve after precision was made to fall (VOC 2010); 0 without detections."""
    if not len(curve.recall):
        return 0.0
    highest = np.maximum.accumulate(curve.precision[::-1])[::-1]
    return float((np.diff(curve.recall, prepend=0.0) * highest).sum())


def eleven_point_ap(curve: Curve, compat: str = "none") -> float:
    """Mean over recalls 0, 0.1 ... 1 of the best precision at that recall or above (VOC 2007).

    Args:
        compat: ``devkit`` takes the points from steps of 0.1, where 0.3, 0.6 and 0.7 come out a hair above and a
            detector of exactly that recall loses a step.
    """
    if compat == "devkit":
        points, slack = np.arange(0.0, 1.1, 0.1), 0.0
    else:
        points, slack = np.arange(11) / 10, TOLERANCE
    reached = [curve.precision[curve.recall >= point - slack] for point in points]
    return float(sum(precision.max() for precision in reached if len(precision)) / 11)
