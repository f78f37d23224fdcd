# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from vision3d.errors import ConfigError
from vision3d.geometry import _pnp_ransac, se3
from vision3d.geometry._pnp_refine import perturb, projection_jacobian
from vision3d.geometry.cameras import Camera
from vision3d.geometry.pnp import PoseEstimate, PoseFailure, estimate_pose, pose_covariance, refine_pose

Float = NDArray[np.float64]
PINHOLE = Camera("PINHOLE", 640, 480, (525.0, 520.0, 318.0, 242.0))
DISTORTED = Camera("OPENCV", 640, 480, (525.0, 520.0, 318.0, 242.0, -0.2, 0.05, 1e-3, -1e-3))
BACKENDS = [n for n in ("pycolmap", "poselib", "opencv") if n == "opencv" or _pnp_ransac._installed(n)]


def scene(
    seed: int, n: int = 200, noise_px: float = 0.5, outliers: float = 0.5, camera: Camera = DISTORTED
) -> tuple[Float, Float, Float]:
    """Pose, noisy pixels and world points about 3 m away; the first share of matches is wrong."""
    rng = np.random.default_rng(seed)
    T_world_cam = se3.from_rt(se3.rotvec_to_rotation(rng.normal(size=3)), rng.normal(size=3))
    uv = rng.uniform([0, 0], [639, 479], (n, 2))
    depth_m = 3 * rng.uniform(0.6, 1.4, n)
    points = se3.transform(T_world_cam, np.c_[camera.normalize(uv), np.ones(n)] * depth_m[:, None])
    uv = uv + noise_px * rng.normal(size=uv.shape)
    wrong = int(outliers * n)
    uv[:wrong] = rng.uniform([0, 0], [639, 479], (wrong, 2))
    return T_world_cam, uv, points


def error(T_world_cam: Float, found: Any) -> tuple[float, float]:
    """Translation in metres and rotation in degrees; fails when there is no pose."""
    assert isinstance(found, PoseEstimate), found
    R = T_world_cam[:3, :3].T @ found.T_world_cam[:3, :3]
    return float(np.linalg.norm(T_world_cam[:3, 3] - found.T_world_cam[:3, 3])), float(se3.rotation_angle_deg(R))


def local_error(T_world_cam: Float, found: PoseEstimate) -> Float:
    """(6,) perturbation that takes the estimated T_cam_world to the true one."""
    D = se3.invert(T_world_cam) @ found.T_world_cam
    return np.r_[Rotation.from_matrix(D[:3, :3]).as_rotvec(), D[:3, 3]]


def check_card_accuracy(seeds: int) -> None:
    errors = np.array([])
    for backend in BACKENDS:
        for camera in (PINHOLE, DISTORTED):
            found = []
            for seed in range(seeds):
                T, uv, points = scene(seed, camera=camera)
                found.append(error(T, estimate_pose(uv, points, camera, 5.0, seed=seed, backend=backend)))
            errors = np.median(found, axis=0)
            assert errors[0] < 0.005, backend
            assert errors[1] < 0.1, backend


def test_half_the_matches_wrong() -> None:
    check_card_accuracy(10)


@pytest.mark.slow
def test_half_the_matches_wrong_over_a_hundred_seeds() -> None:
    check_card_accuracy(100)


@pytest.mark.parametrize("backend", BACKENDS)
def test_exact_without_noise(backend: str) -> None:
    T, uv, points = scene(3, noise_px=0.0, outliers=0.3)
    found = estimate_pose(uv, points, DISTORTED, 2.0, backend=backend)
    metres, degrees = error(T, found)
    assert metres < 1e-9
    assert degrees < 1e-8
    assert isinstance(found, PoseEstimate)
    assert found.inliers[60:].all()
    assert found.rms_px < 1e-8 or not found.inliers[:60].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_seventeen_in_twenty_wrong(backend: str) -> None:
    hits = 0
    for seed in range(4):
        T, uv, points = scene(seed, n=400, outliers=0.85)
        found = estimate_pose(uv, points, DISTORTED, 4.0, seed=seed, backend=backend)
        hits += isinstance(found, PoseEstimate) and error(T, found)[0] < 0.03
    assert hits == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_inputs_give_equal_bytes(backend: str) -> None:
    _, uv, points = scene(5)
    runs = [estimate_pose(uv, points, DISTORTED, 5.0, seed=7, backend=backend) for _ in range(2)]
    first, second = runs
    assert isinstance(first, PoseEstimate)
    assert isinstance(second, PoseEstimate)
    assert first.T_world_cam.tobytes() == second.T_world_cam.tobytes()
    assert first.covariance.tobytes() == second.covariance.tobytes()
    assert np.array_equal(first.inliers, second.inliers)


