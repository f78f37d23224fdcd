# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_map import Room

from relocalization.config import LandmarkConfig
from relocalization.mapping import TriangulatedTracks, choose_landmarks, merge_duplicates, triangulate_landmarks
from relocalization.tracks import Tracks

CONFIG = LandmarkConfig(min_views=3)


def complete(room: Room, tracks: Tracks, views: int = 3) -> tuple[Tracks, np.ndarray]:
    """The tracks of at least so many views, and the landmarks they belong to."""
    keep = tracks.lengths >= views
    return tracks.subset(keep), np.flatnonzero(keep)


def test_points_are_exact_without_noise() -> None:
    room = Room.build()
    tracks, ids = complete(room, room.tracks())
    found = triangulate_landmarks(tracks, room.images, CONFIG)
    assert len(found) == len(ids) > 200 and not any(found.rejected.values())
    assert np.abs(found.points - room.points[ids]).max() < 1e-7
    for name in ("start", "image", "keypoint", "uv_px"):
        assert np.array_equal(getattr(found.tracks, name), getattr(tracks, name)), "nothing to cut away"


def test_noise_stays_within_the_stated_covariance() -> None:
    room = Room.build()
    tracks, ids = complete(room, room.tracks(noise_px=0.5))
    found = triangulate_landmarks(tracks, room.images, replace(CONFIG, max_error_px=5.0))
    assert len(found) == len(ids)
    error = found.points - room.points[ids]
    squared = np.einsum("ni,nij,nj->n", error, np.linalg.inv(found.covariance), error)
    assert 2.0 < squared.mean() < 4.5, "3 degrees of freedom"
    assert (squared < 25).mean() > 0.99


def test_observations_that_disagree_are_cut_away() -> None:
    room = Room.build()
    tracks, _ = complete(room, room.tracks(noise_px=0.3), views=5)
    rng = np.random.default_rng(0)
    wrong = np.zeros(len(tracks.image), bool)
    wrong[tracks.start[:-1] + rng.integers(0, tracks.lengths)] = True
    angle = rng.uniform(0, 2 * np.pi, wrong.sum())
    uv_px = tracks.uv_px.copy()
    uv_px[wrong] += 25 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    spoiled = Tracks(tracks.start, tracks.image, tracks.keypoint, uv_px)
    found = triangulate_landmarks(spoiled, room.images, CONFIG)
    assert len(found) > 0.95 * len(tracks)
    # the key point of a landmark is its index in the room, so the truth is known whatever was regrouped
    error = np.linalg.norm(found.points - room.points[found.tracks.keypoint[found.tracks.start[:-1]]], axis=1)
    assert np.median(error) < 0.01 and np.quantile(error, 0.95) < 0.05
    bad = {tuple(row) for row in uv_px[wrong].tolist()}
    kept = sum(tuple(row) in bad for row in found.tracks.uv_px.tolist())
    assert kept < 0.02 * wrong.sum()


def test_a_track_of_two_points_is_taken_apart() -> None:
    """The first half of a track's views saw one point, the second half another."""
    room = Room.build(per_side=10)
    tracks, ids = complete(room, room.tracks(), views=8)
    first = np.flatnonzero(tracks.lengths == 10)[:2]
    a, b = (tracks.subset(np.arange(len(tracks)) == k) for k in first)
    joined = Tracks(
        np.array([0, 10]),
        a.image,
        np.concatenate([a.keypoint[:6], b.keypoint[6:]]),
        np.concatenate([a.uv_px[:6], b.uv_px[6:]]),
    )
    found = triangulate_landmarks(joined, room.images, CONFIG)
    assert len(found) == 2 and sorted(found.tracks.lengths.tolist()) == [4, 6]
    for k in range(2):
        own = found.tracks.keypoint[found.tracks.start[k] : found.tracks.start[k + 1]]
        assert len(set(own.tolist())) == 1
        assert np.abs(found.points[k] - room.points[own[0]]).max() < 1e-6


def test_rejected_tracks_are_counted_by_reason() -> None:
    """All images from nearly one place: no parallax; shuffled pixels: no agreement."""
    room = Room.build()
    poses = room.images.T_world_cam.copy()
    poses[:, :3, 3] *= 1e-4
    still = Room(room.points, room.base, room.turn, replace(room.images, T_world_cam=poses), 150, 8)
    tracks, ids = complete(still, still.tracks())
    found = triangulate_landmarks(tracks, still.images, CONFIG)
    assert len(found) == 0 and found.rejected["low_parallax"] == len(tracks)
    tracks, ids = complete(room, room.tracks())
    rng = np.random.default_rng(0)
    noise = Tracks(tracks.start, tracks.image, tracks.keypoint, rng.uniform(0, 240, tracks.uv_px.shape))
    found = triangulate_landmarks(noise, room.images, CONFIG)
    assert sum(found.rejected.values()) > 0.8 * len(tracks)
    assert found.rejected["high_reprojection"] > 0


def test_no_tracks_give_no_landmarks() -> None:
    room = Room.build()
    empty = Tracks(np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2)))
    found = triangulate_landmarks(empty, room.images, CONFIG)
    assert len(found) == 0 and found.points.shape == (0, 3)
    merged, absorbed = merge_duplicates(found, np.zeros((0, 4), np.float32), 0.9)
    assert len(merged) == 0 and absorbed == 0


