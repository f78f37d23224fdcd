# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pyarrow.feather as feather
import pytest
from cloud_layouts import CAR_SIZE, FIRST_NS, STEP_NS, T_target_source, av2, av2_log, scan, write_feather

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError, MissingExtraError
from vision3d.geometry.se3 import from_rt, rotvec_to_rotation, transform
from vision3d.readers._flow_av2 import CATEGORIES, Boxes, box_flow, meta_classes, moving, read_boxes
from vision3d.readers.av2 import SPEC
from vision3d.types.clouds import FLOW_CLASSES

REAL_LOG = "7fab2350-7eaf-3b7e-a39d-6937a4c1bede"


def opened(source, **options):
    return SPEC.open(str(source), DataConfig(**options))


def keys(reader):
    return [reader.key(i) for i in range(len(reader))]


def labels(count, **columns):
    flow = {name: np.zeros(count, dtype=np.float32) for name in ("flow_tx_m", "flow_ty_m", "flow_tz_m")}
    return flow | {"classes": np.zeros(count, dtype=np.uint8)} | columns


def test_truth_from_boxes_is_how_the_street_moved(tmp_path):
    reader = opened(av2(tmp_path / "d"))
    assert keys(reader) == [f"0000aaaa-log/{FIRST_NS + i * STEP_NS}" for i in range(4)]
    for i in range(4):
        scanned = scan(i)
        pair, truth = reader[i], reader.truth(i)
        np.testing.assert_array_equal(pair.source, scanned.points.astype(np.float16).astype(np.float32))
        np.testing.assert_allclose(pair.T_target_source, T_target_source(i), atol=1e-9)
        np.testing.assert_array_equal(truth.dynamic, np.isin(scanned.owner, (0, 1)))
        expected = np.zeros(len(scanned.owner), dtype=np.uint8)
        expected[np.isin(scanned.owner, (0, 1))] = FLOW_CLASSES.index("CAR")
        expected[scanned.owner == 2] = FLOW_CLASSES.index("OTHER_VEHICLES")
        np.testing.assert_array_equal(truth.classes, expected)
        assert (pair.axes, pair.dt_s, pair.source_ground, truth.ground) == ("lidar", pytest.approx(0.1), None, None)
        assert pair.stamp_ns == FIRST_NS + i * STEP_NS


def test_logs_splits_and_steps(tmp_path):
    for place in ("train/a", "train/b", "val/c"):
        av2_log(tmp_path / "sensor" / place, 3)
    assert keys(opened(tmp_path))[::2] == [f"{log}/{FIRST_NS}" for log in "abc"]
    assert keys(opened(tmp_path / "sensor", split="val")) == [f"c/{FIRST_NS}", f"c/{FIRST_NS + STEP_NS}"]
    assert len(opened(tmp_path / "sensor" / "train")) == 4
    assert len(opened(tmp_path / "sensor" / "val" / "c", split="val")) == 2
    assert len(opened(f"{tmp_path}?every=2")) == 3
    with pytest.raises(DataError, match="holds no log of the split 'test': those lie in a folder test/"):
        opened(tmp_path, split="test")
    with pytest.raises(ConfigError, match="not 'dev'"):
        opened(tmp_path, split="dev")
    with pytest.raises(DataError, match="holds no Argoverse 2 log"):
        opened(tmp_path / "sensor" / "train" / "a" / "sensors")


def test_the_tables_of_one_log_are_kept_and_of_no_more(tmp_path, monkeypatch):
    for place in ("a", "b"):
        av2_log(tmp_path / place, 3)
    from vision3d.readers import av2 as module

    read = []
    monkeypatch.setattr(module, "read_boxes", lambda path: read.append(path.parent.name) or read_boxes(path))
    reader = opened(tmp_path)
    for i in (0, 1, 2, 3, 0):
        reader.truth(i)
    assert read == ["a", "b", "a"]


def test_range_and_ground_change_what_is_scored_and_nothing_else(tmp_path):
    log = av2_log(tmp_path / "log", 3)
    ground = scan(0).owner == -2
    write_feather(log / "flow_labels.feather", labels(len(ground), is_ground_0=ground))
    pair = opened(log)[0]
    inside = (np.abs(pair.source[:, :2]) < 15).all(axis=1)
    for query, valid in (
        ("", ~ground),
        ("?ground=1", np.ones(len(ground), dtype=bool)),
        ("?range=15", inside & ~ground),
        ("?range=15&ground=1", inside),
        ("?range=0", ~ground),
    ):
        reader = opened(f"{log}{query}")
        np.testing.assert_array_equal(reader.truth(0).valid, valid)
        np.testing.assert_array_equal(reader[0].source, pair.source)
        np.testing.assert_array_equal(reader[0].source_ground, ground)
    # The labels are of the first pair only; for the second there are boxes.
    assert opened(log).truth(1).ground is None
    assert opened(log).truth(1).dynamic.any()


