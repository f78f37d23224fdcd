# SPDX-License-Identifier: Apache-2.0
"""Lens parameters from tracks seen with known poses: bundle adjustment of one camera and the points, poses fixed.

Data sets often hand out poses with nothing but a focal length although their lens distorts. 7-Scenes' RGB camera,
for one, has k1 = -0.023: ignoring it costs a third of the localization accuracy. The points are eliminated by a
Schur complement, so the cost is linear in the observations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry._pnp_refine import projection_jacobian
from vision3d.geometry.cameras import MODELS, Camera
from vision3d.geometry.triangulation import TriangulationConfig, triangulate

Float = NDArray[np.float64]
Int = NDArray[np.int64]


@dataclass(frozen=True)
class CalibrationResult:
    """A camera fitted to tracks.

    Attributes:
        camera: the new camera.
        sigma: (P,) standard deviation of its parameters, in their order; 0 for those held fixed.
        rms_px_before, rms_px_after: of the observations that agree with their point under either camera.
        n_observations, n_inliers_before, n_inliers_after: observations used, and how many agree.
    """

    camera: Camera
    sigma: Float
    rms_px_before: float
    rms_px_after: float
    n_observations: int
    n_inliers_before: int
    n_inliers_after: int

    @property
    def better(self) -> bool:
        """Whether the new camera explains the tracks better: no fewer observations agree, and they agree more."""
        return self.n_inliers_after >= self.n_inliers_before and self.rms_px_after < self.rms_px_before


def calibrate(
    camera: Camera,
    uv_px: ArrayLike,
    frame: ArrayLike,
    landmark: ArrayLike,
    T_world_cam: ArrayLike,
    *,
    model: str = "SIMPLE_RADIAL",
    fix_focal: bool = False,
    fix_centre: bool = False,
    rounds: int = 3,
    max_observations: int = 20_000,
    max_reprojection_px: float = 4.0,
) -> CalibrationResult | None:
    """Fit the parameters of a camera that all frames share; None when the tracks do not determine them.

    Args:
        camera: the start.
        uv_px: (M, 2) pixels.  frame: (M,) index of the frame.  landmark: (M,) index of the track, -1 for none.
        T_world_cam: (F, 4, 4) poses, kept as they are.
        model: a key of :data:`MODELS`, with at least the start's distortion parameters.
        fix_focal, fix_centre: hold focal lengths, principal point.
        rounds: of triangulation and adjustment in turn.
        max_observations: the longest tracks are used up to this many.
        max_reprojection_px: gate of the triangulation; wide, since the start's lens is wrong.
    """
    uv, frame = np.asarray(uv_px, dtype=np.float64).reshape(-1, 2), np.asarray(frame, dtype=np.int64)
    poses = np.asarray(T_world_cam, dtype=np.float64)
    chosen = _longest_tracks(np.asarray(landmark, dtype=np.int64), max_observations)
    uv, frame, owner = uv[chosen], frame[chosen], np.asarray(landmark, dtype=np.int64)[chosen]
    if not len(uv):
        return None
    _, owner = np.unique(owner, return_inverse=True)
    n_focal, n_dist = MODELS[model]
    free = np.array([not fix_focal] * n_focal + [not fix_centre] * 2 + [True] * n_dist)
    gates = TriangulationConfig(max_reprojection_px=max_reprojection_px, loss_scale_px=2.0)
    current, sigma = _convert(camera, model), np.zeros(len(free))
    for _ in range(rounds):
        points, use = _points(current, uv, frame, owner, poses, gates)
        step = _adjust(current, uv[use], frame[use], owner[use], points, poses, free)
        if step is None:
            return None
        current, sigma[free] = step
    before, after = (_errors(c, uv, frame, owner, poses) for c in (camera, current))
    agree = np.isfinite(before) | np.isfinite(after)
    cap = 2.0  # an observation that one camera rejects counts with the gate, so that both are judged on the same set
    rms = [float(np.sqrt(np.mean(np.nan_to_num(e[agree], nan=cap) ** 2))) for e in (before, after)]
    counts = [int(np.isfinite(e).sum()) for e in (before, after)]
    return CalibrationResult(current, sigma, rms[0], rms[1], len(uv), counts[0], counts[1])


def _convert(camera: Camera, model: str) -> Camera:
    """The camera in a model with more parameters, the new ones zero."""
    n_focal, n_dist = MODELS[model]
    if any(camera.distortion[n_dist:]):
        raise ValueError(f"{model} cannot hold the distortion of {camera.model}")
    focal = (camera.fx, camera.fy) if n_focal == 2 else (camera.focal,)
    return replace(camera, model=model, params=(*focal, camera.cx, camera.cy, *camera.distortion[:n_dist]))


def _longest_tracks(landmark: Int, max_observations: int) -> Int:
    """Observations of the longest tracks of at least three views, in ascending order."""
    length = np.bincount(landmark[landmark >= 0]) if (landmark >= 0).any() else np.zeros(1, np.int64)
    length = np.where(length >= 3, length, 0)
    order = np.argsort(-length, kind="stable")
    kept = order[(np.cumsum(length[order]) <= max_observations) & (length[order] > 0)]
    keep = np.zeros(len(length), dtype=np.bool_)
    keep[kept] = True
    return np.flatnonzero((landmark >= 0) & keep[landmark])


def _points(
    camera: Camera, uv: Float, frame: Int, owner: Int, poses: Float, gates: TriangulationConfig
) -> tuple[Float, NDArray[np.bool_]]:
    found = triangulate(camera.normalize(uv), frame, owner, poses, camera.focal, config=gates)
    return found.points_world, found.ok[owner] & found.inlier


def _errors(camera: Camera, uv: Float, frame: Int, owner: Int, poses: Float) -> Float:
    """(M,) reprojection errors with the camera's own best points, NaN for those that disagree."""
    found = triangulate(camera.normalize(uv), frame, owner, poses, camera.focal)
    return np.where(found.ok[owner] & found.inlier, found.error_px, np.nan)


