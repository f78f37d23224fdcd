# SPDX-License-Identifier: Apache-2.0
"""The phase-shifting code of angles in two frequencies (Yu and Da, CVPR 2023).

Three cosines of twice the angle tell where the long side lies; three of four times the angle, that are the same for a
square and the square turned by 90 degrees, tell it exactly. Neither has a border, so a network can learn both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHANNELS = 6
_STEPS = tuple(2 * math.pi * k / 3 for k in range(3))
# Where a code is nearly 0 its angle is undefined; gradients through the angle are damped there.
_DAMPING = 0.1


def encode(angles: Tensor) -> Tensor:
    """(...,) radians -> (..., 6) in [-1, 1]: ``cos(2 a + s)`` and ``cos(4 a + s)`` for s = 0, 120, 240 degrees."""
    steps = angles.new_tensor(_STEPS)
    return torch.cat([torch.cos(f * angles[..., None] + steps) for f in (2, 4)], -1)


def decode(codes: Tensor) -> Tensor:
    """(..., 6) -> (...,) radians in [-3 pi / 4, 3 pi / 4], a box's angle up to half turns; of any scale."""
    coarse, fine = _phase(codes[..., :3]) / 2, _phase(codes[..., 3:]) / 4
    quarter = math.pi / 2
    return fine + quarter * torch.round((coarse - fine).detach() / quarter)


def _phase(code: Tensor) -> Tensor:
    """(..., 3) -> the angle of the phase in [-pi, pi], with a gradient that stays finite."""
    steps = code.new_tensor(_STEPS)
    y, x = -(code * torch.sin(steps)).sum(-1), (code * torch.cos(steps)).sum(-1)
    at_x, at_y = x.detach(), y.detach()
    phase = torch.atan2(at_y, at_x)
    if not code.requires_grad:
        return phase
    return phase + (at_x * y - at_y * x) / (at_x.square() + at_y.square() + _DAMPING)
