# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
from layouts import transforms

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError
from vision3d.readers.transforms import SPEC


@pytest.fixture
def folder(tmp_path, small):
    return transforms(tmp_path / "fox", small)


def opened(path, query="", **options):
    return SPEC.open(f"{path}{query}", DataConfig(**options))


def edit(folder, change):
    file = folder / "transforms.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    return folder


def test_round_trip_from_opengl_axes(folder, small):
    reader = opened(folder)
    assert (reader.name, len(reader), reader.key(0)) == ("fox", 4, "images/0000.png")
    for i, (frame, T) in enumerate(small):
        np.testing.assert_array_equal(reader[i].image, frame.image)
        np.testing.assert_allclose(reader.truth(i).T_world_cam, T, atol=1e-12)
        assert reader[i].camera.params == pytest.approx(frame.camera.params)
    assert SPEC.check(str(folder)) == []
    assert SPEC.match(str(folder)) > 0.9 > SPEC.match(str(folder / "transforms.json")) > 0.5
    assert len(opened(folder / "transforms.json")) == 4


def test_opencv_axes_on_request(folder, small):
    T = opened(folder, "?axes=opencv").truth(0).T_world_cam
    np.testing.assert_allclose(T, small[0][1] @ np.diag([1, -1, -1, 1]), atol=1e-12)
    with pytest.raises(DataError, match="say opengl or opencv"):
        opened(folder, "?axes=blender")


def test_values_of_a_frame_override_those_of_the_file(folder):
    edit(folder, lambda d: d["frames"][2].update(fl_x=99.0, k1=0.1))
    reader = opened(folder)
    assert reader[2].camera.fx == 99.0
    assert reader[2].camera.model == "OPENCV"
    assert reader[1].camera.model == "PINHOLE"


def test_distortion_terms_go_where_they_belong(folder):
    edit(folder, lambda d: d.update(k1=0.1, k2=0.02, k3=0.003, p1=1e-4, p2=2e-4))
    camera = opened(folder)[0].camera
    assert camera.model == "FULL_OPENCV"
    assert camera.distortion == (0.1, 0.02, 1e-4, 2e-4, 0.003, 0, 0, 0)
    edit(folder, lambda d: d.update(k4=0.1))
    with pytest.raises(DataError, match=r"k4 = 0\.1 .* is not supported"):
        opened(folder)


def test_field_of_view_and_size_from_the_image_where_they_are_not_given(folder):
    def change(d):
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            del d[key]
        d["camera_angle_x"] = 1.2

    camera = opened(edit(folder, change))[0].camera
    assert camera.fx == camera.fy == pytest.approx(80 / np.tan(0.6))
    assert (camera.cx, camera.cy, camera.width, camera.height) == (79.5, 59.5, 160, 120)


def test_file_paths_without_suffix_and_matrices_of_three_rows(folder, small):
    def change(d):
        for frame in d["frames"]:
            frame["file_path"] = frame["file_path"].removesuffix(".png")
            frame["transform_matrix"] = frame["transform_matrix"][:3]

    reader = opened(edit(folder, change))
    assert reader.key(0) == "images/0000"
    np.testing.assert_allclose(reader.truth(3).T_world_cam, small[3][1], atol=1e-12)
    assert reader[0].image.shape == (120, 160, 3)


def test_missing_images_and_bad_poses_stop_or_are_counted(folder):
    (folder / "images" / "0001.png").unlink()
    with pytest.raises(DataError, match=r"0001\.png: no such image, but transforms\.json names it"):
        opened(folder)
    edit(folder, lambda d: d["frames"][2].update(transform_matrix=np.diag([1, 1, -1, 1]).tolist()))
    reader = opened(folder, skip_bad=True)
    assert sorted(reader.bad) == [1, 2]
    assert "frames[2] (images/0002.png): rotation has determinant -1" in reader.bad[2]
    assert len(SPEC.check(str(folder))) == 2


def test_duplicates_are_refused(folder):
    edit(folder, lambda d: d["frames"].append(d["frames"][0]))
    with pytest.raises(DataError, match=r"images/0000\.png occurs twice"):
        opened(folder)


def test_splits_by_lists_and_by_files(folder, small, tmp_path):
    with pytest.raises(ConfigError, match=r"defines no split 'test' \(it has: none\)"):
        opened(folder, split="test")
    edit(folder, lambda d: d.update(train_filenames=["./images/0000.png", "./images/0003.png"]))
    reader = opened(folder, split="train")
    assert [reader.key(i) for i in range(len(reader))] == ["images/0000.png", "images/0003.png"]
    edit(folder, lambda d: d.update(test_filenames=["./images/0009.png"]))
    with pytest.raises(DataError, match=r"'test_filenames' names \./images/0009\.png, which is not among"):
        opened(folder, split="test")
    (folder / "transforms.json").rename(folder / "transforms_train.json")
    assert len(opened(folder, split="train")) == 4
    with pytest.raises(ConfigError, match="has the splits train, not 'test'"):
        opened(folder, split="test")
    assert SPEC.check(str(folder)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON: line 1"),
        ("[]", "non-empty list 'frames'"),
        ('{"frames": []}', "non-empty list 'frames'"),
        ('{"frames": [{"transform_matrix": 1}]}', r"frames\[0\] has no 'file_path'"),
        ('{"frames": [{"file_path": "images/0000.png"}]}', r"frames\[0\] .* has no 4x4"),
    ],
)
def test_damaged_files(folder, text, words):
    (folder / "transforms.json").write_text(text)
    with pytest.raises(DataError, match=words):
        opened(folder)


def test_damaged_intrinsics(folder):
    for change, words in (
        ({"camera_model": "OPENCV_FISHEYE"}, "camera_model 'OPENCV_FISHEYE' is not supported"),
        ({"fl_x": "wide"}, "'fl_x' must be a number, found 'wide'"),
        ({"fl_x": -1.0}, "focal lengths must be positive"),
        ({"w": 320.0, "h": 240.0}, "image is 160x120 pixels but its calibration is for 320x240"),
    ):
        original = (folder / "transforms.json").read_text()
        edit(folder, lambda d, change=change: d.update(change))
        with pytest.raises(DataError, match=words):
            opened(folder)[0]
        (folder / "transforms.json").write_text(original)


def test_real_fox_looks_at_one_place(shared_data):
    reader = opened(shared_data / "ngp_fox", size=480)
    assert (len(reader), reader.name) == (10, "fox")
    assert reader[0].image.shape == (480, 270, 3)
    assert reader.camera(0).params[:2] == pytest.approx((1375.52 / 4, 1374.49 / 4))
    # The viewing axes of an object-centric capture meet: wrong axes would make them point away.
    T = np.array([reader.truth(i).T_world_cam for i in range(10)])
    c, d = T[:, :3, 3], T[:, :3, 2]
    A = np.eye(3) - d[:, :, None] * d[:, None, :]
    focus = np.linalg.solve(A.sum(0), (A @ c[:, :, None])[:, :, 0].sum(0))
    along = ((focus - c) * d).sum(1)
    assert (along > 0).all()
    assert (np.linalg.norm(focus - c - along[:, None] * d, axis=1) < 0.5 * along).all()
