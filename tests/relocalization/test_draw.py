# SPDX-License-Identifier: Apache-2.0
"""The picture of a query: every mark where it belongs, for every subset of what the localizer tells."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from relocalization.draw import INLIER, LANDMARK, OUTLIER, describe_error, draw_localization, one_sigma
from vision3d.geometry.se3 import from_rt, invert, rotvec_to_rotation
from vision3d.types import PoseResult

GREY = np.full((480, 640, 3), 128, dtype=np.uint8)


def debug(n: int = 60) -> dict:
    rng = np.random.default_rng(0)
    uv = rng.uniform([20, 20], [620, 460], (n, 2))
    map_uv = rng.uniform([20, 20], [300, 220], (n, 2))
    map_uv[::5] = np.nan
    landmarks = rng.uniform(-50, 700, (100, 2))
    landmarks[:7] = np.nan
    return {
        "uv_px": uv,
        "projected_px": uv + rng.normal(0, 1, uv.shape),
        "inlier": np.arange(n) % 3 != 0,
        "landmarks_px": landmarks,
        "map_image": np.full((240, 320, 3), 90, dtype=np.uint8),
        "map_uv_px": map_uv,
    }


def result(debug: dict | None = None, ok: bool = True) -> PoseResult:
    return PoseResult(
        name="seq-01/frame-000007.color.png",
        T_world_cam=np.eye(4) if ok else None,
        status="ok" if ok else "failed",
        reason="" if ok else "4 of 12 matches agree, 12 are needed",
        n_inliers=40,
        n_matches=60,
        covariance=np.diag([1e-7] * 3 + [1e-6] * 3) if ok else None,
        debug=debug or {},
    )


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture.astype(int) - color).max(axis=2) <= 2).any())


def near(picture: np.ndarray, u: float, v: float, color: tuple[int, int, int], tolerance: int = 12) -> bool:
    patch = picture[round(v) - 2 : round(v) + 3, round(u) - 2 : round(u) + 3].astype(int)
    return bool((np.abs(patch - color).max(axis=2) <= tolerance).any())


def test_marks_lie_where_the_matches_are() -> None:
    d = debug()
    del d["map_image"], d["landmarks_px"]
    # On the spot, so that the white residual line does not cover the small disc.
    d["projected_px"] = d["uv_px"]
    picture = draw_localization(GREY, result(d))
    for (u, v), inlier in zip(d["uv_px"], d["inlier"], strict=True):
        apart = np.linalg.norm(d["uv_px"] - [u, v], axis=1)
        if np.sort(apart)[1] > 12:
            assert near(picture, u, v, INLIER if inlier else OUTLIER)


def test_an_inlier_has_a_line_to_its_reprojected_landmark() -> None:
    d = {"uv_px": [[100.0, 100.0]], "projected_px": [[130.0, 100.0]], "inlier": [True]}
    picture = draw_localization(GREY, result(d))
    assert near(picture, 120, 100, (255, 255, 255), 40)
    d["inlier"] = [False]
    assert not near(draw_localization(GREY, result(d)), 120, 100, (255, 255, 255), 40)


def test_landmarks_are_fainter_than_matches() -> None:
    picture = draw_localization(GREY, result({"landmarks_px": [[200.0, 150.0], [np.nan, 1.0]]}))
    background = picture[300, 300].astype(int)
    dot = picture[150, 200].astype(int)
    full = np.array(LANDMARK)
    assert np.abs(dot - background).max() > 20
    assert np.abs(dot - full).max() > 5


@pytest.mark.parametrize("ok", [True, False])
def test_every_subset_of_debug_gives_a_picture(ok: bool) -> None:
    d = debug(12)
    for r in range(len(d) + 1):
        for keys in itertools.combinations(d, r):
            some = {k: d[k] for k in keys}
            if not ({"uv_px"} & set(keys)) and ({"projected_px", "inlier", "map_uv_px"} & set(keys)):
                continue  # without the matches themselves, facts about them mean nothing
            picture = draw_localization(GREY, result(some, ok), np.eye(4))
            assert picture.dtype == np.uint8
            assert picture.shape[1:] == (640, 3)
            assert picture.shape[0] > 480


def test_a_map_image_adds_a_panel_with_lines_between_the_two() -> None:
    d = debug()
    with_map = draw_localization(GREY, result(d))
    del d["map_image"]
    without = draw_localization(GREY, result(d))
    added = with_map.shape[0] - without.shape[0]
    assert 200 < added < 260
    panel = with_map[480 : 480 + added]
    assert has(panel, INLIER)
    assert has(panel, OUTLIER)


def test_the_end_of_a_match_line_lies_on_the_map_keypoint() -> None:
    d = {
        "uv_px": [[320.0, 240.0]],
        "inlier": [True],
        "map_image": np.full((480, 640, 3), 90, dtype=np.uint8),
        "map_uv_px": [[320.0, 240.0]],
    }
    picture = draw_localization(GREY, result(d))
    # Two images of 318 px with a gap of 4 px: the middle of the right one.
    assert near(picture, 4 + 318 + 159, 480 + 4 + 119, INLIER)
    assert near(picture, 159, 480 + 4 + 119, INLIER)


@pytest.mark.parametrize(("size", "width"), [((120, 160), 640), ((480, 640), 640), ((1080, 1920), 1280)])
def test_pictures_are_legible_whatever_the_camera(size: tuple[int, int], width: int) -> None:
    image = np.full((*size, 3), 128, dtype=np.uint8)
    u, v = size[1] * 0.25, size[0] * 0.25
    picture = draw_localization(image, result({"uv_px": [[u, v]], "inlier": [True]}))
    assert picture.shape[1] == width
    factor = width / size[1]
    assert near(picture, (u + 0.5) * factor - 0.5, (v + 0.5) * factor - 0.5, INLIER)


def test_the_input_image_is_not_drawn_on_and_equal_input_gives_equal_bytes() -> None:
    image, d = GREY.copy(), debug()
    first = draw_localization(image, result(d), np.eye(4))
    assert (image == GREY).all()
    assert (first == draw_localization(image, result(d), np.eye(4))).all()


def test_the_caption_tells_success_from_failure_and_states_the_error() -> None:
    good, bad = draw_localization(GREY, result()), draw_localization(GREY, result(ok=False))
    assert has(good[480:], INLIER)
    assert not has(good[480:], OUTLIER)
    assert has(bad[480:], OUTLIER)
    with_truth = draw_localization(GREY, result(), from_rt(np.eye(3), [0.01, 0.0, 0.0]))
    assert (with_truth[480:] != good[480:]).any()


def test_errors_are_written_in_centimetres_below_a_metre() -> None:
    assert describe_error(0.0024, 0.1) == "0.24 cm, 0.10°"
    assert describe_error(12.5, 90.0) == "12.50 m, 90.00°"
    assert describe_error(np.inf, 180.0) == "not localized"


def test_one_sigma_is_that_of_the_camera_centre() -> None:
    # Monte Carlo: perturb T_cam_world from the left with the covariance and look at where the centre goes.
    rng = np.random.default_rng(0)
    A = rng.normal(0, 1, (6, 6)) * ([2e-4] * 3 + [3e-3] * 3)
    covariance = A.T @ A
    T_cam_world = from_rt(rotvec_to_rotation([0.4, 1.0, -0.3]), [4.0, -2.0, 7.0])
    xi = rng.multivariate_normal(np.zeros(6), covariance, size=20_000)
    moved = np.array([from_rt(rotvec_to_rotation(x[:3]), x[3:]) @ T_cam_world for x in xi[:4000]])
    centres = invert(moved)[:, :3, 3]
    spread_m = np.sqrt(((centres - invert(T_cam_world)[:3, 3]) ** 2).sum(axis=1).mean())
    centre_m, rotation_deg = one_sigma(covariance)
    assert centre_m == pytest.approx(spread_m, rel=0.05)
    assert rotation_deg == pytest.approx(np.degrees(np.sqrt((xi[:, :3] ** 2).sum(axis=1).mean())), rel=0.05)
