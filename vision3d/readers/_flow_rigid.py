# SPDX-License-Identifier: Apache-2.0
"""The sensor's motion from true flow: the rigid motion that most points agree on, found robustly.

Data sets without poses state the flow of every point, and most points stand still. RANSAC over three points at a time
(Fischler and Bolles 1981) finds the motion's neighbourhood; reweighted least squares (closed form of Kabsch 1976,
weights of Geman and McClure) refines it on all points. What does not follow it moves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry.se3 import from_rt, transform

Float = NDArray[np.float64]

TRIALS = 150
DRAWN_POINTS = 1500
REFINEMENTS = 10


def rigid_motion(source: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None) -> Float:
    """(4, 4) least-squares motion that takes ``source`` (N, 3) onto ``target`` (N, 3)."""
    p, q = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    w = w / w.sum()
    center_p, center_q = w @ p, w @ q
    U, _, Vt = np.linalg.svd((w[:, None] * (p - center_p)).T @ (q - center_q))
    R = Vt.T @ np.diag([1.0, 1.0, np.sign(np.linalg.det(Vt.T @ U.T))]) @ U.T
    return from_rt(R, center_q - R @ center_p)


def fit_rigid(source: ArrayLike, target: ArrayLike, tolerance_m: ArrayLike, seed: int = 0) -> Float | None:
    """(4, 4) motion that most of the pairs ``source`` -> ``target``, both (N, 3), follow.

    Args:
        tolerance_m: (N,) or one number: how far a point that follows it may lie off.

    Returns:
        None when fewer than 10 points, or fewer than 20 %, agree on any motion.
    """
    p, q = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    tolerance = np.broadcast_to(np.asarray(tolerance_m, dtype=np.float64), (len(p),))
    if len(p) < 10:
        return None
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(p))[:DRAWN_POINTS]
    best, agreed = np.eye(4), -1
    for _ in range(TRIALS):
        three = rng.choice(some, 3, replace=False)
        T = rigid_motion(p[three], q[three])
        count = int((residuals(T, p[some], q[some]) < tolerance[some]).sum())
        if count > agreed:
            best, agreed = T, count
    for _ in range(REFINEMENTS):
        ratio = residuals(best, p, q) / tolerance
        best = rigid_motion(p, q, 1.0 / (1.0 + ratio**2) ** 2)
    share = float((residuals(best, p, q) < tolerance).mean())
    return best if share >= 0.2 and share * len(p) >= 10 else None


def residuals(T: Float, source: ArrayLike, target: ArrayLike) -> Float:
    """(N,) metres by which ``T`` misses ``target``."""
    return np.linalg.norm(transform(T, source) - np.asarray(target, dtype=np.float64), axis=-1)
