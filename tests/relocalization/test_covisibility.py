# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from simulated_map import CAMERA, Room, looking_at

from relocalization.config import TrackConfig
from relocalization.covisibility import covisible_pairs, frustum_overlap, scene_depths_m
from relocalization.landmark_map import MapImages
from relocalization.match_images import pairs_to_match
from vision3d.geometry import se3

DEPTHS = (2.0, 4.0)


def facing(angle_deg: float) -> np.ndarray:
    """At the origin, looking along z turned by so much about the vertical."""
    pose = np.eye(4)
    pose[:3, :3] = se3.rotvec_to_rotation([0.0, np.radians(angle_deg), 0.0])
    return pose


def test_same_view_overlaps_fully_opposite_view_not_at_all() -> None:
    overlap = frustum_overlap([CAMERA] * 3, np.stack([facing(0), facing(0), facing(180)]), DEPTHS)
    assert overlap[0, 1] == 1 and overlap[0, 2] == 0 == overlap[1, 2]
    assert (np.diag(overlap) == 0).all() and np.array_equal(overlap, overlap.T)


def test_turning_away_lowers_the_overlap_by_the_share_of_the_field_of_view() -> None:
    """Turned by half the horizontal field of view, the middle of one image is the edge of the other."""
    half_fov = np.degrees(np.arctan(0.5 * CAMERA.width / CAMERA.fx))
    angles = [0.0, 0.5 * half_fov, half_fov, 1.5 * half_fov, 2.2 * half_fov]
    overlap = frustum_overlap([CAMERA] * len(angles), np.stack([facing(a) for a in angles]), DEPTHS)[0]
    assert (np.diff(overlap[1:]) < 0).all() and overlap[-1] == 0
    assert 0.3 < overlap[2] < 0.5


def test_cameras_that_face_each_other_share_no_surface() -> None:
    """Their frusta intersect between them, so points alone would call them neighbours."""
    a = looking_at(np.array([0.0, 0.0, -3.0]), np.zeros(3))
    b = looking_at(np.array([0.0, 0.0, 3.0]), np.zeros(3))
    assert frustum_overlap([CAMERA] * 2, np.stack([a, b]), (3.0,))[0, 1] == 0


def test_overlap_does_not_depend_on_the_world_frame() -> None:
    poses = Room.build().images.T_world_cam
    motion = se3.from_rt(se3.rotvec_to_rotation([0.3, -1.0, 2.0]), [5.0, -7.0, 100.0])
    cameras = [CAMERA] * len(poses)
    before, after = frustum_overlap(cameras, poses, DEPTHS), frustum_overlap(cameras, motion @ poses, DEPTHS)
    assert np.allclose(before, after, atol=1e-9)
    assert (before[:8, 8:] == 0).all() and (before[:8, :8].sum(axis=1) > 2).all(), "one wall is not the other"


def test_covisible_pairs_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    overlap = rng.random((9, 9)) * (rng.random((9, 9)) < 0.5)
    overlap = np.minimum(overlap, overlap.T)
    np.fill_diagonal(overlap, 0)
    wanted = set()
    for i in range(9):
        best = sorted(range(9), key=lambda j: (-overlap[i, j], j))[:3]
        wanted |= {(min(i, j), max(i, j)) for j in best if overlap[i, j] >= 0.05}
    assert covisible_pairs(overlap, 3).tolist() == sorted(map(list, wanted))
    assert covisible_pairs(np.zeros((4, 4)), 3).shape == (0, 2)
    assert frustum_overlap([], np.zeros((0, 4, 4)), DEPTHS).shape == (0, 0)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_depths_follow_the_size_of_the_scene(scale: float) -> None:
    poses = Room.build().images.T_world_cam.copy()
    reference = scene_depths_m([CAMERA] * len(poses), poses)
    poses[:, :3, 3] *= scale
    assert np.allclose(scene_depths_m([CAMERA] * len(poses), poses), scale * np.array(reference))
    assert min(scene_depths_m([CAMERA], np.eye(4)[None])) > 0


def test_pairs_by_source() -> None:
    room = Room.build()
    few = MapImages(room.images.names[:5], room.images.cameras[:5], room.images.T_world_cam[:5])
    assert len(pairs_to_match(few, TrackConfig())) == 10, "few images: every pair"
    assert pairs_to_match(few, TrackConfig(source="sequential")).tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    some = pairs_to_match(room.images, TrackConfig(pairs_per_image=4))
    assert (some[:, 0] < some[:, 1]).all() and np.bincount(some.ravel()).min() >= 4
    assert not ((some[:, 0] < 8) & (some[:, 1] >= 8)).any(), "no pair across the room"
