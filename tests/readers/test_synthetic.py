# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.se3 import invert, pose_problem, transform
from vision3d.readers._room import Room
from vision3d.readers._room_model import N_WALLS, SIZE_M
from vision3d.readers.synthetic import SPEC, trajectory


def lifted(frame, T):
    """World points (H, W, 3) of a frame's depth."""
    v, u = np.mgrid[: frame.camera.height, : frame.camera.width]
    rays = np.concatenate([frame.camera.normalize(np.stack([u, v], -1)), np.ones((*u.shape, 1))], -1)
    return transform(T, rays * frame.depth_m[..., None].astype(np.float64))


def test_depth_equals_casting_every_ray_against_every_plane(small):
    room = Room(0)
    frame, T = small[2]
    camera = frame.camera
    rng = np.random.default_rng(0)
    for u, v in rng.integers([0, 0], [camera.width, camera.height], (300, 2)):
        ray = T[:3, :3] @ np.array([*camera.normalize([float(u), float(v)]), 1.0])
        nearest = np.inf
        for quad in room.quads:
            slope = quad.normal @ ray
            if slope >= 0:
                continue
            z = quad.normal @ (quad.origin - T[:3, 3]) / slope
            hit = T[:3, 3] + z * ray - quad.origin
            inside = -1e-9 <= hit @ quad.right <= quad.width + 1e-9 and -1e-9 <= hit @ quad.down <= quad.height + 1e-9
            if z > 0 and inside:
                nearest = min(nearest, z)
        assert frame.depth_m[v, u] == pytest.approx(nearest, rel=1e-6)


def test_every_pixel_lies_in_the_room(small):
    for frame, T in small:
        points = lifted(frame, T)
        assert (np.abs(points[..., :2]) <= SIZE_M[:2] / 2 + 1e-5).all()
        assert (points[..., 2] >= -1e-5).all()
        assert (points[..., 2] <= SIZE_M[2] + 1e-5).all()


def test_two_views_show_the_same_colour_at_the_same_point(small):
    (a, T_a), (b, T_b) = small[0], small[3]
    points = lifted(a, T_a)
    in_b = transform(invert(T_b), points)
    uv = b.camera.project(in_b).astype(np.float32)
    warped = cv2.remap(b.image, uv[..., 0], uv[..., 1], cv2.INTER_LINEAR)
    depth_b = cv2.remap(b.depth_m, uv[..., 0], uv[..., 1], cv2.INTER_NEAREST)
    visible = b.camera.contains(uv, border=1.0) & (np.abs(depth_b - in_b[..., 2]) < 0.02)
    assert visible.mean() > 0.5
    error = np.abs(warped.astype(float) - a.image)[visible]
    assert np.median(error) < 4
    wrong = np.abs(np.roll(warped, 3, axis=1).astype(float) - a.image)[visible]
    assert error.mean() < 0.6 * wrong.mean()  # and three pixels away they do not agree


def test_features_are_repeatable_to_a_third_of_a_pixel(vga):
    (a, T_a), (b, T_b) = vga[0], vga[3]
    sift = cv2.SIFT_create(1000)
    (ka, da), (kb, db) = (sift.detectAndCompute(cv2.cvtColor(f.image, cv2.COLOR_RGB2GRAY), None) for f in (a, b))
    points = lifted(a, T_a)
    errors = []
    for match in cv2.BFMatcher(crossCheck=True).match(da, db):
        u, v = ka[match.queryIdx].pt
        # Exact where the neighbourhood is one plane: intersect the ray with the plane through three pixels.
        p, q, r = points[int(v), int(u)], points[int(v), int(u) + 1], points[int(v) + 1, int(u)]
        normal = np.cross(q - p, r - p)
        ray = T_a[:3, :3] @ a.camera.rays([u, v])
        point = T_a[:3, 3] + ray * (normal @ (p - T_a[:3, 3])) / (normal @ ray)
        errors.append(np.linalg.norm(b.camera.project(transform(invert(T_b), point)) - kb[match.trainIdx].pt))
    errors = np.array(errors)
    good = errors < 3
    assert good.sum() > 300
    assert np.median(errors[good]) < 0.34


