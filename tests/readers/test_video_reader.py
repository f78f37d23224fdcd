# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest

from vision3d.contracts import DataConfig
from vision3d.errors import DataError
from vision3d.readers.synthetic import SPEC as ROOM
from vision3d.readers.video import SPEC, automatic_step

FPS, FRAMES = 10.0, 31


@pytest.fixture(scope="module")
def room():
    return ROOM.open(f"synthetic:room?frames={FRAMES}&width=320&height=240&noise=0", DataConfig())


@pytest.fixture(scope="module")
def clip(room, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "walk.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (320, 240))
    for i in range(FRAMES):
        writer.write(cv2.cvtColor(room[i].image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def opened(clip, query="", **options):
    return SPEC.open(f"{clip}{query}", DataConfig(**options))


def test_every_nth_frame_with_its_stamp(clip, room, cache):
    reader = opened(clip, "?every=6&fov_deg=62.7")
    assert [reader.key(i) for i in range(len(reader))] == [f"frame-{i:06d}" for i in range(0, FRAMES, 6)]
    assert [reader[i].stamp_ns for i in range(3)] == [0, 600_000_000, 1_200_000_000]
    for i in (0, 3):
        gap = np.abs(reader[i].image.astype(float) - room[6 * i].image)
        wrong = np.abs(reader[i].image.astype(float) - room[6 * i + 3].image)
        assert gap.mean() < 12 < wrong.mean()  # lossy, but the right frame
    assert reader[0].camera.focal == pytest.approx(room[0].camera.focal)
    assert any(f"6 of {FRAMES} frames are used, every 6" in note for note in reader.notes)


def test_frames_are_extracted_once(clip, cache, monkeypatch):
    opened(clip, "?every=10&fov_deg=60")
    monkeypatch.setattr(cv2, "VideoCapture", None)
    again = opened(clip, "?every=10&fov_deg=60", select="1:")
    assert [again.key(i) for i in range(len(again))] == ["frame-000010", "frame-000020", "frame-000030"]
    assert again[0].image.shape == (240, 320, 3)


def test_poses_come_from_structure_from_motion(clip, room, cache):
    reader = opened(clip, "?every=5&fov_deg=62.7")
    found = [reader.truth(i) for i in range(len(reader))]
    assert all(found)
    true = np.array([room.truth(5 * i).T_world_cam[:3, 3] for i in range(len(reader))])
    mine = np.array([t.T_world_cam[:3, 3] for t in found])
    # Distance ratios do not depend on the reconstruction's frame and scale.
    ratio = np.linalg.norm(np.diff(mine, axis=0), axis=1) / np.linalg.norm(np.diff(true, axis=0), axis=1)
    assert ratio.std() / ratio.mean() < 0.1


@pytest.mark.parametrize(
    ("frames", "fps", "taken"),
    [(31, 10, 31), (300, 30, 60), (900, 30, 90), (18_000, 30, 150), (60, 30, 60), (5, 30, 5)],
)
def test_automatic_step_keeps_the_number_of_frames_in_bounds(frames, fps, taken):
    step = automatic_step(frames, fps)
    assert len(range(0, frames, step)) == pytest.approx(taken, rel=0.35)
    assert len(range(0, frames, step)) >= min(frames, 60)


def test_damaged_and_missing_files(clip, cache, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        opened(tmp_path / "absent.mp4")
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(DataError, match=r"half\.mp4: is not a video that can be read"):
        opened(tmp_path / "half.mp4")
    assert len(SPEC.check(str(tmp_path / "half.mp4"))) == 1
    assert SPEC.check(str(clip)) == []
    assert (SPEC.match(str(clip)), SPEC.match(str(tmp_path / "absent.mp4"))) == (0.9, 0.0)
    with pytest.raises(DataError, match=r"unknown option 'evry'.*did you mean 'every'"):
        opened(clip, "?evry=3")
