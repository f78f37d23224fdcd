# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from room_reader import SIFT, Part, build_map, room
from simulated_map import Context

from relocalization.config import FavorConfig
from relocalization.extend import extend_map
from relocalization.features.base import make_extractor
from relocalization.landmark_map import LandmarkMap
from relocalization.localize import Localizer
from vision3d.errors import UserError
from vision3d.geometry import se3
from vision3d.voxels.marching import Marching

OLD, NEW = [0, 1, 2, 3, 4], [6, 7, 8]


@pytest.fixture(scope="module")
def old() -> LandmarkMap:
    return build_map(Part(room(12), OLD))


def extended(old: LandmarkMap, frames: list[int], config: FavorConfig = SIFT) -> tuple[LandmarkMap, Context]:
    context = Context()
    return extend_map(old, Part(room(12), frames), config, make_extractor(config.features), context), context


@pytest.fixture(scope="module")
def grown(old: LandmarkMap) -> LandmarkMap:
    return extended(old, NEW)[0]


def test_known_landmarks_gain_views_and_new_ones_are_added(old: LandmarkMap, grown: LandmarkMap) -> None:
    n = len(old)
    assert len(grown) > n + 20
    assert (grown.tracks.lengths[:n] >= old.tracks.lengths).all()
    assert (grown.tracks.lengths[:n] > old.tracks.lengths).mean() > 0.3
    assert grown.images.names == tuple(f"frame-{i:06d}" for i in OLD + NEW)
    fresh = grown.tracks.subset(np.arange(len(grown)) >= n)
    assert fresh.image.min() >= len(OLD)
    assert len(grown.descriptors) == len(grown.tracks.image) == grown.tracks.start[-1]
    for k in range(len(grown)):
        own = grown.tracks.image[grown.tracks.start[k] : grown.tracks.start[k + 1]]
        assert (np.diff(own) > 0).all()


def test_old_observations_are_all_kept(old: LandmarkMap, grown: LandmarkMap) -> None:
    part = grown.tracks.subset(np.arange(len(grown)) < len(old), grown.tracks.image < len(OLD))
    assert np.array_equal(part.start, old.tracks.start)
    assert np.array_equal(part.uv_px, old.tracks.uv_px)
    assert np.array_equal(part.keypoint, old.tracks.keypoint)
    rows = (grown.tracks.image < len(OLD)) & (grown.tracks.track < len(old))
    assert grown.descriptors[rows].tobytes() == old.descriptors.tobytes()


def test_landmarks_without_a_new_view_keep_every_byte(old: LandmarkMap, grown: LandmarkMap) -> None:
    same = np.flatnonzero(grown.tracks.lengths[: len(old)] == old.tracks.lengths)
    assert len(same) > 20
    index = torch.from_numpy(same)
    assert grown.points[same].tobytes() == old.points[same].tobytes()
    assert grown.covariance[same].tobytes() == old.covariance[same].tobytes()
    assert torch.equal(grown.grids.values[index], old.grids.values[index])
    assert torch.equal(grown.grids.half_sizes[index], old.grids.half_sizes[index])
    assert torch.equal(grown.grids.density, old.grids.density)


def test_observations_lie_where_the_landmarks_project(grown: LandmarkMap) -> None:
    tracks, images = grown.tracks, grown.images
    for i, (camera, pose) in enumerate(zip(images.cameras, images.T_world_cam)):
        rows = np.flatnonzero(tracks.image == i)
        projected = camera.project(se3.transform(se3.invert(pose), grown.points[tracks.track[rows]]))
        error = np.linalg.norm(projected - tracks.uv_px[rows], axis=1)
        assert np.median(error) < 0.6
        assert error.max() < 8


def test_key_points_are_those_of_the_extractor(grown: LandmarkMap) -> None:
    """Also those of new landmarks, which were found among the key points that no old landmark explains."""
    reader, extractor = room(12), make_extractor(SIFT.features)
    for i, frame in enumerate(OLD + NEW):
        rows = grown.tracks.image == i
        keypoints = extractor(reader[frame].image).keypoints
        assert np.abs(keypoints[grown.tracks.keypoint[rows]] - grown.tracks.uv_px[rows]).max() < 1e-4


def test_the_grown_map_reaches_where_the_old_one_does_not(old: LandmarkMap, grown: LandmarkMap) -> None:
    reader, extractor = room(12), make_extractor(SIFT.features)
    before, after = (Localizer(m, extractor, SIFT.localize)(reader[9]) for m in (old, grown))
    assert after.T_world_cam is not None
    true = reader.truth(9).T_world_cam  # type: ignore[union-attr]
    assert np.linalg.norm(after.T_world_cam[:3, 3] - true[:3, 3]) < 0.06
    assert after.n_inliers > 1.2 * before.n_inliers


def test_an_image_cannot_be_added_twice(old: LandmarkMap, grown: LandmarkMap) -> None:
    for landmarks, frames in ((old, [4, 6]), (grown, [7, 8])):
        with pytest.raises(UserError, match="in the map already") as error:
            extended(landmarks, frames)
        assert "\n" not in str(error.value)
        assert f"frame-{frames[0]:06d}" in str(error.value)


def test_one_image_is_enough_to_extend_a_map(old: LandmarkMap) -> None:
    grown, _ = extended(old, [5])
    assert len(grown) == len(old), "one view makes no landmark"
    assert (grown.tracks.lengths > old.tracks.lengths).mean() > 0.3


def test_extension_follows_the_map_whatever_the_configuration_says(old: LandmarkMap) -> None:
    """Density, sampling and resolution of the fields are the map's; others would render wrong descriptors."""
    opposite = "view" if old.grids.axes is None else "world"
    other = replace(SIFT, fit=replace(SIFT.fit, density=3.0, resolution=2, marching=Marching(step=0.5), axes=opposite))
    plain, odd = extended(old, NEW)[0], extended(old, NEW, other)[0]
    assert odd.marching == old.marching
    assert torch.equal(odd.grids.values, plain.grids.values)
    assert torch.equal(odd.grids.density, plain.grids.density)
    assert (odd.grids.axes is None) == (old.grids.axes is None)


def test_turned_boxes_stay_turned(old: LandmarkMap) -> None:
    config = replace(SIFT, fit=replace(SIFT.fit, axes="view"))
    turned = build_map(Part(room(12), OLD), config)
    grown, _ = extended(turned, NEW, config)
    assert turned.grids.axes is not None
    assert grown.grids.axes is not None
    same = np.flatnonzero(grown.tracks.lengths[: len(turned)] == turned.tracks.lengths)
    assert torch.equal(grown.grids.axes[torch.from_numpy(same)], turned.grids.axes[torch.from_numpy(same)])
