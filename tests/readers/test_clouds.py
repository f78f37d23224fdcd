# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

import cloud_layouts
import numpy as np
import pytest
from cloud_layouts import T_target_source, T_world_sensor, scan, scans, write_feather

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.se3 import from_rt, invert, rotation_to_quat, rotvec_to_rotation
from vision3d.readers._cloud_files import CloudFormat, read_cloud
from vision3d.readers._cloud_pcd import unpack_lzf
from vision3d.readers.clouds import SPEC

POINTS = scan(0).points[:700]


def opened(source, **options):
    return SPEC.open(str(source), DataConfig(**options))


def one(path):
    return read_cloud(path, CloudFormat())[0]


def write_bin(path, points, columns=4):
    table = np.zeros((len(points), columns), dtype="<f4")
    table[:, :3] = points
    path.write_bytes(table.tobytes())


PCD_HEADER = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z _ normal intensity
SIZE 4 4 4 1 4 2
TYPE F F F U F U
COUNT 1 1 1 3 3 1
WIDTH {half}
HEIGHT 2
VIEWPOINT 0 0 0 1 0 0 0
POINTS {count}
DATA {kind}
"""


def pcd_table(points):
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("_", "u1", 3), ("normal", "<f4", 3), ("intensity", "<u2")]
    table = np.zeros(len(points), dtype=fields)
    table["x"], table["y"], table["z"] = points.T
    table["normal"], table["intensity"] = 0.5, 7
    return table


def write_pcd_binary(path, points):
    header = PCD_HEADER.format(half=len(points) // 2, count=len(points), kind="binary")
    path.write_bytes(header.encode() + pcd_table(points).tobytes())


def write_pcd_compressed(path, points):
    table = pcd_table(points)
    raw = b"".join(np.ascontiguousarray(table[name]).tobytes() for name in table.dtype.names)
    # Stored runs of 32 are valid LZF, too; real packing is checked against another library below.
    packed = b"".join(bytes([len(raw[i : i + 32]) - 1]) + raw[i : i + 32] for i in range(0, len(raw), 32))
    header = PCD_HEADER.format(half=len(points) // 2, count=len(points), kind="binary_compressed")
    path.write_bytes(header.encode() + struct.pack("<II", len(packed), len(raw)) + packed)


def write_pcd_ascii(path, points):
    # Tabs, double blanks and trailing blanks occur in the wild.
    rows = [f"{x:.9g}\t{y:.9g}  {z:.9g} 0 0 0 nan 0.5 0.5 7 " for x, y, z in points]
    header = PCD_HEADER.format(half=len(points) // 2, count=len(points), kind="ascii")
    path.write_text(header + "\r\n".join(rows) + "\r\n")


def write_ply(kind):
    def write(path, points):
        lines = ["ply", f"format {kind} 1.0", "comment made by hand", f"element vertex {len(points)}"]
        lines += [f"property {t} {name}" for t, name in (("float", "x"), ("float", "y"), ("double", "z"))]
        lines += ["property uchar red", "element face 1", "property list uchar int vertex_indices", "end_header", ""]
        header = "\n".join(lines).encode()
        if kind == "ascii":
            rows = [f"{x:.9g} {y:.9g} {z:.9g} 200" for x, y, z in points]
            path.write_bytes(header + "\n".join([*rows, "3 0 1 2", ""]).encode())
            return
        end = "<" if "little" in kind else ">"
        table = np.zeros(len(points), dtype=[("x", f"{end}f4"), ("y", f"{end}f4"), ("z", f"{end}f8"), ("r", "u1")])
        table["x"], table["y"], table["z"] = points.T
        path.write_bytes(header + table.tobytes() + struct.pack(f"{end}B3i", 3, 0, 1, 2))

    return write


def write_csv(path, points):
    rows = [f"{i};{z:.9g};{x:.9g};{y:.9g}" for i, (x, y, z) in enumerate(points)]
    path.write_text("\n".join(["frame;Z;X;Y", *rows]) + "\n")


FORMATS = {
    "kitti.bin": write_bin,
    "n015__LIDAR_TOP__1532402927647951.pcd.bin": lambda path, points: write_bin(path, points, 5),
    "ascii.pcd": write_pcd_ascii,
    "binary.pcd": write_pcd_binary,
    "compressed.pcd": write_pcd_compressed,
    "ascii.ply": write_ply("ascii"),
    "little.ply": write_ply("binary_little_endian"),
    "big.ply": write_ply("binary_big_endian"),
    "plain.npy": np.save,
    "named.npz": lambda path, points: np.savez(path, points=points, colour=np.zeros(len(points))),
    "only.npz": lambda path, points: np.savez(path, whatever=np.column_stack([points, points[:, 0]])),
    "rows.xyz": lambda path, points: np.savetxt(path, points, fmt="%.9g", header="x y z"),
    "commas.txt": lambda path, points: np.savetxt(path, np.column_stack([points, points]), fmt="%.9g", delimiter=", "),
    "named.csv": write_csv,
    "sweep.feather": lambda path, points: write_feather(path, {axis: points[:, i] for i, axis in enumerate("xyz")}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_points_and_order(tmp_path, name):
    path, other = tmp_path / name, tmp_path / f"other{name}"
    FORMATS[name](path, POINTS)
    FORMATS[name](other, POINTS[::-1] + np.float32(1))
    reader = opened(f"{path}::{other}")
    assert SPEC.match(f"{path}::{other}") == 0.9
    assert (len(reader), reader.truth(0)) == (1, None)
    assert opened(f"clouds:{path}::{other}").key(0) == reader.key(0)
    np.testing.assert_array_equal(reader[0].source, POINTS)
    np.testing.assert_array_equal(reader[0].target, POINTS[::-1] + np.float32(1))
    assert SPEC.check(f"{path}::{other}") == []


@pytest.mark.parametrize("name", FORMATS)
def test_cut_and_garbled_files_are_errors_that_name_them(tmp_path, name):
    path = tmp_path / name
    FORMATS[name](path, POINTS)
    data = path.read_bytes()
    rng = np.random.default_rng(3)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"is an empty file|is not a Feather file"):
        one(path)
    cuts = [1, 7, 40, 150, len(data) // 2, len(data) - 3]
    damaged = [data[:cut] for cut in cuts]
    for _ in range(30):
        garbled = bytearray(data)
        for at in rng.integers(0, len(data), 6):
            garbled[at] = rng.integers(0, 256)
        damaged.append(bytes(garbled))
    refused = []
    for content in damaged:
        path.write_bytes(content)
        try:
            cloud = one(path)
        except DataError as error:
            refused.append(str(error))
        else:
            assert cloud.ndim == 2
            assert cloud.shape[1] == 3
            assert np.isfinite(cloud).all()
    assert all(text.startswith(f"{path}: ") and "\n" not in text for text in refused)
    # Text can be cut between lines without anybody noticing; every other format says how much it holds.
    assert len(refused) >= (1 if name.endswith(("txt", "xyz", "csv")) else 5)


@pytest.mark.parametrize("name", ["ascii.pcd", "binary.pcd", "compressed.pcd", "ascii.ply", "little.ply", "big.ply"])
def test_a_file_cut_between_two_points_is_noticed(tmp_path, name):
    path = tmp_path / name
    FORMATS[name](path, POINTS)
    data = path.read_bytes()
    if name.startswith("ascii"):
        path.write_bytes(b"\n".join(data.split(b"\n")[:-40]))
    else:
        path.write_bytes(data[: -30 * 13])
    with pytest.raises(DataError, match=r"points|cut off|length"):
        one(path)


def test_pcd_files_of_another_library_are_read(tmp_path):
    pypcd4 = pytest.importorskip("pypcd4")
    rng = np.random.default_rng(0)
    # Few distinct values, so that packing finds repetitions of every kind.
    points = np.concatenate([np.round(rng.normal(size=(2000, 3)), 1), np.zeros((500, 3)), POINTS]).astype(np.float32)
    table = np.column_stack([points, np.arange(len(points)) % 3]).astype(np.float32)
    for encoding in pypcd4.Encoding:
        path = tmp_path / f"{encoding.value}.pcd"
        pypcd4.PointCloud.from_xyzi_points(table).save(path, encoding)
        if b"binaryscompressed" in path.read_bytes()[:400]:
            continue  # that library's own
        np.testing.assert_allclose(one(path), points, atol=1e-9 if encoding.value == "ascii" else 0)


def test_lzf_unpacks_what_another_library_packs_and_never_fails():
    lzf = pytest.importorskip("lzf")
    rng = np.random.default_rng(1)
    shrunk = 0
    for size in (20, 300, 5000, 70_000):
        for symbols in (2, 16, 200):
            raw = rng.integers(0, symbols, size).astype(np.uint8).tobytes() + b"ab" * 200 + bytes(900)
            packed = lzf.compress(raw)
            if packed is None:  # noise does not shrink
                continue
            shrunk += 1
            assert unpack_lzf(packed, len(raw)) == raw
            assert unpack_lzf(packed, len(raw) + 1) is None
            assert unpack_lzf(packed[:-1], len(raw)) is None
    assert shrunk >= 6
    for _ in range(300):
        unpack_lzf(rng.integers(0, 256, rng.integers(0, 60)).astype(np.uint8).tobytes(), 50)


def test_a_folder_is_its_scans_in_numeric_order(tmp_path):
    root = scans(tmp_path / "drive", write_bin, ".bin")
    reader = opened(root)
    assert [reader.key(i) for i in range(len(reader))] == ["8", "9", "10", "11"]
    for i in range(4):
        np.testing.assert_array_equal(reader[i].source, scan(i).points)
        np.testing.assert_array_equal(reader[i].target, scan(i + 1).points)
    assert (reader.name, reader[0].dt_s, reader[0].axes, reader[0].T_target_source) == ("drive", 0.1, "lidar", None)
    apart = opened(f"{root}?step=3&dt=0.3&axes=camera")
    assert [apart.key(i) for i in range(len(apart))] == ["8", "9"]
    np.testing.assert_array_equal(apart[1].target, scan(4).points)
    assert (apart[0].dt_s, apart[0].axes) == (0.3, "camera")
    with pytest.raises(DataError, match="holds 5 scans: a pair 5 apart needs 6"):
        opened(f"{root}?step=5")
    assert SPEC.match(str(tmp_path)) == pytest.approx(0.39)
    np.save(root / "other.npy", POINTS)
    with pytest.raises(DataError, match=r"several formats \(\.bin, \.npy\); choose with \?suffix=\.bin"):
        opened(root)
    assert len(opened(f"{root}?suffix=bin")) == 4
    with pytest.raises(DataError, match=r"holds no folder of two or more scans \(\.npy\)"):
        opened(f"{root}?suffix=.npy")
    for i in range(2):
        np.savetxt(root / f"{i}.txt", scan(i).points, fmt="%.9g")
    np.testing.assert_array_equal(opened(f"{root}?suffix=txt")[0].target, scan(1).points)


def test_names_that_end_in_a_time_give_the_time_between_scans(tmp_path):
    for stamp in (1532402927647951, 1532402928147847):
        write_bin(tmp_path / f"n015__LIDAR_TOP__{stamp}.pcd.bin", POINTS, 5)
    pair = opened(tmp_path)[0]
    assert (pair.name, pair.stamp_ns) == ("n015__LIDAR_TOP__1532402927647951", 1532402927647951000)
    assert pair.dt_s == pytest.approx(0.499896)
    assert opened(f"{tmp_path}?dt=0.5")[0].dt_s == 0.5


@pytest.mark.parametrize("kind", ["kitti", "matrix", "rows", "tum"])
def test_poses_give_the_motion(tmp_path, kind):
    root = scans(tmp_path / "drive", write_bin, ".bin")
    poses = [T_world_sensor(i) for i in range(5)]
    lines = []
    for i, T in enumerate(poses):
        if kind == "tum":
            w, x, y, z = rotation_to_quat(T[:3, :3])
            lines.append(" ".join(f"{v:.12g}" for v in (i * 0.1, *T[:3, 3], x, y, z, w)))
        elif kind == "rows":
            lines += [" ".join(f"{v:.12g}" for v in row) for row in T]
        else:
            lines.append(" ".join(f"{v:.12g}" for v in (T if kind == "matrix" else T[:3]).ravel()))
    file = tmp_path / "poses.txt"
    file.write_text("# sensor to world\n" + "\n".join(lines) + "\n")
    reader = opened(f"{root}?poses={file}")
    for i in range(4):
        np.testing.assert_allclose(reader[i].T_target_source, T_target_source(i), atol=1e-9)
    file.write_text("\n".join(lines[: -1 if kind != "rows" else -4]) + "\n")
    with pytest.raises(DataError, match="holds 4 poses for 5 scans"):
        opened(f"{root}?poses={file}")


def test_poses_of_kittis_camera_are_moved_to_the_lidar(tmp_path):
    root = scans(tmp_path / "drive", write_bin, ".bin")
    T_camera_lidar = from_rt(rotvec_to_rotation([0.5, -1.2, 1.1]), [0.01, -0.07, -0.3])
    first = invert(T_camera_lidar @ T_world_sensor(0))
    cameras = [T_camera_lidar @ T_world_sensor(i) @ invert(T_camera_lidar) for i in range(5)]
    assert not np.allclose(first, cameras[0])
    (tmp_path / "p.txt").write_text("\n".join(" ".join(f"{v:.12g}" for v in T[:3].ravel()) for T in cameras))
    (tmp_path / "calib.txt").write_text(
        "P0: 1 2 3\nTr: " + " ".join(f"{v:.12g}" for v in T_camera_lidar[:3].ravel()) + "\n"
    )
    reader = opened(f"{root}?poses={tmp_path / 'p.txt'}&calib={tmp_path / 'calib.txt'}")
    np.testing.assert_allclose(reader[2].T_target_source, T_target_source(2), atol=1e-9)
    assert not np.allclose(opened(f"{root}?poses={tmp_path / 'p.txt'}")[2].T_target_source, T_target_source(2))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3\n", "line 1: 3 numbers; a pose has 12"),
        ("2 0 0 0 0 1 0 0 0 0 1 0\n", "line 1: rotation has determinant"),
        ("0 0 0 0 0.5 0.5 0.5 0.9\n", "line 1: quaternion has length"),
        ("a b c\n", "line 1: could not convert"),
    ],
)
def test_wrong_poses_are_named(tmp_path, text, words):
    root = scans(tmp_path / "drive", write_bin, ".bin")
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(DataError, match=rf"p\.txt: {words}"):
        opened(f"{root}?poses={tmp_path / 'p.txt'}")


def test_points_that_are_not_finite_are_an_error_unless_dropped(tmp_path):
    holed = POINTS.copy()
    holed[[3, 50, 51]] = np.nan
    holed[4, 1] = np.inf
    np.savez(tmp_path / "pair.npz", pc1=holed, pc2=POINTS, flow=np.arange(2100).reshape(700, 3).astype(np.float32))
    with pytest.raises(DataError, match=r"pair\.npz: 4 of 700 pc1 hold NaN or infinity; \?drop_nan=1 leaves them out"):
        opened(tmp_path / "pair.npz")[0]
    reader = opened(f"{tmp_path / 'pair.npz'}?drop_nan=1")
    left = np.delete(np.arange(700), [3, 4, 50, 51])
    np.testing.assert_array_equal(reader[0].source, POINTS[left])
    assert len(reader[0].target) == 700
    # The truth's rows go with their points.
    np.testing.assert_array_equal(reader.truth(0).flow[:, 0], 3 * left)
    np.save(tmp_path / "a.npy", np.full((5, 3), np.nan))
    with pytest.raises(DataError, match="none of its 5 points is finite"):
        opened(f"{tmp_path / 'a.npy'}::{tmp_path / 'a.npy'}?drop_nan=1")[0]


def test_other_units(tmp_path):
    np.save(tmp_path / "a.npy", (POINTS * 1000).astype(np.int32))
    pair = opened(f"{tmp_path / 'a.npy'}::{tmp_path / 'a.npy'}?scale=0.001")[0]
    np.testing.assert_allclose(pair.source, POINTS, atol=1.1e-3)


def test_pairs_in_npz_under_the_names_that_others_use(tmp_path):
    flow = np.full((700, 3), 0.25, dtype=np.float32)
    mask = np.arange(700) % 3 > 0
    for first, second, gt in (("pc1", "pc2", "flow"), ("points1", "points2", "flow"), ("pos1", "pos2", "gt")):
        np.savez(tmp_path / "pair.npz", **{first: POINTS, second: POINTS + flow, gt: flow, "valid_mask1": mask})
        reader = opened(tmp_path / "pair.npz")
        np.testing.assert_array_equal(reader[0].target, POINTS + flow)
        np.testing.assert_array_equal(reader.truth(0).flow, flow)
        np.testing.assert_array_equal(reader.truth(0).valid, mask)
        assert SPEC.match(str(tmp_path / "pair.npz")) == 0.6
        assert len(opened(tmp_path)) == 1
    np.savez(tmp_path / "pair.npz", pc1=POINTS, pc2=POINTS)
    assert opened(tmp_path / "pair.npz").truth(0) is None


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"flow": np.zeros((3, 3))}, r"flow must be numbers of shape \(700, 3\), found float64 \(3, 3\)"),
        ({"flow": np.zeros((700, 3)), "valid": np.zeros(4)}, "valid must have a value for each of 700 points"),
        ({"flow": np.zeros((700, 3)), "classes": np.zeros(700)}, "classes must be uint8"),
        ({"T_target_source": np.ones((4, 4))}, "T_target_source: last row of the pose"),
        ({"axes": np.array("radar")}, "axes must be lidar or camera, found 'radar'"),
        ({"dt_s": np.float64(-1)}, "dt_s must be seconds"),
        ({"dt_s": np.zeros(3)}, "dt_s must be one number"),
        ({"camera": np.zeros(6)}, "camera: image size 0x0 is empty"),
        ({"source": np.zeros((700, 2))}, r"source must be numbers of shape \(N, 3\), found float64 \(700, 2\)"),
        ({"source": np.array([["a", "b", "c"]])}, "source must be numbers"),
        ({"source": np.zeros((0, 3))}, "holds no source"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, words):
    np.savez(tmp_path / "p.npz", **{"source": POINTS, "target": POINTS} | arrays)
    with pytest.raises(DataError, match=rf"p\.npz: {words}"):
        opened(tmp_path / "p.npz").truth(0)


def test_pickles_are_never_loaded(tmp_path):
    np.savez(tmp_path / "p.npz", source=np.array([{"a": 1}], dtype=object), target=POINTS)
    with pytest.raises(DataError, match="holds Python objects, which are never loaded"):
        opened(tmp_path / "p.npz")[0]
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="holds Python objects, which are never loaded"):
        one(tmp_path / "a.npy")


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.bin", bytes(1001), "its 1001 bytes are no whole number of points of 4 float32; it is cut off"),
        ("a.bin", bytes(20 * 7), r"no whole number of points of 4 float32; \?columns=5 would fit"),
        ("a.bin", "1.0 2.0 3.0\n" * 12, r"holds text, not float32 numbers: rename it to \.txt"),
        ("a.bin", np.full(400, 1e20, "<f4").tobytes(), "100 of 100 points lie 100 km away: not 4 float32 each"),
        ("a.pcd", "nothing\n" * 5, "is not a PCD file: its header has no line FIELDS"),
        ("a.pcd", PCD_HEADER.format(half=1, count=2, kind="zip"), "DATA zip is not ascii"),
        ("a.pcd", PCD_HEADER.replace("x y z", "u v w").format(half=1, count=2, kind="ascii"), "has no field x"),
        ("a.pcd", PCD_HEADER.replace("SIZE 4", "SIZE 3").format(half=1, count=2, kind="ascii"), "field x has TYPE F"),
        ("a.pcd", PCD_HEADER.replace("COUNT 1", "COUNT").format(half=1, count=2, kind="ascii"), "differ in length"),
        ("a.ply", "hello", "is not a PLY file that can be read"),
        ("a.xyz", "1 2 3\n4 5\n", "line 2 does not hold x, y and z: '4 5'"),
        ("a.xyz", "# nothing\n\n", "holds no points"),
        ("a.csv", "x,y,z\n1,2,3\n1,b,3\n", "line 3 does not hold x, y and z: '1,b,3'"),
        ("a.csv", "x,y,z\n", "holds no points"),
        ("a.txt", b"\xff\xfe\x00\x01", "is not a text file"),
        ("a.npy", "no array", "is not a NumPy file that can be read"),
        ("a.feather", "no table", "is not a Feather file that can be read"),
        ("a.las", "LASF", r"'\.las' is not a format of clouds; known: \.bin"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, name, content, words):
    path = written(tmp_path / name, content)
    with pytest.raises(DataError, match=words) as caught:
        opened(f"{path}::{path}")[0]
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert SPEC.check(f"{path}::{path}") == [str(caught.value)]


def test_columns_of_a_bin(tmp_path):
    write_bin(tmp_path / "a.bin", POINTS, 6)
    pair = opened(f"{tmp_path / 'a.bin'}::{tmp_path / 'a.bin'}?columns=6")[0]
    np.testing.assert_array_equal(pair.source, POINTS)


def test_wrong_sources_are_named(tmp_path):
    np.save(tmp_path / "a.npy", POINTS)
    with pytest.raises(DataError, match="is one cloud; give two"):
        opened(tmp_path / "a.npy")
    with pytest.raises(DataError, match="two files make a pair: A::B"):
        opened("a.npy::b.npy::c.npy")
    missing = f"{tmp_path / 'a.npy'}::{tmp_path / 'b.npy'}"
    with pytest.raises(DataError, match=r"b\.npy: no such file"):
        opened(missing)
    assert opened(missing, skip_bad=True).bad == {0: f"{tmp_path / 'b.npy'}: no such file"}
    with pytest.raises(DataError, match="holds no folder of two or more scans"):
        opened(tmp_path)
    with pytest.raises(ConfigError, match="no split 'train'"):
        opened(tmp_path, split="train")
    with pytest.raises(DataError, match="option 'axes' cannot be 'radar': say lidar or camera"):
        opened(f"{missing}?axes=radar")
    np.savez(tmp_path / "p.npz", source=POINTS, target=POINTS)
    with pytest.raises(DataError, match="poses go with scans"):
        opened(f"{tmp_path / 'p.npz'}?poses={tmp_path / 'p.txt'}")
    np.savez(tmp_path / "p.npz", a=POINTS, b=POINTS)
    with pytest.raises(DataError, match=r"holds no pair .*; it has a, b"):
        opened(tmp_path / "p.npz")[0]


def test_source_without_its_target_is_an_error(tmp_path):
    write_bin(tmp_path / "one_source.bin", POINTS)
    write_bin(tmp_path / "two_source.bin", POINTS)
    with pytest.raises(DataError, match=r"one_source\.bin: has no one_target\.bin beside it"):
        opened(tmp_path)


def test_only_the_last_pair_is_kept(tmp_path, monkeypatch):
    reader = opened(cloud_layouts.clouds(tmp_path / "d"))
    read = []
    original = type(reader)._read
    monkeypatch.setattr(type(reader), "_read", lambda self, record: read.append(record.name) or original(self, record))
    reader[0], reader.truth(0), reader[0], reader.truth(1), reader[1], reader[0]
    assert read == ["000", "001", "000"]


def test_real_scans(shared_data):
    lidar = shared_data / "lidar_frames"
    kitti = lidar / "kitti_object" / "training" / "velodyne" / "000000.bin"
    nuscenes = next((lidar / "mmdet3d" / "nuscenes").glob("*.pcd.bin"))
    pair = opened(f"{kitti}::{nuscenes}")[0]
    assert (len(pair.source), len(pair.target)) == (115384, 34688)
    # The road lies about 1.7 m below KITTI's sensor and 1.8 m below nuScenes'.
    for cloud in (pair.source, pair.target):
        near = cloud[np.linalg.norm(cloud[:, :2], axis=1) < 15]
        assert -2.1 < np.percentile(near[:, 2], 15) < -1.4
    sweeps = shared_data / "av2_sensor_val" / "val" / "7fab2350-7eaf-3b7e-a39d-6937a4c1bede" / "sensors" / "lidar"
    pair = opened(sweeps)[0]
    assert (len(pair.source), len(pair.target), pair.stamp_ns) == (99229, 99466, 315966265259836000)
    assert pair.dt_s == pytest.approx(0.100196)
