# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from cloud_layouts import flow_s, kitti_scene

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError
from vision3d.readers import flow_s as module
from vision3d.readers.flow_s import FLYING, KITTI, SPEC
from vision3d.readers.kitti_flow import SPEC as KITTI_RAW


def opened(source, **options):
    return SPEC.open(str(source), DataConfig(**options))


def scene(folder, count=50, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.uniform([-8, -3, 5], [8, 3, 34], (count, 3)).astype(np.float32)
    second = first + rng.normal(0, 0.3, (count, 3)).astype(np.float32)
    folder.mkdir(parents=True)
    np.save(folder / "pc1.npy", first)
    np.save(folder / "pc2.npy", second)
    return first, second


def keys(reader):
    return [reader.key(i) for i in range(len(reader))]


def test_flying_things_are_turned_on_loading(tmp_path):
    first, second = scene(tmp_path / FLYING / "train" / "0000000")
    pair, truth = opened(tmp_path)[0], opened(tmp_path).truth(0)
    turned = np.float32([-1, 1, -1])
    np.testing.assert_array_equal(pair.source, first * turned)
    np.testing.assert_array_equal(pair.target, second * turned)
    np.testing.assert_array_equal(truth.flow, pair.target - pair.source)
    assert truth.valid.all()
    assert truth.dynamic is None
    assert (pair.axes, pair.camera.fx, pair.camera.cx) == ("camera", 1050, 479.5)
    np.testing.assert_array_equal(opened(f"{tmp_path}?flip=0")[0].source, first)


def test_kitti_is_not_turned_but_cropped(tmp_path):
    first = np.float32([[0, -2, 10], [0, -2, 10], [0, 0, 36], [0, 0, 10], [1, -1.3, 34.9]])
    second = np.float32([[0, -1.5, 10], [0, -1, 10], [0, 0, 10], [0, 0, 35.5], [1, -1.5, 34.0]])
    folder = tmp_path / KITTI / "000000"
    folder.mkdir(parents=True)
    np.save(folder / "pc1.npy", first)
    np.save(folder / "pc2.npy", second)
    pair = opened(tmp_path / KITTI)[0]
    np.testing.assert_array_equal(pair.source, first[[1, 4]])
    np.testing.assert_array_equal(pair.target, second[[1, 4]])
    assert len(opened(f"{tmp_path / KITTI}?ground=1")[0].source) == 3
    assert len(opened(f"{tmp_path / KITTI}?crop=0")[0].source) == 5
    plain = tmp_path / "mine" / "000000"
    plain.mkdir(parents=True)
    np.save(plain / "pc1.npy", first)
    np.save(plain / "pc2.npy", second)
    assert len(opened(tmp_path / "mine")[0].source) == 5
    assert len(opened(f"{tmp_path / 'mine'}?crop=1")[0].source) == 2


def test_kitti_prepared_equals_kitti_raw(tmp_path):
    kitti_scene(tmp_path / "training", "000000", 0)
    raw = KITTI_RAW.open(f"{tmp_path / 'training'}?ground=1", DataConfig())
    folder = tmp_path / KITTI / "000000"
    folder.mkdir(parents=True)
    # What the preparation holds is not cropped: the ground tells how the camera moved.
    np.save(folder / "pc1.npy", raw[0].source)
    np.save(folder / "pc2.npy", raw[0].target)
    expected = KITTI_RAW.open(str(tmp_path / "training"), DataConfig())
    reader = opened(tmp_path / KITTI)
    np.testing.assert_array_equal(reader[0].source, expected[0].source)
    truth, other = reader.truth(0), expected.truth(0)
    np.testing.assert_allclose(truth.flow, other.flow, atol=1e-5)
    assert (truth.dynamic == other.dynamic).mean() > 0.99
    np.testing.assert_allclose(truth.T_target_source, other.T_target_source, atol=1e-3)


@pytest.fixture
def small_splits(tmp_path, monkeypatch):
    """The published lists at a hundredth of their size."""
    monkeypatch.setattr(module, "TRAIN_SCENES", 196)
    monkeypatch.setattr(module, "VALIDATION_SCENES", 20)
    monkeypatch.setattr(module, "TEST_SCENES", 4)
    monkeypatch.setattr(module, "SMALL_SCENE", "0000047")
    for i in range(196):
        scene(tmp_path / FLYING / "train" / f"{i:07d}", 3, i)
    for i in range(4):
        scene(tmp_path / FLYING / "val" / f"{i:07d}", 3, i)
    return tmp_path / FLYING


def test_published_splits(small_splits):
    train, val, test = (opened(small_splits, split=name) for name in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (176, 20, 4)
    chosen = np.linspace(0, 195, 20).astype(int)
    listed = [f"train/{i:07d}" for i in range(196)]
    listed[47] = "train/0000000-again"
    assert keys(val) == [listed[i] for i in chosen]
    assert keys(train) == [name for i, name in enumerate(listed) if i not in set(chosen)]
    assert keys(test) == [f"val/{i:07d}" for i in range(4)]
    again = keys(train).index("train/0000000-again")
    np.testing.assert_array_equal(train[again].source, val[0].source)
    assert any("0000047 (8144 points) is replaced" in note for note in train.notes)
    assert len(opened(small_splits)) == 200
    assert len(opened(small_splits / "val", split="test")) == 4
    assert keys(opened(small_splits / "val", split="test")) == keys(test)


def test_another_number_of_scenes_is_noted(small_splits):
    for file in (small_splits / "train" / "0000100").iterdir():
        file.unlink()
    reader = opened(small_splits, split="train")
    assert any("holds 195 scenes, not 196" in note for note in reader.notes)
    with pytest.raises(ConfigError, match="has the splits train, val, test and all, not 'dev'"):
        opened(small_splits, split="dev")
    with pytest.raises(DataError, match="has no folder train/"):
        opened(small_splits / "val", split="train")


def test_the_real_lists_have_the_published_sizes():
    chosen = np.unique(np.linspace(0, module.TRAIN_SCENES - 1, module.VALIDATION_SCENES).astype(int))
    assert (len(chosen), module.TRAIN_SCENES - len(chosen)) == (2000, 17640)


def test_kittis_list(tmp_path):
    for i in range(4):
        scene(tmp_path / KITTI / f"{i:06d}")
    (tmp_path / "map.txt").write_text("a\n\nb\n")
    reader = opened(f"{tmp_path / KITTI}?list={tmp_path / 'map.txt'}")
    assert keys(reader) == ["000000", "000002"]
    assert reader.notes == ("2 of 4 scenes are listed in map.txt",)
    (tmp_path / "map.txt").rename(tmp_path / "KITTI_mapping.txt")
    assert keys(opened(tmp_path / KITTI)) == ["000000", "000002"]
    (tmp_path / "KITTI_mapping.txt").write_text("\n\n\n\nx\n")
    with pytest.raises(DataError, match="lists none of the 4 scenes"):
        opened(tmp_path / KITTI)


def test_a_scene_of_its_own_and_folders_as_splits(tmp_path):
    source = flow_s(tmp_path / "plain" / "train")
    flow_s(tmp_path / "plain" / "test")
    one = opened(f"{source}/0000002")
    assert (keys(one), SPEC.match(f"{source}/0000002")) == (["0000002"], 0.95)
    both = opened(tmp_path / "plain")
    assert len(both) == 8
    assert keys(opened(tmp_path / "plain", split="test")) == [f"test/{i:07d}" for i in range(4)]
    with pytest.raises(ConfigError, match="no splits: use 'all' and select, not 'train'"):
        opened(source, split="train")
    with pytest.raises(ConfigError, match="one scene defines no split 'train'"):
        opened(f"{source}/0000002", split="train")


def test_two_data_sets_are_not_mixed(tmp_path):
    scene(tmp_path / "a" / "x" / "0")
    scene(tmp_path / "b" / "x" / "0")
    with pytest.raises(DataError, match=r"holds 2 data sets \(a/x, b/x\); name one"):
        opened(tmp_path)


def test_draws_keep_rows_of_source_and_truth_together(tmp_path):
    first, second = scene(tmp_path / "mine" / "0", 400)
    reader = opened(f"{tmp_path / 'mine'}?points=100&seed=3")
    pair, truth = reader[0], reader.truth(0)
    rows = {tuple(point): i for i, point in enumerate(first)}
    of_source = [rows[tuple(point)] for point in pair.source]
    np.testing.assert_array_equal(truth.flow, (second - first)[of_source])
    ends = {tuple(point): i for i, point in enumerate(second)}
    of_target = [ends[tuple(point)] for point in pair.target]
    assert len(set(of_source)) == len(set(of_target)) == 100
    # Independent: about n/R of the drawn points have their counterpart drawn.
    assert 10 < len(set(of_source) & set(of_target)) < 45


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (np.zeros((5, 3)), np.zeros((6, 3)), r"pc2\.npy: holds 6 points, pc1\.npy 5: rows must belong together"),
        (np.zeros((5, 2)), np.zeros((5, 2)), r"pc1\.npy: points must be of shape \(N, 3\), found \(5, 2\)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), r"pc1\.npy: holds no points"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), r"pc1\.npy: 5 of 5 points hold NaN"),
        (np.array([["a"] * 3]), np.zeros((1, 3)), r"pc1\.npy: points must be numbers"),
    ],
)
def test_wrong_scenes_are_named(tmp_path, first, second, words):
    folder = tmp_path / "mine" / "0"
    folder.mkdir(parents=True)
    np.save(folder / "pc1.npy", first)
    np.save(folder / "pc2.npy", second)
    with pytest.raises(DataError, match=words):
        opened(tmp_path / "mine")[0]
    assert len(SPEC.check(str(tmp_path / "mine"))) == 1


def test_nothing_left_and_nothing_there(tmp_path):
    folder = tmp_path / KITTI / "000000"
    folder.mkdir(parents=True)
    np.save(folder / "pc1.npy", np.full((5, 3), 90.0))
    np.save(folder / "pc2.npy", np.full((5, 3), 90.0))
    with pytest.raises(DataError, match="leaves no point within 35 m"):
        opened(tmp_path)[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no folders with pc1\.npy and pc2\.npy"):
        opened(tmp_path / "empty")
