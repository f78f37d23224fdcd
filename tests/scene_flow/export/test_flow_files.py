# SPDX-License-Identifier: Apache-2.0
"""Flow files come back as they went, say what frame they are in, and are read by other programs."""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from scene_flow.export.flow_files import FORMATS, read_flow, write_flow
from scene_flow.export.flow_record import FlowRecord
from vision3d import atomic
from vision3d.errors import ConfigError, DataError, MissingExtraError
from vision3d.types import CloudPair, FlowResult

FULL = ("npz", "ply", "feather")


def result(n: int = 50, **given: object) -> FlowResult:
    rng = np.random.default_rng(n)
    T = np.eye(4)
    T[:3, 3] = (0.9, -0.1, 0.0)
    full = {
        "points": rng.normal(0, 10, (n, 3)).astype(np.float32),
        "flow": (rng.normal(0, 0.3, (n, 3)) + [0.9, -0.1, 0]).astype(np.float32),
        "confidence": rng.random(n).astype(np.float32),
        "dynamic": rng.random(n) < 0.3,
        "ground": rng.random(n) < 0.3,
        "sampled": rng.random(n) < 0.3,
        "T_target_source": T,
        "axes": "lidar",
        "extra": {"method": "sctn", "dt_s": 0.1},
    }
    return FlowResult("log/12", "ok", **(full | given))


def same(a: FlowRecord, b: FlowRecord) -> None:
    for name in ("flow", "source", "confidence", "dynamic", "ground", "sampled", "T_target_source"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one.dtype == other.dtype and np.array_equal(one, other), name
    assert (a.name, a.method, a.axes, a.dt_s) == (b.name, b.method, b.axes, b.dt_s)


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("n", [0, 1, 50])
def test_everything_comes_back(tmp_path: Path, kind: str, n: int) -> None:
    written = result(n)
    path = write_flow(tmp_path / "deep" / f"a.{kind}", written)
    same(read_flow(path), FlowRecord.of(written))
    again = read_flow(path).result()
    assert again.arrays().keys() == written.arrays().keys() and again.extra == written.extra
    assert [p.name for p in (tmp_path / "deep").iterdir()] == [f"a.{kind}"]  # no part is left


@pytest.mark.parametrize("kind", FULL)
def test_what_is_not_known_is_not_in_the_file(tmp_path: Path, kind: str) -> None:
    bare = FlowResult("p", "ok", flow=np.ones((4, 3), dtype=np.float32), axes="camera")
    points = np.arange(12, dtype=np.float64).reshape(4, 3)
    record = read_flow(write_flow(tmp_path / f"a.{kind}", bare, points))
    same(record, FlowRecord.of(bare, points))
    assert record.source is not None and record.dt_s is None and record.axes == "camera" and record.method == ""
    assert "x left, y up, z forward" in record.frame


@pytest.mark.parametrize("kind", FORMATS)
def test_same_flow_same_bytes(tmp_path: Path, kind: str) -> None:
    one, other = (write_flow(tmp_path / f"{i}.{kind}", result()) for i in range(2))
    assert one.read_bytes() == other.read_bytes()


def test_points_time_and_method_come_from_the_pair_or_the_call(tmp_path: Path) -> None:
    bare = FlowResult("p", "ok", flow=np.ones((4, 3), dtype=np.float32))
    pair = CloudPair("p", np.full((4, 3), 2, np.float32), np.zeros((9, 3), np.float32), dt_s=0.5)
    record = read_flow(write_flow(tmp_path / "a.npz", bare, pair, method="mine"))
    assert record.dt_s == 0.5 and record.method == "mine" and (record.source == 2).all()
    assert FlowRecord.of(result(), dt_s=0.2, method="x").dt_s == 0.2


def test_residual_is_what_is_left_of_a_point_that_stands(tmp_path: Path) -> None:
    written = result()
    T, p = written.T_target_source, written.points.astype(np.float64)
    c, s = np.cos(0.2), np.sin(0.2)
    T = np.array([[c, -s, 0, 1], [s, c, 0, 2], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    stands = p @ T[:3, :3].T + T[:3, 3] - p
    flow = stands + np.where(np.arange(50) < 5, 1.0, 0.0)[:, None] * [0, 0.5, 0]
    path = write_flow(tmp_path / "a.npz", replace(written, flow=flow.astype(np.float32), T_target_source=T))
    residual = np.load(path)["residual"]
    assert residual.dtype == np.float32
    assert residual[:5] == pytest.approx(np.tile([0, 0.5, 0], (5, 1)), abs=1e-5)
    assert np.abs(residual[5:]).max() < 1e-5
    assert FlowRecord.of(replace(written, T_target_source=None)).residual() is None


def test_npz_holds_the_documented_keys_without_pickle(tmp_path: Path) -> None:
    loaded = np.load(write_flow(tmp_path / "a.npz", result()), allow_pickle=False)
    assert set(loaded.files) == {
        *("flow", "source", "residual", "confidence", "dynamic", "ground", "sampled"),
        *("T_target_source", "axes", "dt_s", "name", "method", "frame"),
    }
    assert loaded["flow"].dtype == np.float32 and loaded["dynamic"].dtype == bool
    assert "the flow holds the sensor's motion" in str(loaded["frame"]) and str(loaded["axes"]) == "lidar"


def test_npy_is_the_bare_flow(tmp_path: Path) -> None:
    written = replace(result(), points=None)
    path = write_flow(tmp_path / "a.npy", written)
    assert np.array_equal(np.load(path), written.flow)
    assert np.array_equal(read_flow(path).flow, written.flow)


def test_ply_is_read_by_trimesh(tmp_path: Path) -> None:
    written = result()
    cloud = trimesh.load(write_flow(tmp_path / "a.ply", written))
    assert np.array_equal(np.asarray(cloud.vertices, dtype=np.float32), written.points)
    columns = cloud.metadata["_ply_raw"]["vertex"]["data"]
    for i, name in enumerate(("flow_x", "flow_y", "flow_z")):
        assert np.array_equal(columns[name].ravel(), written.flow[:, i])
    assert np.array_equal(columns["dynamic"].ravel().astype(bool), written.dynamic)


def test_ply_header_is_short_ascii_and_says_the_frame(tmp_path: Path) -> None:
    named = replace(result(), name="stra\xdfe\nend_header\n" + "x" * 3000)
    path = write_flow(tmp_path / "a.ply", named)
    head = path.read_bytes().partition(b"end_header\n")[0].decode("ascii")
    assert max(map(len, head.splitlines())) <= 1000
    assert 'comment axes "lidar"' in head and "comment dt_s 0.1" in head and "comment frame" in head
    assert np.array_equal(read_flow(path).flow, named.flow)


def test_ply_colours_show_motion_against_the_static_world(tmp_path: Path) -> None:
    p = np.array([[5.0, 0, 0], [5.0, 1, 0]], dtype=np.float32)
    T = np.eye(4)
    T[0, 3] = 2.0
    flow = np.array([[2.0, 0, 0], [2.0, 1.0, 0]], dtype=np.float32)
    written = FlowResult("p", "ok", points=p, flow=flow, T_target_source=T)
    columns = trimesh.load(write_flow(tmp_path / "a.ply", written)).metadata["_ply_raw"]["vertex"]["data"]
    colors = np.stack([columns[c].ravel() for c in ("red", "green", "blue")], axis=1).astype(int)
    assert np.ptp(colors[0]) == 0 and colors[0, 0] > 200  # stands: white
    assert np.ptp(colors[1]) > 80


def test_feather_is_a_table_with_its_frame(tmp_path: Path) -> None:
    feather = pytest.importorskip("pyarrow.feather")
    table = feather.read_table(write_flow(tmp_path / "a.feather", result()))
    assert table.column_names == [
        *("x", "y", "z", "flow_tx_m", "flow_ty_m", "flow_tz_m"),
        *("confidence", "is_dynamic", "is_ground", "is_sampled"),
    ]
    assert str(table.schema.field("flow_tx_m").type) == "float" and str(table.schema.field("is_dynamic").type) == "bool"
    assert json.loads(table.schema.metadata[b"vision3d"])["axes"] == "lidar"


def test_refusals_to_write(tmp_path: Path) -> None:
    lost = FlowResult("lost", "failed", reason="nothing found")
    with pytest.raises(ValueError, match=r"lost: there is no flow to write \(failed: nothing found\)"):
        write_flow(tmp_path / "a.npz", lost)
    with pytest.raises(ConfigError, match=r"a\.txt: flow files end in \.npz, \.ply, \.feather, \.npy"):
        write_flow(tmp_path / "a.txt", result())
    with pytest.raises(ValueError, match=r"log/12: a \.ply file needs the source points"):
        write_flow(tmp_path / "a.ply", replace(result(), points=None))
    with pytest.raises(ValueError, match=r"points have shape \(3, 3\), the flow \(50, 3\)"):
        write_flow(tmp_path / "a.npz", result(), np.zeros((3, 3)))
    assert not list(tmp_path.iterdir())


def test_without_pyarrow_the_line_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.feather", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vision3d\[av2\]'"):
        write_flow(tmp_path / "a.feather", result())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_files_are_named(tmp_path: Path, kind: str, damage: str) -> None:
    path = write_flow(tmp_path / f"a.{kind}", result())
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"hello\n"}[damage])
    with pytest.raises(DataError, match=str(path)) as caught:
        read_flow(path)
    assert "\n" not in str(caught.value)


