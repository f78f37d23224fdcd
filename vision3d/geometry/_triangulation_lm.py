# SPDX-License-Identifier: Apache-2.0
"""The numerical core of triangulation: seeds from many view pairs, then robust least squares, all landmarks at once.

Observations lie sorted by landmark; a per-landmark sum is ``np.add.reduceat`` at the first observation of each.
A landmark is solved as (alpha, beta, rho): normalised coordinates and inverse depth in one of its own views, the
anchor. Depth can then grow to infinity without the equations becoming singular.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

_STEP_PX = 1e-5  # mean image motion of a step that ends the iteration
_ROUGH_STEP_PX = 1e-2  # ... and of a last step that still counts as converged


@dataclass(frozen=True)
class Rays:
    """Observations sorted by landmark.

    Attributes:
        xy: (M, 2) undistorted normalised coordinates.  focal_px: (M,).
        R_cam_world: (M, 3, 3).  centre_world: (M, 3).  ray_world: (M, 3) unit directions.
        owner: (M,) landmark 0..N-1, ascending, none empty.  start: (N,) first observation.  count: (N,).
    """

    xy: Float
    focal_px: Float
    R_cam_world: Float
    centre_world: Float
    ray_world: Float
    owner: Int
    start: Int
    count: Int

    @classmethod
    def build(cls, xy: Float, focal_px: Float, T_world_cam: Float, owner: Int) -> Rays:
        """From observations sorted by owner; T_world_cam (M, 4, 4) one pose per observation."""
        ray = np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        ray = np.einsum("mij,mj->mi", T_world_cam[:, :3, :3], ray)
        start = np.flatnonzero(np.diff(owner, prepend=-1))
        count = np.diff(start, append=len(owner))
        R_cam_world = np.ascontiguousarray(T_world_cam[:, :3, :3].transpose(0, 2, 1))
        return cls(xy, focal_px, R_cam_world, T_world_cam[:, :3, 3], ray, owner, start, count)

    def take(self, landmarks: Bool) -> tuple[Rays, Bool]:
        """The rays of some landmarks (N,) bool, renumbered, and the mask (M,) of the observations taken."""
        keep = landmarks[self.owner]
        owner = (np.cumsum(landmarks) - 1)[self.owner[keep]]
        start = np.flatnonzero(np.diff(owner, prepend=-1))
        rays = Rays(
            self.xy[keep],
            self.focal_px[keep],
            self.R_cam_world[keep],
            self.centre_world[keep],
            self.ray_world[keep],
            owner,
            start,
            np.diff(start, append=len(owner)),
        )
        return rays, keep


@dataclass(frozen=True)
class Solution:
    """Result of :func:`solve`, per landmark (N, ...) or per observation (M, ...).

    ``cost`` is the mean robust cost in px^2; ``anchor`` indexes observations; ``error_px`` is infinite where the
    point projects from behind; ``J`` (M, 2, 3) is the derivative of the residual in pixels by the parameters.
    """

    parameters: Float
    anchor: Int
    cost: Float
    converged: Bool
    error_px: Float
    J: Float


def solve(rays: Rays, loss_scale_px: float, max_iterations: int) -> Solution:
    """Seed and refine every landmark; those that most of their views reject get a second, wider set of seeds."""
    first = _refine(rays, seed(rays, 8, 4 * loss_scale_px), loss_scale_px, max_iterations)
    agree = np.add.reduceat((first.error_px < 3 * loss_scale_px).astype(np.float64), rays.start)
    doubtful = (agree < 0.7 * rays.count) & (rays.count > 2)
    if not doubtful.any():
        return first
    some, taken = rays.take(doubtful)
    second = _refine(some, seed(some, 32, 2 * loss_scale_px), loss_scale_px, max_iterations)
    at = np.flatnonzero(doubtful)
    better = second.cost < first.cost[at]
    obs_from, obs_to = better[some.owner], np.flatnonzero(taken)
    to, obs_to = at[better], obs_to[obs_from]
    anchor = np.flatnonzero(taken)[second.anchor]
    for new, old in ((second.parameters, first.parameters), (anchor, first.anchor), (second.cost, first.cost)):
        old[to] = new[better]
    first.converged[to] = second.converged[better]
    first.error_px[obs_to] = second.error_px[obs_from]
    first.J[obs_to] = second.J[obs_from]
    return first


def seed(rays: Rays, n_pairs: int, scale_px: float) -> Float:
    """(N, 3) start points: the best, by robust cost over all views, of several two-view points and linear ones.

    Pairs are spread evenly over all pairs of a track's views, so with a share p of good views all pairs are bad
    with a probability of about (1 - p^2)^n_pairs; every pair is tried when there are no more than n_pairs.
    """
    centre, ray = rays.centre_world, rays.ray_world
    first, last = rays.start, rays.start + rays.count - 1
    span = np.linalg.norm(centre[last] - centre[first], axis=1)
    # Far away along a middle view: the start for landmarks at infinity, where every intersection is noise.
    middle = rays.start + rays.count // 2
    best = centre[middle] + ray[middle] * (1e3 * (span + 1e-6))[:, None]
    best_cost = _seed_cost(rays, best, scale_px)
    for k in range(-2, n_pairs):
        if k == -2:
            candidate = _nearest_point_to_rays(rays)
        elif k == -1:
            candidate = _midpoint(rays, first, _widest_partner(rays, first))
        else:
            candidate = _midpoint(rays, *_spread_pair(rays, k, n_pairs))
        cost = _seed_cost(rays, candidate, scale_px)
        better = cost < best_cost
        best[better], best_cost[better] = candidate[better], cost[better]
    return best


def _spread_pair(rays: Rays, k: int, n_pairs: int) -> tuple[Int, Int]:
    """The k-th of n_pairs view pairs, evenly spaced in the list of all pairs ordered from wide gaps to narrow."""
    n = rays.count
    total = n * (n - 1) // 2
    index = np.minimum(np.where(total <= n_pairs, k, ((k + 0.5) * total / n_pairs).astype(np.int64)), total - 1)
    # Pair index -> (first view, gap): gap n-1 has one pair, n-2 has two, ... (triangular numbers).
    m = ((np.sqrt(8.0 * index + 1) - 1) / 2).astype(np.int64)
    m += ((m + 1) * (m + 2) // 2 <= index).astype(np.int64) - (m * (m + 1) // 2 > index).astype(np.int64)
    i = index - m * (m + 1) // 2
    return rays.start + i, rays.start + i + n - 1 - m


def _widest_partner(rays: Rays, reference: Int) -> Int:
    """Per landmark the observation whose camera is farthest from that of ``reference`` (N,)."""
    distance = np.linalg.norm(rays.centre_world - rays.centre_world[reference][rays.owner], axis=1)
    return _segment_argmax(rays, distance)


def _segment_argmax(rays: Rays, values: Float) -> Int:
    """Index (N,) of each landmark's first largest value (M,)."""
    top = np.maximum.reduceat(values, rays.start)
    hit = np.where(values >= top[rays.owner], np.arange(len(values)), len(values))
    return np.minimum(np.minimum.reduceat(hit, rays.start), rays.start + rays.count - 1)