def test_walls_are_seen_from_inside_and_photographs_are_not_mirrored():
    for quad in Room(0).quads[:N_WALLS]:
        centre = quad.origin + quad.right * quad.width / 2 + quad.down * quad.height / 2
        assert quad.normal @ (np.array([0, 0, SIZE_M[2] / 2]) - centre) > 0
        np.testing.assert_allclose(np.cross(quad.right, quad.down), -quad.normal, atol=1e-12)


def test_same_options_same_bytes_and_other_seeds_other_rooms():
    def bytes_of(source, index):
        frame = SPEC.open(source, DataConfig())[index]
        return frame.image.tobytes() + frame.depth_m.tobytes()

    base = "synthetic:room?width=80&height=60&frames="
    assert bytes_of(base + "3", 1) == bytes_of(base + "3", 1)
    assert bytes_of(base + "3", 1) == bytes_of(base + "9", 1)  # a longer run only adds frames
    assert bytes_of(base + "3", 1) != bytes_of(base + "3&seed=1", 1)


def test_noise_has_the_asked_strength():
    clean = SPEC.open("synthetic:room?frames=1&noise=0", DataConfig())[0].image.astype(float)
    noisy = SPEC.open("synthetic:room?frames=1&noise=5", DataConfig())[0].image
    middle = (clean > 30) & (clean < 225)
    assert np.std((noisy - clean)[middle]) == pytest.approx(5.0, rel=0.05)


def test_splits_take_turns_and_cover_everything():
    def keys(**options):
        reader = SPEC.open("synthetic:room?frames=7", DataConfig(**options))
        return [reader.key(i) for i in range(len(reader))]

    train, test = keys(split="train"), keys(split="test")
    assert (len(train), len(test)) == (4, 3)
    assert sorted(train + test) == keys()
    assert keys(select="1::2") == test
    with pytest.raises(ConfigError, match="splits all, train and test, not 'val'"):
        keys(split="val")


def test_options_change_the_camera(small):
    reader = SPEC.open("synthetic:room?frames=2&width=200&height=100&fov_deg=90", DataConfig())
    frame = reader[1]
    assert frame.image.shape == (100, 200, 3)
    assert frame.camera.params == pytest.approx((100, 100, 99.5, 49.5))
    assert frame.stamp_ns == 33_333_333
    assert small[0][0].camera.width == 160


def test_trajectory_is_smooth_valid_and_inside():
    poses = trajectory(400, seed=3)
    assert all(pose_problem(T, 1e-9) == "" for T in poses)
    assert (np.abs(poses[:, :2, 3]) < SIZE_M[:2] / 2 - 0.3).all()
    assert np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).max() < 0.15
    turns = np.einsum("nij,nij->n", poses[1:, :3, :3], poses[:-1, :3, :3])
    assert np.degrees(np.arccos((turns - 1) / 2)).max() < 8
    np.testing.assert_array_equal(trajectory(10, seed=3), poses[:10])


def test_other_scenes_and_bad_options_are_refused():
    with pytest.raises(DataError, match="one synthetic scene"):
        SPEC.open("synthetic:castle", DataConfig())
    with pytest.raises(DataError, match="did you mean 'frames'"):
        SPEC.open("synthetic:room?frame=3", DataConfig())
    with pytest.raises(DataError, match="must lie between"):
        SPEC.open("synthetic:room?frames=0", DataConfig())
    assert SPEC.check("synthetic:room?frames=2") == []
    assert len(SPEC.check("synthetic:cave")) == 1
    assert (SPEC.match("synthetic:room?frames=3"), SPEC.match("/data/room")) == (1.0, 0.0)


def test_a_frame_takes_little_processor_time():
    reader = SPEC.open("synthetic:room?frames=6", DataConfig())
    reader[0]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        times = []
        for i in range(1, 5):
            start = time.process_time()
            reader[i]
            times.append(time.process_time() - start)
    finally:
        cv2.setNumThreads(threads)
    assert min(times) < 0.3  # 0.11 s on an idle core; the limit leaves room for busy machines
