# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from vision3d.geometry.se3 import from_rt, quat_to_rotation
from vision3d.geometry.trajectory import nearest_stamps, read_tum_trajectory, stamp_to_ns, write_tum_trajectory


def poses(n: int = 20) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([from_rt(quat_to_rotation(rng.normal(size=4)), rng.normal(size=3) * 5) for _ in range(n)])


def test_round_trip_keeps_nanoseconds_and_poses(tmp_path):
    stamps = 1_305_031_102_175_304_123 + np.arange(20) * 33_333_333
    write_tum_trajectory(tmp_path / "t.txt", stamps, poses())
    read_stamps, read_poses = read_tum_trajectory(tmp_path / "t.txt")
    assert read_stamps.tolist() == stamps.tolist()
    np.testing.assert_allclose(read_poses, poses(), atol=1e-9)
    assert [p.name for p in tmp_path.iterdir()] == ["t.txt"]


def test_a_line_written_by_hand(tmp_path):
    half = 0.7071067811865476
    (tmp_path / "t.txt").write_text(f"# comment\n\n1305031102.175304 1 2 3 0 0 {half} {half}\n")
    stamps, T = read_tum_trajectory(tmp_path / "t.txt")
    assert stamps.tolist() == [1_305_031_102_175_304_000]
    np.testing.assert_allclose(T[0], [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], atol=1e-12)


def test_nothing_makes_empty_arrays(tmp_path):
    write_tum_trajectory(tmp_path / "t.txt", [], np.zeros((0, 4, 4)))
    stamps, T = read_tum_trajectory(tmp_path / "t.txt")
    assert stamps.shape == (0,)
    assert T.shape == (0, 4, 4)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1.0 0 0 0 0 0 0", "line 2: 7 fields"),
        ("x 0 0 0 0 0 0 1", "line 2: 'x' is not a time"),
        ("1.0 0 0 zero 0 0 0 1", "line 2: could not convert"),
        ("1.0 0.9 0.1 0.2 1.5 2.5 3.5 0.1", "line 2: quaternion has length"),
        ("1.0 nan 0 0 0 0 0 1", "line 2: pose holds NaN"),
    ],
)
def test_damaged_lines_are_named(tmp_path, line, words):
    (tmp_path / "t.txt").write_text(f"0.5 0 0 0 0 0 0 1\n{line}\n")
    with pytest.raises(ValueError, match=words):
        read_tum_trajectory(tmp_path / "t.txt")


def test_lengths_must_agree(tmp_path):
    with pytest.raises(ValueError, match="2 stamps for 1 poses"):
        write_tum_trajectory(tmp_path / "t.txt", [0, 1], poses(1))


def test_stamps_do_not_pass_through_a_float():
    assert stamp_to_ns("1305031102.175304001") == 1_305_031_102_175_304_001
    assert stamp_to_ns("1e-9") == 1
    with pytest.raises(ValueError, match="not a time"):
        stamp_to_ns("inf")


def test_nearest_stamps_equals_brute_force():
    rng = np.random.default_rng(3)
    for size in (1, 2, 7, 40):
        reference = np.sort(rng.integers(0, 1000, size))
        stamps = rng.integers(-100, 1100, 60)
        found = nearest_stamps(stamps, reference, 25)
        for stamp, index in zip(stamps, found):
            gaps = np.abs(reference - stamp)
            if gaps.min() > 25:
                assert index == -1
            else:
                assert gaps[index] == gaps.min()
    assert nearest_stamps([1, 2], [], 5).tolist() == [-1, -1]
    assert nearest_stamps([15], [10, 20], 5).tolist() == [0]
