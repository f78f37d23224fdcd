# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from vision3d.geometry.se3 import from_rt, invert, transform
from vision3d.readers import _bodies_shapes as shapes
from vision3d.readers._bodies_cast import Caster, unit_interval
from vision3d.readers._bodies_shapes import Body, solid


def inside(part, points):
    """Whether points (N, 3) in a solid's own axes are in it."""
    unit = np.abs(points / part.half)
    if part.kind == "ball":
        return (unit**2).sum(axis=-1) <= 1
    if part.kind == "cylinder":
        return ((unit[..., :2] ** 2).sum(axis=-1) <= 1) & (unit[..., 2] <= 1)
    return (unit <= 1).all(axis=-1)


def scene(rng, count=6):
    bodies = []
    for _ in range(count):
        center = np.append(rng.uniform(-2, 2, 2), rng.uniform(3, 8))
        pose = from_rt(shapes.random_rotation(rng, np.pi), center)
        bodies.append(Body(shapes.random_solids(rng, rng.uniform(0.5, 1.5)), pose, np.eye(4)))
    return bodies


def test_first_hit_equals_marching_along_every_ray():
    rng = np.random.default_rng(0)
    for _ in range(4):
        bodies = scene(rng, 12)
        rays = np.column_stack([rng.uniform(-0.35, 0.35, (60, 2)), np.ones(60)])
        t, owner = Caster(bodies, np.stack([b.T_world_body for b in bodies])).cast(rays)
        steps = np.arange(0.5, 12.0, 2e-3)
        along = rays[:, None] * steps[:, None]
        first, who = np.full(len(rays), np.inf), np.full(len(rays), -1)
        for index, body in enumerate(bodies):
            for part in body.solids:
                held = inside(part, transform(invert(body.T_world_body @ part.T_body_solid), along))
                here = np.where(held.any(axis=1), steps[held.argmax(axis=1)], np.inf)
                who[here < first], first = index, np.minimum(first, here)
        # A ray that only grazes a solid may pass between two steps: then the marcher meets the next thing.
        grazed = ~np.isclose(t, first, atol=2.1e-3)
        assert grazed.sum() <= 1
        assert (t[grazed] < first[grazed]).all()
        assert (owner[~grazed] == who[~grazed]).all()
        assert 20 < (owner >= 0).sum() < len(rays)


def test_what_is_behind_is_not_hit_and_what_holds_the_sensor_is_not_seen():
    wall, behind, around = solid("box", (3, 3, 0.1)), solid("ball", (1, 1, 1)), solid("box", (0.5, 0.5, 0.5))
    poses = np.stack([from_rt(np.eye(3), (0, 0, 4)), from_rt(np.eye(3), (0, 0, 7)), np.eye(4)])
    bodies = [Body((part,), pose, np.eye(4)) for part, pose in zip((wall, behind, around), poses, strict=True)]
    rays = np.column_stack([np.random.default_rng(0).uniform(-0.4, 0.4, (500, 2)), np.ones(500)])
    t, owner = Caster(bodies, poses).cast(rays)
    assert (owner == 0).all()
    assert np.allclose(t, 3.9)
    _, owner = Caster(bodies[1:], poses[1:]).cast(rays)
    assert set(owner) == {0, -1}


@pytest.mark.parametrize(
    ("kind", "x", "interval"),
    [
        ("cylinder", 0.5, (1.0, 2.0)),
        ("cylinder", 1.5, None),
        ("ball", 0.6, (1.1, 1.9)),
        ("ball", 1.5, None),
        ("box", 0.5, (1.0, 2.0)),
        ("box", 1.0, None),  # within the plane of a face
        ("box", 1.1, None),
    ],
)
def test_rays_along_the_axis(kind, x, interval):
    enter, leave = unit_interval(kind, np.array([x, 0, -3.0]), np.array([[0.0, 0.0, 2.0]]))
    if interval is None:
        assert enter > leave
    else:
        assert (enter[0], leave[0]) == pytest.approx(interval)


def test_the_cone_around_each_solid_leaves_no_hit_out():
    rng = np.random.default_rng(1)
    bodies = scene(rng, 8)
    caster = Caster(bodies, np.stack([b.T_world_body for b in bodies]))
    rays = rng.normal(size=(40_000, 3))  # more than a chunk, all around, of any length
    t, owner = caster.cast(rays)
    caster.least_cosine[:] = -2.0
    t_all, owner_all = caster.cast(rays)
    assert np.array_equal(t, t_all)
    assert np.array_equal(owner, owner_all)
    assert (owner >= 0).sum() > 1000
    double, _ = caster.cast(2 * rays)
    assert np.allclose(2 * double, t)


@pytest.mark.parametrize("seed", range(30))
def test_no_body_reaches_farther_than_it_says(seed):
    rng = np.random.default_rng(seed)
    body = Body(shapes.random_solids(rng, 1.0), np.eye(4), np.eye(4))
    assert body.reach_m < 3.0
    grid = rng.uniform(-3, 3, (20_000, 3))
    held = np.any([inside(p, transform(invert(p.T_body_solid), grid)) for p in body.solids], axis=0)
    assert held.any()
    assert np.linalg.norm(grid[held], axis=1).max() <= body.reach_m