def test_wrong_content_is_named(tmp_path: Path) -> None:
    def problem(**arrays: object) -> str:
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(DataError) as caught:
            read_flow(tmp_path / "a.npz")
        return caught.value.problem

    flow = np.zeros((4, 3), dtype=np.float32)
    assert problem(source=flow) == "holds no array flow"
    assert problem(flow=flow[:, :2]) == "flow has shape (4, 2), not (N, 3)"
    assert problem(flow=flow, source=flow[:3]) == "source has shape (3, 3), flow (4, 3)"
    assert problem(flow=flow, dynamic=np.zeros(3)) == "dynamic has shape (3,), not (4,)"
    assert problem(flow=flow, axes="up") == "axes 'up' are not one of lidar, camera"
    assert problem(flow=flow, T_target_source=np.eye(3)) == "T_target_source has shape (3, 3), not (4, 4)"
    assert "not a flow file" in problem(flow=np.array([object()], dtype=object))
    with pytest.raises(DataError, match="no such file"):
        read_flow(tmp_path / "none.npz")
    other = tmp_path / "mesh.ply"
    trimesh.PointCloud(np.random.default_rng(0).random((5, 3))).export(other)
    with pytest.raises(DataError, match="holds no flow"):
        read_flow(other)


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")

    def write() -> None:
        with atomic.whole_file(path) as file:
            file.write(b"new")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write()
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_npz_of_another_program_needs_only_flow(tmp_path: Path) -> None:
    np.savez(tmp_path / "theirs.npz", flow=np.ones((3, 3)))
    record = read_flow(tmp_path / "theirs.npz")
    assert record.name == "theirs" and record.flow.dtype == np.float32 and record.source is None
    assert zipfile.is_zipfile(tmp_path / "theirs.npz")
