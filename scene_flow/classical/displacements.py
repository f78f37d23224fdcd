# SPDX-License-Identifier: Apache-2.0
"""Displacements that many pairs of points agree on: where a search for a motion starts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, uniform_filter

Float = NDArray[np.float64]

BIN_M = 0.15
BINS_ACROSS = 61  # most bins per axis; a wider window has wider bins
LEVEL_M = 0.2  # planar: pairs that differ more in height are of different parts


def displacement_seeds(source: Float, target: Float, window_m: float, count: int, planar: bool) -> Float:
    """(K, 3) the centres of the fullest bins of q - p over all pairs of points, at most ``count``, fullest first.

    The histogram is averaged over the neighbouring bins, and only its local maxima count.

    Args:
        source, target: (n, 3) and (m, 3) metres; a table of n x m is made.
        window_m: displacements up to this on every axis.
        planar: displacements are level.
    """
    bin_m = max(BIN_M, 2 * window_m / BINS_ACROSS)
    half = int(np.ceil(window_m / bin_m - 0.5))
    axes = 2 if planar else 3
    difference = (target[None] - source[:, None]).reshape(-1, 3)
    if planar:
        difference = difference[np.abs(difference[:, 2]) < LEVEL_M]
    at = np.floor(difference[:, :axes] / bin_m + 0.5).astype(np.int64) + half
    size = 2 * half + 1
    at = at[((at >= 0) & (at < size)).all(axis=1)]
    votes = np.bincount(np.ravel_multi_index(tuple(at.T), (size,) * axes), minlength=size**axes)
    # Filters of floats add and take away, and leave dust in empty bins; of integers they would round.
    mean = np.round(uniform_filter(votes.reshape((size,) * axes).astype(np.float64), 3, mode="constant"), 6)
    peaks = np.argwhere((mean == maximum_filter(mean, 5, mode="constant")) & (mean > 0))
    fullest = np.argsort(-mean[tuple(peaks.T)], kind="stable")[:count]
    seeds = np.zeros((len(fullest), 3))
    seeds[:, :axes] = (peaks[fullest] - half) * bin_m
    return seeds
