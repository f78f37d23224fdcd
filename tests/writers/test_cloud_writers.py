# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import sys
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from vision3d.atomic import whole_path
from vision3d.contracts import DataConfig
from vision3d.errors import DataError, MissingExtraError
from vision3d.geometry.cameras import Camera
from vision3d.geometry.se3 import from_rt, rotvec_to_rotation, transform
from vision3d.readers.clouds import SPEC as CLOUDS
from vision3d.readers.flow_s import SPEC as FLOW_S
from vision3d.readers.openflow import SPEC as OPENFLOW
from vision3d.types.clouds import CloudPair, FlowTruth
from vision3d.writers._files import in_axes

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["vision3d.writers"]
T = from_rt(rotvec_to_rotation([0.001, 0.002, 0.03]), [-0.6, 0.02, 0.01])
WRITERS = {}
for _name, _target in ENTRIES.items():
    _module, _, _attribute = _target.partition(":")
    _spec = getattr(importlib.import_module(_module), _attribute)
    if _spec.samples == "CloudPair":
        WRITERS[_name] = _spec


def sample(axes="lidar", exact=False, count=80):
    """A pair with everything that can be known; ``exact``: the target is source + flow."""
    rng = np.random.default_rng(0)
    source = rng.uniform([2, -20, -2], [30, 20, 3], (count, 3)).astype(np.float32)
    dynamic = np.arange(count) % 4 == 0
    flow = (transform(T, source) - source + np.where(dynamic[:, None], [0.9, 0.1, 0], 0)).astype(np.float32)
    target = source + flow if exact else rng.uniform(-20, 20, (count + 9, 3)).astype(np.float32)
    ground = np.arange(count) % 5 == 1
    pair = CloudPair(
        name="log-7/315966265259836000",
        source=source,
        target=target,
        axes="lidar",
        dt_s=0.1,
        T_target_source=T,
        source_ground=ground,
        target_ground=np.arange(len(target)) % 3 == 0,
        stamp_ns=315966265259836000,
    )
    truth = FlowTruth(
        flow=flow,
        valid=np.ones(count, dtype=bool) if exact else np.arange(count) % 7 > 0,
        points=source,
        axes="lidar",
        dt_s=0.1,
        dynamic=dynamic,
        ground=ground,
        classes=np.where(dynamic, np.arange(count) % 5, np.where(np.arange(count) % 6 == 5, 255, 0)).astype(np.uint8),
        T_target_source=T,
    )
    return in_axes(pair, truth, axes)


def assert_same(found, expected, without=()):
    for field in fields(expected):
        if field.name in without:
            continue
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        else:
            assert a == b, field.name


def test_entry_points_lead_to_specs_of_their_name():
    assert set(WRITERS) == {"flow-s", "npz", "ply", "bin", "openflow"}  # those of images: test_box_writers.py
    for name, spec in WRITERS.items():
        assert (spec.name, spec.samples) == (name, "CloudPair")
        assert spec.summary
        assert len(spec.summary) < 100


@pytest.mark.parametrize("axes", ["lidar", "camera"])
def test_npz_keeps_everything(tmp_path, axes):
    pair, truth = sample(axes)
    camera = Camera("PINHOLE", 960, 540, (1050.0, 1050.0, 479.5, 269.5))
    pair, truth = replace(pair, camera=camera, dt_s=0.25), replace(truth, camera=camera, dt_s=0.25)
    (path,) = WRITERS["npz"].write(pair.name, pair, truth, tmp_path)
    assert path.name == "log-7_315966265259836000.npz"
    reader = CLOUDS.open(str(path), DataConfig())
    assert_same(reader[0], replace(pair, name=path.stem))
    assert_same(reader.truth(0), truth)
    first = path.read_bytes()
    WRITERS["npz"].write(pair.name, pair, truth, tmp_path)
    assert path.read_bytes() == first


