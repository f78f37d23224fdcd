# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil

import numpy as np
import pytest
from layouts import pose_list, rows, seven_scenes

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.se3 import invert, rotation_angle_deg, rotvec_to_rotation
from vision3d.readers._images import read_depth_m
from vision3d.readers._poses import read_pose_list
from vision3d.readers.seven_scenes import DEPTH_CAMERA, SPEC, T_COLOR_DEPTH, register_depth

NAMES = [f"seq-{1 + i % 2:02d}/frame-{i:06d}.color.png" for i in range(4)]


@pytest.fixture
def scene(tmp_path, vga):
    return seven_scenes(tmp_path / "redkitchen", vga)


def opened(scene, **options):
    return SPEC.open(str(scene), DataConfig(**options))


def keys(reader):
    return [reader.key(i) for i in range(len(reader))]


def test_round_trip_of_the_native_layout(scene, vga):
    reader = opened(scene)
    assert reader.name == "redkitchen"
    assert keys(reader) == sorted(NAMES)
    for i in range(4):
        frame, T = vga[NAMES.index(reader.key(i))]
        np.testing.assert_array_equal(reader[i].image, frame.image)
        np.testing.assert_allclose(reader.truth(i).T_world_cam, T, atol=1e-8)
        assert reader[i].camera.params == (525.0, 525.0, 320.0, 240.0)
        assert reader[i].depth_m is None
    assert SPEC.check(str(scene)) == []


def test_splits_follow_the_split_files(scene):
    assert keys(opened(scene, split="train")) == NAMES[::2]
    assert keys(opened(scene, split="test")) == NAMES[1::2]
    with pytest.raises(ConfigError, match="not 'val'"):
        opened(scene, split="val")


def test_absent_sequences_are_noted_or_when_nothing_is_left_an_error(scene):
    (scene / "TrainSplit.txt").write_text("sequence1\nsequence7\n")
    reader = opened(scene, split="train")
    assert keys(reader) == NAMES[::2]
    assert reader.notes == ("split train: sequences not on disk: seq-07",)
    (scene / "TrainSplit.txt").write_text("sequence7\nsequence13\n")
    with pytest.raises(DataError, match=r"TrainSplit\.txt: names sequences that are not on disk: seq-07, seq-13"):
        opened(scene, split="train")
    assert any("seq-07, seq-13" in problem for problem in SPEC.check(str(scene)))


def test_empty_missing_and_damaged_split_files(scene):
    (scene / "TestSplit.txt").write_text("\n")
    with pytest.raises(DataError, match="the split is empty"):
        opened(scene, split="test")
    (scene / "TestSplit.txt").write_text("kitchen one\n")
    with pytest.raises(DataError, match="'kitchen' is not of the form sequenceK"):
        opened(scene, split="test")
    (scene / "TestSplit.txt").unlink()
    with pytest.raises(DataError, match=r"TestSplit\.txt: no such file"):
        opened(scene, split="test")


def test_sfm_list_is_inverted_once_and_brings_its_focal_length(scene, tmp_path, vga):
    truth = pose_list(tmp_path / "t.txt", NAMES[::-1], [T for _, T in vga][::-1], focal=526.5)
    reader = opened(scene, truth=truth)
    assert keys(reader) == sorted(NAMES)  # the list's order does not matter
    for i, name in enumerate(sorted(NAMES)):
        np.testing.assert_allclose(reader.truth(i).T_world_cam, vga[NAMES.index(name)][1], atol=1e-7)
        assert reader[i].camera.params == (526.5, 526.5, 319.5, 239.5)


@pytest.mark.parametrize("mistake", ["order", "direction"])
def test_mixed_up_quaternions_and_directions_are_found_by_the_motion(scene, tmp_path, vga, mistake):
    # Both keep every quaternion at length 1. The scene's four frames hardly turn: give them larger turns.
    turns = [np.eye(4) for _ in range(4)]
    for i, T in enumerate(turns):
        T[:3, :3] = rotvec_to_rotation([0.3 * i, 0.7 * i, -0.2 * i * i])
        (scene / f"seq-{1 + i % 2:02d}" / f"frame-{i:06d}.pose.txt").write_text(rows(T))
    assert len(opened(scene, truth=pose_list(tmp_path / "good.txt", NAMES, turns))) == 4
    if mistake == "direction":
        truth = pose_list(tmp_path / "t.txt", NAMES, [invert(T) for T in turns])
    else:
        lines = [line.split() for line in (tmp_path / "good.txt").read_text().splitlines()]
        truth = tmp_path / "t.txt"
        truth.write_text("".join(" ".join([f[0], *f[2:5], f[1], *f[5:]]) + "\n" for f in lines))
    with pytest.raises(DataError, match=r"t\.txt: its camera turns otherwise than pose\.txt .* order w x y z"):
        opened(scene, truth=truth)


