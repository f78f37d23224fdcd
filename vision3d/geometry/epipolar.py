# SPDX-License-Identifier: Apache-2.0
"""Two-view geometry: essential matrices, epipolar distances, depths of two rays, relative pose by RANSAC.

Image points are undistorted normalised coordinates ``xy`` (z = 1), see :meth:`Camera.normalize`;
multiply a distance by the focal length to read it in pixels. Hartley & Zisserman, chapters 9 and 11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry.cameras import Camera

Float = NDArray[np.float64]


@dataclass(frozen=True)
class RelativePose:
    """Relative motion of two uncalibrated-in-scale views.

    Attributes:
        E: (3, 3) essential matrix with ``x_b' E x_a = 0``.
        R_b_a: (3, 3) rotation.  t_b_a: (3,) unit translation; the scale of two views is unknown.
        inliers: (N,) bool, correspondences that fit E and lie in front of both cameras.
    """

    E: Float
    R_b_a: Float
    t_b_a: Float
    inliers: NDArray[np.bool_]


def skew(v: ArrayLike) -> Float:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3): ``skew(v) @ w == cross(v, w)``."""
    v = np.asarray(v, dtype=np.float64)
    out = np.zeros((*v.shape[:-1], 3, 3))
    out[..., 0, 1], out[..., 0, 2] = -v[..., 2], v[..., 1]
    out[..., 1, 0], out[..., 1, 2] = v[..., 2], -v[..., 0]
    out[..., 2, 0], out[..., 2, 1] = -v[..., 1], v[..., 0]
    return out


def essential_from_pose(T_b_a: ArrayLike) -> Float:
    """(..., 3, 3) E with ``x_b' E x_a = 0`` from motions (..., 4, 4), scaled to a unit baseline.

    A pure rotation has no epipolar lines: its E is all zero.
    """
    T = np.asarray(T_b_a, dtype=np.float64)
    t = T[..., :3, 3]
    length = np.linalg.norm(t, axis=-1, keepdims=True)
    t = np.divide(t, length, out=np.zeros_like(t), where=length > 1e-12)
    return skew(t) @ T[..., :3, :3]


def fundamental_from_pose(T_b_a: ArrayLike, K_a: ArrayLike, K_b: ArrayLike) -> Float:
    """(3, 3) F with ``uv_b' F uv_a = 0`` for undistorted pixels of cameras K_a, K_b (3, 3)."""
    inv_a = np.linalg.inv(np.asarray(K_a, dtype=np.float64))
    inv_b = np.linalg.inv(np.asarray(K_b, dtype=np.float64))
    return inv_b.T @ essential_from_pose(T_b_a) @ inv_a


def epipolar_distances(E: ArrayLike, xy_a: ArrayLike, xy_b: ArrayLike) -> tuple[Float, Float]:
    """Distances (N,), (N,) of points (N, 2) from the epipolar line of their partner, in image a and in b.

    Zero where the line is undefined (a point on the epipole, or a pure rotation): such a pair
    cannot be refuted by epipolar geometry.
    """
    numerator, line_a, line_b = _lines(E, xy_a, xy_b)
    return _ratio(numerator, np.hypot(*line_a[:, :2].T)), _ratio(numerator, np.hypot(*line_b[:, :2].T))


def sampson_distance(E: ArrayLike, xy_a: ArrayLike, xy_b: ArrayLike) -> Float:
    """(N,) first-order distance to the nearest pair that satisfies E exactly (H&Z eq. 11.9, square root)."""
    numerator, line_a, line_b = _lines(E, xy_a, xy_b)
    return _ratio(numerator, np.sqrt((line_a[:, :2] ** 2).sum(1) + (line_b[:, :2] ** 2).sum(1)))


