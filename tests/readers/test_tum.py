# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
from layouts import numbers, tum, write_depth, write_image

from vision3d.contracts import DataConfig
from vision3d.errors import DataError
from vision3d.geometry.se3 import invert, rotation_to_quat, transform
from vision3d.readers.tum import SPEC


@pytest.fixture
def sequence(tmp_path, vga):
    return tum(tmp_path / "rgbd_dataset_freiburg2_desk", vga)


def opened(path, query="", **options):
    return SPEC.open(f"{path}{query}", DataConfig(**options))


def test_round_trip_with_depth_and_stamps(sequence, vga):
    reader = opened(sequence)
    assert (len(reader), reader.key(0)) == (4, "1305031102.175304.png")
    for i, (frame, T) in enumerate(vga):
        got = reader[i]
        np.testing.assert_array_equal(got.image, frame.image)
        np.testing.assert_allclose(got.depth_m, frame.depth_m, atol=1.1e-4)
        np.testing.assert_allclose(reader.truth(i).T_world_cam, T, atol=1e-7)
    assert reader[0].stamp_ns == 1_305_031_102_175_304_000
    assert reader.notes == ()
    assert SPEC.check(str(sequence)) == []


@pytest.mark.parametrize(
    ("name", "model", "focal"),
    [
        ("rgbd_dataset_freiburg1_xyz", "FULL_OPENCV", 516.9),
        ("rgbd_dataset_freiburg2_xyz", "FULL_OPENCV", 521.0),
        ("rgbd_dataset_freiburg3_office", "PINHOLE", 537.3),
        ("fr1_xyz", "FULL_OPENCV", 516.9),
    ],
)
def test_intrinsics_by_name(tmp_path, vga, name, model, focal):
    reader = opened(tum(tmp_path / name, vga[:1]))
    camera = reader[0].camera
    assert camera.model == model
    assert camera.focal == pytest.approx(focal, abs=0.1)
    assert reader.notes == ()


def test_freiburg1_distortion_is_opencvs(tmp_path, vga):
    camera = opened(tum(tmp_path / "freiburg1_xyz", vga[:1]))[0].camera
    points = np.array([[0.3, -0.2, 1.0], [-0.5, 0.35, 1.0]])
    D = np.array([0.262383, -0.953104, -0.005358, 0.002628, 1.163314])
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.K, D)
    np.testing.assert_allclose(camera.project(points), expected[:, 0], atol=1e-9)


def test_unknown_names_are_a_noted_guess_unless_intrinsics_are_given(tmp_path, vga):
    root = tum(tmp_path / "my_kinect", vga[:1])
    reader = opened(root)
    assert reader[0].camera.params == (525.0, 525.0, 319.5, 239.5)
    assert "guessed intrinsics f = 525 px" in reader.notes[0]
    reader = opened(root, "?K=500,501,320,240")
    assert reader[0].camera.params == (500.0, 501.0, 320.0, 240.0)
    assert reader.notes == ()
    (root / "K.txt").write_text("510 0 320\n0 510 240\n0 0 1\n")
    assert opened(root)[0].camera.focal == 510.0


def test_pairs_further_apart_than_20_ms_are_none(tmp_path, vga):
    near = opened(tum(tmp_path / "fr1_a", vga, pose_lag_s=0.0153))
    assert len(near) == 4
    # 16.7 ms is half a frame: with a lag of one frame and a half-frame shift the first image loses its pose.
    lines = (tum(tmp_path / "fr1_b", vga) / "groundtruth.txt").read_text().splitlines()
    (tmp_path / "fr1_b" / "groundtruth.txt").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    reader = opened(tmp_path / "fr1_b")
    assert len(reader) == 3
    assert reader.notes == ("1 of 4 images have no pose within 20 ms: left out",)
    (tmp_path / "fr1_b" / "groundtruth.txt").write_text("5.0 0 0 0 0 0 0 1\n")
    with pytest.raises(DataError, match="no pose within 20 ms of any image"):
        opened(tmp_path / "fr1_b")


def test_depth_further_away_is_none_and_truth_may_be_absent(sequence):
    text = (sequence / "depth.txt").read_text().splitlines()
    (sequence / "depth.txt").write_text("\n".join(text[:2]) + "\n")
    reader = opened(sequence)
    assert [reader[i].depth_m is None for i in range(4)] == [False, True, True, True]
    (sequence / "groundtruth.txt").unlink()
    (sequence / "depth.txt").unlink()
    reader = opened(sequence)
    assert len(reader) == 4
    assert reader.truth(0) is None
    assert reader[0].depth_m is None


