# SPDX-License-Identifier: Apache-2.0
"""Tracks that a data set brings with it, such as a COLMAP model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from relocalization.tracks import Tracks
from vision3d.contracts import Reader
from vision3d.errors import UserError


def imported_tracks(
    train: Reader, names: Sequence[str], keypoints: Sequence[NDArray[np.float64]], radius_px: float = 3.0
) -> Tracks:
    """The data set's tracks, each observation moved to the extractor's nearest key point.

    The descriptors of a map are those of its extractor, so an observation without a key point within ``radius_px``
    is left out, and so is a track with fewer than two observations left.

    Args:
        train: a reader with a method ``tracks()`` that returns arrays ``point`` (M,), ``frame`` (M,), ``uv_px`` (M, 2)
            and the ``names`` that ``frame`` refers to.
        names: names of the map images.
        keypoints: (N_i, 2) pixels per map image.

    Raises:
        UserError: the reader brings no tracks.
    """
    source: Any = getattr(train, "tracks", None)
    if source is None:
        raise UserError(f"{train.name}: this data set brings no tracks; use --tracks.source pairs")
    found = source()
    position = {name: i for i, name in enumerate(names)}
    image_of = np.array([position.get(name, -1) for name in found.names], dtype=np.int64)
    image = image_of[found.frame]
    keypoint = np.full(len(image), -1, dtype=np.int64)
    for i, points in enumerate(keypoints):
        rows = np.flatnonzero(image == i)
        if len(rows) and len(points):
            distance, nearest = cKDTree(points).query(found.uv_px[rows])
            keypoint[rows] = np.where(distance <= radius_px, nearest, -1)
    use = (image >= 0) & (keypoint >= 0)
    # One observation per track and image; np.unique also sorts by track, then image.
    rows = np.unique(np.stack([found.point[use], image[use], keypoint[use]]), axis=1)
    first = np.ones(len(rows[0]), bool)
    first[1:] = (rows[:2, 1:] != rows[:2, :-1]).any(axis=0)
    point, image, keypoint = rows[:, first]
    _, lengths = np.unique(point, return_counts=True)
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    uv_px = np.zeros((len(image), 2))
    for i, points in enumerate(keypoints):
        uv_px[image == i] = points[keypoint[image == i]]
    return Tracks(start, image, keypoint, uv_px).subset(lengths >= 2)