def two_ray_depths(T_b_a: ArrayLike, xy_a: ArrayLike, xy_b: ArrayLike) -> tuple[Float, Float, Float]:
    """Where two viewing rays pass closest, as depths along each camera's z axis.

    Args:
        T_b_a: (4, 4) motion from camera a to camera b, or (N, 4, 4) one per pair.
        xy_a, xy_b: (N, 2) undistorted normalised coordinates.

    Returns:
        depth_a (N,), depth_b (N,) in units of the translation, and the parallax (N,) in radians.
        Depths are infinite where the rays are parallel; negative ones lie behind the camera.
    """
    T = np.asarray(T_b_a, dtype=np.float64)
    a = _homogeneous(xy_a)
    b = _homogeneous(xy_b)
    ray_a = np.einsum("...ij,...j->...i", T[..., :3, :3], a)
    t = np.broadcast_to(T[..., :3, 3], b.shape)
    # Least squares of depth_a * ray_a + t = depth_b * b.
    aa, bb, ab = (ray_a**2).sum(-1), (b**2).sum(-1), (ray_a * b).sum(-1)
    at, bt = (ray_a * t).sum(-1), (b * t).sum(-1)
    cross = np.linalg.norm(np.cross(ray_a, b), axis=-1)
    det = cross**2
    with np.errstate(divide="ignore", invalid="ignore"):
        depth_a = np.where(det > 1e-18 * aa * bb, (ab * bt - bb * at) / det, np.inf)
        depth_b = np.where(det > 1e-18 * aa * bb, (aa * bt - ab * at) / det, np.inf)
    return depth_a, depth_b, np.arctan2(cross, ab)


def estimate_relative_pose(
    uv_a_px: ArrayLike,
    uv_b_px: ArrayLike,
    camera_a: Camera,
    camera_b: Camera,
    max_error_px: float = 2.0,
    *,
    confidence: float = 0.999,
    max_iterations: int = 1000,
    seed: int = 0,
) -> RelativePose | None:
    """Essential matrix of matched pixels (N, 2) by LO-RANSAC (FaVoR step 2: the frame-to-frame filter).

    Returns None when there are fewer than five matches or no model explains at least five of them.
    """
    import cv2

    xy_a, xy_b = camera_a.normalize(uv_a_px), camera_b.normalize(uv_b_px)
    if len(xy_a) != len(xy_b):
        raise ValueError(f"matches come in pairs: {len(xy_a)} points in a, {len(xy_b)} in b")
    usable = np.flatnonzero(np.isfinite(xy_a).all(axis=1) & np.isfinite(xy_b).all(axis=1))
    if len(usable) < 5:
        return None
    params = cv2.UsacParams()
    params.confidence, params.maxIterations, params.randomGeneratorState = confidence, max_iterations, seed
    params.threshold = max_error_px / np.sqrt(camera_a.focal * camera_b.focal)
    params.score, params.sampler = cv2.SCORE_METHOD_MSAC, cv2.SAMPLING_UNIFORM
    params.loMethod, params.loIterations, params.loSampleSize = cv2.LOCAL_OPTIM_INNER_LO, 10, 14
    params.final_polisher = cv2.NONE_POLISHER
    eye = np.eye(3)
    pts_a, pts_b = xy_a[usable], xy_b[usable]
    E, mask = cv2.findEssentialMat(pts_a, pts_b, eye, eye, None, None, params)
    if E is None or E.shape != (3, 3) or mask is None or int(mask.sum()) < 5:
        return None
    _, R, t, front = cv2.recoverPose(E, pts_a, pts_b, eye, distanceThresh=1e6, mask=mask.copy())[:4]
    inliers = np.zeros(len(xy_a), dtype=bool)
    inliers[usable[front.ravel() > 0]] = True
    if inliers.sum() < 5:
        return None
    R_b_a, t_b_a = np.asarray(R, dtype=np.float64), np.asarray(t, dtype=np.float64).ravel()
    t_b_a = t_b_a / np.linalg.norm(t_b_a)
    return RelativePose(E=skew(t_b_a) @ R_b_a, R_b_a=R_b_a, t_b_a=t_b_a, inliers=inliers)


def _homogeneous(xy: ArrayLike) -> Float:
    xy = np.asarray(xy, dtype=np.float64)
    return np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1)


def _lines(E: ArrayLike, xy_a: ArrayLike, xy_b: ArrayLike) -> tuple[Float, Float, Float]:
    """|x_b' E x_a| (N,), the lines of b in image a (N, 3) and the lines of a in image b (N, 3)."""
    E, a, b = np.asarray(E, dtype=np.float64), _homogeneous(xy_a), _homogeneous(xy_b)
    line_b = a @ E.T
    return np.abs((line_b * b).sum(1)), b @ E, line_b


def _ratio(numerator: Float, denominator: Float) -> Float:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 1e-15)
