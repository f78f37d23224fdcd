# SPDX-License-Identifier: Apache-2.0
"""Progressive switching: which parts of PointOBB are at work, from the part of the run that is done (step 14)."""

from __future__ import annotations

from enum import IntEnum

from detection.pointobb.config import PointObbConfig


class Phase(IntEnum):
    """What a step trains."""

    SCALE = 1  # original and resized view, horizontal boxes
    ANGLE = 2  # original and rotated view, angles are learned
    ASSIGN = 3  # and boxes take them


def phase_at(progress: float, config: PointObbConfig) -> Phase:
    """The phase at ``progress`` in [0, 1].

    It is never stored on its own: a network that carries its progress is in the right phase after loading.
    """
    if progress >= config.assign_from:
        return Phase.ASSIGN
    return Phase.ANGLE if progress >= config.angle_from else Phase.SCALE