def test_world_frame_does_not_matter() -> None:
    _, uv, points = scene(8)
    G = se3.from_rt(se3.rotvec_to_rotation([0.3, -2, 1]), [100.0, -50, 7])
    here = estimate_pose(uv, points, DISTORTED, 5.0)
    there = estimate_pose(uv, se3.transform(G, points), DISTORTED, 5.0)
    assert isinstance(here, PoseEstimate)
    assert isinstance(there, PoseEstimate)
    assert np.allclose(there.T_world_cam, G @ here.T_world_cam, atol=1e-6)
    # The covariance lives in the camera frame, so it does not move with the world.
    assert np.allclose(there.covariance, here.covariance, rtol=1e-3, atol=1e-12)


def test_half_a_pixel_is_not_lost() -> None:
    # With centres half a pixel off, 2000 clean points would give a pose turned by 0.5 / 525 rad = 0.055 deg.
    for backend in BACKENDS:
        T, uv, points = scene(9, n=2000, noise_px=0.2, outliers=0.0)
        assert error(T, estimate_pose(uv, points, DISTORTED, 2.0, backend=backend))[1] < 0.005
        settings = _pnp_ransac.RansacSettings(2.0, 100, 1000, 0.9999, 0)
        raw = _pnp_ransac.find_backend(backend)(uv, points, DISTORTED, settings)
        assert raw is not None
        assert se3.rotation_angle_deg(raw[:3, :3] @ T[:3, :3]) < 0.02, backend


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_matches_fail_with_a_reason(n: int) -> None:
    _, uv, points = scene(0, n=10, outliers=0.0)
    found = estimate_pose(uv[:n], points[:n], PINHOLE, 5.0)
    assert isinstance(found, PoseFailure)
    assert found.n_matches == n
    assert f"{n} usable matches" in found.reason
    refined = refine_pose(np.eye(4), uv[:n], points[:n], PINHOLE)
    assert isinstance(refined, PoseFailure)


def test_nothing_but_wrong_matches_fails() -> None:
    for backend in BACKENDS:
        for seed in range(3):
            _, uv, points = scene(seed, n=150, outliers=1.0)
            found = estimate_pose(uv, points, DISTORTED, 5.0, seed=seed, backend=backend, max_iterations=2000)
            assert isinstance(found, PoseFailure)
            assert found.n_inliers < 8
            assert "agree with the best pose, at least 8 must" in found.reason


def test_min_inliers_is_a_gate() -> None:
    _, uv, points = scene(1, n=60, outliers=0.5)
    assert isinstance(estimate_pose(uv, points, DISTORTED, 5.0, min_inliers=20), PoseEstimate)
    assert isinstance(estimate_pose(uv, points, DISTORTED, 5.0, min_inliers=50), PoseFailure)


def test_points_on_a_line_or_in_one_place_fail() -> None:
    T, _, _ = scene(2)
    line = np.linspace(-1, 1, 40)[:, None] * [[1.0, 0.2, 0.1]] + [[0, 0, 3.0]]
    same = np.repeat([[0.1, 0.2, 3.0]], 40, axis=0)
    for in_cam in (line, same):
        for backend in BACKENDS:
            points = se3.transform(T, in_cam)
            found = estimate_pose(PINHOLE.project(in_cam), points, PINHOLE, 5.0, backend=backend, max_iterations=300)
            assert isinstance(found, PoseFailure), (backend, found)


def test_points_on_a_plane_are_fine() -> None:
    rng = np.random.default_rng(0)
    T, _, _ = scene(2)
    in_cam = np.c_[rng.uniform(-1, 1, (80, 2)), np.full(80, 3.0)]
    in_cam[:, 2] += 0.5 * in_cam[:, 0]  # seen aslant: a plane seen straight on hardly tells tilt from shift
    uv = PINHOLE.project(in_cam) + 0.3 * rng.normal(size=(80, 2))
    assert error(T, estimate_pose(uv, se3.transform(T, in_cam), PINHOLE, 3.0))[0] < 0.01


