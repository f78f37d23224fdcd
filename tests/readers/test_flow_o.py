# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from cloud_layouts import camera_axes, flow_o, flow_of, scan

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError
from vision3d.readers.flow_o import ALL_OCCLUDED, SPEC, WITH_NAN


def opened(source, **options):
    return SPEC.open(str(source), DataConfig(**options))


def keys(reader):
    return [reader.key(i) for i in range(len(reader))]


def kitti(root, count=3, points=40):
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        first = rng.uniform([2, -10, -2], [60, 10, 2], (points, 3)).astype(np.float32)
        flow = rng.normal(0, 0.2, first.shape).astype(np.float32)
        second = rng.uniform([2, -10, -2], [60, 10, 2], (points + 7, 3)).astype(np.float32)
        np.savez(root / f"{i:06d}.npz", pos1=first, pos2=second, gt=flow)
    return root


def test_flying_things_come_in_camera_axes(tmp_path):
    source = flow_o(tmp_path / "data")
    reader = opened(source)
    scanned = scan(2)
    pair, truth = reader[2], reader.truth(2)
    np.testing.assert_array_equal(pair.source, camera_axes(scanned.points))
    np.testing.assert_array_equal(pair.target, camera_axes(scan(3).points))
    np.testing.assert_array_equal(truth.flow, camera_axes(flow_of(scanned, 2)))
    np.testing.assert_array_equal(truth.valid, scanned.points[:, 0] > 1.0)
    assert (pair.axes, pair.camera.cx, reader.name) == ("camera", 480, "flyingthings3d-o")


def test_kitti_is_reordered_and_cropped(tmp_path):
    root = kitti(tmp_path / "kitti_rm_ground")
    reader = opened(root)
    assert (keys(reader), reader.name) == (["000000", "000001", "000002"], "kitti-o")
    arrays = np.load(root / "000001.npz")
    near, near_2 = arrays["pos1"][:, 0] < 35, arrays["pos2"][:, 0] < 35
    pair, truth = reader[1], reader.truth(1)
    np.testing.assert_array_equal(pair.source, camera_axes(arrays["pos1"][near]))
    np.testing.assert_array_equal(pair.target, camera_axes(arrays["pos2"][near_2]))
    np.testing.assert_array_equal(truth.flow, camera_axes(arrays["gt"][near]))
    assert truth.valid.all()


def test_published_lists(tmp_path):
    root = tmp_path / "data"
    source = flow_o(root)
    whole = (root / "TRAIN_A_0000_left_0006-0.npz").read_bytes()
    (root / "TEST_B_0001_left_0006-0.npz").write_bytes(whole)
    for name in WITH_NAN | ALL_OCCLUDED:
        (root / f"{name}.npz").write_bytes(b"never opened")
    assert (len(WITH_NAN), sum(n.startswith("TRAIN") for n in ALL_OCCLUDED), len(ALL_OCCLUDED)) == (1, 7, 11)
    assert len(opened(source)) == 5
    train = opened(source, split="train")
    assert (len(train), train.notes) == (4, ("8 files with NaN or without a visible point are left out",))
    assert keys(opened(source, split="test")) == ["TEST_B_0001_left_0006-0"]
    with pytest.raises(ConfigError, match="has the splits train, test and all, not 'val'"):
        opened(source, split="val")
    first = opened(kitti(tmp_path / "kitti", 152, 3))
    assert len(first) == 150
    assert first.notes == ("the first 150 of 152 scenes, as published; ?scenes=N reads more",)
    assert len(opened(f"{tmp_path / 'kitti'}?scenes=200")) == 152
    with pytest.raises(ConfigError, match="KITTI_o defines no split 'test'"):
        opened(tmp_path / "kitti", split="test")


def test_draws(tmp_path):
    source = flow_o(tmp_path / "data")
    whole, reader = opened(source), opened(f"{source}?points=700")
    pair, truth = reader[0], reader.truth(0)
    assert len(pair.source) == len(pair.target) == 700
    rows = {tuple(point): i for i, point in enumerate(whole[0].source)}
    of_source = [rows[tuple(point)] for point in pair.source]
    np.testing.assert_array_equal(truth.flow, whole.truth(0).flow[of_source])
    np.testing.assert_array_equal(truth.valid, whole.truth(0).valid[of_source])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"points1": None}, "has no array points1; it holds points2, flow, valid_mask1"),
        ({"flow": np.zeros((3, 3))}, "flow has 3 rows for 900 points"),
        ({"valid_mask1": np.zeros(7)}, "valid_mask1 has 7 entries for 900 points"),
        ({"valid_mask1": np.zeros(900)}, "no point is visible in both frames"),
        ({"points2": np.full((900, 3), np.inf)}, "900 of 900 points2 hold NaN or infinite numbers"),
    ],
)
def test_wrong_files_are_named(tmp_path, change, words):
    source = flow_o(tmp_path / "data")
    path = tmp_path / "data" / "TRAIN_A_0000_left_0007-0.npz"
    arrays = {**np.load(path), **change}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(DataError, match=rf"0007-0\.npz: {words}"):
        opened(source)[1]
    assert len(SPEC.check(source)) == 1
    path.write_bytes(b"torn")
    with pytest.raises(DataError, match="is not a NumPy file"):
        opened(source)[1]
