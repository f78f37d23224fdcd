# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_map import CAMERA, Room

from relocalization.landmark_map import Lens, MapImages
from relocalization.lens import fit_lens, with_lens
from relocalization.tracks import Tracks
from vision3d.geometry.cameras import Camera

PLAIN = Camera("PINHOLE", 320, 240, (260.0, 260.0, 159.5, 119.5))


def distorted(k1: float) -> Camera:
    return Camera("SIMPLE_RADIAL", 320, 240, (260.0, 159.5, 119.5, k1))


def seen_through(camera: Camera, given: Camera = PLAIN, seed: int = 0) -> tuple[MapImages, Tracks]:
    """Tracks as the true camera sees them with 0.4 px noise, handed over with the camera that is claimed."""
    room = Room.build(camera=camera, seed=seed)
    tracks = room.tracks(noise_px=0.4, seed=seed)
    return replace(room.images, cameras=(given,) * len(room.images)), tracks.subset(tracks.lengths >= 2)


@pytest.mark.parametrize("k1", [-0.06, 0.08])
def test_simulated_distortion_is_found(k1: float) -> None:
    images, tracks = seen_through(distorted(k1))
    fit = fit_lens(images, tracks)
    assert fit is not None
    found, sigma = fit.lens.fitted.distortion[0], float(fit.found.sigma[-1])
    assert abs(found - k1) < 5 * sigma < 0.2 * abs(k1)
    # all else stays as the data set gave it
    fitted = fit.lens.fitted
    assert (fitted.focal, fitted.cx, fitted.cy) == pytest.approx((260.0, 159.5, 119.5))
    assert fit.lens.given == PLAIN
    assert fit.found.rms_px_after < fit.found.rms_px_before
    assert f"{found:+.4f}" in fit.summary() and fit.facts()["k1"] == round(found, 5)
    corrected = with_lens(images, fit.lens)
    assert corrected.cameras == (fitted,) * len(images) and corrected.names == images.names


@pytest.mark.parametrize("seed", range(3))
def test_a_lens_without_distortion_is_left_alone(seed: int) -> None:
    assert fit_lens(*seen_through(PLAIN, seed=seed)) is None


def test_nothing_is_fitted_to_a_known_or_mixed_or_stretched_lens() -> None:
    images, tracks = seen_through(distorted(-0.06))
    assert fit_lens(images, tracks) is not None, "the rest of this test shows nothing without this"
    assert fit_lens(replace(images, cameras=(distorted(-0.01),) * len(images)), tracks) is None
    mixed = (*images.cameras[:-1], replace(PLAIN, params=(261.0, 261.0, 159.5, 119.5)))
    assert fit_lens(replace(images, cameras=mixed), tracks) is None
    stretched = replace(PLAIN, params=(260.0, 265.0, 159.5, 119.5))
    assert fit_lens(replace(images, cameras=(stretched,) * len(images)), tracks) is None


def test_few_observations_tell_nothing() -> None:
    images, tracks = seen_through(distorted(-0.06))
    few = np.cumsum(tracks.lengths) < 280
    assert fit_lens(images, tracks.subset(few)) is None


@pytest.mark.parametrize("size", [(320, 240), (640, 480), (500, 375), (333, 250), (97, 73)])
def test_lens_holds_for_the_same_camera_at_any_size(size: tuple[int, int]) -> None:
    """The map may have been made of images shrunk to any size, the query may come in any other."""
    original = Camera("PINHOLE", 640, 480, (520.0, 520.0, 317.2, 243.1))
    for map_size in ((640, 480), (320, 240), (500, 375), (333, 250), (411, 308)):
        given = original.resized(*map_size)
        fitted = Camera("OPENCV", given.width, given.height, (*given.params, -0.05, 0.0, 0.0, 0.0))
        lens = Lens(given, fitted)
        query = original.resized(*size)
        got = lens.of(query)
        assert got.distortion[0] == -0.05, f"map of {map_size}, query of {size}"
        assert np.allclose(got.K, query.K, rtol=1e-6) and (got.width, got.height) == size
        ray = np.array([0.3, -0.2, 1.0])
        scale = np.array(size) / [given.width, given.height]
        assert np.allclose(got.project(ray) + 0.5, (fitted.project(ray) + 0.5) * scale, atol=1e-3)


def test_lens_leaves_another_camera_alone() -> None:
    lens = Lens(PLAIN, distorted(-0.06))
    for other in (
        CAMERA,
        distorted(-0.02),
        replace(PLAIN, params=(260.2, 260.2, 159.5, 119.5)),
        Camera("PINHOLE", 320, 200, (260.0, 260.0, 159.5, 99.5)),
    ):
        assert lens.of(other) == other


def test_lens_survives_json() -> None:
    lens = Lens(PLAIN, distorted(-0.0612345678901234))
    assert Lens.from_json(lens.to_json()) == lens