def _adjust(
    camera: Camera, uv: Float, frame: Int, owner: Int, points: Float, poses: Float, free: NDArray[np.bool_]
) -> tuple[Camera, Float] | None:
    """Gauss-Newton with Cauchy weights over the free parameters and all points: the camera, and sigmas (P,)."""
    order = np.argsort(owner, kind="stable")
    uv, frame, owner = uv[order], frame[order], owner[order]
    ids, owner = np.unique(owner, return_inverse=True)
    if len(ids) < 10:
        return None
    X, start = points[ids], np.flatnonzero(np.diff(owner, prepend=-1))
    R, centre = poses[frame, :3, :3].transpose(0, 2, 1), poses[frame, :3, 3]
    n_focal = MODELS[camera.model][0]
    negligible = np.where(np.arange(len(free)) < n_focal + 2, 1e-4, 1e-6)[free]
    sigma = np.zeros(len(negligible))
    for _ in range(10):
        points_cam = np.einsum("mij,mj->mi", R, X[owner] - centre)
        r = camera.project(points_cam) - uv
        good: NDArray[np.bool_] = np.asarray(np.isfinite(r).all(axis=1), dtype=np.bool_)
        r = np.where(good[:, None], r, 0.0)
        s = (r**2).sum(axis=1)
        w = np.where(good, 1 / (1 + s), 0.0)
        J_point = np.where(good[:, None, None], projection_jacobian(camera, points_cam), 0.0) @ R
        J_lens = np.where(good[:, None, None], _lens_jacobian(camera, points_cam, free), 0.0)
        solved = _schur_step(J_point, J_lens, r, w, start)
        if solved is None:
            return None
        H, lens_step, point_step = solved
        params = np.array(camera.params)
        params[free] += lens_step
        if not np.isfinite(params).all() or params[:n_focal].min() <= 0:
            return None
        camera, X = replace(camera, params=tuple(params.tolist())), X + point_step
        freedom = max(2 * int(good.sum()) - 3 * len(ids) - len(lens_step), 1)
        sigma = np.sqrt(np.diag(np.linalg.inv(H)) * float((w * s).sum()) / freedom)
        if np.all(np.abs(lens_step) < negligible):
            break
    return camera, sigma


def _schur_step(J_point: Float, J_lens: Float, r: Float, w: Float, start: Int) -> tuple[Float, Float, Float] | None:
    """Reduced Hessian of the lens and the steps of lens and points; None where the lens is not determined."""
    WJ = J_point * w[:, None, None]
    H_pp = np.add.reduceat(np.einsum("mki,mkj->mij", WJ, J_point), start, axis=0)
    H_pl = np.add.reduceat(np.einsum("mki,mkj->mij", WJ, J_lens), start, axis=0)
    g_p = np.add.reduceat(np.einsum("mki,mk->mi", WJ, r), start, axis=0)
    inv_pp = np.linalg.inv(H_pp + (1e-9 * np.trace(H_pp, axis1=1, axis2=2) + 1e-12)[:, None, None] * np.eye(3))
    H = np.einsum("m,mki,mkj->ij", w, J_lens, J_lens) - np.einsum("nia,nij,njb->ab", H_pl, inv_pp, H_pl)
    g = np.einsum("m,mki,mk->i", w, J_lens, r) - np.einsum("nia,nij,nj->a", H_pl, inv_pp, g_p)
    unit = 1 / np.sqrt(np.maximum(np.diag(H), 1e-300))
    if not np.isfinite(H).all() or np.linalg.eigvalsh(H * unit[:, None] * unit)[0] < 1e-7:
        return None
    lens_step = -np.linalg.solve(H, g)
    return H, lens_step, -np.einsum("nij,nj->ni", inv_pp, g_p + H_pl @ lens_step)


def _lens_jacobian(camera: Camera, points_cam: Float, free: NDArray[np.bool_]) -> Float:
    """(M, 2, P) derivative of pixels by the free parameters, by central differences (the models are smooth)."""
    columns = []
    for k in np.flatnonzero(free):
        h = 1e-3 if k < MODELS[camera.model][0] + 2 else 1e-5
        high, low = (list(camera.params) for _ in range(2))
        high[k] += h
        low[k] -= h
        up = replace(camera, params=tuple(high)).project(points_cam)
        columns.append((up - replace(camera, params=tuple(low)).project(points_cam)) / (2 * h))
    return np.stack(columns, axis=2)
