# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from simulated_map import Room

from relocalization.config import Description
from relocalization.describe import Describer
from relocalization.landmark_map import LandmarkMap
from relocalization.tracks import Tracks

CENTERS = [np.array([0.0, 0.0, 0.0]), np.array([1.1, -0.3, 0.4]), np.array([-2.0, 1.0, 2.5])]


@pytest.fixture(scope="module")
def room() -> Room:
    return Room.build(per_wall=60, per_side=6)


@pytest.fixture(scope="module")
def landmarks(room: Room) -> LandmarkMap:
    return room.landmark_map()


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def observations(landmarks: LandmarkMap, k: int) -> range:
    return range(int(landmarks.tracks.start[k]), int(landmarks.tracks.start[k + 1]))


@pytest.mark.parametrize("center", CENTERS)
def test_viewpoint_equals_a_loop(landmarks: LandmarkMap, center: np.ndarray) -> None:
    view = Describer(landmarks, "voxel", 45.0).viewpoint(center)
    for k, point in enumerate(landmarks.points):
        ray = point - center
        rows = observations(landmarks, k)
        rays = [point - landmarks.images.T_world_cam[landmarks.tracks.image[row], :3, 3] for row in rows]
        angles = [angle_deg(ray, r) for r in rays]
        ratios = [np.linalg.norm(ray) / np.linalg.norm(r) for r in rays]
        assert view.angle_deg[k] == pytest.approx(min(angles), abs=1e-5)
        assert angles[view.nearest[k] - rows.start] == pytest.approx(min(angles), abs=1e-5)
        assert view.distance_ratio[k] == pytest.approx(min(max(r, 1 / r) for r in ratios))
        assert view.distance_ratio[k] >= 1


def test_from_an_old_camera_every_landmark_is_seen_from_its_own_observation(landmarks: LandmarkMap) -> None:
    describer = Describer(landmarks, "nearest", 45.0)
    for image in range(len(landmarks.images)):
        view = describer.viewpoint(landmarks.images.T_world_cam[image, :3, 3])
        mine = np.flatnonzero(landmarks.tracks.image == image)
        owner = landmarks.tracks.track[mine]
        assert np.array_equal(view.nearest[owner], mine)
        assert view.angle_deg[owner].max() < 1e-4
        assert np.allclose(view.distance_ratio[owner], 1)


def test_a_camera_on_a_landmark_gives_finite_numbers(landmarks: LandmarkMap) -> None:
    describer = Describer(landmarks, "voxel", 45.0)
    center = landmarks.points[3].copy()
    view = describer.viewpoint(center)
    assert np.isfinite(view.angle_deg).all()
    assert np.isfinite(view.distance_ratio).all()
    assert view.distance_ratio[3] > 1e6, "so it is not visible"
    assert torch.isfinite(describer.appearance(center, np.arange(len(landmarks)), view).descriptors).all()


@pytest.mark.parametrize("center", CENTERS)
def test_baselines_equal_loops(landmarks: LandmarkMap, center: np.ndarray) -> None:
    index = np.array([5, 0, 17, 5])
    observed = landmarks.descriptors.astype(np.float32)
    looks = {}
    for source in get_args(Description):
        describer = Describer(landmarks, source, 45.0)
        looks[source] = describer.appearance(center, index, describer.viewpoint(center))
    assert looks["nearest"].landmark.tolist() == index.tolist() == looks["median"].landmark.tolist()
    owners, rows = [], []
    for position, k in enumerate(index):
        own = observations(landmarks, k)
        ray = landmarks.points[k] - center
        rays = [landmarks.points[k] - landmarks.images.T_world_cam[landmarks.tracks.image[r], :3, 3] for r in own]
        nearest = own[int(np.argmin([angle_deg(ray, r) for r in rays]))]
        assert np.array_equal(looks["nearest"].descriptors[position].numpy(), observed[nearest])
        median = np.median(observed[own.start : own.stop], axis=0)
        median /= np.linalg.norm(median)
        assert np.allclose(looks["median"].descriptors[position].numpy(), median, atol=1e-6)
        owners += [int(k)] * len(own)
        rows += list(own)
    assert looks["all"].landmark.tolist() == owners
    assert np.array_equal(looks["all"].descriptors.numpy(), observed[rows])


