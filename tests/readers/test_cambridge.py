# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from layouts import cambridge

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.se3 import invert, pose_problem, rotation_to_quat
from vision3d.readers._nvm import NvmCamera, inverse_radial, read_nvm_cameras
from vision3d.readers.cambridge import SPEC, read_pose_list

HEADER = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"


@pytest.fixture
def scene(tmp_path, small):
    return cambridge(tmp_path / "ShopFacade", small)


def opened(scene, query="", **options):
    return SPEC.open(f"{scene}{query}", DataConfig(**options))


def keys(reader):
    return [reader.key(i) for i in range(len(reader))]


def test_round_trip_with_per_image_focal_lengths(scene, small):
    order = {"all": [0, 2, 1, 3], "train": [0, 2], "test": [1, 3]}
    for split, indices in order.items():
        reader = opened(scene, split=split)
        assert keys(reader) == [f"seq{1 + i % 2}/frame{i:05d}.png" for i in indices]
        for at, i in enumerate(indices):
            frame, T = small[i]
            np.testing.assert_array_equal(reader[at].image, frame.image)
            np.testing.assert_allclose(reader.truth(at).T_world_cam, T, atol=1e-7)
            assert reader[at].camera.focal == pytest.approx(frame.camera.focal + i)
            assert (reader[at].camera.cx, reader[at].camera.cy) == (79.5, 59.5)
    assert SPEC.check(str(scene)) == []
    with pytest.raises(ConfigError, match="not 'val'"):
        opened(scene, split="val")


def test_the_published_fixture_of_conventions(tmp_path):
    centre, q = (-0.157816, -10.413150, 1.832074), (0.712261, 0.682691, -0.123193, 0.106962)
    (tmp_path / "l.txt").write_text(HEADER + "seq1/frame00001.png " + " ".join(map(str, centre + q)) + "\n")
    (pose,) = read_pose_list(tmp_path / "l.txt")
    T_cam_world = invert(pose.T_world_cam)
    np.testing.assert_allclose(T_cam_world[:3, 3], (-3.134834, 2.295918, 9.834465), atol=2e-5)
    np.testing.assert_allclose(rotation_to_quat(T_cam_world[:3, :3]), q / np.linalg.norm(q), atol=1e-9)
    np.testing.assert_allclose(pose.T_world_cam[:3, 3], centre)


def test_real_lists_hold_valid_poses_and_train_surrounds_test(shared_data):
    for scene, train, test in (("ShopFacade", 231, 103), ("KingsCollege", 1220, 343), ("OldHospital", 895, 182)):
        folder = shared_data / "reloc_metadata" / "_derived_cambridge_native" / scene
        lists = {split: read_pose_list(folder / f"dataset_{split}.txt") for split in ("train", "test")}
        assert (len(lists["train"]), len(lists["test"])) == (train, test)
        for poses in lists.values():
            assert all(p.problem is None and pose_problem(p.T_world_cam) == "" for p in poses)
        train_c, test_c = (np.array([p.T_world_cam[:3, 3] for p in lists[s]]) for s in ("train", "test"))
        nearest = np.linalg.norm(test_c[:, None] - train_c[None], axis=-1).min(axis=1)
        assert np.median(nearest) < 3.0  # metres: both were filmed along the same path


def test_vertical_axis_of_real_images_points_down(shared_data):
    # People hold phones upright: image y must point to the ground (world z is up in these reconstructions).
    folder = shared_data / "reloc_metadata" / "_derived_cambridge_native" / "ShopFacade"
    down = np.array([p.T_world_cam[:3, 1] for p in read_pose_list(folder / "dataset_test.txt")])
    assert (down[:, 2] < -0.8).mean() > 0.9


def test_converted_jpg_copies_are_found(scene, small):
    import cv2

    for path in sorted(scene.glob("seq*/*.png")):
        cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path)))
        path.unlink()
    reader = opened(scene)
    assert reader.key(0) == "seq1/frame00000.png"
    assert reader[0].image.shape == (120, 160, 3)


def test_without_nvm_the_focal_length_must_be_given(scene):
    (scene / "reconstruction.nvm").unlink()
    with pytest.raises(DataError, match=r"reconstruction\.nvm: no such file: it holds the focal lengths; .*\?fov_deg="):
        opened(scene)
    reader = opened(scene, "?K=140")
    assert reader[0].camera.params == (140, 140, 79.5, 59.5)
    assert "one camera for all images, f = 140.0 px" in reader.notes[0]
    assert opened(scene, "?fov_deg=90")[0].camera.focal == pytest.approx(80)


