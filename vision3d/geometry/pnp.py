# SPDX-License-Identifier: Apache-2.0
"""The pose of a calibrated image from matches between its pixels and points of the world.

RANSAC (:mod:`vision3d.geometry._pnp_ransac`) finds the matches that agree; the pose and its covariance then
come from our own robust least squares (:mod:`vision3d.geometry._pnp_refine`), so they mean the same with every
backend. A pose that cannot be found is a :class:`PoseFailure`, never an exception and never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry import se3
from vision3d.geometry._pnp_ransac import RansacSettings, find_backend
from vision3d.geometry._pnp_refine import PoseProblem, minimize
from vision3d.geometry._pnp_refine import pose_covariance as _covariance
from vision3d.geometry.cameras import Camera

Float = NDArray[np.float64]


@dataclass(frozen=True)
class PoseEstimate:
    """A camera pose and how well it is known.

    Attributes:
        T_world_cam: (4, 4) camera to world, metres.
        covariance: (6, 6) of (rotation vector rad, translation m), left perturbation of ``T_cam_world``
            (so in the camera frame), scaled by the residuals found.
        inliers: (M,) bool, the matches that lie within the error bound.
        rms_px: root mean square reprojection error of the inliers.
    """

    T_world_cam: Float
    covariance: Float
    inliers: NDArray[np.bool_]
    rms_px: float

    @property
    def n_inliers(self) -> int:
        return int(self.inliers.sum())


@dataclass(frozen=True)
class PoseFailure:
    """Why there is no pose: one line, with how many matches were tried and how many agreed at best."""

    reason: str
    n_matches: int
    n_inliers: int = 0


def estimate_pose(
    uv_px: ArrayLike,
    points_world: ArrayLike,
    camera: Camera,
    max_error_px: float,
    *,
    min_inliers: int = 8,
    seed: int = 0,
    min_iterations: int = 100,
    max_iterations: int = 10_000,
    confidence: float = 0.9999,
    prior_T_world_cam: ArrayLike | None = None,
    point_covariances: ArrayLike | None = None,
    sigma_px: ArrayLike = 1.0,
    loss_scale_px: float = 1.0,
    backend: str = "auto",
) -> PoseEstimate | PoseFailure:
    """Pose from matches of which many may be wrong.

    Args:
        uv_px: (M, 2) pixels (distorted, as seen).  points_world: (M, 3) metres.
        max_error_px: largest reprojection error of an inlier.
        min_inliers: fewer is a failure; never less than 4. Among 1000 random matches in 640x480 pixels a wrong pose
            finds up to 7 at 5 px (measured), hence 8.
        prior_T_world_cam: (4, 4) rough pose that competes with what RANSAC finds, after refinement.
        point_covariances, sigma_px, loss_scale_px: as in :func:`refine_pose`.
        backend: ``auto``, ``pycolmap``, ``poselib`` or ``opencv``.
    """
    whole = _problem(uv_px, points_world, camera, point_covariances, sigma_px, loss_scale_px)
    usable = whole.usable()
    problem, n, min_inliers = whole.subset(usable), len(usable), max(4, min_inliers)
    if usable.sum() < min_inliers:
        return PoseFailure(f"{int(usable.sum())} usable matches, at least {min_inliers} are needed", n)
    settings = RansacSettings(max_error_px, min_iterations, max_iterations, confidence, seed)
    starts = [find_backend(backend)(problem.uv_px, problem.points_world, camera, settings)]
    if prior_T_world_cam is not None:
        starts.append(_approach(problem, se3.invert(prior_T_world_cam), max_error_px))
    best: PoseEstimate | PoseFailure = PoseFailure("no pose explains any sample of the matches", n)
    for T_cam_world in starts:
        if T_cam_world is None:
            continue
        T, inliers = _polish(problem, T_cam_world, max_error_px, min_inliers)
        found = _result(problem, T, inliers, usable, min_inliers)
        # At a tie the earlier start stays: RANSAC's pose owes nothing to the prior.
        if found.n_inliers > best.n_inliers or (isinstance(best, PoseFailure) and isinstance(found, PoseEstimate)):
            best = found
    return best


def refine_pose(
    T_world_cam: ArrayLike,
    uv_px: ArrayLike,
    points_world: ArrayLike,
    camera: Camera,
    *,
    point_covariances: ArrayLike | None = None,
    sigma_px: ArrayLike = 1.0,
    loss_scale_px: float = 1.0,
    max_error_px: float = np.inf,
) -> PoseEstimate | PoseFailure:
    """Robust least squares from a start near the truth, over all matches, without RANSAC.

    Args:
        T_world_cam: (4, 4) start.
        uv_px: (M, 2) pixels.  points_world: (M, 3) metres.
        point_covariances: (M, 3, 3) of the points, metres^2: matches to uncertain points weigh less, by the
            inverse of ``sigma_px^2 I + J Cov J'``.
        sigma_px: standard deviation of the pixels, one number or one per match (M,). Only its size relative to
            the point covariances and between matches counts: the covariance is scaled by the residuals.
        loss_scale_px: scale of the Cauchy loss.
        max_error_px: bound that defines the result's ``inliers``; they alone set rms and covariance.
    """
    whole = _problem(uv_px, points_world, camera, point_covariances, sigma_px, loss_scale_px)
    usable = whole.usable()
    if usable.sum() < 4:
        return PoseFailure(f"{int(usable.sum())} usable matches, at least 4 are needed", len(usable))
    problem = whole.subset(usable)
    T, _ = minimize(problem, se3.invert(T_world_cam))
    return _result(problem, T, problem.errors_px(T) <= min(max_error_px, 1e6), usable, 4)


def pose_covariance(
    T_world_cam: ArrayLike,
    uv_px: ArrayLike,
    points_world: ArrayLike,
    camera: Camera,
    *,
    point_covariances: ArrayLike | None = None,
    sigma_px: ArrayLike = 1.0,
    loss_scale_px: float = 1.0,
) -> Float | None:
    """(6, 6) covariance of a pose (4, 4) already fitted to these inliers; None where it is not determined.

    Order and frame as in :class:`PoseEstimate`, arguments as in :func:`refine_pose`.
    """
    problem = _problem(uv_px, points_world, camera, point_covariances, sigma_px, loss_scale_px)
    return _covariance(problem, se3.invert(T_world_cam))


def _problem(
    uv_px: ArrayLike,
    points_world: ArrayLike,
    camera: Camera,
    point_covariances: ArrayLike | None,
    sigma_px: ArrayLike,
    loss_scale_px: float,
) -> PoseProblem:
    uv = np.asarray(uv_px, dtype=np.float64).reshape(-1, 2)
    points = np.asarray(points_world, dtype=np.float64).reshape(-1, 3)
    if len(uv) != len(points):
        raise ValueError(f"{len(uv)} pixels but {len(points)} points")
    cov = None if point_covariances is None else np.asarray(point_covariances, dtype=np.float64)
    if cov is not None and cov.shape != (len(uv), 3, 3):
        raise ValueError(f"point covariances must be ({len(uv)}, 3, 3), got {cov.shape}")
    sigma = np.broadcast_to(np.asarray(sigma_px, dtype=np.float64), (len(uv),))
    if len(uv) and not sigma.min() > 0:
        raise ValueError("sigma_px must be positive")
    return PoseProblem(uv, points, camera, cov, sigma, float(loss_scale_px))


def _approach(problem: PoseProblem, T_cam_world: Float, max_error_px: float) -> Float:
    """From a rough pose towards the nearest consensus: matches within a gate that halves down to the error bound."""
    gate = 16 * max_error_px
    while gate >= max_error_px:
        near = problem.errors_px(T_cam_world) <= gate
        if near.sum() < 6:
            break
        wide = replace(problem.subset(near), point_covariances=None, loss_scale_px=gate / 4)
        T_cam_world, _ = minimize(wide, T_cam_world, max_iterations=10)
        gate /= 2
    return T_cam_world


def _polish(problem: PoseProblem, T: Float, max_error_px: float, min_inliers: int) -> tuple[Float, NDArray[np.bool_]]:
    """Alternate inlier selection and refinement until the inliers stay; the pose and its inliers."""
    inliers = problem.errors_px(T) <= max_error_px
    for _ in range(5):
        if inliers.sum() < min_inliers:
            break
        T, _ = minimize(problem.subset(inliers), T)
        before, inliers = inliers, problem.errors_px(T) <= max_error_px
        if np.array_equal(before, inliers):
            break
    return T, inliers


def _result(
    problem: PoseProblem, T: Float, inliers: NDArray[np.bool_], usable: NDArray[np.bool_], min_inliers: int
) -> PoseEstimate | PoseFailure:
    """The outcome in the caller's numbering: ``problem`` holds the ``usable`` ones of all matches."""
    n, found = len(usable), int(inliers.sum())
    if found < min_inliers:
        return PoseFailure(f"{found} of {n} matches agree with the best pose, at least {min_inliers} must", n, found)
    agreeing = problem.subset(inliers)
    covariance = _covariance(agreeing, T)
    if covariance is None:
        return PoseFailure(f"the {found} agreeing matches do not determine a pose (points on a line?)", n, found)
    rms = float(np.sqrt(np.mean(agreeing.errors_px(T) ** 2)))
    all_inliers = np.zeros(n, dtype=np.bool_)
    all_inliers[usable] = inliers
    return PoseEstimate(se3.invert(T), covariance, all_inliers, rms)
