# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vision3d.geometry import se3
from vision3d.geometry.cameras import Camera
from vision3d.geometry.epipolar import (
    epipolar_distances,
    essential_from_pose,
    estimate_relative_pose,
    fundamental_from_pose,
    sampson_distance,
    skew,
    two_ray_depths,
)

Float = NDArray[np.float64]
CAMERA = Camera("OPENCV", 640, 480, (525.0, 520.0, 318.0, 242.0, -0.2, 0.05, 1e-3, -1e-3))
T_B_A = se3.from_rt(se3.rotvec_to_rotation([0.1, -0.2, 0.3]), [0.5, -0.1, 0.2])


def scene(n: int = 100, seed: int = 0) -> tuple[Float, Float, Float]:
    """Points in front of both cameras and their normalised coordinates in a and b."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-1, -1, 3], [1, 1, 6], (n, 3))
    in_b = se3.transform(T_B_A, points)
    return points, points[:, :2] / points[:, 2:], in_b[:, :2] / in_b[:, 2:]


def test_skew_is_the_cross_product() -> None:
    rng = np.random.default_rng(1)
    v, w = rng.normal(size=(2, 7, 3))
    assert np.allclose((skew(v) @ w[..., None])[..., 0], np.cross(v, w))


def test_true_matches_satisfy_the_epipolar_constraint() -> None:
    _, xy_a, xy_b = scene()
    E = essential_from_pose(T_B_A)
    for distance in (*epipolar_distances(E, xy_a, xy_b), sampson_distance(E, xy_a, xy_b)):
        assert distance.max() < 1e-14
    K_a, K_b = np.diag([500.0, 510, 1]), np.array([[600.0, 0, 320], [0, 610, 240], [0, 0, 1]])
    F = fundamental_from_pose(T_B_A, K_a, K_b)
    ones = np.ones((len(xy_a), 1))
    uv_a, uv_b = np.c_[xy_a, ones] @ K_a.T, np.c_[xy_b, ones] @ K_b.T
    assert np.abs(np.einsum("ni,ij,nj->n", uv_b, F, uv_a)).max() < 1e-12


def test_distances_are_lengths_in_the_image() -> None:
    # Sideways motion: the epipolar lines are the image rows, so the distance is the difference of y.
    E = essential_from_pose(se3.from_rt(np.eye(3), [3.0, 0, 0]))
    in_a, in_b = epipolar_distances(E, [[0.1, 0.2]], [[-0.3, 0.25]])
    assert in_a == pytest.approx(0.05)
    assert in_b == pytest.approx(0.05)
    assert sampson_distance(E, [[0.1, 0.2]], [[-0.3, 0.25]]) == pytest.approx(0.05 / np.sqrt(2))


def test_sampson_is_first_order_correct() -> None:
    _, xy_a, xy_b = scene(200)
    rng = np.random.default_rng(2)
    E = essential_from_pose(T_B_A)
    noisy_a, noisy_b = xy_a + 1e-5 * rng.normal(size=xy_a.shape), xy_b + 1e-5 * rng.normal(size=xy_b.shape)
    # Independent: the smallest correction of the four coordinates, by linearising the constraint numerically.
    z = np.c_[noisy_a, noisy_b]

    def constraint(z: Float) -> Float:
        one = np.ones((len(z), 1))
        return np.einsum("ni,ij,nj->n", np.c_[z[:, 2:], one], E, np.c_[z[:, :2], one])

    gradient = np.stack([(constraint(z + 1e-6 * e) - constraint(z - 1e-6 * e)) / 2e-6 for e in np.eye(4)], 1)
    assert np.allclose(
        sampson_distance(E, noisy_a, noisy_b), np.abs(constraint(z)) / np.linalg.norm(gradient, axis=1), rtol=1e-6
    )


def test_a_pure_rotation_refutes_nothing() -> None:
    E = essential_from_pose(se3.from_rt(se3.rotvec_to_rotation([0, 0.3, 0]), [0, 0, 0]))
    assert not E.any()
    assert not np.concatenate(epipolar_distances(E, [[0.1, 0.2]], [[0.5, 0.5]])).any()


def test_two_ray_depths_are_the_depths() -> None:
    points, xy_a, xy_b = scene()
    depth_a, depth_b, parallax = two_ray_depths(T_B_A, xy_a, xy_b)
    in_b = se3.transform(T_B_A, points)
    assert np.allclose(depth_a, points[:, 2])
    assert np.allclose(depth_b, in_b[:, 2])
    to_a, to_b = points, points - se3.invert(T_B_A)[:3, 3]
    cosine = (to_a * to_b).sum(1) / np.linalg.norm(to_a, axis=1) / np.linalg.norm(to_b, axis=1)
    assert np.allclose(parallax, np.arccos(cosine))


def test_rays_behind_and_parallel_rays() -> None:
    T = se3.from_rt(np.eye(3), [-1.0, 0, 0])  # b stands one metre to the right of a
    depth_a, depth_b, _ = two_ray_depths(T, [[0.0, 0], [0.0, 0]], [[-0.5, 0], [0.5, 0]])
    assert np.allclose(depth_a, [2, -2])
    assert np.allclose(depth_b, [2, -2])
    depth_a, depth_b, parallax = two_ray_depths(T, [[0.2, 0.1]], [[0.2, 0.1]])
    assert np.isinf(depth_a).all()
    assert np.isinf(depth_b).all()
    assert parallax[0] < 1e-12


@pytest.mark.parametrize("outliers", [0.0, 0.4])
def test_relative_pose_from_distorted_pixels_with_outliers(outliers: float) -> None:
    rng = np.random.default_rng(3)
    points, _, _ = scene(400, seed=4)
    uv_a = CAMERA.project(points) + 0.3 * rng.normal(size=(400, 2))
    uv_b = CAMERA.project(se3.transform(T_B_A, points)) + 0.3 * rng.normal(size=(400, 2))
    wrong = np.arange(400) < outliers * 400
    uv_b[wrong] = rng.uniform([0, 0], [639, 479], (wrong.sum(), 2))
    found = estimate_relative_pose(uv_a, uv_b, CAMERA, CAMERA, 2.0, seed=5)
    assert found is not None
    assert se3.rotation_angle_deg(found.R_b_a.T @ T_B_A[:3, :3]) < 0.5
    direction = T_B_A[:3, 3] / np.linalg.norm(T_B_A[:3, 3])
    assert np.degrees(np.arccos(found.t_b_a @ direction)) < 2
    assert found.inliers[~wrong].mean() > 0.95
    assert found.inliers[wrong].sum() <= 0.15 * wrong.sum()
    again = estimate_relative_pose(uv_a, uv_b, CAMERA, CAMERA, 2.0, seed=5)
    assert again is not None
    assert np.array_equal(again.E, found.E)


def test_relative_pose_needs_five_matches_and_ignores_nan() -> None:
    points, _, _ = scene(30, seed=5)
    uv_a, uv_b = CAMERA.project(points), CAMERA.project(se3.transform(T_B_A, points))
    assert estimate_relative_pose(uv_a[:4], uv_b[:4], CAMERA, CAMERA) is None
    assert estimate_relative_pose(np.zeros((0, 2)), np.zeros((0, 2)), CAMERA, CAMERA) is None
    uv_a[7] = np.nan
    found = estimate_relative_pose(uv_a, uv_b, CAMERA, CAMERA)
    assert found is not None
    assert not found.inliers[7]
    assert found.inliers.sum() == 29
    with pytest.raises(ValueError, match="30 points in a, 29 in b"):
        estimate_relative_pose(uv_a, uv_b[1:], CAMERA, CAMERA)
