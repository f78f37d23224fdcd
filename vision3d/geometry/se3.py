# SPDX-License-Identifier: Apache-2.0
"""Rotations and rigid motions as plain float64 arrays; quaternions are (w, x, y, z)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Float = NDArray[np.float64]


def invert(T: ArrayLike) -> Float:
    """Inverse of rigid motions (..., 4, 4), exact for orthonormal rotations."""
    T = np.asarray(T, dtype=np.float64)
    out = np.zeros_like(T)
    Rt = np.swapaxes(T[..., :3, :3], -1, -2)
    out[..., :3, :3] = Rt
    out[..., :3, 3] = -(Rt @ T[..., :3, 3:])[..., 0]
    out[..., 3, 3] = 1.0
    return out


def transform(T: ArrayLike, points: ArrayLike) -> Float:
    """Apply T (4, 4) to points (..., 3)."""
    T, points = np.asarray(T, dtype=np.float64), np.asarray(points, dtype=np.float64)
    return points @ T[:3, :3].T + T[:3, 3]


def from_rt(R: ArrayLike, t: ArrayLike) -> Float:
    """(4, 4) from rotation (3, 3) and translation (3,)."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, np.asarray(t, dtype=np.float64).reshape(3)
    return T


def quat_to_rotation(wxyz: ArrayLike) -> Float:
    """(..., 3, 3) from quaternions (..., 4) as (w, x, y, z); any non-zero length."""
    return Rotation.from_quat(np.asarray(wxyz, dtype=np.float64), scalar_first=True).as_matrix()


def rotation_to_quat(R: ArrayLike) -> Float:
    """Unit quaternions (..., 4) as (w, x, y, z) with w >= 0 from rotations (..., 3, 3)."""
    return Rotation.from_matrix(R).as_quat(canonical=True, scalar_first=True)


def rotvec_to_rotation(rotvec: ArrayLike) -> Float:
    """Rodrigues: (..., 3, 3) from rotation vectors (..., 3) in radians."""
    return Rotation.from_rotvec(rotvec).as_matrix()


def rotation_angle_deg(R: ArrayLike) -> Float:
    """Angle of rotations (..., 3, 3) in degrees, accurate near 0 and 180 (atan2, not arccos)."""
    R = np.asarray(R, dtype=np.float64)
    axis = np.stack(
        [
            R[..., 2, 1] - R[..., 1, 2],
            R[..., 0, 2] - R[..., 2, 0],
            R[..., 1, 0] - R[..., 0, 1],
        ],
        axis=-1,
    )
    sine = 0.5 * np.linalg.norm(axis, axis=-1)
    cosine = 0.5 * (np.trace(R, axis1=-2, axis2=-1) - 1.0)
    return np.degrees(np.arctan2(sine, cosine))


def pose_problem(T: ArrayLike, tolerance: float = 1e-2) -> str:
    """Why T (4, 4) is no rigid motion, in one clause; empty when it is one."""
    T = np.asarray(T, dtype=np.float64)
    if T.shape != (4, 4):
        return f"pose must be 4x4 numbers, found {'x'.join(map(str, T.shape))}"
    if not np.isfinite(T).all():
        return "pose holds NaN or infinite numbers"
    if np.abs(T[3] - [0, 0, 0, 1]).max() > 1e-6:
        return "last row of the pose is not 0 0 0 1"
    R = T[:3, :3]
    det = float(np.linalg.det(R))
    if abs(det - 1.0) > tolerance:
        return f"rotation has determinant {det:.4f}, must be +1"
    if np.abs(R @ R.T - np.eye(3)).max() > tolerance:
        return "rotation is not orthonormal"
    return ""


def nearest_rotation(R: ArrayLike) -> Float:
    """The rotation closest to R (3, 3) in the Frobenius norm (removes rounding of text files)."""
    U, _, Vt = np.linalg.svd(np.asarray(R, dtype=np.float64))
    return U @ np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))]) @ Vt
