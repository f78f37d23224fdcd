# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
from cloud_layouts import KITTI_P, KITTI_SIZE, kitti_scene, write_png

from vision3d.contracts import DataConfig
from vision3d.errors import DataError
from vision3d.geometry.se3 import rotation_angle_deg, transform
from vision3d.readers._flow_kitti import kept_points, moving_points, read_disparity, read_flow, unproject
from vision3d.readers.kitti_flow import SPEC, listed_scenes


def opened(source, **options):
    return SPEC.open(str(source), DataConfig(**options))


@pytest.fixture
def training(tmp_path):
    for seed in range(3):
        kitti_scene(tmp_path / "training", f"{seed:06d}", seed)
    return tmp_path / "training"


def test_unprojecting_undoes_projecting():
    points = np.random.default_rng(0).uniform([-10, -3, 4], [10, 3, 40], (200, 3))
    rows = np.column_stack([points * [-1, -1, 1], np.ones(200)]) @ KITTI_P.T
    uv, disparity = rows[:, :2] / rows[:, 2:], KITTI_P[0, 0] * 0.54 / points[:, 2] - 1e-5
    np.testing.assert_allclose(unproject(uv, disparity, KITTI_P), points, atol=1e-9)


def test_points_and_flow_are_those_that_were_written(training):
    first, second, moves, T = kitti_scene(training, "000001", 1)
    reader = opened(f"{training}?ground=1")
    pair, truth = reader[1], reader.truth(1)
    near = (first[:, 2] < 35) & (second[:, 2] < 35)
    # Files keep 1/256 pixel of disparity and 1/64 pixel of flow.
    np.testing.assert_allclose(pair.source, first[near], atol=1e-4)
    error = np.linalg.norm(pair.target - second[near], axis=1)
    assert np.median(error) < 0.01
    assert error.max() < 0.1
    np.testing.assert_array_equal(truth.dynamic, moves[near])
    assert np.linalg.norm(truth.T_target_source[:3, 3] - T[:3, 3]) < 0.01
    assert rotation_angle_deg(truth.T_target_source[:3, :3].T @ T[:3, :3]) < 0.05
    assert (pair.axes, pair.dt_s, pair.T_target_source) == ("camera", 0.1, None)
    assert truth.valid.all()


def test_the_camera_sees_the_points_where_their_pixels_are(training):
    pair = opened(f"{training}?ground=1")[0]
    x, y, z = pair.source.astype(float).T
    camera = pair.camera
    assert (camera.width, camera.height) == KITTI_SIZE[::-1]
    u, v = camera.cx - camera.fx * x / z, camera.cy - camera.fy * y / z
    # Every fourth pixel was written. The pinhole leaves out an offset of 22 px m, and 3 mm of depth.
    u += KITTI_P[0, 3] / z
    assert np.abs(u - 4 * np.rint(u / 4)).max() < 0.4
    assert np.abs(v - 4 * np.rint(v / 4)).max() < 0.2
    assert camera.contains(np.stack([u, v], axis=1), border=-5).all()


def test_ground_and_crop(training):
    kept, all_points = opened(training), opened(f"{training}?ground=1")
    low = kept[0].source[:, 1] < -1.4
    assert not (low & (kept.truth(0).flow[:, 1] + kept[0].source[:, 1] < -1.4)).any()
    assert len(kept[0].source) < len(all_points[0].source)
    first = np.array([[0, -2, 10], [0, -2, 10], [0, 0, 36], [0, 0, 10], [0, 0, 35]], dtype=float)
    second = np.array([[0, -2, 10], [0, -1, 10], [0, 0, 10], [0, 0, 36], [0, 0, 10]], dtype=float)
    np.testing.assert_array_equal(kept_points(first, second, ground=False), [False, True, False, False, False])
    np.testing.assert_array_equal(kept_points(first, second, ground=True), [True, True, False, False, False])


