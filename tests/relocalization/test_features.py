# SPDX-License-Identifier: Apache-2.0
"""Every extractor through the one interface: contract, synthetic warps of photographs, and two real frames."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray

from relocalization.features.base import Extractor, Features, make_extractor
from relocalization.features.config import FeatureConfig
from vision3d.geometry import se3

NETWORKS = ["alike-t", "alike-s", "alike-n", "alike-l", "aliked-t16", "aliked-n16", "aliked-n32", "xfeat"]
EVERY = [*NETWORKS, "sift"]


@pytest.fixture(scope="module", autouse=True)
def _weights_folder(weights: Path) -> None:
    os.environ["VISION3D_WEIGHTS"] = str(weights)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Other test processes run beside this one: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    """(200, 300, 3): neither side is a multiple of 32."""
    return cv2.resize(skimage.data.coffee(), (300, 200), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    """(288, 288, 3)."""
    return cv2.resize(skimage.data.astronaut(), (288, 288), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module", params=EVERY)
def extractor(request: pytest.FixtureRequest, weights: Path) -> Extractor:
    os.environ["VISION3D_WEIGHTS"] = str(weights)
    return make_extractor(FeatureConfig(name=request.param))


def mutual(a: Features, b: Features, similarity: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    table = a.descriptors @ b.descriptors.T
    best = table.argmax(1)
    rows = np.arange(len(best))
    keep = (table.argmax(0)[best] == rows) & (table.max(1) >= similarity)
    return rows[keep], best[keep]


def test_contract(extractor: Extractor, photograph: NDArray[np.uint8]) -> None:
    found = extractor(photograph)
    n = len(found)
    assert n > 50
    assert found.keypoints.shape == (n, 2)
    assert found.keypoints.dtype == np.float64
    assert found.scores.shape == (n,)
    assert found.scores.dtype == np.float32
    assert found.descriptors.shape == (n, extractor.channels)
    assert found.descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
    assert (np.diff(found.scores) <= 0).all()
    assert found.keypoints.min() >= 10
    assert (found.keypoints <= np.array([299, 199]) - 10).all()
    assert found.size == (200, 300)
    assert found.field is None
    assert found.dense is None
    assert found.dense_stride == 0


def test_same_bytes_twice(extractor: Extractor, photograph: NDArray[np.uint8]) -> None:
    first, second = extractor(photograph), extractor(photograph)
    assert first.keypoints.tobytes() == second.keypoints.tobytes()
    assert first.scores.tobytes() == second.scores.tobytes()
    assert first.descriptors.tobytes() == second.descriptors.tobytes()


@pytest.mark.parametrize("name", ["alike-t", "alike-n", "sift", "aliked-t16", "xfeat"])
def test_number_of_threads_does_not_matter(name: str, photograph: NDArray[np.uint8]) -> None:
    extractor = make_extractor(FeatureConfig(name=name))
    one = extractor(photograph)
    torch.set_num_threads(2)
    try:
        two = extractor(photograph)
    finally:
        torch.set_num_threads(1)
    if name.startswith("alike-") or name == "sift":
        assert one.keypoints.tobytes() == two.keypoints.tobytes()
        assert one.descriptors.tobytes() == two.descriptors.tobytes()
    else:  # kornia's layers sum in another order, which may swap key points of nearly equal strength
        i, j = mutual(one, two, 0.999)
        assert len(i) == len(one) == len(two)
        np.testing.assert_allclose(one.keypoints[i], two.keypoints[j], atol=1e-3)


def test_image_without_texture_has_next_to_no_key_points(extractor: Extractor) -> None:
    found = extractor(np.full((96, 96, 3), 127, np.uint8))
    # ALIKE's low threshold lets a ripple of the padded border through; that is far from enough for a pose.
    assert len(found) <= (3 if extractor.name.startswith("alike-") else 0)
    assert found.keypoints.shape == (len(found), 2)
    assert found.descriptors.shape == (len(found), extractor.channels)


def test_wrong_images_are_refused(extractor: Extractor) -> None:
    for image in (np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32), np.zeros((20, 64, 3), np.uint8)):
        with pytest.raises(ValueError, match="an image must be"):
            extractor(image)


def test_descriptor_field_agrees_with_the_descriptors(extractor: Extractor, photograph: NDArray[np.uint8]) -> None:
    if not extractor.has_dense:
        with pytest.raises(ValueError, match="no dense descriptors"):
            extractor(photograph, dense=True)
        return
    found = extractor(photograph, dense=True)
    np.testing.assert_allclose(found.sample(found.keypoints), found.descriptors, atol=1e-6)
    anywhere = found.sample(np.random.default_rng(0).uniform(-5, [305, 205], (300, 2)))
    np.testing.assert_allclose(np.linalg.norm(anywhere, axis=1), 1, atol=1e-5)
    assert found.sample(np.zeros((0, 2))).shape == (0, extractor.channels)
    # outside the image, the nearest pixel inside
    np.testing.assert_allclose(found.sample([[-5, 50], [400, 50]]), found.sample([[0, 50], [299, 50]]), atol=1e-6)
    # a descriptor looks most like itself, then like its neighbours
    near, far = found.sample(found.keypoints + [0.5, 0.0]), found.sample(found.keypoints[::-1])
    assert np.median((near * found.descriptors).sum(1)) > np.median((far * found.descriptors).sum(1)) + 0.1
    with pytest.raises(ValueError, match="pixels must be"):
        found.sample([[np.nan, 1.0]])
    with pytest.raises(ValueError, match="dense=True"):
        extractor(photograph).sample(found.keypoints)


@pytest.mark.parametrize(("name", "threshold"), [("alike-t", 0.005), ("xfeat", 0.02), ("sift", 0.002)])
def test_options_change_what_they_say(name: str, threshold: float, photograph: NDArray[np.uint8]) -> None:
    default = make_extractor(FeatureConfig(name=name))(photograph)  # type: ignore[arg-type]
    more = make_extractor(FeatureConfig(name=name, score_threshold=threshold))(photograph)  # type: ignore[arg-type]
    assert len(more) > len(default)
    few = make_extractor(FeatureConfig(name=name, max_keypoints=20))(photograph)  # type: ignore[arg-type]
    np.testing.assert_array_equal(few.keypoints, default.keypoints[:20])
    inner = make_extractor(FeatureConfig(name=name, border=40))(photograph)  # type: ignore[arg-type]
    assert len(inner) < len(default)
    assert inner.keypoints.min() >= 40
    if name != "sift":
        wide = make_extractor(FeatureConfig(name=name, nms_radius=6))(photograph).keypoints  # type: ignore[arg-type]
        gaps = np.abs(wide[:, None] - wide[None]).max(2) + 100 * np.eye(len(wide))
        assert gaps.min() > 2


def test_homography_is_followed(extractor: Extractor, portrait: NDArray[np.uint8]) -> None:
    """A turn of 12 degrees, a scale of 0.9 and some perspective: matches land where the homography says."""
    turn, scale = np.deg2rad(12), 0.9
    c, s = scale * np.cos(turn), scale * np.sin(turn)
    H = np.array([[c, -s, 40.3], [s, c, -12.7], [1e-4, 5e-5, 1.0]])
    a, b = extractor(portrait), extractor(cv2.warpPerspective(portrait, H, (288, 288), borderMode=cv2.BORDER_REFLECT))
    i, j = mutual(a, b, extractor.similarity)
    there = np.c_[a.keypoints[i], np.ones(len(i))] @ H.T
    error = np.linalg.norm(there[:, :2] / there[:, 2:] - b.keypoints[j], axis=1)
    assert (error < 3).sum() > 40
    assert (error < 3).mean() > (0.5 if extractor.name == "xfeat" else 0.7)
    assert np.median(error[error < 3]) < (1.1 if extractor.name == "xfeat" else 0.8)


@pytest.mark.parametrize(("name", "typical"), [("alike-n", 0.4), ("aliked-t16", 0.4), ("xfeat", 1.0), ("sift", 0.1)])
def test_sub_pixel_shift_is_followed_without_bias(name: str, typical: float, portrait: NDArray[np.uint8]) -> None:
    shift = np.array([5.4, -3.3])
    moved = cv2.warpAffine(portrait, np.c_[np.eye(2), shift], (288, 288), flags=cv2.INTER_CUBIC)
    extractor = make_extractor(FeatureConfig(name=name))  # type: ignore[arg-type]
    a, b = extractor(portrait), extractor(moved)
    i, j = mutual(a, b, extractor.similarity)
    error = b.keypoints[j] - a.keypoints[i] - shift
    error = error[np.linalg.norm(error, axis=1) < 2]
    assert len(error) > 60
    # whole-pixel key points would be off by 0.4 and 0.3 on average
    assert np.abs(error.mean(0)).max() < 0.12
    assert np.median(np.linalg.norm(error, axis=1)) < typical


@pytest.mark.parametrize("name", ["alike-t", "alike-n", "aliked-t16", "xfeat", "sift"])
def test_two_real_frames_agree_with_their_epipolar_geometry(name: str, shared_data: Path) -> None:
    """7-Scenes redkitchen, 14 frames apart, SfM poses: most matches lie within 2 px of their epipolar lines."""
    extractor = make_extractor(FeatureConfig(name=name))  # type: ignore[arg-type]
    scene = shared_data / "7scenes_redkitchen"
    names = ["frame-000000", "frame-000014"]
    frames = [cv2.imread(str(scene / f"redkitchen/seq-01/{name}.color.jpg"))[:, :, ::-1] for name in names]
    T_cam_world = {}
    for line in (scene / "pgt_sfm_redkitchen_seq01.txt").read_text().splitlines():
        name, *values = line.split()
        wxyz, t = np.array(values[:4], float), np.array(values[4:7], float)
        T_cam_world[Path(name).name.split(".")[0]] = se3.from_rt(se3.quat_to_rotation(wxyz), t)
    T = T_cam_world[names[1]] @ se3.invert(T_cam_world[names[0]])
    tx, ty, tz = T[:3, 3]
    E = np.array([[0, -tz, ty], [tz, 0, -tx], [-ty, tx, 0]]) @ T[:3, :3]
    K_inv = np.linalg.inv([[525.505, 0, 319.5], [0, 525.505, 239.5], [0, 0, 1]])

    a, b = extractor(frames[0]), extractor(frames[1])
    i, j = mutual(a, b, extractor.similarity)
    first, second = np.c_[a.keypoints[i], np.ones(len(i))], np.c_[b.keypoints[j], np.ones(len(j))]
    lines = first @ (K_inv.T @ E @ K_inv).T
    distance = np.abs((lines * second).sum(1)) / np.linalg.norm(lines[:, :2], axis=1)
    assert (distance < 2).sum() > 100
    assert (distance < 2).mean() > 0.6