def _midpoint(rays: Rays, p: Int, q: Int) -> Float:
    """(N, 3) points halfway between rays p and q where they pass closest; not finite where they are parallel."""
    a, b = rays.ray_world[p], rays.ray_world[q]
    t = rays.centre_world[q] - rays.centre_world[p]
    ab, at, bt = (a * b).sum(1), (a * t).sum(1), (b * t).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        det = np.where(1 - ab**2 > 1e-14, 1 - ab**2, np.nan)
        depth_a, depth_b = (at - ab * bt) / det, (ab * at - bt) / det
    on_a = rays.centre_world[p] + depth_a[:, None] * a
    return 0.5 * (on_a + rays.centre_world[q] + depth_b[:, None] * b)


def _nearest_point_to_rays(rays: Rays) -> Float:
    """(N, 3) points with the least sum of squared distances to all rays of the landmark."""
    d, c = rays.ray_world, rays.centre_world
    A = np.eye(3) - d[:, :, None] * d[:, None, :]
    b = np.add.reduceat((A @ c[:, :, None])[..., 0], rays.start, axis=0)
    A = np.add.reduceat(A, rays.start, axis=0)
    A += (1e-12 * rays.count)[:, None, None] * np.eye(3)
    return np.asarray(np.linalg.solve(A, b[..., None])[..., 0], dtype=np.float64)


