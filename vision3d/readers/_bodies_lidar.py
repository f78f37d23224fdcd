# SPDX-License-Identifier: Apache-2.0
"""A spinning LiDAR: beams at fixed elevations that turn about the vertical, at the origin of its frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vision3d.types.clouds import Axes
from vision3d.types.frames import Float

# Degrees above and below the horizon: the fans of common 32-beam and 64-beam sensors.
SPARSE_FAN_DEG, DENSE_FAN_DEG, DENSE_BEAMS = (10.0, -30.0), (2.0, -24.8), 48
NEAREST_M = 1.5
WOBBLE_DEG = 0.01  # of a beam's elevation; keeps neighbouring rings apart


@dataclass(frozen=True)
class Lidar:
    """Axes: x forward, y left, z up. A whole turn is taken at one instant: nothing moves while it turns.

    Attributes:
        beams: rings.
        columns: shots of each beam in a turn.
        far_m: what lies beyond gives no return.
    """

    beams: int
    columns: int
    far_m: float
    axes: Axes = "lidar"
    dt_s: float = 0.1
    camera: None = None

    @property
    def fan_deg(self) -> tuple[float, float]:
        """Elevation of the highest and of the lowest beam."""
        return DENSE_FAN_DEG if self.beams >= DENSE_BEAMS else SPARSE_FAN_DEG

    def all_rays(self, rng: Generator) -> Float:
        """One turn, column after column, that starts at a random angle: no two turns shoot the same ray."""
        azimuth = (np.arange(self.columns) + rng.random()) * (2 * np.pi / self.columns)
        beam = np.tile(np.arange(self.beams), self.columns)
        return self._rays(beam, np.repeat(azimuth, self.beams), rng)

    def some_rays(self, rng: Generator, count: int) -> Float:
        """Random beams at random azimuths."""
        return self._rays(rng.integers(self.beams, size=count), rng.random(count) * (2 * np.pi), rng)

    def _rays(self, beam: NDArray[np.int64], azimuth: Float, rng: Generator) -> Float:
        """(R, 3) unit vectors."""
        elevation = np.radians(np.linspace(*self.fan_deg, self.beams)[beam] + rng.normal(0, WOBBLE_DEG, len(beam)))
        level = np.cos(elevation)
        return np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], axis=1)

    def sees(self, points: Float) -> NDArray[np.bool_]:
        """Within range and within the fan."""
        reach = np.maximum(np.linalg.norm(points, axis=1), 1e-12)
        elevation = np.degrees(np.arcsin(points[:, 2] / reach))
        high, low = self.fan_deg
        fan = (elevation < high + 5 * WOBBLE_DEG) & (elevation > low - 5 * WOBBLE_DEG)
        return np.asarray(fan & (reach > NEAREST_M) & (reach < self.far_m))

    def noisy(self, points: Float, noise_m: float, rng: Generator) -> Float:
        """Noise along the ray: a LiDAR errs in range."""
        reach = np.linalg.norm(points, axis=1, keepdims=True)
        return np.asarray(points * (1 + rng.normal(0, 1, (len(points), 1)) * noise_m / reach))
