# SPDX-License-Identifier: Apache-2.0
"""``bodies:boxes``: solids that fly about in front of a camera, like FlyingThings3D and the prepared KITTI clouds.

Camera axes (x left, y up, z forward), the intrinsics of FlyingThings3D, no ground, nothing farther than ``far``. The
rays are those of random image positions, so that the density on a surface falls with the square of its depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vision3d.geometry.cameras import Camera
from vision3d.geometry.se3 import from_rt, invert
from vision3d.readers import _bodies_shapes as shapes
from vision3d.readers._bodies_scan import World
from vision3d.readers._bodies_shapes import Body
from vision3d.types.clouds import Axes
from vision3d.types.frames import Float

CAMERA = Camera("PINHOLE", 960, 540, (1050.0, 1050.0, 479.5, 269.5))
CELL_PX = 2  # a whole scan has one ray at a random place of every 2 x 2 pixels
NEAR_M = 0.3
FAR_M = 35.0  # the crop of both prepared data sets; sizes and places of the bodies are relative to it
TRIES = 12


@dataclass(frozen=True)
class DepthCamera:
    """A camera that measures depth, at the origin, looking along z."""

    far_m: float = FAR_M
    camera: Camera = CAMERA
    axes: Axes = "camera"
    dt_s: float = 0.1

    def all_rays(self, rng: Generator) -> Float:
        """A ray in every cell of the image."""
        columns, rows = self.camera.width // CELL_PX, self.camera.height // CELL_PX
        cell = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
        return self._rays((cell + rng.random(cell.shape)) * CELL_PX - 0.5)

    def some_rays(self, rng: Generator, count: int) -> Float:
        """Rays at random places of the image."""
        return self._rays(rng.random((count, 2)) * (self.camera.width, self.camera.height) - 0.5)

    def _rays(self, uv_px: Float) -> Float:
        """(R, 3) with z = 1."""
        c = self.camera
        rays = np.ones((len(uv_px), 3))
        rays[:, 0] = (c.cx - uv_px[:, 0]) / c.fx
        rays[:, 1] = (c.cy - uv_px[:, 1]) / c.fy
        return rays

    def sees(self, points: Float) -> NDArray[np.bool_]:
        """Within the image and between the nearest and the farthest depth."""
        c, z = self.camera, points[:, 2]
        inside = (z > NEAR_M) & (z < self.far_m)
        depth = np.where(inside, z, 1.0)
        u, v = c.cx - c.fx * points[:, 0] / depth, c.cy - c.fy * points[:, 1] / depth
        inside &= (np.abs(u - (c.width - 1) / 2) < c.width / 2) & (np.abs(v - (c.height - 1) / 2) < c.height / 2)
        return np.asarray(inside)

    def noisy(self, points: Float, noise_m: float, rng: Generator) -> Float:
        """The same noise along all axes."""
        return points + rng.normal(0.0, 1.0, points.shape) * noise_m


@dataclass(frozen=True)
class BoxesConfig:
    """What a scene holds.

    Attributes:
        objects: fewest and most bodies in front of the background.
        speed_m: the farthest that a body moves between the scans; each moves by a random part of it.
        turn_deg: the most that it turns, about any axis.
        still: share of the bodies that stand still.
        alike: share of the bodies that look just like one before them.
        ego_m: the farthest that the camera moves between the scans; it turns by up to ``2 * ego_m`` degrees.
        far_m: depth of the scene.
    """

    objects: tuple[int, int]
    speed_m: float
    turn_deg: float
    still: float
    alike: float
    ego_m: float
    far_m: float


def boxes_world(config: BoxesConfig, rng: Generator) -> World:
    """A scene: objects in view, each with its own motion, before static structure; the camera moves as well."""
    scale = config.far_m / FAR_M
    bodies: list[Body] = []
    for _ in range(rng.integers(config.objects[0], config.objects[1] + 1)):
        copy = bool(bodies) and rng.random() < config.alike
        # Sizes in equal shares per octave: a few large bodies, many small ones.
        size_m = 0.7 * 4.0 ** rng.random() * scale
        solids = bodies[rng.integers(len(bodies))].solids if copy else shapes.random_solids(rng, size_m)
        moves = rng.random() >= config.still
        for _ in range(TRIES):
            body = _placed(solids, config, moves, rng)
            if shapes.apart(body, bodies):
                break
        bodies.append(body)  # where the view is full, the last place it is, and bodies may meet
    bodies += _background(config.far_m, rng)
    heading = shapes.random_direction(rng) * (0.3, 0.3, 1.0)  # cameras mostly move along their axis
    shift = heading / np.linalg.norm(heading) * rng.uniform(0, config.ego_m)
    turn = shapes.random_rotation(rng, np.radians(2.0) * config.ego_m)
    return World(bodies, invert(from_rt(turn, shift)))


def _placed(solids: tuple[shapes.Solid, ...], config: BoxesConfig, moves: bool, rng: Generator) -> Body:
    """The solids somewhere in view, turned at random, and moving at random or not at all."""
    z = config.far_m * rng.uniform(0.2, 0.7)
    half = 0.5 * np.array([CAMERA.width / CAMERA.fx, CAMERA.height / CAMERA.fy])
    center = np.append(z * half * rng.uniform(-0.8, 0.8, 2), z)
    rotation = shapes.random_rotation(rng, np.pi)
    speed, direction = config.speed_m * rng.random(), shapes.random_direction(rng)
    turn = shapes.random_rotation(rng, np.radians(config.turn_deg))
    body = Body(solids, from_rt(rotation, center), np.eye(4))
    if not moves:
        return body
    # Nothing leaps into the camera: the step is at most a third of the way to it.
    return shapes.moved(body, turn, direction * min(speed, z / 3))


def _background(far_m: float, rng: Generator) -> list[Body]:
    """Walls and pillars at the back, upright, that together cover a part of the view."""
    bodies = []
    for _ in range(rng.integers(2, 6)):
        z = far_m * rng.uniform(0.6, 0.95)
        center = np.array([rng.uniform(-0.5, 0.5) * z, rng.uniform(-0.25, 0.25) * z, z])
        yaw = shapes.rotvec_to_rotation(np.array([0.0, rng.uniform(-0.9, 0.9), 0.0]))
        half = far_m * rng.uniform((0.02, 0.03, 0.01), (0.14, 0.2, 0.04))
        if rng.random() < 0.3:
            upright = shapes.rotvec_to_rotation(np.array([np.pi / 2, 0.0, 0.0]))
            solids = (shapes.solid("cylinder", (half[0] / 2, half[0] / 2, half[1])),)
            yaw = yaw @ upright
        else:
            solids = (shapes.solid("box", half),)
        bodies.append(shapes.still(solids, from_rt(yaw, center)))
    return bodies
