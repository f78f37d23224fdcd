# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vision3d.geometry import se3
from vision3d.geometry.calibration import CalibrationResult, calibrate
from vision3d.geometry.cameras import Camera

Float = NDArray[np.float64]
Int = NDArray[np.int64]
TRUE = Camera("RADIAL", 640, 480, (525.0, 318.0, 243.0, -0.08, 0.03))
WRONG = Camera("SIMPLE_PINHOLE", 640, 480, (520.0, 320.0, 240.0))


def tracks(seed: int, noise_px: float, outliers: float = 0.0) -> tuple[Float, Int, Int, Float]:
    """Pixels, frames and landmarks of 400 points seen by 20 cameras that circle around them, and the poses."""
    rng = np.random.default_rng(seed)
    poses = []
    for angle in np.linspace(-0.8, 0.8, 20):
        R = se3.rotvec_to_rotation([0.2 * rng.normal(), -angle, 0.3 * rng.normal()])
        poses.append(se3.from_rt(R, [-3 * np.sin(-angle), 0.3 * rng.normal(), 3 - 3 * np.cos(angle)]))
    T = np.stack(poses)
    points = rng.uniform([-1.5, -1.2, 2], [1.5, 1.2, 4], (400, 3))
    uv, frame, landmark = [], [], []
    for f in range(20):
        p = TRUE.project(se3.transform(se3.invert(T[f]), points))
        seen = np.flatnonzero(TRUE.contains(p, 5))
        uv.append(p[seen] + noise_px * rng.normal(size=(len(seen), 2)))
        frame.append(np.full(len(seen), f))
        landmark.append(seen)
    pixels = np.concatenate(uv)
    wrong = rng.random(len(pixels)) < outliers
    pixels[wrong] = rng.uniform([0, 0], [639, 479], (int(wrong.sum()), 2))
    return pixels, np.concatenate(frame), np.concatenate(landmark), T


def test_exact_without_noise() -> None:
    uv, frame, landmark, T = tracks(0, 0.0)
    found = calibrate(WRONG, uv, frame, landmark, T, model="RADIAL", rounds=5)
    assert found is not None
    assert np.allclose(found.camera.params, TRUE.params, atol=[1e-4, 1e-4, 1e-4, 1e-6, 1e-6])
    assert found.better
    assert found.rms_px_after < 1e-4 < found.rms_px_before
    assert found.n_inliers_after == found.n_observations


@pytest.mark.parametrize("outliers", [0.0, 0.1])
def test_noise_and_outliers_stay_within_sigma(outliers: float) -> None:
    z = []
    for seed in range(2):
        uv, frame, landmark, T = tracks(seed, 0.5, outliers)
        found = calibrate(WRONG, uv, frame, landmark, T, model="RADIAL")
        assert found is not None
        assert found.better
        assert (found.sigma > 0).all()
        z.append((np.array(found.camera.params) - TRUE.params) / found.sigma)
    rms = np.sqrt(np.mean(np.square(z)))
    assert 0.3 < rms < 1.9


def test_held_parameters_are_held() -> None:
    uv, frame, landmark, T = tracks(1, 0.3)
    found = calibrate(WRONG, uv, frame, landmark, T, fix_focal=True, fix_centre=True)
    assert found is not None
    assert found.camera.model == "SIMPLE_RADIAL"
    assert found.camera.params[:3] == (520.0, 320.0, 240.0)
    assert found.sigma[:3].tolist() == [0, 0, 0]
    assert found.camera.params[3] < -0.03


def test_world_frame_and_scale_do_not_matter() -> None:
    uv, frame, landmark, T = tracks(2, 0.3)
    G = se3.from_rt(se3.rotvec_to_rotation([1, 2, 0.5]), [5, -3, 1])
    here, there = (calibrate(WRONG, uv, frame, landmark, P) for P in (T, G @ T))
    assert here is not None
    assert there is not None
    assert np.allclose(here.camera.params, there.camera.params, atol=1e-4)


def test_too_little_to_go_by_gives_none() -> None:
    uv, frame, landmark, T = tracks(3, 0.3)
    assert calibrate(WRONG, uv[:0], frame[:0], landmark[:0], T) is None
    few = landmark < 5
    assert calibrate(WRONG, uv[few], frame[few], landmark[few], T) is None
    # All cameras in one place: no parallax, no points, no calibration.
    still = np.tile(T[:1], (20, 1, 1))
    assert calibrate(WRONG, uv, frame, landmark, still) is None


def test_a_model_too_small_for_the_start_is_refused() -> None:
    uv, frame, landmark, T = tracks(4, 0.3)
    with pytest.raises(ValueError, match="SIMPLE_RADIAL cannot hold the distortion of RADIAL"):
        calibrate(TRUE, uv, frame, landmark, T, model="SIMPLE_RADIAL")


def test_better_means_both() -> None:
    def result(rms: float, inliers: int) -> CalibrationResult:
        return CalibrationResult(TRUE, np.zeros(5), 1.0, rms, 100, 80, inliers)

    assert result(0.9, 80).better
    assert not result(1.1, 90).better
    assert not result(0.9, 70).better
