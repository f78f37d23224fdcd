# SPDX-License-Identifier: Apache-2.0
"""Angles as three cosines: the phase-shifting coder with one frequency (step 9).

Yu and Da, "Phase-Shifting Coder: Predicting Accurate Orientation in Oriented Object Detection", CVPR 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

STEPS = 3


def encode(theta: Tensor) -> Tensor:
    """(..., 3) codes ``cos(2 theta + 2 pi k / 3)`` of angles (...,) in radians: the same for theta and theta + pi."""
    return torch.cos(2 * theta[..., None] + _shifts(theta))


def decode(codes: Tensor) -> Tensor:
    """(...,) radians in [-pi/2, pi/2) of codes (..., 3); their common factor and offset do not matter.

    All codes equal give 0 with zero gradient.
    """
    shifts = _shifts(codes)
    sine = (codes * torch.sin(shifts)).sum(-1)
    cosine = (codes * torch.cos(shifts)).sum(-1)
    # atan2 has no gradient at the origin.
    lost = (sine.square() + cosine.square()) < 1e-24
    theta = -0.5 * torch.atan2(torch.where(lost, 0.0, sine), torch.where(lost, 1.0, cosine))
    return torch.where(theta >= math.pi / 2, theta - math.pi, theta)


def wrap(theta: Tensor) -> Tensor:
    """Angles in [-pi/2, pi/2), radians, equal up to half turns."""
    return torch.remainder(theta + math.pi / 2, math.pi) - math.pi / 2


def _shifts(like: Tensor) -> Tensor:
    return 2 * math.pi / STEPS * torch.arange(STEPS, dtype=like.dtype, device=like.device)