def test_npz_keeps_what_is_not_known_unknown(tmp_path):
    points = sample()[0].source
    pair = CloudPair("bare", points, points[:11])
    WRITERS["npz"].write("bare", pair, None, tmp_path)
    reader = CLOUDS.open(str(tmp_path), DataConfig())
    assert_same(reader[0], pair)
    assert reader.truth(0) is None
    truth = FlowTruth(points, np.ones(len(points), dtype=bool), points)
    WRITERS["npz"].write("bare", pair, truth, tmp_path)
    assert_same(CLOUDS.open(str(tmp_path), DataConfig()).truth(0), truth)


def test_folders_of_several_pairs_are_read_back(tmp_path):
    pair, truth = sample()
    for form in ("npz", "ply", "bin"):
        for name in ("b/2", "a/1"):
            (tmp_path / form).mkdir(exist_ok=True)
            WRITERS[form].write(name, pair, truth, tmp_path / form)
        reader = CLOUDS.open(str(tmp_path / form), DataConfig())
        assert [reader.key(i) for i in range(len(reader))] == ["a_1", "b_2"]
        np.testing.assert_array_equal(reader.truth(1).flow, truth.flow)
        assert CLOUDS.check(str(tmp_path / form)) == []


@pytest.mark.parametrize("axes", ["lidar", "camera"])
def test_ply_keeps_clouds_and_truth(tmp_path, axes):
    pair, truth = sample(axes)
    paths = WRITERS["ply"].write("x", pair, truth, tmp_path)
    assert [path.name for path in paths] == ["x_source.ply", "x_target.ply"]
    reader = CLOUDS.open(f"{tmp_path}?axes={axes}", DataConfig())
    lost = ("T_target_source", "source_ground", "target_ground", "stamp_ns")
    assert_same(reader[0], replace(pair, name="x"), without=lost)
    assert_same(reader.truth(0), truth, without=("T_target_source",))
    # Another program's eyes.
    np.testing.assert_array_equal(trimesh.load(paths[1]).vertices, pair.target)
    assert f"comment axes {axes}" in paths[0].read_bytes()[:200].decode("latin-1")
    (tmp_path / "bare").mkdir()
    WRITERS["ply"].write("x", pair, None, tmp_path / "bare")
    assert CLOUDS.open(str(tmp_path / "bare"), DataConfig()).truth(0) is None


def test_bin_keeps_clouds_flow_and_validity(tmp_path):
    pair, truth = sample("camera")
    paths = WRITERS["bin"].write("x", pair, truth, tmp_path)
    assert [path.name for path in paths] == ["x_source.bin", "x_target.bin", "x_flow.bin"]
    assert paths[0].stat().st_size == 16 * len(pair.source)
    reader = CLOUDS.open(f"{tmp_path}?axes=camera", DataConfig())
    assert len(reader) == 1
    np.testing.assert_array_equal(reader[0].source, pair.source)
    np.testing.assert_array_equal(reader[0].target, pair.target)
    assert_same(reader.truth(0), truth, without=("dynamic", "ground", "classes", "T_target_source"))
    assert len(WRITERS["bin"].write("y", pair, None, tmp_path)) == 2
    paths[2].write_bytes(bytes(20))
    with pytest.raises(DataError, match=r"x_flow\.bin: must hold four float32 per point"):
        CLOUDS.open(str(tmp_path), DataConfig()).truth(0)