def test_an_sfm_list_is_a_split_by_sequence(scene, tmp_path, vga):
    truth = pose_list(tmp_path / "t.txt", NAMES[1::2], [T for _, T in vga][1::2], focal=526.5)
    assert keys(opened(scene, truth=truth)) == NAMES[1::2]


def test_frames_without_a_line_are_errors_and_lines_without_a_frame_notes(scene, tmp_path, vga):
    listed = [*NAMES[:3], "seq-01/frame-000999.color.png"]
    truth = pose_list(tmp_path / "t.txt", listed, [T for _, T in vga], focal=526.5)
    with pytest.raises(DataError, match=r"seq-02/frame-000003\.color\.png: has no pose in .*t\.txt"):
        opened(scene, truth=truth)
    reader = opened(scene, truth=truth, skip_bad=True)
    assert [reader.key(i) for i in reader.bad] == [NAMES[3]]
    assert any("1 frames listed in" in n and "seq-01/frame-000999" in n for n in reader.notes)


def test_an_impossible_focal_length_is_named(scene, tmp_path, vga):
    truth = pose_list(tmp_path / "t.txt", NAMES, [T for _, T in vga], focal=-5.0)
    with pytest.raises(DataError, match=r"focal length -5\.0 .* is not possible"):
        opened(scene, truth=truth)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"frame-000002\.pose\.txt: no such pose file"),
        ("1 0 0\n", r"frame-000002\.pose\.txt: must hold 4x4 numbers, found 3"),
        ("a " * 16, r"frame-000002\.pose\.txt: is not a matrix of numbers"),
        (rows(np.diag([1, 1, -1, 1.0])), r"frame-000002\.pose\.txt: rotation has determinant -1"),
        (rows(np.full((4, 4), np.nan)), r"frame-000002\.pose\.txt: pose holds NaN"),
    ],
)
def test_bad_pose_files_stop_or_are_counted(scene, text, words):
    path = scene / "seq-01" / "frame-000002.pose.txt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=words):
        opened(scene)
    reader = opened(scene, skip_bad=True)
    assert len(reader) == 4
    assert list(reader.bad) == [1]
    assert len(SPEC.check(str(scene))) == 1


def test_truncated_image_is_found_when_read(scene):
    path = scene / "seq-01" / "frame-000000.color.png"
    path.write_bytes(path.read_bytes()[:-100])
    reader = opened(scene)
    with pytest.raises(DataError, match=r"frame-000000\.color\.png: truncated PNG"):
        reader[0]
    assert reader[1].name == NAMES[2]


def test_missing_image_and_the_same_frame_twice(scene):
    color = scene / "seq-01" / "frame-000000.color.png"
    shutil.copy(color, color.with_suffix(".jpg"))
    with pytest.raises(DataError, match=r"seq-01/frame-000000 occurs twice"):
        opened(scene)
    color.unlink()
    color.with_suffix(".jpg").unlink()
    with pytest.raises(DataError, match=r"frame-000000\.color\.png: no such image"):
        opened(scene)


def test_one_sequence_folder_and_the_folder_above_both_work(scene):
    assert keys(opened(scene / "seq-02")) == NAMES[1::2]
    assert keys(opened(scene.parent)) == sorted(NAMES)
    assert SPEC.match(str(scene)) > SPEC.match(str(scene.parent)) > 0.9
    assert SPEC.match(str(scene / "seq-02")) > 0.9


