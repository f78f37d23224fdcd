# SPDX-License-Identifier: Apache-2.0
"""Observed descriptors on disk: one signed byte per channel, scaled by each descriptor's largest entry.

The rounding moves a unit descriptor by about 1e-4 in cosine, far below what two views of one point differ by.
Fields are fitted before it, to the full descriptors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = 127


def quantize(descriptors: NDArray[np.float32] | NDArray[np.float16]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """(M, C) -> int8 levels (M, C) and the value of level 127 of each row, float16 (M,)."""
    peak = np.abs(descriptors).max(axis=1, initial=0).astype(np.float16)
    scale = np.where(peak > 0, peak.astype(np.float32) / LEVELS, 1.0)
    levels = np.rint(descriptors.astype(np.float32) / scale[:, None])
    return np.clip(levels, -LEVELS, LEVELS).astype(np.int8), peak


def dequantize(levels: NDArray[np.int8], peak: NDArray[np.float16]) -> NDArray[np.float16]:
    """The inverse of :func:`quantize` up to rounding; exact for what it returned before.

    Raises:
        ValueError: the parts do not belong together.
    """
    if len(levels) != len(peak):
        raise ValueError(f"{len(levels)} descriptors but {len(peak)} peaks")
    return (levels.astype(np.float32) * (peak.astype(np.float32) / LEVELS)[:, None]).astype(np.float16)