def test_movers_need_half_a_metre_a_second_beyond_what_disparity_can_tell():
    rng = np.random.default_rng(0)
    first = rng.uniform([-15, -2, 5], [15, 3, 60], (8000, 3))
    second = first + [0, 0, -0.5]
    limit = 0.05 + 2 / 256 * first[:, 2] ** 2 / (721.5 * 0.54)
    second[:1000, 0] += np.where(np.arange(1000) % 2, 1.3, 0.7) * limit[:1000]
    moves, T = moving_points(first, second)
    np.testing.assert_allclose(T[:3, 3], [0, 0, -0.5], atol=5e-3)
    expected = np.zeros(8000, dtype=bool)
    expected[1:1000:2] = True
    np.testing.assert_array_equal(moves, expected)
    # What the data set says comes first.
    given = np.arange(8000) < 500
    moves, T = moving_points(first, second, given)
    np.testing.assert_array_equal(moves, given)
    assert moving_points(first[:5], second[:5]) == (None, None)


def test_objects_of_the_data_set_say_who_moves(training):
    objects = np.zeros(KITTI_SIZE, dtype=np.uint8)
    objects[:, :300] = 3
    (training / "obj_map").mkdir()
    assert cv2.imwrite(str(training / "obj_map" / "000000_10.png"), objects)
    reader = opened(f"{training}?ground=1")
    pair, dynamic = reader[0], reader.truth(0).dynamic
    u = pair.camera.cx - pair.camera.fx * pair.source[:, 0] / pair.source[:, 2] + 22 / pair.source[:, 2]
    np.testing.assert_array_equal(dynamic, np.rint(u) < 300)
    assert not np.array_equal(reader.truth(1).dynamic, dynamic[: len(reader.truth(1).dynamic)])
    write_png(training / "obj_map" / "000000_10.png", np.zeros((5, 5), dtype=np.uint16))
    with pytest.raises(DataError, match=r"obj_map/000000_10\.png: is of shape \(5, 5\)"):
        opened(training).truth(0)


def test_draws_are_independent_and_repeat(training):
    whole, drawn = opened(training), opened(f"{training}?points=500&seed=4")
    pair, truth = drawn[1], drawn.truth(1)
    assert len(pair.source) == len(pair.target) == len(truth.flow) == 500
    rows = {tuple(point): i for i, point in enumerate(whole[1].source)}
    of_source = np.array([rows[tuple(point)] for point in pair.source])
    np.testing.assert_array_equal(truth.flow, whole.truth(1).flow[of_source])
    np.testing.assert_array_equal(truth.dynamic, whole.truth(1).dynamic[of_source])
    ends = {tuple(point): i for i, point in enumerate(whole[1].target)}
    of_target = np.array([ends[tuple(point)] for point in pair.target])
    assert len(set(of_source)) == 500
    # About n/R of the rows agree by chance, not all.
    assert (of_source == of_target).mean() < 0.02
    np.testing.assert_array_equal(opened(f"{training}?points=500&seed=4", select="1:2")[0].source, pair.source)
    assert not np.array_equal(opened(f"{training}?points=500&seed=5")[1].source, pair.source)
    assert len(opened(f"{training}?points=1000000")[1].source) == len(whole[1].source)


def test_a_list_picks_scenes(training, tmp_path):
    (tmp_path / "map.txt").write_text("2011_09_26 a 1\n\n2011_09_26 b 2\n\n")
    reader = opened(f"{training}?list={tmp_path / 'map.txt'}")
    assert [reader.key(i) for i in range(len(reader))] == ["000000", "000002"]
    (tmp_path / "map.txt").write_text("\n\n\nx\n")
    with pytest.raises(DataError, match="lists none of the 3 scenes"):
        opened(f"{training}?list={tmp_path / 'map.txt'}")
    with pytest.raises(DataError, match="no such file"):
        opened(f"{training}?list={tmp_path / 'none.txt'}")


