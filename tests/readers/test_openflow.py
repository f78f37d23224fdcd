# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest
from cloud_layouts import FIRST_NS, STEP_NS, T_target_source, flow_of, moves, openflow, openflow_log, scan

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError, MissingExtraError
from vision3d.geometry.se3 import from_rt, invert, rotvec_to_rotation
from vision3d.readers.openflow import SPEC
from vision3d.types.clouds import FLOW_CLASSES


def opened(source, **options):
    return SPEC.open(str(source), DataConfig(**options))


def keys(reader):
    return [reader.key(i) for i in range(len(reader))]


def changed(path, stamp, **arrays):
    """Arrays of one sweep are replaced; None removes."""
    with h5py.File(path, "r+") as file:
        for name, values in arrays.items():
            if name in file[str(stamp)]:
                del file[str(stamp)][name]
            if values is not None:
                file[str(stamp)][name] = values


def test_pairs_are_those_of_the_street(tmp_path):
    reader = opened(openflow(tmp_path / "d"))
    assert keys(reader) == [f"log-a/{FIRST_NS + i * STEP_NS}" for i in range(4)]
    for i in range(4):
        scanned, pair, truth = scan(i), reader[i], reader.truth(i)
        np.testing.assert_array_equal(pair.source, scanned.points)
        np.testing.assert_array_equal(pair.target, scan(i + 1).points)
        np.testing.assert_allclose(pair.T_target_source, T_target_source(i), atol=1e-6)
        np.testing.assert_array_equal(pair.source_ground, scanned.owner == -2)
        np.testing.assert_array_equal(pair.target_ground, scan(i + 1).owner == -2)
        np.testing.assert_array_equal(truth.flow, flow_of(scanned, i))
        np.testing.assert_array_equal(truth.dynamic, moves(scanned))
        np.testing.assert_array_equal(truth.valid, scanned.owner != -2)
        np.testing.assert_array_equal(truth.classes == FLOW_CLASSES.index("CAR"), np.isin(scanned.owner, (0, 1)))
        np.testing.assert_array_equal(truth.classes == FLOW_CLASSES.index("OTHER_VEHICLES"), scanned.owner == 2)
        assert (pair.dt_s, pair.stamp_ns) == (pytest.approx(0.1), FIRST_NS + i * STEP_NS)


def test_which_sweeps_start_a_pair(tmp_path):
    folder = tmp_path / "d"
    source = openflow(folder)
    openflow_log(folder / "log-b.h5", 3)
    assert len(opened(source)) == 6
    assert keys(opened(f"{source}?every=2")) == [
        f"log-a/{FIRST_NS}",
        f"log-a/{FIRST_NS + 2 * STEP_NS}",
        f"log-b/{FIRST_NS}",
    ]
    assert len(opened(folder / "log-b.h5")) == 2
    assert SPEC.match(str(folder / "log-b.h5")) == 0.9
    index = tmp_path / "index.txt"
    index.write_text(f"# scored\nlog-b {FIRST_NS + STEP_NS}\nlog-c 17\nlog-a {FIRST_NS}\n")
    reader = opened(f"{source}?index={index}")
    assert keys(reader) == [f"log-a/{FIRST_NS}", f"log-b/{FIRST_NS + STEP_NS}"]
    assert reader.notes == ("1 of 3 sweeps of the index are not there",)
    index.write_text("log-z 5\n")
    with pytest.raises(DataError, match=r"index\.txt: names no sweep of"):
        opened(f"{source}?index={index}")
    index.write_text("log-z\n")
    with pytest.raises(DataError, match="line 1: 1 fields, not 'log stamp'"):
        opened(f"{source}?index={index}")
    with pytest.raises(ConfigError, match="defines no split 'val'"):
        opened(source, split="val")


def test_a_pickled_index_is_left_alone(tmp_path):
    source = openflow(tmp_path / "d")
    # Unpickling this would make a file.
    (tmp_path / "d" / "index_eval.pkl").write_bytes(
        b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    )
    assert len(opened(source)) == 4
    assert SPEC.check(source) == []
    assert not (tmp_path / "ran").exists()


def test_stamps_in_other_units(tmp_path):
    path = tmp_path / "log.h5"
    for stamps, dt in (
        ((1_543_251_275_598_000, 1_543_251_275_698_000), 0.1),
        ((1_543_251_275_598, 1_543_251_276_098), 0.5),
        ((0, 1), 0.1),
    ):
        with h5py.File(path, "w") as file:
            for stamp in stamps:
                file[f"{stamp}/lidar"] = scan(0).points
        reader = opened(path)
        assert reader[0].dt_s == pytest.approx(dt)
        assert (reader[0].T_target_source, reader[0].source_ground, reader.truth(0)) == (None, None, None)
    assert opened(f"{path}?dt=0.25")[0].dt_s == 0.25
    # Numbers, not text: 10 comes after 9.
    with h5py.File(path, "w") as file:
        for stamp in (10, 9, 8):
            file[f"{stamp}/lidar"] = scan(stamp).points
        file["notes/a"] = [1]
    assert keys(opened(path)) == ["log/8", "log/9"]


