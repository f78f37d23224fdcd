# SPDX-License-Identifier: Apache-2.0
"""What every reader inherits: select, size, bad frames, names and the truth list."""

from __future__ import annotations

import numpy as np
import pytest
from layouts import pose_list, posed_folder

from vision3d.contracts import DataConfig, Reader
from vision3d.errors import ConfigError, DataError
from vision3d.readers._common import FrameReader, Record
from vision3d.readers.posed import SPEC
from vision3d.types import Frame


@pytest.fixture
def folder(tmp_path, small):
    return posed_folder(tmp_path / "room", small)


def opened(folder, **options):
    return SPEC.open(str(folder), DataConfig(**options))


def test_it_is_a_reader(folder):
    reader = opened(folder)
    assert isinstance(reader, Reader)
    assert reader.samples is Frame
    assert not hasattr(reader[0], "T_world_cam")


def test_select_is_a_python_slice(folder):
    keys = ["00000.png", "00001.png", "00002.png", "00003.png"]
    for spec in ("::", "1::2", "-2:", ":3", "::-1", "0:1"):
        parts = [int(p) if p else None for p in spec.split(":")]
        reader = opened(folder, select=spec)
        assert [reader.key(i) for i in range(len(reader))] == keys[slice(*parts)]
        assert reader[0].name == reader.key(0)
        assert reader[-1].name == reader.key(len(reader) - 1)


@pytest.mark.parametrize("spec", ["abc", "1", "1:2:3:4", "::0"])
def test_select_that_is_no_slice(folder, spec):
    with pytest.raises(ConfigError, match="not START:STOP:STEP"):
        opened(folder, select=spec)


def test_select_that_leaves_nothing(folder):
    with pytest.raises(ConfigError, match="leaves none of the 4 frames"):
        opened(folder, select="10:")


def test_index_out_of_range(folder):
    with pytest.raises(IndexError, match="frame 4 of 4"):
        opened(folder)[4]


def test_size_shrinks_image_camera_and_depth_together(folder, small):
    full, half = opened(folder)[1], opened(folder, size=80)[1]
    assert half.image.shape == (60, 80, 3)
    assert half.depth_m.shape == (60, 80)
    assert half.camera == full.camera.resized(80, 60) == opened(folder, size=80).camera(1)
    ray = np.array([*full.camera.normalize([100.0, 40.0]), 1.0])
    u, v = half.camera.project(ray)
    assert half.image[round(v), round(u)] == pytest.approx(full.image[38:42, 98:102].mean((0, 1)), abs=30)
    assert opened(folder, size=1000)[1].image.shape == (120, 160, 3)


def test_calibration_for_another_size_names_file_and_both_sizes(folder, small):
    import cv2

    cv2.imwrite(str(folder / "images" / "00002.png"), small[2][0].image[:100, :, ::-1])
    with pytest.raises(DataError, match=r"00002\.png: image is 160x100 pixels but its calibration is for 160x120"):
        opened(folder)[2]
    assert [p.split(": ")[1] for p in SPEC.check(str(folder))] == [
        "image is 160x100 pixels but its calibration is for 160x120"
    ]


def test_depth_of_another_size_is_refused(folder, small):
    import cv2

    cv2.imwrite(str(folder / "depth" / "00001.png"), np.ones((10, 10), np.uint16))
    with pytest.raises(DataError, match=r"depth/00001\.png: depth is 10x10 pixels but its image is 160x120"):
        opened(folder)[1]


def test_unusable_frames_stop_or_are_counted(folder):
    lines = (folder / "poses.txt").read_text().splitlines()
    lines[1] = lines[1].replace(lines[1].split()[0], "nan", 1)
    (folder / "poses.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"poses\.txt: line 2: pose holds NaN"):
        opened(folder)
    reader = opened(folder, skip_bad=True)
    assert list(reader.bad) == [1]
    assert "poses.txt: line 2: pose holds NaN" in reader.bad[1]
    assert len(reader) == 4
    assert reader.truth(1) is None
    with pytest.raises(DataError, match="NaN"):
        reader[1]
    assert dict(opened(folder, select="::2").bad) == {}  # a frame that nobody asked for does no harm


def test_duplicate_names_are_refused(small, tmp_path):
    record = Record("a.png", tmp_path / "a.png", small[0][0].camera)
    with pytest.raises(DataError, match=r"the name a\.png occurs twice in room"):
        FrameReader("room", [record, record], DataConfig())


def test_no_frames_and_no_intrinsics(tmp_path, small):
    with pytest.raises(DataError, match="holds no frames"):
        FrameReader("room", [], DataConfig())
    from layouts import write_image

    path = write_image(tmp_path / "a.png", small[0][0])
    with pytest.raises(DataError, match=r"a\.png: has no intrinsics"):
        FrameReader("room", [Record("a.png", path)], DataConfig())[0]


def test_data_sets_without_splits_say_what_to_do(folder):
    with pytest.raises(ConfigError, match="defines no split 'test': use split 'all' and select"):
        opened(folder, split="test")


def test_a_truth_list_replaces_poses_by_name_whatever_the_suffix(folder, tmp_path, small):
    moved = [T @ np.diag([1, 1, 1, 1.0]) for _, T in small]
    for T in moved:
        T[:3, 3] += [1, 2, 3]
    names = [f"0000{i}.jpg" for i in range(4)]
    truth = pose_list(tmp_path / "truth.txt", [*names, "elsewhere.jpg"], [*moved, np.eye(4)])
    reader = opened(folder, truth=truth)
    for i in range(4):
        np.testing.assert_allclose(reader.truth(i).T_world_cam, moved[i], atol=1e-6)
    assert any("1 listed images are not on disk, e.g. elsewhere" in note for note in reader.notes)


def test_images_that_a_truth_list_leaves_out_are_named(folder, tmp_path, small):
    truth = pose_list(tmp_path / "truth.txt", ["00000.png", "00002.png"], [small[0][1], small[2][1]])
    with pytest.raises(DataError, match=r"truth\.txt: has no pose for image 00001\.png"):
        opened(folder, truth=truth)
    assert sorted(opened(folder, truth=truth, skip_bad=True).bad) == [1, 3]
    assert len(opened(folder, truth=truth, select="::2")) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.png 1 0 0 0 0 0", "line 2: .*found 7 fields"),
        ("a.png 1 0 0 zero 0 0 0", "line 2: could not convert"),
        ("00000.png 1 0 0 0 0 0 0", "line 2: image 00000.png occurs twice"),
    ],
)
def test_damaged_truth_lists_name_the_line(folder, tmp_path, line, words):
    (tmp_path / "t.txt").write_text(f"00000.png 1 0 0 0 0 0 0\n{line}\n")
    with pytest.raises(DataError, match=words):
        opened(folder, truth=tmp_path / "t.txt")


def test_a_wrong_quaternion_order_is_found_by_its_length(folder, tmp_path):
    (tmp_path / "t.txt").write_text("".join(f"0000{i}.png 1.3 2.5 -0.4 0.9 0.1 0.2 0.1\n" for i in range(4)))
    with pytest.raises(DataError, match=r"line 1: quaternion has length 2\.\d+, must be 1; are the columns in another"):
        opened(folder, truth=tmp_path / "t.txt")


def test_missing_and_empty_truth_files(folder, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        opened(folder, truth=tmp_path / "absent.txt")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match="holds no poses"):
        opened(folder, truth=tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="not a text file"):
        opened(folder, truth=tmp_path / "binary.txt")
