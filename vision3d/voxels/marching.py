# SPDX-License-Identifier: Apache-2.0
"""How a ray is sampled inside a box and what a density means. Free of torch, so that configs can hold it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vision3d.errors import ConfigError


@dataclass(frozen=True)
class Marching:
    """Sampling of a ray's chord through a box of ``R^3`` nodes; one voxel is ``side / R`` long.

    With the step ``delta`` in voxels, a sample of raw density ``sigma`` has the opacity
    ``a = 1 - (1 + exp(sigma + b)) ** -delta``, ``b = log(1 / (1 - alpha0) - 1)`` (DVGO, Sun et al., CVPR 2022,
    eq. 4), which is ``1 - exp(-softplus(sigma + b) * delta)``: opacity means the same in a box of any size.

    Attributes:
        step: distance between samples in voxels, measured from the entry point; the last sample lies before the exit.
        samples: when not 0, every chord is cut into this many equal steps instead (FaVoR's paper form).
        alpha0: opacity of one voxel's length at ``sigma = 0``.
        early_stop: samples behind a transmittance below this are skipped; 0 renders exactly.
    """

    step: float = 0.1
    samples: int = 0
    alpha0: float = 0.01
    early_stop: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.step <= 10.0:
            raise ConfigError(f"marching.step is {self.step}: must lie in (0, 10] voxels")
        if self.samples < 0:
            raise ConfigError(f"marching.samples is {self.samples}: must not be negative")
        if not 0.0 < self.alpha0 < 1.0:
            raise ConfigError(f"marching.alpha0 is {self.alpha0}: must lie between 0 and 1")
        if not 0.0 <= self.early_stop < 1.0:
            raise ConfigError(f"marching.early_stop is {self.early_stop}: must lie in [0, 1)")

    @property
    def shift(self) -> float:
        """``b``, added to every raw density."""
        return math.log(1.0 / (1.0 - self.alpha0) - 1.0)
