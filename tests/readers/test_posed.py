# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
from layouts import posed_folder, rows, write_image

from vision3d.contracts import DataConfig
from vision3d.errors import DataError
from vision3d.readers.posed import SPEC


@pytest.fixture
def folder(tmp_path, small):
    return posed_folder(tmp_path / "room", small)


def test_round_trip(folder, small):
    reader = SPEC.open(str(folder.parent), DataConfig())
    assert (reader.name, len(reader)) == ("room", 4)
    for i, (frame, T) in enumerate(small):
        np.testing.assert_array_equal(reader[i].image, frame.image)
        np.testing.assert_allclose(reader[i].depth_m, frame.depth_m, atol=5.1e-4)
        np.testing.assert_allclose(reader.truth(i).T_world_cam, T, atol=1e-8)
        assert reader[i].camera.params == pytest.approx(frame.camera.params)
    assert SPEC.check(str(folder)) == []


def test_frames_without_a_depth_file_have_none(folder):
    (folder / "depth" / "00002.png").unlink()
    reader = SPEC.open(str(folder), DataConfig())
    assert reader[2].depth_m is None
    assert reader[1].depth_m is not None


def test_camera_yaml_brings_distortion_and_must_fit(folder):
    (folder / "camera.yaml").write_text(
        "model: SIMPLE_RADIAL\nwidth: 160\nheight: 120\nparams: [130, 79.5, 59.5, -0.1]\n"
    )
    camera = SPEC.open(str(folder), DataConfig())[0].camera
    assert camera.model == "SIMPLE_RADIAL"
    assert camera.params == (130, 79.5, 59.5, -0.1)
    (folder / "camera.yaml").write_text(
        "model: SIMPLE_RADIAL\nwidth: 320\nheight: 240\nparams: [130, 79.5, 59.5, -0.1]\n"
    )
    with pytest.raises(DataError, match="image is 160x120 pixels but its calibration is for 320x240"):
        SPEC.open(str(folder), DataConfig())[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: PINHOLE\n", "exactly the keys model, width, height, params; found model"),
        ("[1, 2", "is not YAML"),
        ("model: EYE\nwidth: 1\nheight: 1\nparams: []\n", "camera model 'EYE' is not one of"),
        ("model: PINHOLE\nwidth: 1\nheight: 1\nparams: [x]\n", "could not convert"),
    ],
)
def test_damaged_camera_yaml(folder, text, words):
    (folder / "camera.yaml").write_text(text)
    with pytest.raises(DataError, match=words):
        SPEC.open(str(folder), DataConfig())


@pytest.mark.parametrize(
    ("K", "words"),
    [
        (np.diag([100, 100, 2.0]), "is no intrinsic matrix"),
        (np.array([[100, 5, 80], [0, 100, 60], [0, 0, 1.0]]), "has a skew"),
        (np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1.0]]), "outside the 160x120 image"),
    ],
)
def test_damaged_K(folder, K, words):
    (folder / "K.txt").write_text(rows(K))
    with pytest.raises(DataError, match=f"K.txt: .*{words}"):
        SPEC.open(str(folder), DataConfig())


def test_missing_parts_are_named(folder, small):
    (folder / "K.txt").rename(folder / "k.bak")
    with pytest.raises(DataError, match=r"K\.txt: no such file: write the 3x3"):
        SPEC.open(str(folder), DataConfig())
    (folder / "k.bak").rename(folder / "K.txt")
    write_image(folder / "images" / "00009.png", small[0][0])
    with pytest.raises(DataError, match=r"poses\.txt: holds 4 poses for 5 images"):
        SPEC.open(str(folder), DataConfig())
    assert len(SPEC.check(str(folder))) == 1


def test_a_line_of_fifteen_numbers_is_named(folder):
    text = (folder / "poses.txt").read_text().splitlines()
    text[2] = " ".join(text[2].split()[:15])
    (folder / "poses.txt").write_text("\n".join(text))
    with pytest.raises(DataError, match="line 3: expected 16 numbers, found 15"):
        SPEC.open(str(folder), DataConfig())


def test_open3d_folder(tmp_path, small):
    root = tmp_path / "RGBD"
    for i, (frame, _) in enumerate(small):
        write_image(root / "color" / f"{i:05d}.png", frame)
    blocks = [f"{i} {i} {i + 1}\n{rows(T)}" for i, (_, T) in enumerate(small)]
    (root / "trajectory.log").write_text("".join(blocks))
    camera = small[0][0].camera
    data = {"width": 160, "height": 120, "intrinsic_matrix": camera.K.T.ravel().tolist()}
    (tmp_path / "camera_primesense.json").write_text(json.dumps(data))
    reader = SPEC.open(str(root), DataConfig())
    for i, (_, T) in enumerate(small):
        np.testing.assert_allclose(reader.truth(i).T_world_cam, T, atol=1e-8)
    assert reader[0].camera.params == pytest.approx(camera.params)
    (root / "trajectory.log").write_text("".join(blocks)[:-40])
    with pytest.raises(DataError, match=r"trajectory\.log"):
        SPEC.open(str(root), DataConfig())
    (root / "trajectory.log").write_text("".join(blocks) + "4 4 5\n1 0 0 0\n")
    with pytest.raises(DataError, match="ends in the middle of a matrix"):
        SPEC.open(str(root), DataConfig())
    (root / "trajectory.log").write_text("".join(blocks))
    (tmp_path / "camera_primesense.json").write_text("{}")
    with pytest.raises(DataError, match="must hold width, height and intrinsic_matrix"):
        SPEC.open(str(root), DataConfig())


def test_real_folders(shared_data):
    reader = SPEC.open(str(shared_data / "hololens_dvmvs_000"), DataConfig())
    assert (len(reader), reader.key(0)) == (20, "00051.png")
    frame = reader[0]
    assert frame.camera.focal == pytest.approx(495.5, abs=0.1)
    assert 0.5 < np.median(frame.depth_m[frame.depth_m > 0]) < 8
    reader = SPEC.open(str(shared_data / "open3d_testdata"), DataConfig())
    assert (len(reader), reader.name) == (5, "RGBD")
    assert reader[0].camera.params == (525.0, 525.0, 319.5, 239.5)
    assert reader[0].depth_m.max() > 1


def test_real_depth_and_poses_agree_between_views(shared_data):
    # Points lifted from one view land on the other's depth: poses, intrinsics and depth are in one convention.
    from vision3d.geometry.se3 import invert, transform

    reader = SPEC.open(str(shared_data / "open3d_testdata"), DataConfig())
    a, b = reader[0], reader[3]
    v, u = np.mgrid[20:460:7, 20:620:7]
    z = a.depth_m[v, u]
    rays = np.concatenate([a.camera.normalize(np.stack([u, v], -1)), np.ones((*u.shape, 1))], -1)
    in_b = transform(invert(reader.truth(3).T_world_cam) @ reader.truth(0).T_world_cam, rays * z[..., None])
    uv = np.rint(b.camera.project(in_b))
    ok = (z > 0) & b.camera.contains(uv)
    at = uv[ok].astype(int)
    other = b.depth_m[at[:, 1], at[:, 0]]
    gap = np.abs(other - in_b[ok][:, 2])[other > 0]
    assert np.median(gap) < 0.02