def test_labels_per_sweep_come_before_boxes(tmp_path):
    log = av2_log(tmp_path / "log", 3)
    count = len(scan(1).points)
    flow = np.full(count, 0.5, dtype=np.float16)
    flow[4] = np.nan
    columns = labels(count, flow_tx_m=flow, classes=np.full(count, CATEGORIES.index("STOP_SIGN") + 1, dtype=np.uint8))
    write_feather(log / "flow_labels" / f"{FIRST_NS + STEP_NS}.feather", columns)
    truth = opened(log).truth(1)
    np.testing.assert_array_equal(truth.flow[5], [0.5, 0, 0])
    assert (truth.valid[4], truth.flow[4, 0]) == (False, 0)
    assert set(truth.classes) == {255}
    # Without a column of its own, who moves follows from the flow.
    np.testing.assert_array_equal(truth.dynamic, np.arange(count) != 4)
    write_feather(log / "flow_labels" / f"{FIRST_NS + STEP_NS}.feather", labels(3))
    with pytest.raises(DataError, match=r"has 3 rows, the sweep .* 900 points"):
        opened(log).truth(1)


def test_meta_classes():
    by_name = dict(zip(CATEGORIES, meta_classes(np.arange(1, 31))))
    assert len(by_name) == 30
    assert meta_classes(np.array([0]))[0] == FLOW_CLASSES.index("BACKGROUND") == 0
    counts = {name: sum(v == i for v in by_name.values()) for i, name in enumerate(FLOW_CLASSES)}
    assert counts == {"BACKGROUND": 0, "CAR": 1, "OTHER_VEHICLES": 9, "PEDESTRIAN": 4, "WHEELED_VRU": 6}
    excluded = {name for name, value in by_name.items() if value == 255}
    assert excluded == {
        "ANIMAL",
        "BOLLARD",
        "CONSTRUCTION_BARREL",
        "CONSTRUCTION_CONE",
        "DOG",
        "MESSAGE_BOARD_TRAILER",
        "MOBILE_PEDESTRIAN_CROSSING_SIGN",
        "SIGN",
        "STOP_SIGN",
        "TRAFFIC_LIGHT_TRAILER",
    }
    assert list(meta_classes(np.array([31, 200, 255]))) == [255, 255, 255]


def boxes_of(*rows):
    return Boxes(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=object),
        np.array([row[2] for row in rows], dtype=np.uint8),
        np.tile(CAR_SIZE, (len(rows), 1)),
        np.array([row[3] for row in rows]),
    )


def test_box_flow_equals_a_loop_over_points():
    rng = np.random.default_rng(0)
    points = rng.uniform([-10, -10, -2], [10, 10, 2], (400, 3)).astype(np.float32)
    ego = from_rt(rotvec_to_rotation([0, 0, 0.02]), [-0.8, 0, 0])
    place = [
        from_rt(rotvec_to_rotation([0, 0, angle]), [x, y, 0]) for angle, x, y in ((0.3, 2, 1), (1.2, 4, 2), (2, -5, 3))
    ]
    later = [T @ from_rt(rotvec_to_rotation([0, 0, 0.1]), [1.0, 0, 0]) for T in place]
    boxes = boxes_of(
        (1, "a", 19, place[0]),
        (1, "b", 17, place[1]),
        (1, "gone", 5, place[2]),
        (2, "b", 17, later[1]),
        (2, "a", 19, later[0]),
    )
    flow, valid, category = box_flow(points, boxes, (1, 2), ego)
    for i, p in enumerate(points.astype(float)):
        expected, ok, kind = transform(ego, p) - p, True, 0
        for j, (name, number) in enumerate((("a", 19), ("b", 17), ("gone", 5))):
            inner = (p - place[j][:3, 3]) @ place[j][:3, :3]
            if (np.abs(inner) <= [2.2, 1.0, 0.75]).all():
                kind, ok = number, name != "gone"
                if ok:
                    expected = transform(later[j], inner) - p
        np.testing.assert_allclose(flow[i], expected, atol=1e-6)
        assert (valid[i], category[i]) == (ok, kind)
    assert {0, 5, 17, 19} == set(category)


