# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from relocalization.imported import imported_tracks
from vision3d.errors import UserError

KEYPOINTS = [np.array([[10.0, 10.0], [50.0, 50.0]]), np.array([[12.0, 10.0], [80.0, 20.0]]), np.zeros((0, 2))]
NAMES = ("a", "b", "c")


def reader(point: list[int], frame: list[int], uv: list[list[float]], names: tuple[str, ...]) -> SimpleNamespace:
    found = SimpleNamespace(point=np.array(point), frame=np.array(frame), uv_px=np.array(uv), names=names)
    return SimpleNamespace(name="scene", tracks=lambda: found)


def test_observations_move_to_the_nearest_key_point_of_the_image_of_that_name() -> None:
    # The data set lists b before a, and an image that is no map image.
    train = reader(
        [0, 0, 0, 1, 1], [0, 1, 2, 0, 1], [[12.5, 10], [10, 11], [0, 0], [80, 21], [49, 50]], ("b", "a", "elsewhere")
    )
    tracks = imported_tracks(train, NAMES, KEYPOINTS)  # type: ignore[arg-type]
    assert tracks.start.tolist() == [0, 2, 4]
    assert tracks.image.tolist() == [0, 1, 0, 1]
    assert tracks.keypoint.tolist() == [0, 0, 1, 1]
    assert np.array_equal(tracks.uv_px, [[10, 10], [12, 10], [50, 50], [80, 20]])


def test_what_has_no_key_point_nearby_is_left_out_and_so_are_tracks_of_one() -> None:
    train = reader([0, 0, 1, 1, 1], [0, 1, 0, 1, 2], [[10, 10], [30, 30], [51, 50], [80, 20], [5, 5]], NAMES)
    tracks = imported_tracks(train, NAMES, KEYPOINTS)  # type: ignore[arg-type]
    assert tracks.start.tolist() == [0, 2]
    assert tracks.image.tolist() == [0, 1]


def test_an_image_gives_a_track_one_observation() -> None:
    train = reader([0, 0, 0], [0, 0, 1], [[10, 10], [50, 50], [12, 10]], NAMES)
    tracks = imported_tracks(train, NAMES, KEYPOINTS)  # type: ignore[arg-type]
    assert tracks.image.tolist() == [0, 1]
    assert tracks.keypoint.tolist() == [0, 0]


def test_a_reader_without_tracks_is_refused() -> None:
    with pytest.raises(UserError, match="brings no tracks"):
        imported_tracks(SimpleNamespace(name="scene"), NAMES, KEYPOINTS)  # type: ignore[arg-type]
