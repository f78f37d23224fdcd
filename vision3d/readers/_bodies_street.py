# SPDX-License-Identifier: Apache-2.0
"""``bodies:street``: a street with houses, trees, parked and moving road users, around a car that carries a LiDAR.

Laid out on the road: x along it, y to its left, z up from its surface, the car at the origin in its own lane.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from vision3d.geometry.se3 import from_rt, invert, rotvec_to_rotation
from vision3d.readers import _bodies_shapes as shapes
from vision3d.readers import _bodies_traffic as traffic
from vision3d.readers._bodies_scan import World
from vision3d.readers._bodies_shapes import Body, solid
from vision3d.types.frames import Float

LANE_M = 3.5
LENGTH_M = 90.0  # of the street, to either side
KERB_M = 0.12
TRIES = 20
STANDING = 0.15  # share of the scenes in which the sensor's car stands
TILT_DEG = 0.6
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class StreetConfig:
    """What a street holds.

    Attributes:
        objects: fewest and most road users that are not parked; one for which no room is found is left out.
        speed_m: the farthest that a vehicle moves between the scans; people and cyclists have their own pace.
        still: share of these road users that stand still.
        ego_m: the farthest that the sensor's car moves between the scans.
    """

    objects: tuple[int, int]
    speed_m: float
    still: float
    ego_m: float


@dataclass(frozen=True)
class _Kerbs:
    """Where the road ends to the right (negative) and to the left, and the pavements' width."""

    right_m: float
    left_m: float
    pavement_m: float


class _Course(NamedTuple):
    """Where a road user is, where it heads, and the most that it moves and bends between the scans."""

    x: float
    y: float
    yaw: float
    fastest_m: float
    bend_deg: float


class _Traffic:
    """Road users whose footprints (upright rectangles) meet in neither scan."""

    def __init__(self, ego_step: Float) -> None:
        self.bodies: list[Body] = []
        self._taken = [np.stack([_footprint(4.8, 2.0, 0.0, (0.0, 0.0)), _footprint(4.8, 2.0, 0.0, ego_step[:2, 3])])]

    def add(self, model: traffic.Model, x: float, y: float, yaw: float, step_m: float = 0.0, turn: float = 0.0) -> bool:
        """Put a road user at (x, y) that goes ``step_m`` ahead and turns by ``turn``; False where there is no room."""
        # Along the chord of its arc, as a wheeled vehicle goes.
        course = yaw + turn / 2
        shift = step_m * np.array([np.cos(course), np.sin(course), 0.0])
        size = model.length_m, model.width_m
        prints = np.stack([_footprint(*size, yaw, (x, y)), _footprint(*size, yaw + turn, (x + shift[0], y + shift[1]))])
        for other in self._taken:
            if (np.minimum(prints[:, 2:], other[:, 2:]) > np.maximum(prints[:, :2], other[:, :2])).all(axis=1).any():
                return False
        self._taken.append(prints)
        T = from_rt(rotvec_to_rotation(UP * yaw), (x, y, 0.0))
        body = Body(model.solids, T, np.eye(4), category=model.category)
        self.bodies.append(shapes.moved(body, rotvec_to_rotation(UP * turn), shift) if step_m or turn else body)
        return True


def street_world(config: StreetConfig, rng: Generator) -> World:
    """A scene: the road, what stands beside it, parked cars, and road users on the move."""
    kerbs = _Kerbs(rng.uniform(-5.2, -4.0), rng.uniform(6.5, 9.0), rng.uniform(2.5, 4.5))
    ego_step = _ego_step(config, rng)
    users = _Traffic(ego_step)
    models = [traffic.car(rng) for _ in range(4)]  # cars of one make look alike
    _movers(users, models, kerbs, config, rng)
    _parked(users, models, kerbs, rng)
    bodies = [*_ground(kerbs), *_beside(kerbs, rng), *users.bodies]
    tilt = shapes.random_direction(rng) * (1, 1, 0) * np.radians(TILT_DEG) + UP * rng.uniform(-0.06, 0.06)
    T_road_sensor = from_rt(rotvec_to_rotation(tilt), (0.0, 0.0, rng.uniform(1.6, 2.0)))
    T_sensor_road = invert(T_road_sensor)
    placed = [
        replace(
            body,
            T_world_body=T_sensor_road @ body.T_world_body,
            motion=_in_axes(body.motion, T_road_sensor),
        )
        for body in bodies
    ]
    return World(placed, _in_axes(invert(ego_step), T_road_sensor), classed=True)


