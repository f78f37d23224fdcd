# SPDX-License-Identifier: Apache-2.0
"""Landmarks whose descriptor turns with the viewing direction in a known way: truth for testing descriptor fields.

Seen from the unit direction ``(x, y, z)`` (z towards the middle of the cameras) a landmark has the descriptor

    normalise(m + strength (a x + b y + 0.25 (c x^2 + e sqrt(2) x y + g y^2))),

with m, a, b, c, e, g drawn from a normal distribution per channel: a smooth function of low order, nearly linear. With
12 views within 30 x 15 degrees, the strengths MEDIUM and STRONG give the median and the nearest descriptor of those
views the same cosine to the truth as the published experiment on real view dependence has, within 0.01 (at most 0.016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relocalization.fit_rays import ObservedRays

Float = NDArray[np.float64]
NONE, MEDIUM, STRONG = 0.0, 0.8, 1.5
DISTANCE_M, FOCAL_PX = 2.0, 525.0


@dataclass(frozen=True, eq=False)
class SyntheticLandmarks:
    """N landmarks that turn with the view, metres apart.

    Attributes:
        points: (N, 3) world, metres.
        mean: (N, C); linear: (N, 2, C); quadratic: (N, 3, C), the coefficients, strength included.
        turn: (N, 3, 3) rotation from the frame of the directions to the world.
    """

    points: Float
    mean: Float
    linear: Float
    quadratic: Float
    turn: Float

    @classmethod
    def draw(cls, count: int, channels: int, strength: float, seed: int, turned: bool = False) -> SyntheticLandmarks:
        """Random landmarks; with ``turned`` each cone of views points elsewhere, otherwise all along the world's z."""
        rng = np.random.default_rng(seed)
        turn = np.tile(np.eye(3), (count, 1, 1))
        if turned:
            q, r = np.linalg.qr(rng.normal(size=(count, 3, 3)))
            turn = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]
            turn[:, :, 2] *= np.linalg.det(turn)[:, None]
        return cls(
            points=rng.uniform(-5, 5, (count, 3)),
            mean=rng.normal(size=(count, channels)),
            linear=strength * rng.normal(size=(count, 2, channels)),
            quadratic=0.25 * strength * rng.normal(size=(count, 3, channels)),
            turn=turn,
        )

    def descriptors(self, directions: Float) -> Float:
        """(N, V, C) unit descriptors seen from directions (N, V, 3), given in the frame of the directions."""
        x, y = directions[..., 0], directions[..., 1]
        square = np.stack([x * x, np.sqrt(2.0) * x * y, y * y], axis=-1)
        raw = self.mean[:, None] + directions[..., :2] @ self.linear + square @ self.quadratic
        return raw / np.linalg.norm(raw, axis=-1, keepdims=True)

    def cameras(self, directions: Float) -> Float:
        """(N, V, 3) camera centres, 2 m away."""
        return self.points[:, None] + DISTANCE_M * directions @ self.turn.transpose(0, 2, 1)

    def observe(self, directions: Float, seed: int, noise: float = 0.02, patch_radius: int = 1) -> ObservedRays:
        """What cameras in directions (N, V, 3) record: per view ``(2 patch_radius + 1)^2`` rays, the centre first.

        Args:
            noise: standard deviation per channel and ray; descriptors are normalised after it.
            patch_radius: pixels to either side; neighbouring pixels see the landmark's descriptor too.
        """
        rng = np.random.default_rng(seed)
        count, views = directions.shape[:2]
        offsets = sorted(
            ((i, j) for i in range(-patch_radius, patch_radius + 1) for j in range(-patch_radius, patch_radius + 1)),
            key=lambda o: (o != (0, 0), o),
        )
        cameras = self.cameras(directions)
        forward = self.points[:, None] - cameras
        right = np.cross(forward, self.turn[:, None, :, 1])
        right /= np.linalg.norm(right, axis=-1, keepdims=True)
        down = np.cross(forward, right) / DISTANCE_M
        pixel = DISTANCE_M / FOCAL_PX
        rays = [forward + pixel * (i * right + j * down) for i, j in offsets]
        truth = self.descriptors(directions)
        seen = truth[:, :, None] + noise * rng.normal(size=(count, views, len(offsets), truth.shape[-1]))
        seen /= np.linalg.norm(seen, axis=-1, keepdims=True)
        size = count * views * len(offsets)
        index = np.indices((count, views, len(offsets))).reshape(3, size)
        return ObservedRays(
            landmark=index[0].astype(np.int64),
            view=index[1].astype(np.int64),
            origins=np.repeat(cameras.reshape(-1, 3), len(offsets), axis=0),
            directions=np.stack(rays, axis=2).reshape(size, 3),
            descriptors=seen.reshape(size, -1).astype(np.float32),
        )

    @property
    def half_sizes(self) -> Float:
        """(N,) boxes 12 px wide."""
        return np.full(len(self.points), 6.0 * DISTANCE_M / FOCAL_PX)


def directions_of(azimuth_deg: Float, elevation_deg: Float) -> Float:
    """(..., 3) unit directions; azimuth turns z towards x, elevation towards y."""
    az, el = np.radians(azimuth_deg), np.radians(elevation_deg)
    return np.stack([np.sin(az) * np.cos(el), np.sin(el) * np.ones_like(az), np.cos(az) * np.cos(el)], axis=-1)


def random_directions(count: int, views: int, seed: int, azimuth_deg: float = 30, elevation_deg: float = 15) -> Float:
    """(N, V, 3) directions, uniform in azimuth and elevation."""
    rng = np.random.default_rng(seed)
    az = rng.uniform(-azimuth_deg, azimuth_deg, (count, views))
    return directions_of(az, rng.uniform(-elevation_deg, elevation_deg, (count, views)))


def median_and_nearest(views: Float, descriptors: Float, queries: Float) -> tuple[Float, Float]:
    """What the classical baselines would answer: descriptors (N, Q, C) for query directions (N, Q, 3).

    Args:
        views: (N, V, 3) directions of the observations.
        descriptors: (N, V, C) what they observed.
    """
    median = np.median(descriptors, axis=1)
    median /= np.linalg.norm(median, axis=-1, keepdims=True)
    nearest = np.argmax(queries @ views.transpose(0, 2, 1), axis=-1)
    picked = np.take_along_axis(descriptors, nearest[..., None], axis=1)
    return np.repeat(median[:, None], queries.shape[1], axis=1), picked