def test_moving_is_half_a_metre_a_second():
    points = np.zeros((4, 3), dtype=np.float32)
    T = from_rt(np.eye(3), [1, 0, 0])
    flow = np.float32([[1, 0, 0], [1, 0.049, 0], [1, 0.051, 0], [0, 0, 0]])
    np.testing.assert_array_equal(moving(points, flow, T, 0.1), [False, False, True, True])
    np.testing.assert_array_equal(moving(points, flow, T, 0.2), [False, False, False, True])


def without(path, column):
    table = feather.read_table(path).drop_columns([column])
    feather.write_feather(table, str(path))


def test_damage_is_named(tmp_path):
    log = av2_log(tmp_path / "log", 3)
    sweep = log / "sensors" / "lidar" / f"{FIRST_NS}.feather"
    without(log / "annotations.feather", "track_uuid")
    with pytest.raises(DataError, match=r"annotations\.feather: has no column track_uuid; it has"):
        opened(log).truth(0)
    (log / "annotations.feather").unlink()
    assert opened(log).truth(0) is None
    assert len(opened(log)[0].source) == 900
    data = sweep.read_bytes()
    sweep.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=rf"{FIRST_NS}\.feather: is not a Feather file that can be read"):
        opened(log)[0]
    assert len(opened(log)[1].source) == 900
    write_feather(sweep, {"x": [1.0], "y": [1.0]})
    with pytest.raises(DataError, match="has no column z"):
        opened(log)[0]
    sweep.rename(sweep.with_name(f"{FIRST_NS + 1}.feather"))
    write_feather(sweep.with_name(f"{FIRST_NS + 1}.feather"), {axis: np.zeros(5, np.float16) for axis in "xyz"})
    with pytest.raises(DataError, match=rf"has no pose at the sweep's time {FIRST_NS + 1}"):
        opened(log)[0]
    sweep.with_name("first.feather").write_bytes(data)
    with pytest.raises(DataError, match=r"first\.feather: a sweep's name must be its time"):
        opened(log)


def test_without_pyarrow_there_is_one_line_of_advice(tmp_path, monkeypatch):
    source = av2(tmp_path / "d")
    monkeypatch.setitem(sys.modules, "pyarrow.feather", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vision3d\[av2\]'"):
        opened(source)[0]
    assert SPEC.extras == ("av2:pyarrow",)


def test_real_pair(shared_data):
    source = shared_data / "av2_sensor_val"
    reader = opened(source, split="val")
    assert keys(reader) == [f"{REAL_LOG}/315966265259836000"]
    pair, truth = reader[0], reader.truth(0)
    assert (len(pair.source), len(pair.target)) == (99229, 99466)
    ego = np.load(source / "val" / REAL_LOG / "ego_motion.npz")["ego_motion"][0]
    np.testing.assert_allclose(pair.T_target_source, ego, atol=1e-3)
    p = pair.source.astype(float)
    residual = np.linalg.norm(truth.flow - (transform(pair.T_target_source, p) - p), axis=1)
    # Labels hold the vehicle's motion, rounded to a millimetre by single precision poses.
    assert np.median(residual) < 1e-3
    np.testing.assert_array_equal(truth.dynamic, moving(pair.source, truth.flow, pair.T_target_source, pair.dt_s))
    assert truth.dynamic.mean() == pytest.approx(0.02053, abs=1e-5)
    assert truth.ground.mean() == pytest.approx(0.17509, abs=1e-5)
    assert truth.valid.sum() == 74289
    counts = np.bincount(truth.classes, minlength=256)
    assert list(counts[[0, 1, 2, 3, 4, 255]]) == [89832, 8517, 239, 321, 295, 25]
    assert residual[truth.valid].mean() == pytest.approx(0.0178, abs=1e-4)
    assert SPEC.check(str(source)) == []


def test_truth_from_boxes_equals_the_labels_of_the_real_pair(shared_data):
    log = shared_data / "av2_sensor_val" / "val" / REAL_LOG
    reader = opened(log)
    pair, truth = reader[0], reader.truth(0)
    boxes = read_boxes(log / "annotations.feather")
    stamps = (315966265259836000, 315966265360032000)
    flow, valid, category = box_flow(pair.source, boxes, stamps, pair.T_target_source)
    # Eleven points lie where boxes overlap, and two on the face of one.
    assert (np.linalg.norm(flow - truth.flow, axis=1) > 2e-3).sum() == 11
    assert (meta_classes(category) != truth.classes).sum() == 2
    assert valid.all()
    # In another order of the boxes more points differ: the later box decides.
    backwards = Boxes(**{f.name: getattr(boxes, f.name)[::-1] for f in dataclasses.fields(boxes)})
    other, _, _ = box_flow(pair.source, backwards, stamps, pair.T_target_source)
    assert (np.linalg.norm(other - truth.flow, axis=1) > 2e-3).sum() > 50
