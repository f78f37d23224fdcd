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


Backend = Callable[[Float, Float, Camera, RansacSettings], "Float | None"]


def find_backend(name: str) -> Backend:
    """The backend called ``name``; ``auto`` is the first installed of pycolmap, poselib, opencv."""
    if name == "auto":
        name = next((n for n in ("pycolmap", "poselib") if _installed(n)), "opencv")
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
    """MSAC over P3P samples, with EPnP-free local optimisation on the inliers of every new best (SQPnP)."""
    import cv2

    rng = np.random.default_rng(settings.seed)
    n = len(uv_px)
    xy, eye, zero = camera.normalize(uv_px), np.eye(3), np.zeros(4)
    limit2 = settings.max_error_px**2
    best_T, best_score, needed, trial = None, n * limit2, settings.max_iterations, 0

    def score(T: Float) -> tuple[float, NDArray[np.bool_]]:
        error2 = ((camera.project(se3.transform(T, points_world)) - uv_px) ** 2).sum(axis=1)
        error2 = np.nan_to_num(error2, nan=np.inf)
        return float(np.minimum(error2, limit2).sum()), error2 <= limit2

    while trial < max(settings.min_iterations, min(needed, settings.max_iterations)):
        trial += 1
        pick = rng.choice(n, 3, replace=False)
        count, rvecs, tvecs = cv2.solveP3P(points_world[pick], xy[pick], eye, zero, flags=cv2.SOLVEPNP_P3P)
        for k in range(count):
            T = se3.from_rt(se3.rotvec_to_rotation(rvecs[k].ravel()), tvecs[k])
            if not np.isfinite(T).all():
                continue
            value, inliers = score(T)
            if value >= best_score:
                continue
            best_T, best_score = T, value
            for _ in range(3):
                if inliers.sum() < 4:
                    break
                ok, rvec, tvec = cv2.solvePnP(points_world[inliers], xy[inliers], eye, zero, flags=cv2.SOLVEPNP_SQPNP)
                if not ok:
                    break
                T = se3.from_rt(se3.rotvec_to_rotation(rvec.ravel()), tvec)
                value, inliers_new = score(T)
                if not np.isfinite(T).all() or value >= best_score:
                    break
                best_T, best_score, inliers = T, value, inliers_new
            share = np.clip(inliers.mean(), 1e-6, 1 - 1e-9)
            needed = int(np.ceil(min(1e9, 3 * np.log(1 - settings.confidence) / np.log1p(-(share**3)))))
    return best_T


_BACKENDS: dict[str, Backend] = {"pycolmap": _pycolmap, "poselib": _poselib, "opencv": _opencv}