def test_missing_and_damaged_files_are_named(training):
    (training / "flow_occ" / "000001_10.png").unlink()
    with pytest.raises(DataError, match=r"flow_occ/000001_10\.png: no such file"):
        opened(training)
    reader = opened(training, skip_bad=True)
    assert list(reader.bad) == [1]
    assert len(reader[2].source) > 500
    with pytest.raises(DataError, match="no such file"):
        reader[1]
    with pytest.raises(DataError, match="disp_noc_0: holds no"):
        opened(f"{training}?maps=noc")
    with pytest.raises(DataError, match="option 'maps' cannot be 'all': say occ or noc"):
        opened(f"{training}?maps=all")
    assert len(SPEC.check(str(training))) == 1


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("disp_occ_1/000000_10.png", np.zeros((20, 30), np.uint16), r"is of size \(30, 20\), the first disparity"),
        ("disp_occ_0/000000_10.png", np.zeros((188, 620, 3), np.uint16), "must be one 16-bit channel"),
        ("flow_occ/000000_10.png", np.zeros((188, 620), np.uint16), "flow must be three 16-bit channels"),
        ("flow_occ/000000_10.png", np.zeros((188, 620, 3), np.uint16), "leaves no point within 35 m"),
        ("calib_cam/000000.txt", "P_rect_01: 1\n", "has no line P_rect_02"),
        ("calib_cam/000000.txt", "P_rect_02: 1 2\n", "line 1: P_rect_02 must be 12 numbers, found 2"),
        ("calib_cam/000000.txt", "P_rect_02: " + "0 " * 12, "focal length that is not positive"),
    ],
)
def test_wrong_content_is_named(training, file, content, words):
    if isinstance(content, str):
        (training / file).write_text(content)
    else:
        write_png(training / file, content)
    with pytest.raises(DataError, match=words):
        opened(training)[0]


def test_files_of_kitti_are_decoded_to_the_last_bit(tmp_path):
    write_png(tmp_path / "d.png", np.array([[0, 1, 256, 65534]], dtype=np.uint16))
    np.testing.assert_array_equal(read_disparity(tmp_path / "d.png"), [[0, 1 / 256, 1, 65534 / 256]])
    # A PNG is written as blue, green, red here: valid, v, u.
    write_png(tmp_path / "f.png", np.array([[[1, 32768 - 64, 32768 + 32], [0, 0, 0]]], dtype=np.uint16))
    flow, known = read_flow(tmp_path / "f.png")
    np.testing.assert_array_equal(flow[0, 0], [0.5, -1])
    np.testing.assert_array_equal(known, [[True, False]])


def test_real_scenes(shared_data):
    root = shared_data / "kitti_scene_flow"
    assert (SPEC.match(str(root)), SPEC.match(str(root / "training"))) == (0.94, 0.95)
    reader = opened(root)
    assert [reader.key(i) for i in range(len(reader))] == ["000002", "000003"]
    for i, (count, zero_m, moving, forward_m) in enumerate(
        [(40526, 0.375, 0.250, 0.322), (33748, 0.467, 0.248, 0.428)]
    ):
        pair, truth = reader[i], reader.truth(i)
        assert len(pair.source) == len(pair.target) == count
        assert np.linalg.norm(truth.flow, axis=1).mean() == pytest.approx(zero_m, abs=0.001)
        assert truth.dynamic.mean() == pytest.approx(moving, abs=0.001)
        T = truth.T_target_source
        assert T[2, 3] == pytest.approx(-forward_m, abs=0.001)
        still = ~truth.dynamic
        residual = np.linalg.norm(transform(T, pair.source) - pair.source - truth.flow, axis=1)
        # Standing points follow one motion to a centimetre, movers are half a metre off: nothing lies between.
        assert residual[still].max() < 0.02
        assert residual[truth.dynamic].min() > 0.3
        assert np.abs(pair.source[:, :2]).max() < 35
        assert pair.source[:, 2].min() > 3
        assert pair.camera.fx == pytest.approx(721.5377)
    assert opened(f"{root}?maps=noc")[0].source.shape == (39879, 3)
    mapping = shared_data / "hplflownet_lists" / "KITTI_mapping.txt"
    assert len(listed_scenes(mapping)) == 142
    assert len(opened(f"{root}?list={mapping}")) == 2
    assert SPEC.check(str(root)) == []