def _in_axes(motion: Float, T_road_sensor: Float) -> Float:
    """A motion on the road in the sensor's axes; what stands still does so to the last bit."""
    if np.array_equal(motion, np.eye(4)):
        return motion
    return np.asarray(invert(T_road_sensor) @ motion @ T_road_sensor)


def _ego_step(config: StreetConfig, rng: Generator) -> Float:
    """(4, 4) motion of the sensor's car on the road."""
    step = 0.0 if rng.random() < STANDING else rng.uniform(0, config.ego_m)
    turn = np.radians(rng.uniform(-2.0, 2.0)) * min(step, 1.0)
    return from_rt(rotvec_to_rotation(UP * turn), (step * np.cos(turn / 2), step * np.sin(turn / 2), 0.0))


def _movers(users: _Traffic, models: list[traffic.Model], kerbs: _Kerbs, config: StreetConfig, rng: Generator) -> None:
    """Vehicles in the lanes, cyclists by the kerb, people on the pavements and across the road."""
    for _ in range(rng.integers(config.objects[0], config.objects[1] + 1)):
        kind, model, course = rng.random(), models[rng.integers(len(models))], _drive
        if kind < 0.1:
            model = traffic.lorry(rng)
        elif kind < 0.3:
            model, course = traffic.cyclist(rng), _cycle
        elif kind < 0.55:
            model, course = traffic.pedestrian(rng), _walk
        moves, pace = rng.random() >= config.still, float(rng.uniform(0.2, 1.0))
        for _ in range(TRIES):
            x, y, yaw, fastest_m, bend_deg = course(kerbs, rng)
            step = pace * min(fastest_m, config.speed_m) if moves else 0.0
            if users.add(model, x, y, yaw, step, np.radians(bend_deg) * pace if step else 0.0):
                break


def _drive(kerbs: _Kerbs, rng: Generator) -> _Course:
    """A vehicle in one of the two lanes."""
    onward = rng.random() < 0.5
    yaw = rng.uniform(-0.06, 0.06) + (0.0 if onward else np.pi)
    return _Course(rng.uniform(-45.0, 60.0), 0.0 if onward else LANE_M, yaw, np.inf, rng.uniform(-1.5, 1.5))


def _cycle(kerbs: _Kerbs, rng: Generator) -> _Course:
    """A cyclist beside the parked cars, at 7 m/s or less."""
    onward = rng.random() < 0.5
    y = kerbs.right_m + 2.6 if onward else kerbs.left_m - 2.6
    yaw = rng.uniform(-0.1, 0.1) + (0.0 if onward else np.pi)
    return _Course(rng.uniform(-30.0, 40.0), y, yaw, 0.7, rng.uniform(-2.0, 2.0))


def _walk(kerbs: _Kerbs, rng: Generator) -> _Course:
    """Somebody who walks along a pavement or crosses the road, at 1.8 m/s or less."""
    left, x = rng.random() < 0.5, rng.uniform(-27.0, 36.0)
    if rng.random() < 0.3:
        return _Course(x, rng.uniform(kerbs.right_m, kerbs.left_m), np.pi / 2 if left else -np.pi / 2, 0.18, 0.0)
    y = kerbs.left_m + rng.uniform(0.4, 2.0) if left else kerbs.right_m - rng.uniform(0.4, 2.0)
    return _Course(x, y, rng.uniform(-0.3, 0.3) + (np.pi if rng.random() < 0.5 else 0.0), 0.18, 0.0)