def landmarks(views: list[list[int]], points: np.ndarray, sigma: float = 0.01) -> TriangulatedTracks:
    """Tracks seen in the given images; key point = 100 * track + position."""
    lengths = [len(v) for v in views]
    keypoint = np.concatenate([100 * k + np.arange(n) for k, n in enumerate(lengths)])
    tracks = Tracks(
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate(views).astype(np.int64),
        keypoint,
        np.stack([keypoint, keypoint], axis=1).astype(np.float64),
    )
    covariance = np.tile(np.eye(3) * sigma**2 / 3, (len(views), 1, 1))  # trace sigma^2
    return TriangulatedTracks(tracks, np.asarray(points, float), covariance, np.full(len(views), 5.0), {})


def cosines(*angles_deg: float) -> np.ndarray:
    """Unit vectors of the plane."""
    a = np.radians(angles_deg)
    return np.stack([np.cos(a), np.sin(a)], axis=1).astype(np.float32)


def test_a_chain_of_duplicates_becomes_one_track() -> None:
    """c is absorbed by b first (most alike), then b, which is shorter, by a."""
    found = landmarks([[0, 1, 2, 3], [4, 5, 6], [7, 8]], np.zeros((3, 3)))
    merged, absorbed = merge_duplicates(found, cosines(0, 12, 14), 0.9)
    assert absorbed == 2 and len(merged) == 1
    assert merged.image.tolist() == list(range(9))
    assert merged.keypoint.tolist() == [0, 1, 2, 3, 100, 101, 102, 200, 201]
    assert np.array_equal(merged.uv_px[:, 0], merged.keypoint)


def test_images_interleave_after_a_merge() -> None:
    found = landmarks([[1, 4], [0, 2, 5], [3, 6]], np.array([[0, 0, 0], [0, 0, 0], [9.0, 0, 0]]))
    merged, absorbed = merge_duplicates(found, cosines(0, 0, 0), 0.9)
    assert absorbed == 1 and merged.lengths.tolist() == [5, 2]
    assert merged.image.tolist() == [0, 1, 2, 4, 5, 3, 6]
    assert merged.keypoint.tolist() == [100, 0, 101, 1, 102, 200, 201]


def test_no_merge_when_one_image_saw_both() -> None:
    """Two equal leaves of a plant; and not by way of a third track either."""
    views = [[0, 1, 2], [2, 3], [4, 5]]
    merged, absorbed = merge_duplicates(landmarks(views[:2], np.zeros((2, 3))), cosines(0, 0), 0.9)
    assert absorbed == 0 and merged.image.tolist() == [0, 1, 2, 2, 3]
    merged, absorbed = merge_duplicates(landmarks(views, np.zeros((3, 3))), cosines(0, 0, 0), 0.9)
    assert absorbed == 1 and sorted(merged.lengths.tolist()) == [2, 5]
    for k in range(2):
        own = merged.image[merged.start[k] : merged.start[k + 1]]
        assert len(set(own.tolist())) == len(own)


@pytest.mark.parametrize(("sigmas", "wanted"), [(2.9, 1), (3.1, 0)])
def test_points_must_agree_within_three_sigma(sigmas: float, wanted: int) -> None:
    gap = sigmas * np.hypot(0.01, 0.01)
    found = landmarks([[0, 1], [2, 3]], np.array([[5.0, 5.0, 5.0], [5.0 + gap, 5.0, 5.0]]))
    assert merge_duplicates(found, cosines(0, 0), 0.9)[1] == wanted


@pytest.mark.parametrize(("angle_deg", "wanted"), [(25.0, 1), (26.5, 0)])
def test_descriptors_must_agree(angle_deg: float, wanted: int) -> None:
    """cos 25 deg = 0.906, cos 26.5 deg = 0.895."""
    assert merge_duplicates(landmarks([[0, 1], [2, 3]], np.zeros((2, 3))), cosines(0, angle_deg), 0.9)[1] == wanted


def test_merging_keeps_every_observation_once() -> None:
    """Many duplicates at random: nothing is lost, and no image is twice in a track (card, trap 6)."""
    rng = np.random.default_rng(0)
    views = [sorted(rng.choice(12, rng.integers(2, 5), replace=False).tolist()) for _ in range(60)]
    found = landmarks(views, 0.004 * rng.normal(size=(60, 3)) + rng.integers(0, 8, (60, 1)))
    merged, absorbed = merge_duplicates(found, cosines(*rng.uniform(0, 40, 60)), 0.9)
    assert absorbed > 10 and len(merged) == 60 - absorbed
    assert sorted(merged.keypoint.tolist()) == sorted(found.tracks.keypoint.tolist())
    for k in range(len(merged)):
        own = merged.image[merged.start[k] : merged.start[k + 1]]
        assert (np.diff(own) > 0).all()


def test_the_best_landmarks_are_chosen_in_their_order() -> None:
    rng = np.random.default_rng(0)
    views = [list(range(n)) for n in rng.integers(2, 6, 30)]
    found = landmarks(views, rng.normal(size=(30, 3)))
    found = replace(found, parallax_deg=rng.uniform(1, 20, 30))
    wanted = sorted(sorted(range(30), key=lambda k: (-len(views[k]), -found.parallax_deg[k]))[:11])
    chosen = choose_landmarks(found, 11)
    assert np.array_equal(chosen.points, found.points[wanted])
    assert chosen.tracks.lengths.tolist() == [len(views[k]) for k in wanted]
    assert choose_landmarks(found, 30) is found
