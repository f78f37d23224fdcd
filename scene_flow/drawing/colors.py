# SPDX-License-Identifier: Apache-2.0
"""Colours of flow and of errors.

Flow takes its hue from its direction in the horizontal plane and its strength from its length, white being no motion,
as in optical flow (Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011). Errors run from
dark blue over sand to red, in brightness as well, so that they stay ordered for every kind of sight.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vision3d import canvas

Float = NDArray[np.float64]
Picture = NDArray[np.uint8]

# Error in metres -> colour; between the stops it is mixed. 5 and 10 cm are the bounds of Acc3DS and Acc3DR.
ERROR_STOPS_M = (0.0, 0.05, 0.10, 0.30, 1.0)
_ERROR_COLORS = np.array([(0, 34, 78), (86, 96, 120), (166, 157, 117), (254, 214, 70), (213, 30, 0)], dtype=np.float64)


def flow_colors(flow_h: Float, full_m: float) -> Picture:
    """(N, 3) uint8 of horizontal flow (N, 2), metres; ``full_m`` and more has the full colour."""
    if not len(flow_h):
        return np.zeros((0, 3), dtype=np.uint8)
    angle = np.degrees(np.arctan2(flow_h[:, 1], flow_h[:, 0])) % 360.0
    strength = np.clip(np.linalg.norm(flow_h, axis=1) / max(full_m, 1e-9), 0.0, 1.0)
    hsv = np.stack([angle, strength, np.full_like(angle, 0.95) - 0.15 * strength], axis=1).astype(np.float32)
    rgb = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    return np.asarray(np.rint(255.0 * rgb), dtype=np.uint8)


def full_strength(flow_h: Float) -> float:
    """The length that gets the full colour: that of the fast ones among the points that move, at least 10 cm."""
    length = np.linalg.norm(flow_h, axis=1)
    moving = length[length > 0.1]
    return float(np.percentile(moving, 90)) if len(moving) else 0.1


def error_colors(error_m: Float) -> Picture:
    """(N, 3) uint8 of errors (N,), metres; what is not a number or infinite has the last colour."""
    error = np.where(np.isfinite(error_m), error_m, ERROR_STOPS_M[-1])
    mixed = [np.interp(error, ERROR_STOPS_M, _ERROR_COLORS[:, channel]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(mixed, axis=1)), dtype=np.uint8)


def wheel(side_px: int) -> Picture:
    """(side, side, 3) the flow's colours by direction (right: +x of the panel, up: +y) and length, on paper."""
    half = side_px / 2
    y, x = np.mgrid[0:side_px, 0:side_px]
    vectors = np.stack([(x + 0.5 - half) / half, (half - y - 0.5) / half], axis=-1).reshape(-1, 2)
    colors = flow_colors(vectors, 1.0)
    colors[np.linalg.norm(vectors, axis=1) > 1.0] = canvas.PAPER
    return colors.reshape(side_px, side_px, 3)


def error_bar(width_px: int, height_px: int) -> Picture:
    """(height, width, 3) the colours of errors from 0 to 1 m, as wide between each pair of stops."""
    position = np.linspace(0, len(ERROR_STOPS_M) - 1, width_px)
    metres = np.interp(position, np.arange(len(ERROR_STOPS_M)), ERROR_STOPS_M)
    return np.repeat(error_colors(metres)[None], height_px, axis=0)
