# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression with exact rotated overlap: greedy and soft, within classes, ties in a fixed order."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry.rotated import _native
from vision3d.geometry.rotated.boxes import check_boxes
from vision3d.geometry.rotated.corners import hulls
from vision3d.geometry.rotated.iou import iou_matrix

Float = NDArray[np.float64]
Int = NDArray[np.int64]


def nms(boxes: ArrayLike, scores: ArrayLike, iou: float, labels: ArrayLike | None = None) -> Int:
    """Rows of the boxes to keep, by falling score: each is dropped that overlaps a kept one by more than ``iou``.

    Args:
        boxes: (N, 5).
        scores: (N,); equal scores go by row.
        iou: from 0 to 1; an overlap of exactly this much is kept.
        labels: (N,) classes; boxes of different classes leave each other alone. None: all are one class.

    Raises:
        ValueError: lengths differ, a score is not a number, ``iou`` out of range; or see
            :func:`~vision3d.geometry.rotated.check_boxes`.
    """
    boxes, scores, classes = _checked(boxes, scores, labels, iou)
    order = np.argsort(-scores, kind="stable")
    native = _native.module()
    if native is not None:
        return order[_native.greedy(native, boxes[order], classes[order], iou)]
    return order[_greedy(boxes[order], classes[order], iou)]


def soft_nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    iou: float = 0.3,
    labels: ArrayLike | None = None,
    method: Literal["linear", "gaussian"] = "linear",
    sigma: float = 0.5,
    min_score: float = 0.001,
) -> tuple[Int, Float]:
    """Suppression that lowers scores instead of dropping boxes (Bodla et al., ICCV 2017).

    The best box is taken, the scores of its neighbours fall, and so on until none is above ``min_score``.

    Args:
        boxes: (N, 5).
        scores: (N,), not negative; equal scores go by row.
        iou: linear only: overlaps up to this leave a score as it is.
        labels: (N,) classes; boxes of different classes leave each other alone.
        method: ``linear`` multiplies by ``1 - overlap``, ``gaussian`` by ``exp(-overlap^2 / sigma)``.
        sigma: width of the gaussian.
        min_score: boxes below are dropped.

    Returns:
        Rows kept in the order they were taken, and their new scores.

    Raises:
        ValueError: as :func:`nms`; or an unknown method, a sigma that is not positive.
    """
    boxes, scores, classes = _checked(boxes, scores, labels, iou)
    if method not in ("linear", "gaussian"):
        raise ValueError(f"method must be linear or gaussian, not {method!r}")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, not {sigma:g}")
    left = scores.copy()
    waiting = left >= min_score
    rows: list[int] = []
    taken: list[float] = []
    while waiting.any():
        best = int(np.argmax(np.where(waiting, left, -np.inf)))
        rows.append(best)
        taken.append(float(left[best]))
        waiting[best] = False
        others = np.flatnonzero(waiting & (classes == classes[best]))
        overlap = iou_matrix(boxes[best : best + 1], boxes[others])[0]
        if method == "linear":
            left[others] *= np.where(overlap > iou, 1 - overlap, 1.0)
        else:
            left[others] *= np.exp(-(overlap**2) / sigma)
        waiting &= left >= min_score
    return np.array(rows, dtype=np.int64), np.array(taken)


def _checked(boxes: ArrayLike, scores: ArrayLike, labels: ArrayLike | None, iou: float) -> tuple[Float, Float, Int]:
    boxes = check_boxes(boxes)
    scores = np.asarray(scores, dtype=np.float64)
    classes = np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels).astype(np.int64)
    if scores.shape != (len(boxes),) or classes.shape != (len(boxes),):
        raise ValueError(f"{len(boxes)} boxes, but scores {scores.shape} and labels {classes.shape}")
    if np.isnan(scores).any():
        raise ValueError(f"scores[{int(np.argmax(np.isnan(scores)))}] is not a number")
    if not 0 <= iou <= 1:
        raise ValueError(f"iou must lie between 0 and 1, not {iou:g}")
    return boxes, scores, classes


def _greedy(boxes: Float, classes: Int, iou: float) -> Int:
    """Rows to keep of boxes that are sorted already; plain version."""
    hull = hulls(boxes)
    left = np.ones(len(boxes), bool)
    kept = []
    for row in range(len(boxes)):
        if not left[row]:
            continue
        kept.append(row)
        meet = (hull[row, :2] <= hull[row + 1 :, 2:]) & (hull[row + 1 :, :2] <= hull[row, 2:])
        near = row + 1 + np.flatnonzero(meet.all(axis=1) & left[row + 1 :] & (classes[row + 1 :] == classes[row]))
        left[near[iou_matrix(boxes[row : row + 1], boxes[near])[0] > iou]] = False
    return np.array(kept, dtype=np.int64)