def test_order_of_lines_does_not_matter(sequence):
    expected = opened(sequence)
    for name in ("rgb", "depth", "groundtruth"):
        lines = (sequence / f"{name}.txt").read_text().splitlines()
        (sequence / f"{name}.txt").write_text("\n".join(lines[::-1]) + "\n")
    reader = opened(sequence)
    for i in range(4):
        assert reader.key(i) == expected.key(i)
        np.testing.assert_array_equal(reader.truth(i).T_world_cam, expected.truth(i).T_world_cam)


def test_damaged_files_are_named(sequence):
    original = {p.name: p.read_text() for p in sequence.glob("*.txt")}

    def broken(name, text, words):
        (sequence / name).write_text(text)
        with pytest.raises(DataError, match=rf"{name}: {words}"):
            opened(sequence)
        (sequence / name).write_text(original[name])

    broken("rgb.txt", "1.0 a b\n", "line 1: 3 fields")
    broken("rgb.txt", "# none\n", "names no file")
    broken("rgb.txt", "now a.png\n", "line 1: 'now' is not a time")
    broken("groundtruth.txt", "1.0 0 0 0 1 2 3 4\n", "line 1: quaternion has length")
    (sequence / "rgb.txt").write_text(original["rgb.txt"] + "1305031102.28 rgb/gone.png\n")
    with pytest.raises(DataError, match=r"gone\.png: no such image, but rgb\.txt names it"):
        opened(sequence)
    assert len(opened(sequence, skip_bad=True).bad) == 1


def test_numbered_folder_of_text_books(tmp_path, small):
    root = tmp_path / "dense"
    lines = []
    for i, (frame, T) in enumerate(small):
        # Numeric, not lexicographic order: 8, 9, 10, 11.
        write_image(root / "color" / f"{i + 8}.png", frame)
        write_depth(root / "depth" / f"{i + 8}.pgm", frame, 1000.0)
        w, x, y, z = rotation_to_quat(T[:3, :3])
        lines.append(numbers([*T[:3, 3], x, y, z, w]))
    (root / "pose.txt").write_text("\n".join(lines) + "\n")
    reader = opened(root, "?fov_deg=62.7")
    assert [reader.key(i) for i in range(4)] == ["8.png", "9.png", "10.png", "11.png"]
    for i, (frame, T) in enumerate(small):
        np.testing.assert_allclose(reader.truth(i).T_world_cam, T, atol=1e-7)
        np.testing.assert_allclose(reader[i].depth_m, frame.depth_m, atol=5.1e-4)
    (root / "pose.txt").write_text("\n".join(lines[:3]) + "\n")
    with pytest.raises(DataError, match=r"pose\.txt: holds 3 poses for 4 images"):
        opened(root)


def test_real_frames_with_y_up_show_one_world(shared_data):
    reader = opened(shared_data / "tum_slambook_rgbd")
    assert (len(reader), reader.name) == (5, "dense_RGBD")
    assert reader[0].camera.params == (481.2, 480.0, 319.5, 239.5)
    assert any("y up" in note for note in reader.notes)

    def colour_gap(flip):
        """Mean grey-level difference between a pixel and where its depth and the poses say it is seen next."""
        gaps = []
        for i, j in ((0, 1), (3, 4)):
            a, b = reader[i], reader[j]
            v, u = np.mgrid[20:460:5, 20:620:5]
            z = a.depth_m[v, u]
            rays = np.concatenate([a.camera.normalize(np.stack([u, v], -1)), np.ones((*u.shape, 1))], -1)
            T_a, T_b = (flip @ reader.truth(k).T_world_cam @ flip for k in (i, j))
            seen = transform(invert(T_b) @ T_a, rays * z[..., None])
            uv = b.camera.project(seen)
            ok = (z > 0) & b.camera.contains(uv)
            at = np.rint(uv[ok]).astype(int)
            gaps.append(np.abs(b.image[at[:, 1], at[:, 0]].astype(float) - a.image[v, u][ok]).mean())
        return np.mean(gaps)

    assert colour_gap(np.eye(4)) < 5
    assert colour_gap(np.diag([1, -1, 1, 1])) > 4 * colour_gap(np.eye(4))