def _seed_cost(rays: Rays, points: Float, scale_px: float) -> Float:
    """(N,) Geman-McClure cost of points, saturated behind the camera; infinite for points that are not finite."""
    finite: Bool = np.asarray(np.isfinite(points).all(axis=1), dtype=np.bool_)
    X = np.where(finite[:, None], points, 0.0)[rays.owner] - rays.centre_world
    p = np.einsum("mij,mj->mi", rays.R_cam_world, X)
    z = np.where(p[:, 2] > 1e-12, p[:, 2], np.nan)
    u, v = p[:, 0] / z - rays.xy[:, 0], p[:, 1] / z - rays.xy[:, 1]
    s = (u * u + v * v) * rays.focal_px**2
    cost = np.nan_to_num(s / (1 + s / scale_px**2), nan=scale_px**2)
    return np.where(finite, np.add.reduceat(cost, rays.start), np.inf)


def _refine(rays: Rays, points: Float, loss_scale_px: float, max_iterations: int) -> Solution:
    """Levenberg-Marquardt from seed points (N, 3), the loss narrowing from 8 x its scale to 1 x."""
    anchor = _anchor(rays, points)
    R_a, c_a = rays.R_cam_world[anchor], rays.centre_world[anchor]
    p = np.einsum("nij,nj->ni", R_a, points - c_a)
    z = np.maximum(p[:, 2], 1e-9)
    parameters = np.stack([p[:, 0] / z, p[:, 1] / z, 1 / z], axis=1)
    # y = [R | t] (alpha, beta, 1, rho): the point in view i, up to the positive factor rho.
    R = np.einsum("mij,mkj->mik", rays.R_cam_world, R_a[rays.owner])
    t = np.einsum("mij,mj->mi", rays.R_cam_world, c_a[rays.owner] - rays.centre_world)
    table = np.concatenate([R.reshape(-1, 9), t, rays.xy, rays.focal_px[:, None]], axis=1).T.copy()
    parameters, converged = _levenberg(table, rays, parameters, loss_scale_px, max_iterations)
    r, J = _project(table, parameters, rays.owner)
    s = (r**2).sum(axis=0)
    cost = np.add.reduceat(_loss(s, loss_scale_px**2), rays.start) / rays.count
    return Solution(parameters, anchor, cost, converged, np.sqrt(s), np.moveaxis(J, -1, 0))


def _anchor(rays: Rays, points: Float) -> Int:
    """(N,) the observation that agrees best with the seed: surely no outlier, surely in front."""
    X = points[rays.owner] - rays.centre_world
    p = np.einsum("mij,mj->mi", rays.R_cam_world, X)
    z = np.where(p[:, 2] > 1e-12, p[:, 2], np.nan)
    s = (p[:, 0] / z - rays.xy[:, 0]) ** 2 + (p[:, 1] / z - rays.xy[:, 1]) ** 2
    return _segment_argmax(rays, -np.nan_to_num(s * rays.focal_px**2, nan=1e12))


