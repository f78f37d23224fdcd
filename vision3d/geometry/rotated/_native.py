# SPDX-License-Identifier: Apache-2.0
"""The compiled versions of overlap, suppression and point tests, where they are installed.

The only file of this floor that knows the compiled module; it is loaded at the first call that has use for it.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@functools.cache
def module() -> ModuleType | None:
    """The compiled module; None where it is not installed, or is one from before these functions."""
    try:
        found = importlib.import_module("vision3d.sparse._native")
    except ImportError:
        return None
    return found if hasattr(found, "box_nms") else None


def threads() -> int:
    """As many as the rest of the compiled module uses."""
    import torch  # here, so that those who only move boxes about need not load it

    return torch.get_num_threads()


def overlap_matrix(native: ModuleType, a: Float, b: Float, union: bool) -> Float:
    """Intersection over union, or over the area of a: (N, M) of boxes (N, 5) and (M, 5)."""
    out = np.zeros((len(a), len(b)))
    native.box_overlap_matrix(a, b, union, out, threads())
    return out


def overlap_pairs(native: ModuleType, a: Float, b: Float, union: bool) -> Float:
    """Intersection over union, or over the area of a: (N,) of boxes (N, 5) and (N, 5)."""
    out = np.empty(len(a))
    native.box_overlap_pairs(a, b, union, out, threads())
    return out


def inside(native: ModuleType, points: Float, boxes: Float) -> NDArray[np.bool_]:
    """(N, M) of points (N, 2) and boxes (M, 5)."""
    out = np.empty((len(points), len(boxes)), np.bool_)
    native.points_in_boxes(points, boxes, out.view(np.uint8), threads())
    return out


def greedy(native: ModuleType, boxes: Float, classes: NDArray[np.int64], iou: float) -> NDArray[np.int64]:
    """Rows to keep of boxes (N, 5) sorted by falling score, and their classes (N,)."""
    kept = np.empty(len(boxes), np.uint8)
    native.box_nms(boxes, np.ascontiguousarray(classes), iou, kept)
    return np.flatnonzero(kept)