@pytest.mark.parametrize("axes", ["lidar", "camera"])
def test_flow_s_is_camera_axes_and_source_plus_flow(tmp_path, axes):
    pair, truth = sample(axes, exact=True)
    paths = WRITERS["flow-s"].write("0000001", pair, truth, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["0000001/pc1.npy", "0000001/pc2.npy"]
    reader = FLOW_S.open(str(tmp_path), DataConfig())
    expected, known = in_axes(pair, truth, "camera")
    assert (reader.key(0), reader[0].axes) == ("0000001", "camera")
    np.testing.assert_array_equal(reader[0].source, expected.source)
    np.testing.assert_array_equal(reader[0].target, expected.target)
    np.testing.assert_allclose(reader.truth(0).flow, known.flow, atol=3e-6)


def test_flow_s_refuses_what_it_cannot_hold(tmp_path):
    write = WRITERS["flow-s"].write
    pair, truth = sample(exact=True)
    with pytest.raises(DataError, match="x: has no true flow, which flow-s is made of: write npz"):
        write("x", pair, None, tmp_path)
    with pytest.raises(DataError, match="these have 80 and 79: write npz instead"):
        write("x", replace(pair, target=pair.target[1:]), truth, tmp_path)
    with pytest.raises(DataError, match="1 of 80 points have no valid flow: write npz instead"):
        write("x", pair, replace(truth, valid=np.arange(80) > 0), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("axes", ["lidar", "camera"])
def test_openflow_keeps_clouds_motion_and_truth(tmp_path, axes):
    pair, truth = sample(axes)
    WRITERS["openflow"].write(pair.name, pair, truth, tmp_path)
    reader = OPENFLOW.open(f"{tmp_path}?range=0&ground=1", DataConfig())
    assert reader.key(0) == "log-7_315966265259836000/315966265259836000"
    expected, known = in_axes(pair, truth, "lidar")
    found = reader[0]
    assert_same(found, replace(expected, name=reader.key(0), dt_s=found.dt_s), without=("T_target_source",))
    assert found.dt_s == pytest.approx(0.1)
    np.testing.assert_allclose(found.T_target_source, expected.T_target_source, atol=1e-6)
    assert_same(reader.truth(0), replace(known, dt_s=found.dt_s), without=("T_target_source",))
    assert OPENFLOW.check(str(tmp_path)) == []


def test_openflow_needs_a_motion_and_a_time(tmp_path):
    pair, truth = sample()
    with pytest.raises(DataError, match="the sensor's motion is not known"):
        WRITERS["openflow"].write("x", replace(pair, T_target_source=None), None, tmp_path)
    bare = replace(pair, stamp_ns=0, dt_s=0.5, source_ground=None, target_ground=None, T_target_source=None)
    WRITERS["openflow"].write("x", bare, truth, tmp_path)
    reader = OPENFLOW.open(str(tmp_path), DataConfig())
    assert reader[0].dt_s == pytest.approx(0.5)
    np.testing.assert_allclose(reader[0].T_target_source, T, atol=1e-6)


def test_openflow_without_h5py_is_one_line_of_advice(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vision3d\[h5\]'"):
        WRITERS["openflow"].write("x", *sample(), tmp_path)


@pytest.mark.parametrize("name", list(WRITERS))
def test_truth_of_another_pair_is_refused(tmp_path, name):
    pair, truth = sample(exact=True)
    with pytest.raises(DataError, match="its truth has 79 rows for 80 source points"):
        WRITERS[name].write("x", pair, replace(truth, flow=truth.flow[1:]), tmp_path)


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "deep" / "x.npz"

    def fail(content):
        with whole_path(path) as temporary:
            temporary.write_text(content)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail("half")
    assert list(path.parent.iterdir()) == []
    with whole_path(path) as temporary:
        temporary.write_text("whole")
    with pytest.raises(KeyboardInterrupt):
        fail("half")
    assert [p.name for p in path.parent.iterdir()] == ["x.npz"]
    assert path.read_text() == "whole"


def test_axes_there_and_back(tmp_path):
    pair, truth = sample()
    there, known = in_axes(pair, truth, "camera")
    # x left, y up, z forward.
    np.testing.assert_array_equal(there.source, pair.source[:, [1, 2, 0]])
    np.testing.assert_allclose(
        transform(there.T_target_source, there.source), transform(T, pair.source)[:, [1, 2, 0]], atol=1e-12
    )
    back, same = in_axes(there, known, "lidar")
    assert_same(back, pair)
    assert_same(same, truth)
    assert in_axes(pair, None, "camera")[1] is None


@pytest.mark.parametrize("name", ["", "..", "/", "a/../.."])
def test_names_stay_inside_the_folder(tmp_path, name):
    pair, truth = sample(exact=True)
    if name == "a/../..":
        (path,) = WRITERS["npz"].write(name, pair, truth, tmp_path)
        assert path == tmp_path / "a.npz"
    else:
        with pytest.raises(DataError, match="cannot be a file's name"):
            WRITERS["npz"].write(name, pair, truth, tmp_path)
