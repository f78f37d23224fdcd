# SPDX-License-Identifier: Apache-2.0
"""What makes a pair unusable, or so odd that a wrong answer would look right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError
from vision3d.types import CloudPair

Float = NDArray[np.float64]

# No scan of one sensor spans more: in millimetres a room already does.
_LARGEST_M = 2000.0
_SMALLEST_M = 0.05
# A scene is flat: the vertical spread is the smallest. Only a clear case counts, rooms are not flat.
_CLEARLY_FLAT = 2.5
_NAMES = "xyz"


def check_finite(pair: CloudPair) -> None:
    """Raises:
    DataError: a cloud is empty, of the wrong shape, or holds NaN or infinity.
    """
    for which, points in (("source", pair.source), ("target", pair.target)):
        if points.ndim != 2 or points.shape[1] != 3:
            raise DataError(pair.name, f"the {which} cloud has shape {points.shape}, not (N, 3)")
        if len(points) == 0:
            raise DataError(pair.name, f"the {which} cloud is empty")
        bad = int((~np.isfinite(points)).any(axis=1).sum())
        if bad:
            raise DataError(
                pair.name,
                f"{bad} of {len(points)} points of the {which} cloud are not finite; remove them, or add "
                "'?drop_nan=1' to the files",
            )


def check_plausible(pair: CloudPair) -> None:
    """Refuse clouds in other units than metres, in frames that do not belong together, or in other axes than stated.

    Raises:
        DataError: with what looks wrong, and how to mend it or go on in spite of it.
    """
    low_s, high_s = _bounds(pair.source)
    low_t, high_t = _bounds(pair.target)
    ratio = float((high_s - low_s).max() / max((high_t - low_t).max(), 1e-9))
    if max(ratio, 1 / max(ratio, 1e-9)) > 50:
        _refuse(pair, f"one cloud is {max(ratio, 1 / ratio):.0f} times as large as the other: are both in metres?")
    for which, low, high in (("source", low_s, high_s), ("target", low_t, high_t)):
        span = float((high - low).max())
        if span > _LARGEST_M:
            _refuse(
                pair, f"the {which} cloud spans {span:.0f} m: is it in millimetres? Add '?scale=0.001' to the files"
            )
        if 0 < span < _SMALLEST_M:
            _refuse(pair, f"the {which} cloud spans {1e3 * span:.1f} mm: is it in kilometres? Add '?scale=1000'")
    gap = np.maximum(low_s - high_t, low_t - high_s).max()
    if gap > 10.0:
        _refuse(pair, f"the clouds lie {gap:.1f} m apart: both must be in their sensor's frame, or one common frame")
    flat_s, flat_t = _flat_axis(low_s, high_s), _flat_axis(low_t, high_t)
    if flat_s is not None and flat_t is not None and flat_s != flat_t:
        _refuse(
            pair,
            f"the source is flat along {_NAMES[flat_s]} and the target along {_NAMES[flat_t]}: "
            "they are in different frames of reference",
        )
    up = 2 if pair.axes == "lidar" else 1
    if flat_s is not None and flat_s == flat_t and flat_s != up:
        other = {1: "camera", 2: "lidar"}.get(flat_s)
        remedy = f"add '?axes={other}'" if other else "turn them first"
        _refuse(
            pair,
            f"both clouds are flat along {_NAMES[flat_s]}, but in {pair.axes} axes {_NAMES[up]} is up: {remedy}",
        )


def _refuse(pair: CloudPair, problem: str) -> None:
    raise DataError(pair.name, f"{problem} (--no-checks goes on in spite of it)")


def _bounds(points: NDArray[np.float32]) -> tuple[Float, Float]:
    """(3,) and (3,): the bulk of the points, without the 1 % farthest out on either side."""
    low, high = np.percentile(points.astype(np.float64), [1, 99], axis=0)
    return low, high


def _flat_axis(low: Float, high: Float) -> int | None:
    """The axis along which the cloud is by far the flattest, if there is one."""
    extent = high - low
    order = np.argsort(extent)
    if extent[order[1]] > _CLEARLY_FLAT * max(float(extent[order[0]]), 1e-9):
        return int(order[0])
    return None
