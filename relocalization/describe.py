# SPDX-License-Identifier: Apache-2.0
"""What a landmark looks like from somewhere: rendered from its field, or taken from its observations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from relocalization.config import Description
from relocalization.landmark_map import LandmarkMap
from relocalization.tracks import median_descriptors

Float = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Appearance:
    """Descriptors to be matched, and the landmark that each belongs to.

    Attributes:
        landmark: (K,) index into the map; one landmark may appear more than once.
        descriptors: (K, C) float32.
    """

    landmark: Ints
    descriptors: torch.Tensor


@dataclass(frozen=True)
class Viewpoint:
    """How a camera centre lies to every landmark's observations.

    Attributes:
        nearest: (N,) the observation from the most similar direction.
        angle_deg: (N,) angle between that direction and the new one.
        distance_ratio: (N,) >= 1, factor between the new distance and the nearest of the observed distances.
    """

    nearest: Ints
    angle_deg: Float
    distance_ratio: Float


class Describer:
    """Descriptors of the landmarks of one map, seen from anywhere."""

    def __init__(self, landmarks: LandmarkMap, source: Description, cone_deg: float) -> None:
        self.map = landmarks
        self.source = source
        self.cone_deg = cone_deg

    @cached_property
    def _observed(self) -> tuple[Float, Float]:
        """Unit direction camera -> landmark (M, 3) and distance (M,) of every observation."""
        centers = self.map.images.T_world_cam[self.map.tracks.image, :3, 3]
        ray = self.map.points[self.map.tracks.track] - centers
        distance = np.linalg.norm(ray, axis=1)
        return ray / distance[:, None], distance

    @cached_property
    def median(self) -> torch.Tensor:
        """(N, C) float32 per-channel median of each landmark's observed descriptors, unit norm (card, step 3)."""
        return torch.from_numpy(median_descriptors(self.map.tracks, self.map.descriptors))

    def viewpoint(self, center_world: Float) -> Viewpoint:
        """Relate a camera centre (3,) to all observations."""
        tracks, (direction, distance) = self.map.tracks, self._observed
        if not len(self.map):
            return Viewpoint(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
        ray = self.map.points - center_world
        new_distance = np.linalg.norm(ray, axis=1)
        ray /= np.maximum(new_distance, 1e-12)[:, None]
        cosine = np.einsum("ij,ij->i", ray[tracks.track], direction)
        best = np.maximum.reduceat(cosine, tracks.start[:-1])
        is_best = cosine == best[tracks.track]
        first = np.where(is_best, np.arange(len(cosine)), len(cosine))
        nearest = np.minimum.reduceat(first, tracks.start[:-1])
        factor = np.abs(np.log(np.maximum(new_distance, 1e-12)[tracks.track] / distance))
        ratio = np.exp(np.minimum.reduceat(factor, tracks.start[:-1]))
        return Viewpoint(nearest, np.degrees(np.arccos(np.clip(best, -1, 1))), ratio)

    def appearance(self, center_world: Float, index: Ints, view: Viewpoint) -> Appearance:
        """Descriptors of the landmarks ``index`` (K,) as a camera at ``center_world`` (3,) should see them."""
        if self.source == "median":
            return Appearance(index, self.median[torch.from_numpy(index)])
        if self.source == "nearest":
            return Appearance(index, self._observation(view.nearest[index]))
        if self.source == "all":
            start, stop = self.map.tracks.start[index], self.map.tracks.start[index + 1]
            owner = np.repeat(index, stop - start)
            rows = np.concatenate([np.arange(a, b) for a, b in zip(start, stop)] or [np.zeros(0, np.int64)])
            return Appearance(owner, self._observation(rows.astype(np.int64)))
        rendered = self.map.grids.render_from(center_world, torch.from_numpy(index), self.map.marching)
        # A field says nothing about directions that no view came from (card, trap 12).
        outside = np.flatnonzero(view.angle_deg[index] > self.cone_deg)
        rendered[torch.from_numpy(outside)] = self._observation(view.nearest[index[outside]])
        return Appearance(index, rendered)

    def _observation(self, rows: Ints) -> torch.Tensor:
        return torch.from_numpy(self.map.descriptors[rows]).float()
