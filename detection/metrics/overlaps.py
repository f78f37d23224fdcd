# SPDX-License-Identifier: Apache-2.0
"""Which boxes overlap which, and how much: only the pairs that do, so that dense images fit into memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.metrics.polygons import quad_iou
from vision3d.geometry import rotated

Float = NDArray[np.float64]
Int = NDArray[np.int64]

# Pairs of hulls that are compared at once: about 100 MB.
CHUNK = 1_000_000


@dataclass(frozen=True)
class Overlaps:
    """The K pairs of M boxes and N true ones whose IoU is above 0, by row and then by column.

    Attributes:
        rows, columns: (K,) int64.
        iou: (K,) float64 in (0, 1].
        shape: (M, N).
    """

    rows: Int
    columns: Int
    iou: Float
    shape: tuple[int, int]

    def where(self, chosen: NDArray[np.bool_]) -> Overlaps:
        """The pairs that (K,) ``chosen`` marks."""
        return Overlaps(self.rows[chosen], self.columns[chosen], self.iou[chosen], self.shape)

    def best_columns(self) -> tuple[Float, Int]:
        """(M,) highest IoU of each row, 0 where there is none, and (M,) its column, -1 where there is none."""
        return _best(self.rows, self.columns, self.iou, self.shape[0])

    def best_rows(self) -> tuple[Float, Int]:
        """(N,) highest IoU of each column and (N,) its row; 0 and -1 where there is none."""
        return _best(self.columns, self.rows, self.iou, self.shape[1])


def overlaps(boxes: Float, true_boxes: Float, quads: Float | None = None) -> Overlaps:
    """The overlapping pairs of (M, 5) and (N, 5) boxes; with ``quads`` (N, 4, 2), IoU is that with the quadrilaterals.

    Raises:
        ValueError: a box is not finite or has a negative size.
    """
    row, column = meeting(rotated.hulls(boxes), rotated.hulls(true_boxes))
    if quads is None:
        iou = rotated.iou_pairs(boxes[row], true_boxes[column])
    else:
        iou = quad_iou(boxes[row], quads[column])
    return Overlaps(row, column, iou, (len(boxes), len(true_boxes))).where(iou > 0)


def meeting(hulls: Float, others: Float) -> tuple[Int, Int]:
    """Rows of ``hulls`` (M, 4) and of ``others`` (N, 4), xyxy, whose insides meet, by row and then by column.

    The others are put in the order of their left sides, so that only those in reach of each hull are looked at.
    """
    if not len(hulls) or not len(others):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    order = np.argsort(others[:, 0], kind="stable")
    left = others[order, 0]
    widest = float((others[:, 2] - others[:, 0]).max())
    first = np.searchsorted(left, hulls[:, 0] - widest, side="left")
    counts = np.maximum(np.searchsorted(left, hulls[:, 2], side="left") - first, 0)
    parts, start = [], 0
    while start < len(hulls):
        stop = max(start + 1, start + int(np.searchsorted(np.cumsum(counts[start:]), CHUNK, side="right")))
        some = counts[start:stop]
        row = np.repeat(np.arange(start, stop), some)
        column = order[np.arange(len(row)) - np.repeat(np.cumsum(some) - some, some) + first[row]]
        a, b = hulls[row], others[column]
        near = (a[:, :2] < b[:, 2:]).all(axis=1) & (a[:, 2:] > b[:, :2]).all(axis=1)
        parts.append(np.stack([row[near], column[near]]))
        start = stop
    row, column = np.concatenate(parts, axis=1)
    by_row = np.lexsort((column, row))
    return row[by_row], column[by_row]


def _best(of: Int, other: Int, iou: Float, n: int) -> tuple[Float, Int]:
    # The first of equals wins, as with argmax over a row.
    order = np.lexsort((other, -iou, of))
    keys, first = np.unique(of[order], return_index=True)
    best, where = np.zeros(n), np.full(n, -1, dtype=np.int64)
    best[keys], where[keys] = iou[order][first], other[order][first]
    return best, where