def _levenberg(table: Float, rays: Rays, start: Float, scale_px: float, max_iterations: int) -> tuple[Float, Bool]:
    result, converged = start.copy(), np.zeros(len(start), dtype=np.bool_)
    alive = np.arange(len(start))  # landmarks still being refined; the others leave the arrays
    owner, first, x = rays.owner, rays.start, start.copy()
    damping = np.full(len(start), 1e-4)
    r, J = _project(table, x, owner)
    for iteration in range(max_iterations):
        narrowing = max(0, 3 - iteration // 2)
        c2 = (scale_px * 2.0**narrowing) ** 2
        H, g, cost, n = _normal_equations(r, J, first, c2)
        diagonal = np.einsum("nii->ni", H)
        step = -np.linalg.solve(
            H + (damping[:, None] * diagonal + 1e-12 * diagonal.sum(1, keepdims=True) + 1e-30)[:, :, None] * np.eye(3),
            g[..., None],
        )[..., 0]
        x_new = x + step
        r_new, J_new = _project(table, x_new, owner)
        cost_new = np.add.reduceat(_loss((r_new**2).sum(axis=0), c2), first)
        accept = cost_new <= cost * (1 + 1e-12) + 1e-24
        move = np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", step, H, step), 0) / n)
        x = np.where(accept[:, None], x_new, x)
        took = accept[owner]
        r = np.where(took, r_new, r)
        J = np.where(took, J_new, J)
        damping = np.clip(damping * np.where(accept, 0.1, 10.0), 1e-12, 1e8)
        # A refused step that is already tiny means the minimum has been reached to rounding.
        done = (move < _STEP_PX) if narrowing == 0 else np.zeros(len(x), dtype=np.bool_)
        result[alive] = x
        converged[alive] = done | ((move < _ROUGH_STEP_PX) & (narrowing == 0) & (iteration == max_iterations - 1))
        if done.all():
            break
        if done.mean() > 0.2:
            keep = ~done
            obs = keep[owner]
            alive, x, damping = alive[keep], x[keep], damping[keep]
            owner = (np.cumsum(keep) - 1)[owner[obs]]
            first = np.flatnonzero(np.diff(owner, prepend=-1))
            table, r, J = table[:, obs], r[:, obs], J[:, :, obs]
    return result, converged


def _project(table: Float, x: Float, owner: Int) -> tuple[Float, Float]:
    """Residuals (2, M) and Jacobian (2, 3, M) in pixels; a point behind a view has an infinite residual, no slope."""
    alpha, beta, rho = x[owner].T
    y = table[0:9:3] * alpha + table[1:9:3] * beta + table[2:9:3] + table[9:12] * rho
    front = y[2] > 1e-12
    inv = np.where(front, 1.0, 0.0) / np.where(front, y[2], 1.0)
    focal = table[14]
    uv = y[:2] * inv
    r = np.where(front, (uv - table[12:14]) * focal, np.inf)
    J = np.empty((2, 3, len(owner)))
    scale = focal * inv
    for k, column in enumerate((table[0:9:3], table[1:9:3], table[9:12])):
        J[:, k] = scale * (column[:2] - uv * column[2])
    return r, J


def _normal_equations(r: Float, J: Float, first: Int, c2: float) -> tuple[Float, Float, Float, Float]:
    """Weighted H (N, 3, 3), g (N, 3), robust cost (N,) and sum of weights (N,).

    IRLS weight of the Geman-McClure cost c^2 u^2 / (2 (c^2 + u^2)): (1 + u^2/c^2)^-2.
    """
    s = (r**2).sum(axis=0)
    with np.errstate(over="ignore"):
        w = 1 / (1 + s / c2) ** 2
    r = np.where(np.isfinite(s), r, 0.0)
    n = len(first)
    H, g = np.empty((n, 3, 3)), np.empty((n, 3))
    for i in range(3):
        Ji = J[:, i] * w
        g[:, i] = np.add.reduceat((Ji * r).sum(axis=0), first)
        for j in range(i, 3):
            H[:, i, j] = H[:, j, i] = np.add.reduceat((Ji * J[:, j]).sum(axis=0), first)
    return H, g, np.add.reduceat(_loss(s, c2), first), np.maximum(np.add.reduceat(w, first), 1e-12)


def _loss(s: Float, c2: float) -> Float:
    """Geman-McClure in px^2 without the factor 1/2, for squared errors that may be infinite."""
    return c2 - c2 / (1 + s / c2)
