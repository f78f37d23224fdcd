# SPDX-License-Identifier: Apache-2.0
"""What every flow method takes and gives. Ground, ego-motion, checks and files are the pipeline's business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vision3d.types.clouds import Axes

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Problem:
    """Two clouds, cleaned: finite, of the ground only if nobody took it away, the sensor's motion undone if known.

    Attributes:
        source, target: (N, 3) and (M, 3) float32 metres, N and M at least 1.
        axes: what x, y and z are, see ``vision3d.types.clouds``.
        dt_s: seconds between the clouds.
        compensated: whether the sensor's motion is undone, so that what stands still has flow zero.
        seed: for methods that draw samples; the same problem and seed give the same bytes.
    """

    source: Float32
    target: Float32
    axes: Axes = "lidar"
    dt_s: float = 0.1
    compensated: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """A method's answer, a row per source point.

    Attributes:
        flow: (N, 3) float32 metres.
        confidence: (N,) float32 in [0, 1], or None.
        dynamic: (N,) points that the method holds for moving, or None.
        sampled: (N,) points it answered itself, the others being interpolated; None means all.
        extra: small JSON-able facts.
    """

    flow: Float32
    confidence: Float32 | None = None
    dynamic: NDArray[np.bool_] | None = None
    sampled: NDArray[np.bool_] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class FlowMethod(Protocol):
    """A flow method, configured. ``deterministic`` says that the seed changes nothing."""

    deterministic: bool

    def estimate(self, problem: Problem) -> Estimate:
        """The flow of every source point."""
        ...
