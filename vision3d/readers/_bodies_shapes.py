# SPDX-License-Identifier: Apache-2.0
"""Rigid bodies made of simple solids: what the generated scenes of ``bodies:`` consist of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import Generator

from vision3d.geometry.se3 import from_rt, rotvec_to_rotation, transform
from vision3d.types.clouds import FLOW_CLASSES
from vision3d.types.frames import Float

Kind = Literal["box", "ball", "cylinder"]
BACKGROUND = FLOW_CLASSES.index("BACKGROUND")


@dataclass(frozen=True)
class Solid:
    """A box, an ellipsoid or a cylinder about its z axis.

    Attributes:
        half: (3,) half extents in metres along its own axes.
        T_body_solid: (4, 4) where it sits in its body.
    """

    kind: Kind
    half: Float
    T_body_solid: Float

    @property
    def reach_m(self) -> float:
        """Distance from its centre to its farthest point."""
        if self.kind == "ball":
            return float(self.half.max())
        if self.kind == "cylinder":
            return float(np.hypot(self.half[:2].max(), self.half[2]))
        return float(np.linalg.norm(self.half))


@dataclass(frozen=True)
class Body:
    """Solids that move as one.

    Attributes:
        T_world_body: (4, 4) where it is at the first scan.
        motion: (4, 4) in the world, from the first scan to the second: takes every point of it to where it goes.
        category: a row of ``FLOW_CLASSES``.
        ground: whether it is part of the ground.
    """

    solids: tuple[Solid, ...]
    T_world_body: Float
    motion: Float
    category: int = BACKGROUND
    ground: bool = False

    @property
    def reach_m(self) -> float:
        """Distance from its origin to no less than its farthest point."""
        return max(float(np.linalg.norm(s.T_body_solid[:3, 3])) + s.reach_m for s in self.solids)


def solid(
    kind: Kind,
    half: tuple[float, float, float] | Float,
    at: tuple[float, float, float] = (0, 0, 0),
    rotation: Float | None = None,
) -> Solid:
    """A solid with its centre ``at`` a place of its body; its axes are the body's unless turned."""
    return Solid(kind, np.asarray(half, dtype=np.float64), from_rt(np.eye(3) if rotation is None else rotation, at))


def still(solids: tuple[Solid, ...], T_world_body: Float, ground: bool = False) -> Body:
    """Background that stands still."""
    return Body(solids, T_world_body, np.eye(4), ground=ground)


def turned_about(center: Float, rotation: Float, shift: Float) -> Float:
    """(4, 4) motion that turns about ``center`` (3,) by ``rotation`` (3, 3) and then shifts by (3,)."""
    return from_rt(rotation, center - rotation @ center + shift)


def moved(body: Body, rotation: Float, shift: Float) -> Body:
    """The body with a motion: turned about its own origin, then shifted, between the scans."""
    return replace(body, motion=turned_about(body.T_world_body[:3, 3], rotation, shift))


def random_direction(rng: Generator) -> Float:
    """(3,) unit vector, uniform on the sphere."""
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))


def random_rotation(rng: Generator, most_rad: float) -> Float:
    """(3, 3) about any axis by an angle uniform in 0 .. ``most_rad``."""
    return rotvec_to_rotation(random_direction(rng) * rng.uniform(0, most_rad))


def random_solids(rng: Generator, size_m: float) -> tuple[Solid, ...]:
    """A box, ball, cylinder, L, T or vehicle-like step of two boxes whose longest half extent is ``size_m``."""
    a, b, c = size_m, size_m * rng.uniform(0.25, 0.9), size_m * rng.uniform(0.25, 0.9)
    match rng.integers(7):
        case 0 | 1:
            return (solid("box", (a, b, c)),)
        case 2:
            return (solid("ball", (0.7 * a, 0.7 * b if rng.random() < 0.5 else 0.7 * a, 0.7 * a)),)
        case 3:
            return (solid("cylinder", (0.6 * b, 0.6 * b, a)),)
        case 4:  # an L: an upright at one end of a bar
            bar = 0.3 * a
            return solid("box", (a, b, bar)), solid("box", (bar, b, c), (a - bar, 0, bar + c))
        case 5:  # a T: a bar with a post on its middle
            bar = 0.25 * a
            return solid("box", (a, bar, bar)), solid("cylinder", (bar, bar, c), (0, 0, bar + c))
        case _:  # a car: a long box and a shorter one on top, off the middle
            cabin = solid("box", (0.5 * a, 0.38 * a, 0.15 * a), (-0.12 * a, 0, 0.33 * a))
            return solid("box", (a, 0.42 * a, 0.18 * a)), cabin


def apart(body: Body, others: list[Body]) -> bool:
    """Whether the balls around ``body`` and each other body meet in neither scan."""
    center = body.T_world_body[:3, 3]
    after = transform(body.motion, center)
    for other in others:
        there = other.T_world_body[:3, 3]
        room = body.reach_m + other.reach_m
        if np.linalg.norm(center - there) < room or np.linalg.norm(after - transform(other.motion, there)) < room:
            return False
    return True
