# SPDX-License-Identifier: Apache-2.0
"""Rays against boxes, ellipsoids and cylinders, all at once: which body is hit first, and how far away.

Every solid is convex. In the axes that make it a unit cube, ball or cylinder a ray ``o + t d`` is inside it for one
interval of t (slabs for the box, a quadratic for the ball, both for the cylinder), and scaling the axes leaves t as it
is. A ray can only hit what lies within the cone around the solid's bounding ball, which spares most of the work.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry.se3 import invert
from vision3d.readers._bodies_shapes import Body, Kind
from vision3d.types.frames import Float

CHUNK_RAYS = 16384  # candidates (rays x solids) stay within some MB


class Caster:
    """The bodies of a scene as one sensor sees them, ready for rays from its origin.

    Args:
        bodies: of the scene.
        poses: (B, 4, 4) where each body is in the sensor's frame.
    """

    def __init__(self, bodies: Sequence[Body], poses: Float) -> None:
        self.owner: list[int] = []
        self.kinds: list[Kind] = []
        frames, halves, reach = [], [], []
        for index, body in enumerate(bodies):
            for part in body.solids:
                self.owner.append(index)
                self.kinds.append(part.kind)
                frames.append(poses[index] @ part.T_body_solid)
                halves.append(part.half)
                reach.append(part.reach_m)
        T_sensor_solid, half = np.stack(frames), np.stack(halves)
        inverse = invert(T_sensor_solid)
        self.to_unit = inverse[:, :3, :3] / half[:, :, None]
        self.origin = inverse[:, :3, 3] / half
        center = T_sensor_solid[:, :3, 3]
        distance = np.maximum(np.linalg.norm(center, axis=1), 1e-12)
        self.toward = center / distance[:, None]
        # Half angle of the cone that holds the ball; a sensor inside the ball sees it everywhere.
        sine = np.minimum(np.asarray(reach) / distance, 1.0)
        self.least_cosine = np.where(sine < 1.0, np.sqrt(1.0 - sine**2) - 1e-9, -2.0)

    def cast(self, directions: Float) -> tuple[Float, NDArray[np.int32]]:
        """The first hit of rays from the origin.

        Args:
            directions: (R, 3), of any length.

        Returns:
            t (R,): the hit is at ``t * direction``, inf where there is none; and the body (R,), -1 where there is none.
            A body that holds the origin is not seen.
        """
        best = np.full(len(directions), np.inf)
        body = np.full(len(directions), -1, dtype=np.int32)
        for start in range(0, len(directions), CHUNK_RAYS):
            rows = slice(start, start + CHUNK_RAYS)
            self._cast(directions[rows], best[rows], body[rows])
        return best, body

    def _cast(self, directions: Float, best: Float, body: NDArray[np.int32]) -> None:
        """Fill ``best`` and ``body`` for one chunk of rays."""
        length = np.linalg.norm(directions, axis=1)
        near_axis = self.toward @ directions.T >= self.least_cosine[:, None] * length
        for row, owner in enumerate(self.owner):
            rays = np.flatnonzero(near_axis[row])
            if not len(rays):
                continue
            enter, leave = unit_interval(self.kinds[row], self.origin[row], directions[rays] @ self.to_unit[row].T)
            hit = (enter <= leave) & (enter > 0) & (enter < best[rays])
            rays = rays[hit]
            best[rays] = enter[hit]
            body[rays] = owner


def unit_interval(kind: Kind, origin: Float, direction: Float) -> tuple[Float, Float]:
    """Where rays ``origin + t direction`` are inside the unit solid of a kind: from t (R,) to t (R,), empty if greater.

    Args:
        origin: (3,).
        direction: (R, 3).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "ball":
            return _quadratic(origin, direction)
        axes = slice(0, 3) if kind == "box" else slice(2, 3)
        inverse = 1.0 / direction[:, axes]
        one, other = (-1.0 - origin[axes]) * inverse, (1.0 - origin[axes]) * inverse
        # A ray within a face's plane gives 0 * inf = NaN, which fmin and fmax pass over: it counts as passing by.
        enter, leave = np.fmin(one, other), np.fmax(one, other)
        near, far = enter[:, 0], leave[:, 0]
        for axis in range(1, enter.shape[1]):
            near, far = np.fmax(near, enter[:, axis]), np.fmin(far, leave[:, axis])
        if kind == "cylinder":
            enter_side, leave_side = _quadratic(origin[:2], direction[:, :2])
            near, far = np.fmax(near, enter_side), np.fmin(far, leave_side)
    return near, far


def _quadratic(origin: Float, direction: Float) -> tuple[Float, Float]:
    """Where |origin + t direction| <= 1, in two or three dimensions."""
    a = np.einsum("ij,ij->i", direction, direction)
    b = direction @ origin
    c = float(origin @ origin) - 1.0
    root = np.sqrt(b * b - a * c)  # NaN: the ray passes by
    near, far = (-b - root) / a, (-b + root) / a  # NaN too for a ray along the axis: inside for ever, or never
    missed = np.isnan(root) | (np.isnan(near) & (c > 0))
    return np.where(missed, np.inf, near), np.where(missed, -np.inf, far)