def _parked(users: _Traffic, models: list[traffic.Model], kerbs: _Kerbs, rng: Generator) -> None:
    """Rows of parked cars along both kerbs, with gaps."""
    for y, yaw in ((kerbs.right_m + 1.1, 0.0), (kerbs.left_m - 1.1, np.pi)):
        share, x = rng.uniform(0.1, 0.8), -0.5 * LENGTH_M
        while x < 0.6 * LENGTH_M:
            if rng.random() < share:
                model = models[rng.integers(len(models))]
                users.add(model, x, y + rng.uniform(-0.15, 0.15), yaw + rng.uniform(-0.03, 0.03))
            x += rng.uniform(5.4, 7.5)


def _ground(kerbs: _Kerbs) -> list[Body]:
    """The road, and a raised pavement on either side that goes on under the houses."""
    depth, far = 0.5, 2 * LENGTH_M
    bodies = [shapes.still((solid("box", (far, far, depth), (0, 0, -depth)),), np.eye(4), ground=True)]
    for start, side in ((kerbs.left_m, 1.0), (kerbs.right_m, -1.0)):
        half = (far, 20.0, KERB_M / 2)
        bodies.append(shapes.still((solid("box", half, (0, start + side * 20.0, KERB_M / 2)),), np.eye(4), ground=True))
    return bodies


def _beside(kerbs: _Kerbs, rng: Generator) -> list[Body]:
    """Houses with gaps, hedges or walls in some of these, lamp posts, trees and bins."""
    bodies: list[Body] = []

    def put(x: float, y: float, *solids: shapes.Solid) -> None:
        yaw = rng.uniform(-0.03, 0.03)
        bodies.append(shapes.still(solids, from_rt(rotvec_to_rotation(UP * yaw), (x, y, 0.0))))

    for start, side in ((kerbs.left_m, 1.0), (kerbs.right_m, -1.0)):
        x = -LENGTH_M
        while x < LENGTH_M:
            length, height, front = rng.uniform(8, 24), rng.uniform(4, 16), kerbs.pavement_m + rng.uniform(0, 4)
            y = start + side * front
            if rng.random() < 0.75:
                put(x + length / 2, y + side * 6, solid("box", (length / 2, 6, height / 2), (0, 0, height / 2)))
            elif rng.random() < 0.6:
                tall = rng.uniform(0.8, 2.0)
                put(x + length / 2, y, solid("box", (length / 2, 0.15, tall / 2), (0, 0, tall / 2)))
            x += length + rng.uniform(0, 4)
        x = -LENGTH_M / 2 + rng.uniform(0, 12)
        while x < LENGTH_M / 2:
            y, thing = start + side * rng.uniform(0.4, 1.0), rng.random()
            if thing < 0.45:
                radius, tall = rng.uniform(0.05, 0.14), rng.uniform(4, 8)
                put(x, y, solid("cylinder", (radius, radius, tall / 2), (0, 0, tall / 2)))
            elif thing < 0.85:
                radius, trunk, crown = rng.uniform(0.1, 0.25), rng.uniform(2, 3.5), rng.uniform(1.0, 2.2)
                top = solid("ball", (crown, crown, 0.9 * crown), (0, 0, trunk + 0.7 * crown))
                put(x, y, solid("cylinder", (radius, radius, trunk / 2), (0, 0, trunk / 2)), top)
            else:
                put(x, y, solid("box", (0.3, 0.35, 0.55), (0, 0, 0.55)))
            x += rng.uniform(5, 16)
    return bodies


def _footprint(length: float, width: float, yaw: float, at: tuple[float, float] | Float) -> Float:
    """(4,) least x, y and greatest x, y of a turned rectangle, with 30 cm to spare."""
    c, s = abs(np.cos(yaw)), abs(np.sin(yaw))
    half = np.array([length * c + width * s, length * s + width * c]) / 2 + 0.3
    return np.concatenate([np.asarray(at) - half, np.asarray(at) + half])