def test_range_ground_and_validity(tmp_path):
    path = openflow_log(tmp_path / "log.h5", 2)
    scanned = scan(0)
    flow = flow_of(scanned, 0)
    flow[7] = np.nan
    given = np.arange(900) != 3
    changed(path, FIRST_NS, flow=flow, flow_is_valid=given)
    inside = (np.abs(scanned.points[:, :2]) < 12).all(axis=1)
    expected = inside & given & (np.arange(900) != 7)
    np.testing.assert_array_equal(opened(f"{path}?range=12&ground=1").truth(0).valid, expected)
    np.testing.assert_array_equal(opened(f"{path}?range=12").truth(0).valid, expected & (scanned.owner != -2))
    assert np.isfinite(opened(path).truth(0).flow).all()


def test_motion_from_poses_where_it_is_not_stored(tmp_path):
    path = openflow_log(tmp_path / "log.h5", 2)
    changed(path, FIRST_NS, ego_motion=None)
    np.testing.assert_allclose(opened(path)[0].T_target_source, T_target_source(0), atol=1e-6)


def test_points_in_the_sensors_frame(tmp_path):
    """Newer logs hold points of the sensor's frame with the vehicle's motion and flow: a turn shows it."""
    path = openflow_log(tmp_path / "log.h5", 2)
    at = from_rt(np.eye(3), [1.35, 0.0, 1.64])
    vehicle = from_rt(rotvec_to_rotation([0, 0, 0.06]), [-0.9, 0, 0])
    scanned = scan(0)
    in_sensor = invert(at) @ vehicle @ at
    flow = scanned.points @ in_sensor[:3, :3].T + in_sensor[:3, 3] - scanned.points
    car = scanned.owner == 0
    flow[car] += [0.8, 0, 0]
    changed(path, FIRST_NS, flow=flow.astype(np.float32), ego_motion=vehicle.astype(np.float32))
    reader = opened(path)
    gap = np.abs(reader[0].T_target_source - in_sensor).max()
    assert gap > 0.05
    # Who moves is told from the flow itself.
    np.testing.assert_array_equal(reader.truth(0).dynamic, car)
    np.testing.assert_allclose(reader.truth(0).T_target_source, in_sensor, atol=1e-4)
    (problem,) = SPEC.check(str(path))
    assert "background flow and motion differ by 0.081 m" in problem
    assert "?lidar_at=" in problem
    moved = opened(f"{path}?lidar_at=1.35,0,1.64")
    np.testing.assert_allclose(moved[0].T_target_source, in_sensor, atol=1e-6)
    np.testing.assert_allclose(moved.truth(0).T_target_source, in_sensor, atol=1e-6)
    with pytest.raises(DataError, match="option 'lidar_at' cannot be '1,2'"):
        opened(f"{path}?lidar_at=1,2")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"lidar": None}, f"sweep {FIRST_NS} has no array lidar"),
        ({"lidar": np.zeros(5)}, r"points of \d+ must be of shape"),
        ({"lidar": np.full((5, 3), np.nan)}, r"5 of 5 points of \d+ hold NaN"),
        ({"ground_mask": np.zeros(5, dtype=bool)}, r"ground_mask has shape \(5,\) for 900 points"),
        ({"flow": np.zeros((900, 2))}, r"flow has shape \(900, 2\) for 900 points"),
        ({"ego_motion": np.ones((4, 4))}, r"motion from \d+: last row of the pose"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, words):
    path = openflow_log(tmp_path / "log.h5", 2)
    changed(path, FIRST_NS, **arrays)
    with pytest.raises(DataError, match=rf"log\.h5: .*{words}"):
        opened(path).truth(0)


def test_damaged_and_missing_files(tmp_path):
    path = openflow_log(tmp_path / "log.h5", 2)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"log\.h5: is not an \.h5 file that can be read"):
        opened(path)
    path.write_bytes(b"text")
    assert len(SPEC.check(str(path))) == 1
    openflow_log(tmp_path / "log.h5", 1)
    with pytest.raises(DataError, match="no log has two sweeps"):
        opened(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"holds no \.h5 log"):
        opened(tmp_path / "none")


def test_without_h5py_there_is_one_line_of_advice(tmp_path, monkeypatch):
    source = openflow(tmp_path / "d")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vision3d\[h5\]'"):
        opened(source)
    assert SPEC.extras == ("h5:h5py",)