def test_the_median_does_not_depend_on_padding(landmarks: LandmarkMap) -> None:
    describer = Describer(landmarks, "median", 45.0)
    observed = landmarks.descriptors.astype(np.float32)
    for k in range(len(landmarks)):
        wanted = np.median(observed[landmarks.tracks.start[k] : landmarks.tracks.start[k + 1]], axis=0)
        assert np.allclose(describer.median[k].numpy(), wanted / np.linalg.norm(wanted), atol=1e-5)


@pytest.mark.parametrize("cone_deg", [0.0, 10.0, 180.0])
def test_outside_the_cone_the_nearest_observation_stands_in(landmarks: LandmarkMap, cone_deg: float) -> None:
    """Card, trap 12: a field says nothing about directions that no view came from."""
    center = np.array([1.9, 0.6, 0.9])
    describer = Describer(landmarks, "voxel", cone_deg)
    view, index = describer.viewpoint(center), np.arange(len(landmarks))[::-1].copy()
    look = describer.appearance(center, index, view).descriptors
    rendered = landmarks.grids.render_from(center, torch.from_numpy(index), landmarks.marching)
    observed = torch.from_numpy(landmarks.descriptors[view.nearest[index]]).float()
    outside = torch.from_numpy(view.angle_deg[index] > cone_deg)
    assert torch.equal(look[outside], observed[outside])
    assert torch.equal(look[~outside], rendered[~outside])
    if cone_deg == 10.0:
        assert 20 < int(outside.sum()) < len(index) - 20, "both kinds are there"
    if cone_deg == 180.0:
        assert not outside.any()


def test_rendered_descriptors_come_closer_to_the_truth_than_the_median(room: Room, landmarks: LandmarkMap) -> None:
    """Between the views; the descriptors of the room turn with the direction."""
    center = np.array([0.15, 0.05, 0.1])
    front = np.flatnonzero(landmarks.points[:, 2] > 0)
    ids = np.array([np.flatnonzero((room.points == p).all(axis=1))[0] for p in landmarks.points[front]])
    truth = torch.from_numpy(room.descriptors(ids, center))
    mean = {}
    for source in ("voxel", "median"):
        describer = Describer(landmarks, source, 45.0)  # type: ignore[arg-type]
        look = describer.appearance(center, front, describer.viewpoint(center)).descriptors
        mean[source] = float(torch.nn.functional.cosine_similarity(look, truth).mean())
    assert mean["voxel"] > max(mean["median"], 0.98)


@pytest.mark.parametrize("source", get_args(Description))
def test_nothing_visible_gives_nothing(landmarks: LandmarkMap, source: Description) -> None:
    describer = Describer(landmarks, source, 45.0)
    none = np.zeros(0, np.int64)
    look = describer.appearance(np.zeros(3), none, describer.viewpoint(np.zeros(3)))
    assert look.landmark.shape == (0,)
    assert look.descriptors.shape == (0, landmarks.channels)


def test_an_empty_map_has_an_empty_viewpoint(landmarks: LandmarkMap) -> None:
    nothing = np.zeros(0, np.int64)
    empty = replace(
        landmarks,
        points=landmarks.points[:0],
        covariance=landmarks.covariance[:0],
        grids=landmarks.grids.subset(torch.from_numpy(nothing)),
        tracks=Tracks(np.zeros(1, np.int64), nothing, nothing, np.zeros((0, 2))),
        descriptors=landmarks.descriptors[:0],
    )
    describer = Describer(empty, "voxel", 45.0)
    view = describer.viewpoint(np.zeros(3))
    assert len(view.nearest) == len(view.angle_deg) == len(view.distance_ratio) == 0
    assert describer.appearance(np.zeros(3), nothing, view).descriptors.shape == (0, landmarks.channels)
