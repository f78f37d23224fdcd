# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from layouts import pose_list, write_image

from vision3d.contracts import DataConfig
from vision3d.errors import DataError
from vision3d.geometry.se3 import rotation_angle_deg
from vision3d.readers import images as images_module
from vision3d.readers.images import SPEC
from vision3d.readers.synthetic import SPEC as ROOM

FOV = 62.7


@pytest.fixture(scope="module")
def walk():
    """Six frames of 320x240 with enough motion for structure from motion."""
    reader = ROOM.open("synthetic:room?frames=26&width=320&height=240", DataConfig(select="::5"))
    return [(reader[i], reader.truth(i).T_world_cam) for i in range(len(reader))]


@pytest.fixture(scope="module")
def folder(walk, tmp_path_factory):
    root = tmp_path_factory.mktemp("walk")
    for i, (frame, _) in enumerate(walk):
        write_image(root / f"view {i}.png", frame)
    return root


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def kept(shared_cache, monkeypatch):
    """One cache for the tests of this file, so that the reconstruction runs once."""
    monkeypatch.setenv("VISION3D_CACHE", str(shared_cache))
    return shared_cache


@pytest.fixture
def no_sfm(monkeypatch):
    def refuse(*args):
        raise AssertionError("structure from motion was started")

    monkeypatch.setattr(images_module, "reconstruct", refuse)


def opened(folder, query="", **options):
    return SPEC.open(f"{folder}{query}", DataConfig(**options))


def aligned_errors(estimate, truth):
    """Centre errors in metres after the best similarity (Umeyama), and rotation errors in degrees."""
    A, B = estimate[:, :3, 3], truth[:, :3, 3]
    a, b = A - A.mean(0), B - B.mean(0)
    U, S, Vt = np.linalg.svd(b.T @ a)
    D = np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))])
    R, scale = U @ D @ Vt, (S * np.diag(D)).sum() / (a**2).sum()
    return np.linalg.norm(scale * a @ R.T - b, axis=1), [
        rotation_angle_deg((R @ E[:3, :3]).T @ T[:3, :3]) for E, T in zip(estimate, truth)
    ]


def test_poses_and_intrinsics_are_found(folder, walk, kept):
    reader = opened(folder)
    assert dict(reader.bad) == {}
    camera = reader[0].camera
    assert camera.focal == pytest.approx(walk[0][0].camera.focal, rel=0.02)
    assert (camera.width, camera.height) == (320, 240)
    centres, turns = aligned_errors(
        np.array([reader.truth(i).T_world_cam for i in range(6)]), np.array([T for _, T in walk])
    )
    assert centres.max() < 0.02
    assert max(turns) < 1.5  # six frames that move by 1.4 m leave the focal length, and with it a tilt, uncertain
    np.testing.assert_array_equal(reader[2].image, walk[2][0].image)


def test_second_opening_reads_the_cache_and_a_selection_shares_the_world(folder, kept, monkeypatch):
    import pycolmap

    before = opened(folder)
    poses = [before.truth(i).T_world_cam for i in range(6)]
    monkeypatch.setattr(pycolmap, "extract_features", None)  # nothing may be computed again
    some = opened(folder, select="1::2", size=160)
    assert len(some) == 3
    for at, i in enumerate((1, 3, 5)):
        assert some.truth(at).T_world_cam.tobytes() == poses[i].tobytes()
    assert some[0].camera == before[1].camera.resized(160, 120)
    assert sorted(p.name for p in kept.iterdir()) == ["sfm"]


def test_same_images_give_the_same_bytes(folder, kept, cache):
    # `cache` is set last: an empty folder, so everything is computed anew.
    again = opened(folder)
    fresh = [again.truth(i).T_world_cam.tobytes() for i in range(6)]
    assert (cache / "sfm").is_dir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISION3D_CACHE", str(kept))
        first = opened(folder)
        assert [first.truth(i).T_world_cam.tobytes() for i in range(6)] == fresh


def test_known_intrinsics_need_no_reconstruction(folder, walk, no_sfm):
    reader = opened(folder, f"?fov_deg={FOV}")
    assert dict(reader.bad) == {}
    assert reader[1].camera.params == pytest.approx(walk[0][0].camera.params)
    assert opened(folder, "?K=200,210,160,120")[0].camera.params == (200, 210, 160, 120)
    assert opened(folder, f"?fov_deg={FOV}&poses=none").truth(0) is None
    with pytest.raises(AssertionError, match="was started"):
        reader.truth(0)


def test_a_calibration_beside_the_images_is_used(walk, tmp_path, no_sfm):
    write_image(tmp_path / "phone" / "images" / "a.jpg", walk[0][0])
    (tmp_path / "phone" / "K.txt").write_text("250 0 160\n0 251 120\n0 0 1\n")
    assert opened(tmp_path / "phone")[0].camera.params == (250, 251, 160, 120)
    assert opened(tmp_path / "phone").name == "phone"
    text = "model: OPENCV\nwidth: 320\nheight: 240\nparams: [250, 251, 160, 120, -0.1, 0.01, 0, 0]\n"
    (tmp_path / "phone" / "images" / "camera.yaml").write_text(text)
    assert opened(tmp_path / "phone")[0].camera.model == "OPENCV"
    (tmp_path / "phone" / "images" / "camera.yaml").write_text(text.replace("320", "640").replace("240", "480"))
    problems = SPEC.check(str(tmp_path / "phone"))
    assert len(problems) == 1
    assert "image is 320x240 pixels but its calibration is for 640x480" in problems[0]


