# SPDX-License-Identifier: Apache-2.0
"""Made-up ground of a known height with cars and a wall on it, sampled at random, and how high each point stands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Height = Callable[[Float], Float]


def flat(xy: Float) -> Float:
    return np.zeros(len(xy))


def sloped(xy: Float) -> Float:
    """A steep street that also leans: 10 % along x, 3 % along y."""
    return 0.10 * xy[:, 0] - 0.03 * xy[:, 1]


def stepped(xy: Float) -> Float:
    """A road between two pavements, with kerbs of 15 cm."""
    return np.where(np.abs(xy[:, 1]) > 4.0, 0.15, 0.0)


def ground_scene(height: Height, sensor_m: float, seed: int = 0) -> tuple[NDArray[np.float32], Float]:
    """Points (N, 3) on lidar axes, seen from ``sensor_m`` above the ground, and their height (N,) above the ground.

    The ground thins out with the range as a LiDAR's rings do; nothing is seen below the cars.
    """
    rng = np.random.default_rng(seed)
    r, angle = 3 * np.exp(rng.uniform(0, np.log(15), 6000)), rng.uniform(-np.pi, np.pi, 6000)
    ground = np.column_stack([r * np.cos(angle), r * np.sin(angle), np.zeros(6000)])
    cars = [(8.0, 3.0), (8.0, -3.0), (-12.0, 3.0), (15.0, -8.0), (-6.0, -7.0)]
    for car in cars:
        ground = ground[(np.abs(ground[:, :2] - car) > [2.2, 0.9]).any(axis=1)]
    parts = [ground, *(_box(rng, car) for car in cars)]
    wall = np.column_stack([rng.uniform(-30, 30, 1500), np.full(1500, 12.0), rng.uniform(0, 6, 1500)])
    points = np.concatenate([*parts, wall])
    above = points[:, 2].copy()
    points[:, 2] += height(points[:, :2]) + rng.normal(0, 0.01, len(points)) - sensor_m
    return points.astype(np.float32), above


def _box(rng: np.random.Generator, centre: tuple[float, float]) -> Float:
    """The sides and the roof of a car of 4.4 x 1.8 x 1.5 m."""
    points = rng.uniform(-1, 1, (300, 3))
    face = rng.integers(0, 3, 300)
    points[np.arange(300), face] = np.where(face == 2, 1.0, np.sign(points[np.arange(300), face]))
    return points * [2.2, 0.9, 0.75] + [*centre, 0.75]