def test_nan_matches_are_no_inliers() -> None:
    T, uv, points = scene(4, outliers=0.0)
    uv[3], points[5] = np.nan, np.inf
    found = estimate_pose(uv, points, DISTORTED, 5.0)
    assert error(T, found)[0] < 0.01
    assert isinstance(found, PoseEstimate)
    assert not found.inliers[[3, 5]].any()
    assert found.inliers.sum() == 198
    refined = refine_pose(found.T_world_cam, uv, points, DISTORTED)
    assert error(T, refined)[0] < 0.01


def test_shapes_and_names_are_checked() -> None:
    _, uv, points = scene(4)
    with pytest.raises(ValueError, match="199 pixels but 200 points"):
        estimate_pose(uv[1:], points, PINHOLE, 5.0)
    with pytest.raises(ValueError, match=r"must be \(200, 3, 3\)"):
        estimate_pose(uv, points, PINHOLE, 5.0, point_covariances=np.eye(3))
    with pytest.raises(ValueError, match="sigma_px must be positive"):
        estimate_pose(uv, points, PINHOLE, 5.0, sigma_px=0.0)
    with pytest.raises(ConfigError, match="'epnp' is not one of auto, pycolmap, poselib, opencv"):
        estimate_pose(uv, points, PINHOLE, 5.0, backend="epnp")


def test_without_pycolmap_and_poselib_the_fallback_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    T, uv, points = scene(6)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    monkeypatch.setitem(sys.modules, "poselib", None)
    assert error(T, estimate_pose(uv, points, DISTORTED, 5.0))[0] < 0.01
    with pytest.raises(ConfigError, match="'pycolmap' is not installed"):
        estimate_pose(uv, points, DISTORTED, 5.0, backend="pycolmap")


def test_a_good_prior_rescues_what_ransac_cannot_find(monkeypatch: pytest.MonkeyPatch) -> None:
    T, uv, points = scene(11, n=1000, outliers=0.97)
    near = T @ se3.from_rt(se3.rotvec_to_rotation([0.01, -0.01, 0.005]), [0.02, -0.02, 0.01])
    monkeypatch.setitem(_pnp_ransac._BACKENDS, "opencv", lambda *_: None)
    assert isinstance(estimate_pose(uv, points, DISTORTED, 4.0, backend="opencv"), PoseFailure)
    found = estimate_pose(uv, points, DISTORTED, 4.0, backend="opencv", prior_T_world_cam=near)
    assert error(T, found)[0] < 0.03


def test_a_wrong_prior_does_no_harm() -> None:
    T, uv, points = scene(12)
    away = T @ se3.from_rt(se3.rotvec_to_rotation([0, 3.0, 0]), [1, 2, 3])
    plain, with_prior = (estimate_pose(uv, points, DISTORTED, 5.0, prior_T_world_cam=p) for p in (None, away))
    assert error(T, with_prior)[0] < 0.01
    assert isinstance(plain, PoseEstimate)
    assert isinstance(with_prior, PoseEstimate)
    assert np.array_equal(plain.T_world_cam, with_prior.T_world_cam)


