# SPDX-License-Identifier: Apache-2.0
"""Robust absolute pose behind one signature: pycolmap, PoseLib, or our own RANSAC on OpenCV's P3P.

Each backend takes finite pixels (M, 2), points (M, 3), a camera and the settings, and returns
``T_cam_world`` (4, 4) or None. Equal inputs and seeds give equal poses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import ConfigError
from vision3d.geometry import se3
from vision3d.geometry.cameras import Camera

Float = NDArray[np.float64]


@dataclass(frozen=True)
class RansacSettings:
    """Inlier threshold in pixels, iteration bounds, confidence of having seen a clean sample, seed."""

    max_error_px: float
    min_iterations: int
    max_iterations: int
    confidence: float
    seed: int


_BATCH = 64  # samples that the OpenCV fallback draws and scores at once

Backend = Callable[[Float, Float, Camera, RansacSettings], "Float | None"]


def find_backend(name: str) -> Backend:
    """The backend called ``name``; ``auto`` is the first installed of poselib, pycolmap, opencv.

    Their poses are the same after our refinement; poselib gives up sooner on matches that are all wrong.
    """
    if name == "auto":
        name = next((n for n in ("poselib", "pycolmap") if _installed(n)), "opencv")
    if name not in _BACKENDS:
        raise ConfigError(f"PnP backend '{name}' is not one of auto, {', '.join(_BACKENDS)}")
    if name != "opencv" and not _installed(name):
        raise ConfigError(f"PnP backend '{name}' is not installed: pip install {name}, or use backend 'auto'")
    return _BACKENDS[name]


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _pycolmap(uv_px: Float, points_world: Float, camera: Camera, settings: RansacSettings) -> Float | None:
    import pycolmap

    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = settings.max_error_px
    options.ransac.min_num_trials = settings.min_iterations
    options.ransac.max_num_trials = max(settings.min_iterations, settings.max_iterations)
    options.ransac.confidence = settings.confidence
    options.ransac.min_inlier_ratio = 0.01
    if hasattr(options.ransac, "random_seed"):
        options.ransac.random_seed = settings.seed
    else:  # before 4.0 the generator is global
        pycolmap.set_random_seed(settings.seed)
    # COLMAP's pixel centres are at +0.5; Camera.to_colmap has moved the principal point likewise.
    found = pycolmap.estimate_absolute_pose(uv_px + 0.5, points_world, camera.to_colmap(), options)
    if found is None:
        return None
    return se3.from_rt(found["cam_from_world"].rotation.matrix(), found["cam_from_world"].translation)


def _poselib(uv_px: Float, points_world: Float, camera: Camera, settings: RansacSettings) -> Float | None:
    import poselib

    ransac = {
        "max_reproj_error": settings.max_error_px,
        "min_iterations": settings.min_iterations,
        "max_iterations": max(settings.min_iterations, settings.max_iterations),
        "success_prob": settings.confidence,
        "seed": settings.seed,
    }
    # Undistorted pixels of a pinhole camera: PoseLib does not know every camera model.
    xy = camera.normalize(uv_px)
    pinhole = {"model": "PINHOLE", "width": camera.width, "height": camera.height}
    pinhole["params"] = [camera.fx, camera.fy, 0.0, 0.0]
    pose, info = poselib.estimate_absolute_pose(
        xy * [camera.fx, camera.fy], points_world, pinhole, ransac, {"max_iterations": 0}
    )
    if int(info["num_inliers"]) < 3 or not np.isfinite(pose.Rt).all():
        return None
    return se3.from_rt(pose.Rt[:, :3], pose.Rt[:, 3])


def _opencv(uv_px: Float, points_world: Float, camera: Camera, settings: RansacSettings) -> Float | None:
    """MSAC over P3P samples in batches, with local optimisation (SQPnP on the inliers) of every new best.

    Errors are those of the undistorted image, scaled by the focal length.
    """
    import cv2

    rng = np.random.default_rng(settings.seed)
    xy, limit2 = camera.normalize(uv_px), (settings.max_error_px / camera.focal) ** 2
    n, best, best_score = len(xy), None, np.inf
    done, needed = 0, settings.max_iterations
    while done < max(settings.min_iterations, min(needed, settings.max_iterations)):
        poses = _p3p_batch(xy, points_world, rng, _BATCH)
        done += _BATCH
        if not len(poses):
            continue
        scores, inliers = _msac(poses, xy, points_world, limit2)
        k = int(np.argmin(scores))
        if scores[k] >= best_score:
            continue
        best, best_score, agree = poses[k], float(scores[k]), inliers[k]
        for _ in range(5):
            if agree.sum() < 4:
                break
            ok, rvec, t = cv2.solvePnP(points_world[agree], xy[agree], np.eye(3), np.zeros(4), flags=cv2.SOLVEPNP_SQPNP)
            if not ok or not np.isfinite(rvec).all():
                break
            pose = se3.from_rt(se3.rotvec_to_rotation(np.ravel(rvec)), t)
            score, inlier = _msac(pose[None], xy, points_world, limit2)
            if score[0] >= best_score:
                break
            best, best_score, agree = pose, float(score[0]), inlier[0]
        share = float(np.clip(agree.sum() / n, 1e-6, 1 - 1e-9))
        needed = int(min(1e9, np.log(1 - settings.confidence) / np.log1p(-(share**3)))) + 1
    return best


def _p3p_batch(xy: Float, points_world: Float, rng: np.random.Generator, size: int) -> Float:
    """(S, 4, 4) every solution of ``size`` random minimal samples."""
    import cv2

    eye, zero, found = np.eye(3), np.zeros(4), []
    for pick in np.argpartition(rng.random((size, len(xy))), 3, axis=1)[:, :3]:
        count, rvecs, tvecs = cv2.solveP3P(points_world[pick], xy[pick], eye, zero, flags=cv2.SOLVEPNP_P3P)
        found += [np.concatenate([rvecs[k], tvecs[k]]).ravel() for k in range(count)]
    solutions = np.asarray(found, dtype=np.float64).reshape(-1, 6)
    solutions = solutions[np.isfinite(solutions).all(axis=1)]
    poses = np.tile(np.eye(4), (len(solutions), 1, 1))
    poses[:, :3, :3] = se3.rotvec_to_rotation(solutions[:, :3])
    poses[:, :3, 3] = solutions[:, 3:]
    return poses


def _msac(poses: Float, xy: Float, points_world: Float, limit2: float) -> tuple[Float, NDArray[np.bool_]]:
    """Truncated squared errors (S,) of poses (S, 4, 4), and their inliers (S, M)."""
    p = poses[:, :3, :3] @ points_world.T + poses[:, :3, 3:]
    front = p[:, 2] > 1e-9
    z = np.where(front, p[:, 2], 1.0)
    error2 = np.where(front, (p[:, 0] / z - xy[:, 0]) ** 2 + (p[:, 1] / z - xy[:, 1]) ** 2, np.inf)
    return np.minimum(error2, limit2).sum(axis=1), error2 <= limit2


_BACKENDS: dict[str, Backend] = {"pycolmap": _pycolmap, "poselib": _poselib, "opencv": _opencv}