def test_an_image_that_the_nvm_lacks_is_named(scene):
    text = (scene / "reconstruction.nvm").read_text().replace("seq2/frame00003.jpg", "seq2/other.jpg")
    (scene / "reconstruction.nvm").write_text(text)
    with pytest.raises(DataError, match=r"reconstruction\.nvm: has no camera for seq2/frame00003\.png"):
        opened(scene)
    assert list(opened(scene, skip_bad=True).bad) == [3]
    assert len(opened(scene, split="train")) == 2


def test_missing_image_is_named_and_counted(scene):
    (scene / "seq1" / "frame00002.png").unlink()
    with pytest.raises(DataError, match=r"seq1/frame00002\.png: no such image, but the list names it"):
        opened(scene)
    assert list(opened(scene, skip_bad=True).bad) == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must begin with a title"),
        (HEADER, "names no image: the split is empty"),
        (HEADER + "a.png 1 2 3 1 0 0\n", "line 4: 7 fields"),
        (HEADER + "a.png 1 2 3 one 0 0 0\n", "line 4: could not convert"),
    ],
)
def test_damaged_lists(scene, text, words):
    (scene / "dataset_train.txt").write_text(text)
    with pytest.raises(DataError, match=rf"dataset_train\.txt: {words}"):
        opened(scene)


def test_quaternion_first_is_found_by_its_length(scene, small):
    lines = (scene / "dataset_train.txt").read_text().splitlines()
    name, *values = lines[3].split()
    lines[3] = " ".join([name, *values[3:], *values[:3]])
    (scene / "dataset_train.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"line 4: quaternion has length .*are the columns in another order"):
        opened(scene)
    lines[3] = " ".join([name, "nan", *values[1:]])
    (scene / "dataset_train.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="line 4: pose holds NaN"):
        opened(scene)


@pytest.mark.parametrize("k", [-0.15, -0.02, 0.02, 0.15])
def test_nvm_distortion_undistorts_the_measured_point(k):
    # VisualSFM: x_undistorted = x_measured (1 + k |x_measured|^2), in units of the focal length.
    camera = NvmCamera(1670.0, k).camera(1920, 1080)
    rng = np.random.default_rng(0)
    measured = rng.uniform([0, 0], [1919, 1079], (500, 2))
    m = (measured - [959.5, 539.5]) / 1670.0
    undistorted = m * (1 + k * (m**2).sum(-1, keepdims=True))
    again = camera.project(np.concatenate([undistorted, np.ones((500, 1))], axis=1))
    assert np.abs(again - measured).max() < 0.15
    assert NvmCamera(1670.0, 0.0).camera(1920, 1080).model == "SIMPLE_PINHOLE"


def test_inverse_radial_starts_like_the_series():
    k1, k2 = inverse_radial(0.01, 0.3)
    assert k1 == pytest.approx(-0.01, rel=1e-2)
    assert k2 == pytest.approx(3e-4, rel=0.1)


def test_distortion_reaches_the_frames(tmp_path, small):
    scene = cambridge(tmp_path / "Scene", small, k=-0.1)
    assert opened(scene)[0].camera.model == "RADIAL"
    assert opened(scene, size=80)[0].camera.params[3:] == opened(scene)[0].camera.params[3:]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NVM_V2\n", "does not start with NVM_V3"),
        ("NVM_V3\n\nmany\n", "line 3: expected the number of cameras"),
        ("NVM_V3\n\n2\na.jpg 500 1 0 0 0 0 0 0 0 0\n", "expected 'name f"),
        ("NVM_V3\n\n1\na.jpg f 1 0 0 0 0 0 0 0 0\n", "line 4: could not convert"),
        ("NVM_V3\n\n1\na.jpg 0 1 0 0 0 0 0 0 0 0\n", "line 4: focal length 0 is not possible"),
        ("NVM_V3\n\n2\n" + "a.jpg 500 1 0 0 0 0 0 0 0 0\n" * 2, "line 5: image a occurs twice"),
    ],
)
def test_damaged_nvm(tmp_path, text, words):
    (tmp_path / "r.nvm").write_text(text)
    with pytest.raises(DataError, match=rf"r\.nvm: .*{words}"):
        read_nvm_cameras(tmp_path / "r.nvm")


def test_nvm_names_may_hold_spaces_and_tabs(tmp_path):
    (tmp_path / "r.nvm").write_text("NVM_V3 \n\n1\nmy images\\a b.JPG\t500.5 1 0 0 0 0 0 0 -0.01 0\n\n0\n")
    assert read_nvm_cameras(tmp_path / "r.nvm") == {"my images/a b": NvmCamera(500.5, -0.01)}
    with pytest.raises(DataError, match="no such file"):
        read_nvm_cameras(tmp_path / "absent.nvm")
