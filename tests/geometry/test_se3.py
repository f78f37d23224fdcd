# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm

from vision3d.geometry import se3


def random_poses(n: int = 50, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    T = np.tile(np.eye(4), (n, 1, 1))
    T[:, :3, :3] = se3.quat_to_rotation(rng.normal(size=(n, 4)))
    T[:, :3, 3] = rng.normal(size=(n, 3)) * 10
    return T


def test_inverse_is_the_matrix_inverse():
    T = random_poses()
    np.testing.assert_allclose(se3.invert(T), np.linalg.inv(T), atol=1e-12)
    np.testing.assert_allclose(se3.invert(T[0]) @ T[0], np.eye(4), atol=1e-12)


def test_transform_equals_homogeneous_product_and_keeps_distances():
    T, points = random_poses()[3], np.random.default_rng(1).normal(size=(7, 5, 3))
    homogeneous = np.concatenate([points, np.ones((7, 5, 1))], axis=-1) @ T.T
    moved = se3.transform(T, points)
    np.testing.assert_allclose(moved, homogeneous[..., :3], atol=1e-12)
    np.testing.assert_allclose(
        np.linalg.norm(moved[0, 1] - moved[3, 2]), np.linalg.norm(points[0, 1] - points[3, 2]), rtol=1e-12
    )


def test_quaternions_are_scalar_first():
    # A quarter turn about z: x -> y.
    half = np.sqrt(0.5)
    R = se3.quat_to_rotation([half, 0, 0, half])
    np.testing.assert_allclose(R @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(se3.rotation_to_quat(R), [half, 0, 0, half], atol=1e-12)


def test_quaternion_formula_written_out():
    w, x, y, z = np.array([0.3, -0.5, 0.2, 0.78]) / np.linalg.norm([0.3, -0.5, 0.2, 0.78])
    expected = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    np.testing.assert_allclose(se3.quat_to_rotation([w, x, y, z]), expected, atol=1e-12)


def test_quaternion_round_trip_has_positive_scalar_part():
    R = random_poses(200)[:, :3, :3]
    q = se3.rotation_to_quat(R)
    assert (q[:, 0] >= 0).all()
    np.testing.assert_allclose(se3.quat_to_rotation(q), R, atol=1e-12)
    np.testing.assert_allclose(se3.quat_to_rotation(-3.0 * q), R, atol=1e-12)


def test_rodrigues_is_the_matrix_exponential():
    r = np.array([0.3, -1.1, 0.7])
    skew = np.array([[0, -r[2], r[1]], [r[2], 0, -r[0]], [-r[1], r[0], 0]])
    np.testing.assert_allclose(se3.rotvec_to_rotation(r), expm(skew), atol=1e-12)


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 1e-3, 0.1, 5.0, 90.0, 179.0, 179.99999, 180.0])
def test_angle_is_accurate_at_both_ends(degrees):
    axis = np.array([1.0, -2.0, 0.5]) / np.linalg.norm([1.0, -2.0, 0.5])
    R = se3.rotvec_to_rotation(axis * np.radians(degrees))
    assert se3.rotation_angle_deg(R) == pytest.approx(degrees, abs=1e-9, rel=1e-7)


def test_angle_does_not_depend_on_the_world_frame():
    A, B, W = (random_poses(3, seed=4)[i, :3, :3] for i in range(3))
    assert se3.rotation_angle_deg((W @ A).T @ (W @ B)) == pytest.approx(se3.rotation_angle_deg(A.T @ B), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda T: T, ""),
        (lambda T: T[:3], "4x4"),
        (lambda T: np.where(np.eye(4, k=3), np.nan, T), "NaN"),
        (lambda T: T @ np.diag([1, 1, -1, 1]), "determinant -1"),
        (lambda T: T @ np.diag([1.1, 1.1, 1.1, 1]), "determinant 1.3310"),
        (lambda T: T @ np.diag([2, 0.5, 1, 1]), "orthonormal"),
        (lambda T: T + np.eye(4)[:, :1] @ np.zeros((1, 4)) + np.diag([0, 0, 0, 1.0]), "last row"),
    ],
)
def test_problems_of_a_pose_are_named(change, words):
    problem = se3.pose_problem(change(random_poses()[0]))
    assert words in problem
    assert bool(problem) == bool(words)


def test_nearest_rotation_removes_noise_and_never_mirrors():
    R = random_poses()[5, :3, :3]
    noisy = R + np.random.default_rng(2).normal(size=(3, 3)) * 1e-3
    fixed = se3.nearest_rotation(noisy)
    np.testing.assert_allclose(fixed @ fixed.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(fixed) == pytest.approx(1.0)
    assert se3.rotation_angle_deg(fixed.T @ R) < 0.2
    assert np.linalg.det(se3.nearest_rotation(R @ np.diag([1, 1, -1]))) == pytest.approx(1.0)
    others = [se3.nearest_rotation(fixed @ se3.rotvec_to_rotation(v)) for v in np.eye(3) * 1e-3]
    assert all(np.linalg.norm(noisy - fixed) <= np.linalg.norm(noisy - other) for other in others)