def test_projection_jacobian_equals_central_differences() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform([-1, -1, 2], [1, 1, 5], (20, 3))
    for camera in (PINHOLE, DISTORTED, Camera("SIMPLE_RADIAL", 640, 480, (500.0, 320.0, 240.0, 0.1))):
        numeric = [(camera.project(p + 1e-6 * e) - camera.project(p - 1e-6 * e)) / 2e-6 for e in np.eye(3)]
        assert np.allclose(projection_jacobian(camera, p), np.stack(numeric, axis=2), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_refinement_finds_the_minimum_that_scipy_finds(weighted: bool) -> None:
    rng = np.random.default_rng(1)
    T, uv, points = scene(13, n=60, outliers=0.1)
    sigma = rng.uniform(0.5, 2, 60) if weighted else np.ones(60)
    start = T @ se3.from_rt(se3.rotvec_to_rotation([0.002, 0, 0.001]), [0.01, 0, 0])
    found = refine_pose(start, uv, points, DISTORTED, sigma_px=sigma, loss_scale_px=1.0)
    assert isinstance(found, PoseEstimate)
    unit = np.sqrt(np.mean(sigma**2))

    def residuals(step: Float) -> Float:
        r = DISTORTED.project(se3.transform(perturb(se3.invert(start), step), points)) - uv
        norm = np.maximum(np.linalg.norm(r, axis=1) * unit / sigma, 1e-12)
        return np.sqrt(np.log1p(norm**2))  # its sum of squares is the Cauchy cost

    best = least_squares(residuals, np.zeros(6), xtol=1e-15, ftol=1e-15, gtol=1e-15, x_scale="jac")
    expected = se3.invert(perturb(se3.invert(start), best.x))
    assert np.allclose(found.T_world_cam, expected, atol=2e-6)


def check_consistency(trials: int, outliers: float, camera: Camera, loss_scale_px: float) -> None:
    """Normalised estimation error squared is chi-square with 6 degrees of freedom, its mean 6."""
    nees, ratio = [], []
    for seed in range(trials):
        T, uv, points = scene(1000 + seed, n=120, outliers=outliers, noise_px=0.8, camera=camera)
        found = estimate_pose(uv, points, camera, 5.0, seed=seed, loss_scale_px=loss_scale_px)
        assert isinstance(found, PoseEstimate)
        xi = local_error(T, found)
        nees.append(xi @ np.linalg.solve(found.covariance, xi))
        ratio.append(xi**2 / np.diag(found.covariance))
    # Residuals set the scale with about 230 (or 110) degrees of freedom: the mean may exceed 6 by 2-3 %.
    low, high = chi2.ppf([0.0005, 0.9995], 6 * trials) / trials
    assert low < np.mean(nees) < high * 1.08
    # Each of the six numbers is scaled right on its own: order and units are as documented.
    spread = np.mean(ratio, axis=0)
    low, high = chi2.ppf([0.0001, 0.9999], trials) / trials
    assert (spread > low).all()
    assert (spread < high * 1.08).all()


def test_covariance_is_consistent() -> None:
    check_consistency(60, 0.0, DISTORTED, 1.0)
    check_consistency(60, 0.3, PINHOLE, 2.0)


@pytest.mark.slow
def test_covariance_is_consistent_over_many_trials() -> None:
    check_consistency(600, 0.0, DISTORTED, 1.0)
    check_consistency(600, 0.3, PINHOLE, 2.0)


def test_pose_covariance_is_that_of_the_estimate_and_scales_with_noise() -> None:
    _, uv, points = scene(14, outliers=0.0)
    found = estimate_pose(uv, points, DISTORTED, 50.0)
    assert isinstance(found, PoseEstimate)
    alone = pose_covariance(found.T_world_cam, uv, points, DISTORTED)
    assert alone is not None
    assert np.allclose(alone, found.covariance)
    assert np.linalg.eigvalsh(alone)[0] > 0
    many = pose_covariance(
        found.T_world_cam, np.tile(uv, (4, 1)), np.tile(points, (4, 1)), DISTORTED
    )  # four times the data
    assert many is not None
    assert np.allclose(many, alone / 4, rtol=0.02)
    assert pose_covariance(found.T_world_cam, uv[:3], points[:3], DISTORTED) is None


def test_point_covariances_make_sparse_maps_more_accurate() -> None:
    """Points from a narrow baseline: 5 cm uncertain along one direction, 2 mm across. Weights help and stay honest."""
    plain, weighted, nees = [], [], []
    for seed in range(60):
        T, uv, points = scene(2000 + seed, n=60, outliers=0.0)
        rng = np.random.default_rng(seed)
        axes = Rotation.random(60, random_state=rng).as_matrix()
        sigma_m = np.array([0.05, 0.002, 0.002])
        covariance = axes @ np.diag(sigma_m**2) @ axes.transpose(0, 2, 1)
        points = points + (axes @ (sigma_m * rng.normal(size=(60, 3)))[..., None])[..., 0]
        for cov, errors in ((None, plain), (covariance, weighted)):
            found = estimate_pose(uv, points, DISTORTED, 15.0, point_covariances=cov, sigma_px=0.5)
            errors.append(error(T, found)[0])
            assert isinstance(found, PoseEstimate)
        xi = local_error(T, found)
        nees.append(xi @ np.linalg.solve(found.covariance, xi))
    assert np.median(weighted) < 0.7 * np.median(plain)
    assert 4.5 < np.mean(nees) < 8.0
