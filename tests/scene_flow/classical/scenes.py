# SPDX-License-Identifier: Apache-2.0
"""A small street seen by a spinning LiDAR at two moments, with the exact flow: the classical methods were tuned on it.

The second scan is cast anew, so that sampling, occlusion and scan lines differ between the scans as they do on a car.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry.se3 import from_rt, invert, rotvec_to_rotation, transform

Float = NDArray[np.float64]
GROUND = -1
SENSOR_HEIGHT_M = 1.8


@dataclass(frozen=True)
class Body:
    """A box (or an ellipsoid of leaves) standing on the ground; speed in metres a second along its heading."""

    centre: tuple[float, float]
    size: tuple[float, float, float]
    yaw: float = 0.0
    speed: float = 0.0
    turn: float = 0.0
    lift: float = 0.0
    leafy: bool = False


@dataclass(frozen=True)
class Street:
    """Two scans with their truth; ``ids`` are rows of ``bodies``, -1 is ground."""

    source: NDArray[np.float32]
    target: NDArray[np.float32]
    flow: NDArray[np.float32]
    residual: Float
    source_ids: NDArray[np.int64]
    target_ids: NDArray[np.int64]
    dynamic: NDArray[np.bool_]
    T_target_source: Float
    dt_s: float

    @property
    def compensated(self) -> NDArray[np.float32]:
        return transform(self.T_target_source, self.source).astype(np.float32)

    def without_ground(self) -> Street:
        """The same pair with the points of the ground taken out."""
        s, t = self.source_ids != GROUND, self.target_ids != GROUND
        return Street(
            self.source[s], self.target[t], self.flow[s], self.residual[s], self.source_ids[s], self.target_ids[t],
            self.dynamic[s], self.T_target_source, self.dt_s,
        )  # fmt: skip


def height(xy: Float, slope: float, bumps: float) -> Float:
    """The ground: a plane that rises by ``slope`` along x, with gentle hills of ``bumps`` metres."""
    return slope * xy[..., 0] + bumps * np.sin(xy[..., 0] / 17.0) * np.cos(xy[..., 1] / 23.0)


def scan(
    bodies: list[Body],
    time_s: float,
    T_world_sensor: Float,
    rng: np.random.Generator,
    *,
    slope: float = 0.0,
    bumps: float = 0.0,
    beams: int = 64,
    columns: int = 1200,
    noise_m: float = 0.01,
    range_m: float = 90.0,
    offset_deg: float = 0.0,
) -> tuple[Float, NDArray[np.int64]]:
    """Points (N, 3) in the sensor's frame, and the body that each lies on."""
    elevation = np.deg2rad(np.linspace(-25.0, 8.0, beams) + offset_deg)
    azimuth = 2 * np.pi * (np.arange(columns) + rng.random()) / columns
    el, az = (a.ravel() for a in np.meshgrid(elevation, azimuth, indexing="ij"))
    rays = np.stack([np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)], -1) @ T_world_sensor[:3, :3].T
    eye = T_world_sensor[:3, 3]
    depth, ids = _ground_depth(eye, rays, slope, bumps, range_m), np.full(len(rays), GROUND)
    for i, body in enumerate(bodies):
        T = pose(body, time_s, slope, bumps)
        rows = _towards(T[:3, 3] - eye, np.linalg.norm(body.size) / 2, rays)
        local_eye = transform(invert(T), eye)
        local = rays[rows] @ T[:3, :3]
        hit = (_leaf_depth if body.leafy else _box_depth)(local_eye, local, np.asarray(body.size) / 2, rng)
        nearer = hit < depth[rows]
        depth[rows[nearer]], ids[rows[nearer]] = hit[nearer], i
    seen = depth < range_m
    depth = depth[seen] + rng.normal(0, noise_m, seen.sum())
    points = transform(invert(T_world_sensor), eye + rays[seen] * depth[:, None])
    return points, ids[seen]


def pose(body: Body, time_s: float, slope: float = 0.0, bumps: float = 0.0) -> Float:
    """(4, 4) the body's centre in the world at a time: it drives an arc and follows the ground's height."""
    yaw = body.yaw + body.turn * time_s
    heading = np.array([np.cos((body.yaw + yaw) / 2), np.sin((body.yaw + yaw) / 2)])
    xy = np.asarray(body.centre) + heading * body.speed * time_s
    z = height(xy, slope, bumps) + body.size[2] / 2 + body.lift
    return from_rt(rotvec_to_rotation([0.0, 0.0, yaw]), [*xy, z])


