# SPDX-License-Identifier: Apache-2.0
"""Robust least squares over one camera pose, and what its Hessian says about the pose's uncertainty.

The pose is perturbed on the left of ``T_cam_world``: ``points_cam' = exp(w) points_cam + v`` with the
six numbers ordered (w rad, v metres), all in the camera frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vision3d.geometry import se3
from vision3d.geometry.cameras import Camera
from vision3d.geometry.epipolar import skew

Float = NDArray[np.float64]

_BEHIND_PX2 = 1e6  # squared residual that stands for a point behind the camera


@dataclass(frozen=True)
class PoseProblem:
    """What a pose is fitted to.

    Attributes:
        uv_px: (M, 2) pixels.  points_world: (M, 3) metres.
        point_covariances: (M, 3, 3) metres^2 of the points, world axes; None for exact points.
        sigma_px: (M,) standard deviation of the pixels.
        loss_scale_px: scale of the Cauchy loss, for a point without uncertainty.
    """

    uv_px: Float
    points_world: Float
    camera: Camera
    point_covariances: Float | None
    sigma_px: Float
    loss_scale_px: float

    def usable(self) -> NDArray[np.bool_]:
        """(M,) matches whose pixel (distorted as it is) and point are finite."""
        numbers = np.concatenate([self.uv_px, self.points_world, self.camera.normalize(self.uv_px)], axis=1)
        return np.isfinite(numbers).all(axis=1).astype(np.bool_)

    def subset(self, keep: NDArray[np.bool_]) -> PoseProblem:
        """The same problem with fewer correspondences."""
        cov = self.point_covariances
        return PoseProblem(
            self.uv_px[keep],
            self.points_world[keep],
            self.camera,
            None if cov is None else cov[keep],
            self.sigma_px[keep],
            self.loss_scale_px,
        )

    def errors_px(self, T_cam_world: Float) -> Float:
        """(M,) reprojection errors, infinite behind the camera."""
        uv = self.camera.project(se3.transform(T_cam_world, self.points_world))
        return np.nan_to_num(np.linalg.norm(uv - self.uv_px, axis=1), nan=np.inf)

    def whitening(self, T_cam_world: Float) -> Float:
        """(M, 2, 2) L with ``L' L`` = inverse covariance of the residual, in units of the mean pixel variance.

        A residual's covariance is ``sigma_px^2 I + J Cov J'``, J being the derivative of the pixel by the point.
        The unit makes the loss scale a number of pixels whatever sigma_px is.
        """
        unit2 = float(np.mean(self.sigma_px**2))
        if self.point_covariances is None:
            return (np.sqrt(unit2) / self.sigma_px)[:, None, None] * np.eye(2)
        J = projection_jacobian(self.camera, se3.transform(T_cam_world, self.points_world)) @ T_cam_world[:3, :3]
        cov = J @ self.point_covariances @ J.transpose(0, 2, 1) + (self.sigma_px**2)[:, None, None] * np.eye(2)
        ok = np.isfinite(cov).all(axis=(1, 2))
        cov[~ok] = unit2 * np.eye(2)
        # Lower Cholesky factor of the inverse of a 2x2 matrix is the inverse of the factor.
        a = np.sqrt(cov[:, 0, 0])
        b = cov[:, 1, 0] / a
        c = np.sqrt(np.maximum(cov[:, 1, 1] - b * b, 1e-300))
        L = np.zeros_like(cov)
        L[:, 0, 0], L[:, 1, 1], L[:, 1, 0] = 1 / a, 1 / c, -b / (a * c)
        return np.sqrt(unit2) * L


def projection_jacobian(camera: Camera, points_cam: Float) -> Float:
    """(M, 2, 3) derivative of pixels by points (M, 3) in the camera frame; NaN behind the camera."""
    z = np.where(points_cam[:, 2] > 0, points_cam[:, 2], np.nan)
    x, y = points_cam[:, 0] / z, points_cam[:, 1] / z
    J = np.zeros((len(points_cam), 2, 3))
    J[:, 0, 0] = J[:, 1, 1] = 1 / z
    J[:, 0, 2], J[:, 1, 2] = -x / z, -y / z
    if not any(camera.distortion):
        return np.array([[camera.fx], [camera.fy]]) * J
    # The distortion's 2x2 derivative by central differences: exact to 1e-10, for every camera model.
    eps, one = 1e-5, np.ones_like(x)
    du = camera.project(np.stack([x + eps, y, one], 1)) - camera.project(np.stack([x - eps, y, one], 1))
    dv = camera.project(np.stack([x, y + eps, one], 1)) - camera.project(np.stack([x, y - eps, one], 1))
    return np.stack([du, dv], axis=-1) / (2 * eps) @ J


def minimize(problem: PoseProblem, T_cam_world: Float, max_iterations: int = 30) -> tuple[Float, bool]:
    """Levenberg-Marquardt with Cauchy weights from a start (4, 4); returns the pose and whether it converged."""
    T, converged = T_cam_world, False
    rounds = 1 if problem.point_covariances is None else 2  # the weights follow the pose, once
    for _ in range(rounds):
        T, converged = _minimize_weighted(problem, T, problem.whitening(T), max_iterations)
    return T, converged


def pose_covariance(problem: PoseProblem, T_cam_world: Float) -> Float | None:
    """(6, 6) covariance of the minimum, order (rotation rad, translation m); None where it is not determined.

    Huber's covariance of an M-estimator: for Cauchy weights w(s) the mean slope of the influence function
    is mean(w^2) (2D residuals), its variance mean(w^2 s) / 2; the residuals thus set the noise level.
    """
    n = len(problem.uv_px)
    L = problem.whitening(T_cam_world)
    r, J, s = _linearize(problem, T_cam_world, L)
    front = np.isfinite(r).all(axis=1)
    if n < 4 or not front.all():
        return None
    w = 1 / (1 + s / problem.loss_scale_px**2)
    slope = float(np.mean(w**2))
    spread = float(np.mean(w**2 * s) / 2) * n / (n - 3)  # 2 n equations, 6 unknowns
    H = np.einsum("nij,nik->jk", J, J)
    scale = 1 / np.sqrt(np.maximum(np.diag(H), 1e-300))
    H_unit = H * scale[:, None] * scale
    if not np.isfinite(H_unit).all() or np.linalg.eigvalsh(H_unit)[0] < 1e-11:
        return None
    cov = np.linalg.inv(H_unit) * scale[:, None] * scale * spread / slope**2
    return 0.5 * (cov + cov.T)


def _minimize_weighted(problem: PoseProblem, T: Float, L: Float, max_iterations: int) -> tuple[Float, bool]:
    c2 = problem.loss_scale_px**2
    r, J, s = _linearize(problem, T, L)
    cost = float(np.log1p(s / c2).sum())
    damping = 1e-6
    for _ in range(max_iterations):
        use = np.isfinite(r).all(axis=1)
        w = 1 / (1 + s[use] / c2)
        Jw = J[use] * w[:, None, None]
        H = np.einsum("nij,nik->jk", Jw, J[use])
        g = np.einsum("nij,ni->j", Jw, r[use])
        while True:
            try:
                step = -np.linalg.solve(H + damping * np.diag(np.maximum(np.diag(H), 1e-12)), g)
            except np.linalg.LinAlgError:
                return T, False
            T_new = perturb(T, step)
            r_new, J_new, s_new = _linearize(problem, T_new, L)
            cost_new = float(np.log1p(s_new / c2).sum())
            if cost_new <= cost:
                break
            damping *= 10
            if damping > 1e6:  # no downhill step is left: at the minimum to rounding
                return T, float(np.abs(step).max()) < 1e-6
        gain = cost - cost_new
        T, r, J, s, cost = T_new, r_new, J_new, s_new, cost_new
        damping = max(damping * 0.1, 1e-12)
        if np.abs(step).max() < 1e-10 or gain <= 1e-13 * cost:
            return T, True
    return T, False


def _linearize(problem: PoseProblem, T_cam_world: Float, L: Float) -> tuple[Float, Float, Float]:
    """Whitened residuals (M, 2), their Jacobian by the pose (M, 2, 6), and squared norms (M,)."""
    p = se3.transform(T_cam_world, problem.points_world)
    r = (L @ (problem.camera.project(p) - problem.uv_px)[..., None])[..., 0]
    J_point = L @ projection_jacobian(problem.camera, p)
    J = np.concatenate([-J_point @ skew(p), J_point], axis=2)
    s = np.nan_to_num((r**2).sum(axis=1), nan=_BEHIND_PX2)
    return r, J, s


def perturb(T_cam_world: Float, step: Float) -> Float:
    """``exp(step) * T_cam_world`` for a step (6,) = (rotation rad, translation m)."""
    R = se3.rotvec_to_rotation(step[:3])
    return se3.from_rt(se3.nearest_rotation(R @ T_cam_world[:3, :3]), R @ T_cam_world[:3, 3] + step[3:])