def test_depth_registration_of_a_wall_is_exact_where_it_is_defined():
    # A wall 2 m in front of the depth camera: its colour depth follows from the rigid motion alone.
    depth = np.full((480, 640), 2.0, np.float32)
    out = register_depth(depth, DEPTH_CAMERA)
    v, u = np.nonzero(out)
    n = T_COLOR_DEPTH[:3, 2]
    distance = n @ (T_COLOR_DEPTH[:3, 3] + 2.0 * n)
    rays = np.concatenate([DEPTH_CAMERA.normalize(np.stack([u, v], -1)), np.ones((len(u), 1))], -1)
    np.testing.assert_allclose(out[v, u], distance / (rays @ n), atol=2e-3)
    assert (out > 0).mean() > 0.9


def test_nearer_surface_wins_when_registered():
    depth = np.full((480, 640), 3.0, np.float32)
    depth[:, 300:340] = 1.0
    out = register_depth(depth, DEPTH_CAMERA)
    assert ((out > 0.9) & (out < 1.1)).sum() > 0.9 * (depth == 1.0).sum()
    assert register_depth(np.zeros((480, 640), np.float32), DEPTH_CAMERA).max() == 0


def test_the_depth_to_colour_motion_is_rigid_and_of_the_documented_size():
    assert np.linalg.norm(T_COLOR_DEPTH[:3, 3]) == pytest.approx(0.0256, abs=1e-4)
    assert rotation_angle_deg(T_COLOR_DEPTH[:3, :3]) == pytest.approx(0.67, abs=0.02)
    np.testing.assert_allclose(T_COLOR_DEPTH[:3, :3] @ T_COLOR_DEPTH[:3, :3].T, np.eye(3), atol=1e-6)


def test_real_frames_with_both_truths(shared_data):
    root = shared_data / "7scenes_redkitchen"
    kinect = SPEC.open(str(root), DataConfig(select="::10"))
    sfm = SPEC.open(str(root), DataConfig(select="::10", truth=root / "pgt_sfm_redkitchen_seq01.txt"))
    assert sfm.notes == kinect.notes == ()
    assert (len(kinect), len(sfm)) == (15, 15)
    assert keys(kinect) == keys(sfm)
    assert kinect.key(1) == "seq-01/frame-000070.color.jpg"
    gaps = [
        np.linalg.norm(kinect.truth(i).T_world_cam[:3, 3] - sfm.truth(i).T_world_cam[:3, 3]) for i in range(len(sfm))
    ]
    # An inversion too many or too few would put the centres metres apart.
    assert 0.005 < np.median(gaps) < 0.10
    turns = [
        rotation_angle_deg(kinect.truth(i).T_world_cam[:3, :3].T @ sfm.truth(i).T_world_cam[:3, :3]) for i in range(15)
    ]
    assert 0.5 < np.median(turns) < 8
    assert sfm[0].camera.focal == pytest.approx(525.505)
    assert sfm[0].image.shape == (480, 640, 3)


def test_real_native_png_frames_with_registered_depth(shared_data):
    root = shared_data / "7scenes_redkitchen_png"
    reader = SPEC.open(f"{root}?registered=true", DataConfig())
    assert len(reader) == 5
    frame = reader[0]
    raw = read_depth_m(root / "redkitchen" / reader.key(0).replace("color", "depth"), 1000.0)
    assert frame.depth_m.shape == (480, 640)
    assert np.median(frame.depth_m[frame.depth_m > 0]) == pytest.approx(np.median(raw[raw > 0]), rel=0.05)


def test_published_lists_train_and_test_share_one_space(shared_data):
    folder = shared_data / "reloc_metadata" / "visloc_pgt" / "pgt" / "sfm" / "7scenes"
    for scene, focal in (("heads", 527.75), ("stairs", 525.51)):
        boxes = []
        for split in ("train", "test"):
            poses = read_pose_list(folder / f"{scene}_{split}.txt")
            assert not any(p.problem for p in poses)
            assert poses[0].focal == pytest.approx(focal, abs=0.01)
            centres = np.array([p.T_world_cam[:3, 3] for p in poses])
            boxes.append((centres.min(0), centres.max(0)))
        (a0, a1), (b0, b1) = boxes
        overlap = np.clip(np.minimum(a1, b1) - np.maximum(a0, b0), 0, None)
        assert (overlap > 0.3 * np.minimum(a1 - a0, b1 - b0)).all()
