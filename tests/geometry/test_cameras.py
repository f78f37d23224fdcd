# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision3d.geometry.cameras import MODELS, Camera

CAMERAS = [
    Camera("SIMPLE_PINHOLE", 640, 480, (500.0, 319.5, 239.5)),
    Camera("PINHOLE", 640, 480, (500.0, 510.0, 318.0, 243.0)),
    Camera("SIMPLE_RADIAL", 640, 480, (500.0, 319.5, 239.5, -0.12)),
    Camera("RADIAL", 640, 480, (500.0, 319.5, 239.5, -0.2, 0.05)),
    Camera("OPENCV", 640, 480, (500.0, 510.0, 318.0, 243.0, -0.28, 0.07, 1e-3, -2e-3)),
    Camera("FULL_OPENCV", 640, 480, (517.3, 516.5, 318.6, 255.3, 0.26, -0.95, -5e-3, 3e-3, 1.16, 0.01, -0.02, 0.01)),
]
BY_MODEL = pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.model)


def points_in_view(n: int = 200) -> np.ndarray:
    rng = np.random.default_rng(0)
    xy = rng.uniform([-0.55, -0.4], [0.55, 0.4], (n, 2))
    return np.concatenate([xy, np.ones((n, 1))], axis=1) * rng.uniform(0.5, 9.0, (n, 1))


def test_every_model_is_tried():
    assert {camera.model for camera in CAMERAS} == set(MODELS)


def test_a_point_on_the_axis_falls_on_the_principal_point_and_focal_length_scales():
    camera = CAMERAS[1]
    np.testing.assert_allclose(camera.project([0.0, 0.0, 2.0]), [318.0, 243.0])
    np.testing.assert_allclose(camera.project([0.2, -0.1, 1.0]), [318.0 + 100.0, 243.0 - 51.0])


@BY_MODEL
def test_projection_equals_opencv(camera):
    points = points_in_view()
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.K, np.array(camera.distortion))
    np.testing.assert_allclose(camera.project(points), expected[:, 0], atol=1e-9)


@BY_MODEL
def test_projection_equals_pycolmap_half_a_pixel_further(camera):
    points = points_in_view()
    colmap = camera.to_colmap()
    np.testing.assert_allclose(camera.project(points) + 0.5, colmap.img_from_cam(points), atol=1e-9)


@BY_MODEL
def test_colmap_round_trip(camera):
    again = Camera.from_colmap(camera.to_colmap())
    assert (again.model, again.width, again.height) == (camera.model, 640, 480)
    np.testing.assert_allclose(again.params, camera.params, rtol=1e-15)


def test_colmap_models_that_we_lack_are_refused():
    import pycolmap

    fisheye = pycolmap.Camera(model="OPENCV_FISHEYE", width=10, height=10, params=[9, 9, 5, 5, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="OPENCV_FISHEYE"):
        Camera.from_colmap(fisheye)


@BY_MODEL
def test_normalize_inverts_projection(camera):
    points = points_in_view()
    np.testing.assert_allclose(camera.normalize(camera.project(points)), points[:, :2] / points[:, 2:], atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(st.floats(-0.3, 0.3), st.floats(-0.02, 0.02), st.floats(-0.02, 0.02), st.floats(0, 639), st.floats(0, 479))
def test_undistortion_is_exact_for_any_moderate_lens(k1, p1, p2, u, v):
    camera = Camera("OPENCV", 640, 480, (600.0, 600.0, 319.5, 239.5, k1, 0.0, p1, p2))
    xy = camera.normalize(np.array([u, v]))
    again = camera.project([*xy, 1.0])
    np.testing.assert_allclose(again, [u, v], atol=1e-7)


def test_undistortion_converges_where_fixed_point_iteration_does_not():
    camera = Camera("SIMPLE_RADIAL", 640, 480, (300.0, 319.5, 239.5, 0.8))
    corner = camera.project([1.1, 0.8, 1.0])
    target = (corner - [camera.cx, camera.cy]) / camera.fx
    guess = target.copy()
    for _ in range(20):
        guess = target / (1 + 0.8 * guess @ guess)
    assert np.abs(guess - [1.1, 0.8]).max() > 0.05  # the usual method is lost here
    np.testing.assert_allclose(camera.normalize(corner), [1.1, 0.8], atol=1e-10)


def test_rays_are_unit_vectors_through_their_pixels():
    camera, points = CAMERAS[4], points_in_view()
    rays = camera.rays(camera.project(points))
    np.testing.assert_allclose(rays, points / np.linalg.norm(points, axis=1, keepdims=True), atol=1e-10)


def test_points_behind_the_camera_have_no_pixel():
    uv = CAMERAS[2].project([[0.1, 0.1, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert np.isnan(uv[:2]).all()
    assert np.isfinite(uv[2]).all()


def test_contains_counts_pixel_centres_and_border():
    camera = CAMERAS[0]
    uv = np.array([[0, 0], [639, 479], [639.1, 10], [-0.1, 10], [5, 5], [np.nan, 5]])
    assert camera.contains(uv).tolist() == [True, True, False, False, True, False]
    assert camera.contains(uv, border=5.0).tolist() == [False, False, False, False, True, False]


@BY_MODEL
@pytest.mark.parametrize("size", [(320, 240), (1280, 960), (333, 240)])
def test_resizing_moves_projections_like_the_pixels_of_the_image(camera, size):
    points = points_in_view()
    scale = np.array(size) / [640, 480]
    moved = (camera.project(points) + 0.5) * scale - 0.5
    resized = camera.resized(*size)
    assert (resized.width, resized.height) == size
    np.testing.assert_allclose(resized.project(points), moved, atol=1e-9)


def test_resizing_agrees_with_an_image_shrunk_by_area():
    # The centre of mass of a blob must be where the resized camera says.
    v, u = np.mgrid[:480, :640]
    image = (255 * np.exp(-((u - 400.3) ** 2 + (v - 200.7) ** 2) / (2 * 6.0**2))).astype(np.float32)
    small = cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA)
    v, u = np.mgrid[:120, :160]
    centre = np.array([(small * u).sum(), (small * v).sum()]) / small.sum()
    camera = CAMERAS[0]
    ray = np.array([*camera.normalize([400.3, 200.7]), 1.0])
    np.testing.assert_allclose(camera.resized(160, 120).project(ray), centre, atol=0.01)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("FISHEYE", 10, 10, (1.0,)), "not one of"),
        (("PINHOLE", 10, 10, (1.0, 1.0, 5.0)), "takes 4 parameters"),
        (("PINHOLE", 0, 10, (1.0, 1.0, 5.0, 5.0)), "empty"),
        (("PINHOLE", 10, 10, (-1.0, 1.0, 5.0, 5.0)), "positive"),
        (("PINHOLE", 10, 10, (1.0, float("nan"), 5.0, 5.0)), "finite|positive"),
    ],
)
def test_impossible_cameras_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        Camera(*args)