def street(
    seed: int,
    *,
    ego_speed: float = 8.0,
    ego_turn: float = 0.1,
    dt_s: float = 0.1,
    slope: float = 0.0,
    bumps: float = 0.0,
    moving: bool = True,
    beams: int = 64,
    columns: int = 1200,
    two_sensors: bool = False,
    parked_m: float = 6.0,
) -> Street:
    """A street with houses, trees, hedges, poles, parked cars, and (if ``moving``) traffic and people.

    With ``two_sensors`` a second LiDAR with half of the beams scans half a turn later, as on the cars of Argoverse 2:
    what moves is seen twice, half a frame's motion apart. Each point's flow is that of the body it lies on.
    """
    rng = np.random.default_rng(seed)
    bodies = furniture(rng, parked_m) + (traffic(rng) if moving else [])
    poses = [_ego(t, ego_speed, ego_turn, slope, bumps) for t in (0.0, dt_s)]
    kwargs = {"slope": slope, "bumps": bumps, "columns": columns}

    def sweep(time_s: float, T: Float) -> tuple[Float, NDArray[np.int64]]:
        if not two_sensors:
            return scan(bodies, time_s, T, rng, beams=beams, **kwargs)
        # The sensor's own motion within a sweep is undone by the data set, that of the others cannot be.
        parts = [
            scan(bodies, time_s, T, rng, beams=beams // 2, **kwargs),
            scan(bodies, time_s + dt_s / 2, T, rng, beams=beams // 2, offset_deg=3.0, **kwargs),
        ]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    source, source_ids = sweep(0.0, poses[0])
    target, target_ids = sweep(dt_s, poses[1])
    T_target_source = invert(poses[1]) @ poses[0]
    moved = transform(T_target_source, source)
    residual = np.zeros_like(source)
    for i, body in enumerate(bodies):
        on = source_ids == i
        if on.any() and (body.speed or body.turn):
            motion = pose(body, dt_s, slope, bumps) @ invert(pose(body, 0.0, slope, bumps))
            world = transform(motion, transform(poses[0], source[on]))
            residual[on] = transform(invert(poses[1]), world) - moved[on]
    return Street(
        source=source.astype(np.float32),
        target=target.astype(np.float32),
        flow=(moved + residual - source).astype(np.float32),
        residual=residual,
        source_ids=source_ids,
        target_ids=target_ids,
        dynamic=np.linalg.norm(residual, axis=1) > 0.05,
        T_target_source=T_target_source,
        dt_s=dt_s,
    )


def _ego(time_s: float, speed: float, turn: float, slope: float, bumps: float) -> Float:
    yaw = turn * time_s
    xy = np.array([np.cos(yaw / 2), np.sin(yaw / 2)]) * speed * time_s
    R = rotvec_to_rotation([0.0, 0.0, yaw]) @ rotvec_to_rotation([0.0, -np.arctan(slope), 0.0])
    return from_rt(R, [*xy, height(xy, slope, bumps) + SENSOR_HEIGHT_M])


def furniture(rng: np.random.Generator, parked_m: float = 6.0) -> list[Body]:
    """What stands still along a street that runs along x."""
    bodies = []
    for side in (-1, 1):
        x = -80.0
        while x < 80:
            length = rng.uniform(8, 30)
            deep = rng.uniform(0, 3)
            bodies.append(Body((x + length / 2, side * (17 + deep)), (length, 8.0, rng.uniform(5, 14))))
            x += length + rng.choice([0.0, rng.uniform(1, 8)])
        for x in np.arange(-70, 70, 9.0) + rng.uniform(-2, 2):
            bodies.append(Body((x, side * 7.5), (0.25, 0.25, rng.uniform(3, 8))))
        for x in rng.uniform(-60, 60, 6):
            crown = rng.uniform(2, 5)
            bodies.append(Body((x, side * 9.5), (0.35, 0.35, 2.5)))
            bodies.append(Body((x, side * 9.5), (crown, crown, crown), lift=2.0, leafy=True))
        for x in rng.uniform(-50, 50, 5):
            bodies.append(Body((x, side * 11.5), (rng.uniform(1, 6), 1.0, rng.uniform(0.7, 1.6)), leafy=True))
        for x in np.arange(-60, 60, 6.5) + rng.uniform(-1, 1):
            if rng.random() < 0.7:
                bodies.append(_car(rng, (x, side * parked_m), rng.normal(0, 0.05), 0.0))
    return bodies


def traffic(rng: np.random.Generator) -> list[Body]:
    """What moves: cars in two lanes, people on the pavements and across, cyclists, a bus."""
    bodies = []
    for side, yaw in ((-1.8, 0.0), (1.8, np.pi)):
        for x in (-55, -38, -22, 14, 30, 48):
            if rng.random() < 0.8:
                speed, turn = rng.uniform(1, 15), rng.normal(0, 0.1)
                bodies.append(_car(rng, (x + rng.uniform(-4, 4), side), yaw + rng.normal(0, 0.03), speed, turn))
    bodies.append(Body((65.0, 1.8), (11.0, 2.5, 3.1), np.pi, speed=rng.uniform(4, 10)))
    for _ in range(12):
        xy = (rng.uniform(-35, 35), rng.choice([-1, 1]) * rng.uniform(4, 10.5))
        bodies.append(Body(xy, (0.45, 0.6, rng.uniform(1.5, 1.9)), rng.uniform(-np.pi, np.pi), rng.uniform(0.8, 2)))
    for x in (-30, -12, 12, 30):
        side = rng.choice([-1, 1])
        xy, yaw = (x + rng.uniform(-5, 5), side * 3.9), 0.0 if side < 0 else np.pi
        bodies.append(Body(xy, (1.8, 0.6, 1.75), yaw, speed=rng.uniform(3, 8)))
    return bodies


def _car(rng: np.random.Generator, centre: tuple[float, float], yaw: float, speed: float, turn: float = 0.0) -> Body:
    size = (rng.uniform(3.8, 5.0), rng.uniform(1.7, 2.0), rng.uniform(1.4, 1.9))
    return Body(centre, size, yaw, speed, turn)


def _ground_depth(eye: Float, rays: Float, slope: float, bumps: float, range_m: float) -> Float:
    """Distance to the ground: the plane's, then the hills by a few steps of fixed point."""
    down = slope * rays[:, 0] - rays[:, 2]
    above = eye[2] - slope * eye[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(down > 1e-6, above / down, np.inf)
        for _ in range(8 if bumps else 0):
            xy = eye[:2] + rays[:, :2] * np.minimum(depth, 2 * range_m)[:, None]
            depth = np.where(down > 1e-6, (above - (height(xy, slope, bumps) - slope * xy[:, 0])) / down, np.inf)
    return np.where(depth > 0, depth, np.inf)


def _towards(centre: Float, radius: float, rays: Float) -> NDArray[np.int64]:
    """Rows of the rays that meet a ball."""
    far = float(np.linalg.norm(centre))
    if far <= radius:
        return np.arange(len(rays))
    return np.flatnonzero(rays @ (centre / far) >= np.sqrt(1 - (radius / far) ** 2))


def _box_depth(eye: Float, rays: Float, half: Float, rng: np.random.Generator) -> Float:
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (-half - eye) / rays, (half - eye) / rays
    near, far = np.minimum(a, b).max(axis=1), np.maximum(a, b).min(axis=1)
    return np.where((near < far) & (near > 0), near, np.inf)


def _leaf_depth(eye: Float, rays: Float, half: Float, rng: np.random.Generator) -> Float:
    """Leaves: a beam enters an ellipsoid and is returned after a random way, or comes out again."""
    e, r = eye / half, rays / half
    a, b, c = (r * r).sum(1), (e * r).sum(1), (e * e).sum() - 1
    root = b * b - a * c
    with np.errstate(invalid="ignore"):
        near, far = (-b - np.sqrt(root)) / a, (-b + np.sqrt(root)) / a
    hit = near + rng.exponential(0.6, len(rays))
    return np.where((root > 0) & (near > 0) & (hit < far), hit, np.inf)
