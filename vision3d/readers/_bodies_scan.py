# SPDX-License-Identifier: Apache-2.0
"""Two scans of a scene of rigid bodies, and the true flow between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vision3d.geometry.cameras import Camera
from vision3d.geometry.se3 import invert
from vision3d.readers._bodies_cast import Caster
from vision3d.readers._bodies_shapes import Body
from vision3d.types.clouds import Axes, CloudPair, FlowTruth
from vision3d.types.frames import Float

DYNAMIC_M = 0.05  # between two scans; at 10 Hz the 0.5 m/s at which the Argoverse 2 benchmark begins to call it motion
HIDDEN = 1 - 1e-6  # a hit nearer than this share of a point's range hides the point: 20 micrometres at 20 m
MOST_ROUNDS = 40


class Sensor(Protocol):
    """What casts the rays. Its origin is that of its frame."""

    @property
    def axes(self) -> Axes: ...

    @property
    def dt_s(self) -> float: ...

    @property
    def camera(self) -> Camera | None:
        """The pinhole behind it, if any."""
        ...

    def all_rays(self, rng: Generator) -> Float:
        """(R, 3) directions of one whole scan."""
        ...

    def some_rays(self, rng: Generator, count: int) -> Float:
        """(count, 3) directions, drawn at random like those of :meth:`all_rays`."""
        ...

    def sees(self, points: Float) -> NDArray[np.bool_]:
        """(N,) whether points (N, 3) in its frame lie within view and range."""
        ...

    def noisy(self, points: Float, noise_m: float, rng: Generator) -> Float:
        """(N, 3) the points as measured."""
        ...


@dataclass(frozen=True)
class World:
    """Bodies, and a sensor that may move too. The world's axes are the sensor's at the first scan.

    Attributes:
        T_target_source: (4, 4) takes what stands still from the sensor's frame at the first scan to that at the second.
        classed: whether the bodies' categories mean anything.
    """

    bodies: Sequence[Body]
    T_target_source: Float
    classed: bool = False

    def motions(self) -> Float:
        """(B, 4, 4) from the sensor's frame at the first scan to that at the second, along with each body."""
        return np.stack([self.T_target_source @ body.motion for body in self.bodies])

    def casters(self) -> tuple[Caster, Caster]:
        """The bodies as seen from the first scan and from the second."""
        poses = np.stack([body.T_world_body for body in self.bodies])
        return Caster(self.bodies, poses), Caster(self.bodies, self.motions() @ poses)


@dataclass(frozen=True)
class Draw:
    """How a pair is sampled.

    Attributes:
        points, target_points: of the two clouds at most; 0 takes every ray that hits.
        noise_m: standard deviation of the measurement.
        occluded: whether points stay that the other scan does not see.
    """

    points: int
    target_points: int
    noise_m: float
    occluded: bool


def scan_pair(
    name: str, world: World, sensor: Sensor, draw: Draw, rngs: tuple[Generator, Generator], tell_motion: bool
) -> tuple[CloudPair, FlowTruth]:
    """Scan a world twice and write down where every point of the first scan went.

    Args:
        rngs: of the source's rays and noise, and of the target's: the two clouds are drawn independently.
        tell_motion: whether the pair carries the sensor's motion, as driving data do.

    Returns:
        A pair, and its truth: the flow is the rigid motion of the body that the (noisy) point belongs to.
    """
    before, after = world.casters()
    motions = world.motions()
    clean, body = _scan(before, after, motions, sensor, draw.points, draw.occluded, rngs[0])
    source = sensor.noisy(clean, draw.noise_m, rngs[0]).astype(np.float32)
    clean_target, target_body = _scan(
        after, before, invert(motions), sensor, draw.target_points, draw.occluded, rngs[1]
    )
    target = sensor.noisy(clean_target, draw.noise_m, rngs[1]).astype(np.float32)
    ground = np.array([b.ground for b in world.bodies], dtype=bool)
    has_ground = bool(ground.any())
    pair = CloudPair(
        name,
        source,
        target,
        axes=sensor.axes,
        dt_s=sensor.dt_s,
        T_target_source=world.T_target_source if tell_motion else None,
        source_ground=ground[body] if has_ground else None,
        target_ground=ground[target_body] if has_ground else None,
        camera=sensor.camera,
    )
    return pair, true_flow(pair, world, body)


def true_flow(pair: CloudPair, world: World, body: NDArray[np.int32]) -> FlowTruth:
    """The truth of a pair whose source point i belongs to body ``body[i]``."""
    points = pair.source.astype(np.float64)
    flow = _along(world.motions(), body, points) - points
    moving = np.stack([b.motion for b in world.bodies])
    in_world = _along(moving, body, points) - points
    return FlowTruth(
        flow=flow.astype(np.float32),
        valid=np.ones(len(points), dtype=bool),
        points=pair.source.copy(),  # a method may write into what it is given
        axes=pair.axes,
        dt_s=pair.dt_s,
        camera=pair.camera,
        dynamic=np.linalg.norm(in_world, axis=1) > DYNAMIC_M,
        ground=pair.source_ground,
        classes=np.array([b.category for b in world.bodies], dtype=np.uint8)[body] if world.classed else None,
        T_target_source=world.T_target_source,
    )


def _scan(
    here: Caster, there: Caster, motions: Float, sensor: Sensor, points: int, occluded: bool, rng: Generator
) -> tuple[Float, NDArray[np.int32]]:
    """Exact points (N, 3) on the surfaces seen from one scan, and the body of each.

    Args:
        there: the same bodies as the other scan sees them.
        motions: (B, 4, 4) take each body from this scan's frame to the other's.
        points: wanted; fewer come only when hardly a ray hits anything.
    """
    clouds, owners, found, count = [], [], 0, 2 * points
    for _ in range(MOST_ROUNDS):
        rays = sensor.some_rays(rng, count) if points else sensor.all_rays(rng)
        t, body = here.cast(rays)
        hit = body >= 0
        cloud, owner = rays[hit] * t[hit, None], body[hit]
        keep = sensor.sees(cloud)
        if not occluded:
            shown = _along(motions, owner, cloud)
            keep &= sensor.sees(shown)
            keep[keep] = there.cast(shown[keep])[0] >= HIDDEN
        clouds.append(cloud[keep])
        owners.append(owner[keep])
        found += int(keep.sum())
        if not points or found >= points:
            break
        # A little more than what is missing at this scene's rate of hits.
        count = min(int(1.2 * (points - found) * count / max(int(keep.sum()), 1)) + 64, 16 * points + 4096)
    cloud, owner = np.concatenate(clouds), np.concatenate(owners)
    return (cloud[:points], owner[:points]) if points else (cloud, owner)


def _along(motions: Float, body: NDArray[np.int32], points: Float) -> Float:
    """Points (N, 3), each moved along with its body by ``motions`` (B, 4, 4)."""
    T = motions[body]
    return np.asarray(np.einsum("nij,nj->ni", T[:, :3, :3], points) + T[:, :3, 3])
