# SPDX-License-Identifier: Apache-2.0
"""Every format there and back, conventions on a pose known by hand, and every kind of damage by its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relocalization.pose_files import read_poses, write_kitti, write_pose_list
from vision3d.errors import DataError
from vision3d.geometry.se3 import from_rt, rotvec_to_rotation
from vision3d.geometry.trajectory import write_tum_trajectory


def poses(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([from_rt(rotvec_to_rotation(rng.normal(0, 1.5, 3)), rng.normal(0, 5, 3)) for _ in range(n)])


@pytest.mark.parametrize("focal_px", [None, 525.505])
def test_pose_list_there_and_back(tmp_path: Path, focal_px: float | None) -> None:
    T, names = poses(30), [f"seq-01/frame-{i:06d}.color.png" for i in range(30)]
    write_pose_list(tmp_path / "p.txt", names, T, focal_px)
    out = read_poses(tmp_path / "p.txt")
    assert out.kind == "list"
    assert list(out.names) == names
    assert out.T_world_cam == pytest.approx(T, abs=2e-8)
    assert (out.focal_px is None) == (focal_px is None)
    if focal_px is not None:
        assert out.focal_px == pytest.approx(np.full(30, focal_px))


def test_tum_there_and_back_with_every_nanosecond(tmp_path: Path) -> None:
    T, stamps = poses(5), [1_700_000_000_123_456_789 + i for i in range(5)]
    write_tum_trajectory(tmp_path / "t.txt", stamps, T)
    out = read_poses(tmp_path / "t.txt")
    assert out.kind == "tum"
    assert [int(name.replace(".", "")) for name in out.names] == stamps
    assert out.T_world_cam == pytest.approx(T, abs=2e-8)


def test_kitti_there_and_back(tmp_path: Path) -> None:
    T = poses(4)
    write_kitti(tmp_path / "k.txt", T)
    out = read_poses(tmp_path / "k.txt")
    assert (out.kind, out.names) == ("kitti", ("0", "1", "2", "3"))
    assert out.T_world_cam == pytest.approx(T, abs=1e-9)


def test_directions_and_orders_on_a_pose_known_by_hand(tmp_path: Path) -> None:
    # A camera at (1, 2, 3) that is turned by 90 degrees about the vertical axis: it looks along world +x.
    T = from_rt([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], [1.0, 2.0, 3.0])
    s = 0.5**0.5
    # World to camera: the inverse rotation (-90 degrees), t = -R' c = (3, -2, -1).
    (tmp_path / "list.txt").write_text(f"x.png {s} 0 {-s} 0 3 -2 -1\n")
    (tmp_path / "tum.txt").write_text(f"# a comment\n\n0.5 1 2 3 0 {s} 0 {s}\n")
    (tmp_path / "kitti.txt").write_text("0 0 1 1 0 1 0 2 -1 0 0 3\n")
    for name in ("list", "tum", "kitti"):
        out = read_poses(tmp_path / f"{name}.txt")
        assert out.kind == name
        assert out.T_world_cam[0] == pytest.approx(T, abs=1e-12)


def test_errors_that_a_file_states_are_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a.png 1 0 0 0 0 0 0 0.25 0.003\n")
    out = read_poses(tmp_path / "p.txt")
    assert out.focal_px is None
    assert out.own_errors is not None
    assert out.own_errors.tolist() == [[0.25, 0.003]]


def test_a_name_that_is_a_number_needs_the_kind_said(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("7 1 0 0 0 0 0 0\n")
    assert read_poses(tmp_path / "p.txt", kind="list").names == ("7",)


GOOD = "a.png 1 0 0 0 0 0 0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no pose"),
        ("# only a comment\n", "holds no pose"),
        ("a.png 1 0 0\n", "line 1 has 4 columns"),
        (GOOD + "b.png 1 0 0 0 0 0 0 525\n", "line 2 has 9 columns, expected 8"),
        (GOOD + "\n# c\nb.png 1 0 0 0 0 zero 0\n", "line 4: 'zero' is not a finite number"),
        (GOOD + "b.png 1 0 0 0 0 nan 0\n", "line 2: 'nan' is not a finite number"),
        (GOOD + "b.png 1 1 0 0 0 0 0\n", "line 2: quaternion has length 1.4142, must be 1 .*qw qx qy qz"),
        (GOOD + GOOD, "line 2 repeats 'a.png' of line 1"),
        ("1 0 0 0 0 1 0 0 0 0 -1 0\n", "line 1: rotation has determinant -1"),
        ("0.1 0 0 0 0 0 0 2\n", "line 1: quaternion has length 2.0000, must be 1 .*qx qy qz qw"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "p.txt"
    file.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_poses(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_poses(tmp_path / "absent.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is no text file"):
        read_poses(tmp_path / "binary.txt")


@pytest.mark.parametrize("name", ["", "two words", "#comment"])
def test_names_that_the_format_cannot_hold_are_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        write_pose_list(tmp_path / "p.txt", [name], poses(1))
    assert list(tmp_path.iterdir()) == []
