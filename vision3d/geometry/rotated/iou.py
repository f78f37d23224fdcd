# SPDX-License-Identifier: Apache-2.0
"""Exact overlap of rotated boxes in double precision: every pair of two lists, or row by row.

Pairs whose circumscribed circles do not meet are left out before anything is clipped. A box without area overlaps
nothing, itself included: its values are 0. Results lie in [0, 1] and do not
depend on the order of a pair. The compiled version is used where it is installed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry.rotated import _native
from vision3d.geometry.rotated.boxes import check_boxes
from vision3d.geometry.rotated.clipping import shared_area

Float = NDArray[np.float64]

PAIRS_AT_ONCE = 1 << 16  # bounds the memory of the plain version


def iou_matrix(a: ArrayLike, b: ArrayLike) -> Float:
    """Intersection over union (N, M) of boxes a (N, 5) and b (M, 5).

    Raises:
        ValueError: see :func:`~vision3d.geometry.rotated.check_boxes`.
    """
    a, b = check_boxes(a, "a"), check_boxes(b, "b")
    return _matrix(a, b, union=True)


def iof_matrix(a: ArrayLike, b: ArrayLike) -> Float:
    """Intersection over the area of a (its foreground), (N, M), of boxes a (N, 5) and b (M, 5).

    Raises:
        ValueError: see :func:`~vision3d.geometry.rotated.check_boxes`.
    """
    a, b = check_boxes(a, "a"), check_boxes(b, "b")
    return _matrix(a, b, union=False)


def iou_pairs(a: ArrayLike, b: ArrayLike) -> Float:
    """Intersection over union (N,) of boxes a (N, 5) and b (N, 5), row by row.

    Raises:
        ValueError: different lengths; or see :func:`~vision3d.geometry.rotated.check_boxes`.
    """
    a, b = check_boxes(a, "a"), check_boxes(b, "b")
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} boxes and b has {len(b)}: pairs need as many of each")
    return _pairs(a, b, union=True)


def _matrix(a: Float, b: Float, union: bool) -> Float:
    native = _native.module()
    if native is not None:
        return _native.overlap_matrix(native, a, b, union)
    out = np.zeros((len(a), len(b)))
    rows = max(1, (1 << 20) // max(1, len(b)))
    for start in range(0, len(a), rows):
        i, j = np.nonzero(_near(a[start : start + rows, None], b[None]))
        out[i + start, j] = _pairs(a[i + start], b[j], union)
    return out


def _pairs(a: Float, b: Float, union: bool) -> Float:
    native = _native.module()
    if native is not None:
        return _native.overlap_pairs(native, a, b, union)
    out = np.zeros(len(a))
    near = np.flatnonzero(_near(a, b))
    for start in range(0, len(near), PAIRS_AT_ONCE):
        rows = near[start : start + PAIRS_AT_ONCE]
        out[rows] = _ratio(a[rows], b[rows], union)
    return out


def _near(a: Float, b: Float) -> NDArray[np.bool_]:
    """Whether circumscribed circles meet; boxes (..., 5) broadcast against each other."""
    reach = 0.5 * (np.hypot(a[..., 2], a[..., 3]) + np.hypot(b[..., 2], b[..., 3]))
    with np.errstate(over="ignore"):
        near: NDArray[np.bool_] = np.hypot(a[..., 0] - b[..., 0], a[..., 1] - b[..., 1]) <= reach
    return near


def _ratio(a: Float, b: Float, union: bool) -> Float:
    area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    shared = np.minimum(shared_area(a, b), np.minimum(area_a, area_b))
    base = area_a + area_b - shared if union else area_a
    solid = (area_a > 0) & (area_b > 0)
    return np.where(solid, shared / np.where(solid, base, 1.0), 0.0)