def test_focal_length_from_exif_on_request(walk, tmp_path, no_sfm):
    from PIL import Image

    image = Image.fromarray(walk[0][0].image)
    exif = image.getexif()
    exif.get_ifd(0x8769)[0xA405] = 27  # 35 mm equivalent: 36 mm across 320 pixels
    image.save(tmp_path / "a.jpg", exif=exif)
    reader = opened(tmp_path, "?exif=true")
    assert reader[0].camera.focal == pytest.approx(27 / 36 * 320)
    assert any("from EXIF" in note for note in reader.notes)
    write_image(tmp_path / "b.png", walk[1][0])
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"b\.png: has no focal length in its EXIF data"):
        opened(tmp_path, "?exif=true")[0]


def test_known_intrinsics_are_kept_by_the_reconstruction(folder, walk, kept):
    reader = opened(folder, f"?fov_deg={FOV}")
    centres, _ = aligned_errors(
        np.array([reader.truth(i).T_world_cam for i in range(6)]), np.array([T for _, T in walk])
    )
    assert centres.max() < 0.02
    assert reader.camera(0).params == pytest.approx(walk[0][0].camera.params)


def test_images_that_do_not_belong_are_bad_not_silent(folder, walk, cache, tmp_path):
    rng = np.random.default_rng(0)
    for i, (frame, _) in enumerate(walk[:4]):
        write_image(tmp_path / f"{i}.png", frame)
    import cv2

    cv2.imwrite(str(tmp_path / "stranger.png"), rng.integers(0, 255, (240, 320, 3), dtype=np.uint8))
    reader = opened(tmp_path)
    assert [reader.key(i) for i in reader.bad] == ["stranger.png"]
    assert "could not place this image" in reader.bad[4]
    assert reader.truth(4) is None
    with pytest.raises(DataError, match=r"stranger\.png: structure from motion could not place"):
        reader[4]
    assert any("placed 4 of 5 images" in note for note in reader.notes)
    assert reader.truth(0) is not None


def test_a_truth_list_makes_the_reconstruction_unnecessary(folder, walk, no_sfm, tmp_path):
    for i, (frame, _) in enumerate(walk):
        write_image(tmp_path / "q" / f"{i}.png", frame)
    truth = pose_list(tmp_path / "t.txt", [f"{i}.png" for i in range(6)], [T for _, T in walk])
    reader = opened(tmp_path / "q", f"?fov_deg={FOV}", truth=truth)
    np.testing.assert_allclose(reader.truth(3).T_world_cam, walk[3][1], atol=1e-7)


def test_too_few_images_and_hopeless_ones(walk, tmp_path, cache):
    write_image(tmp_path / "two" / "a.png", walk[0][0])
    write_image(tmp_path / "two" / "b.png", walk[1][0])
    with pytest.raises(DataError, match="holds 2 images: at least 3 are needed"):
        opened(tmp_path / "two").truth(0)
    import cv2

    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        (tmp_path / "noise").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "noise" / f"{i}.png"), noise)
    with pytest.raises(DataError, match=r"no poses could be found .* give \?fov_deg="):
        opened(tmp_path / "noise").truth(0)
    assert list((cache / "sfm").iterdir()) == []  # a failure leaves nothing behind
    with pytest.raises(DataError, match="poses=none needs intrinsics"):
        opened(tmp_path / "noise", "?poses=none")[0]


def test_damaged_images_are_found_by_check_and_by_the_reconstruction(walk, tmp_path, cache):
    for i, (frame, _) in enumerate(walk[:3]):
        write_image(tmp_path / f"{i}.png", frame)
    assert SPEC.check(str(tmp_path)) == []
    path = tmp_path / "1.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"1\.png: truncated PNG"):
        opened(tmp_path).truth(0)
    path.write_bytes(b"nothing")
    assert SPEC.check(str(tmp_path)) == [f"{path}: is not an image that can be read"]


def test_match_is_the_last_resort_and_prefers_a_folder_called_images(walk, tmp_path):
    write_image(tmp_path / "set" / "images" / "a.png", walk[0][0])
    write_image(tmp_path / "set" / "masks" / "a.png", walk[0][0])
    assert SPEC.match(str(tmp_path / "set")) == 0.2
    assert opened(tmp_path / "set", "?K=300").records[0].image.parent.name == "images"
    (tmp_path / "set" / "images").rename(tmp_path / "set" / "more")
    assert SPEC.match(str(tmp_path / "set")) == 0
    with pytest.raises(DataError, match="holds 2 data sets"):
        opened(tmp_path / "set")
