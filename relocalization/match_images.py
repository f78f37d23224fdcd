# SPDX-License-Identifier: Apache-2.0
"""Matches between the images of a map: covisible pairs along epipolar lines, or from frame to frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relocalization.config import TrackConfig
from relocalization.covisibility import covisible_pairs, frustum_overlap, scene_depths_m
from relocalization.landmark_map import MapImages
from relocalization.matching import epipolar_nn, mutual_nn
from vision3d.geometry import se3
from vision3d.geometry.epipolar import estimate_relative_pose

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Key points (N, 2) pixels and descriptors (N, C) float32 of one map image."""

    keypoints: NDArray[np.float64]
    descriptors: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PairMatches:
    """Matched key points of images ``a < b``: ``pairs`` (K, 2), cosines (K,)."""

    a: int
    b: int
    pairs: Ints
    similarity: NDArray[np.float32]


def pairs_to_match(images: MapImages, config: TrackConfig) -> Ints:
    """(P, 2) image pairs: covisible ones, or consecutive frames for sequential tracks."""
    n = len(images)
    if config.source == "sequential":
        return np.array([(i, i + 1) for i in range(n - 1)], dtype=np.int64).reshape(-1, 2)
    if n <= config.pairs_per_image + 1:
        # Few images: what the poses say about overlap is a guess, so every pair is tried.
        return np.array([(i, j) for i in range(n) for j in range(i + 1, n)], dtype=np.int64).reshape(-1, 2)
    depths = scene_depths_m(images.cameras, images.T_world_cam)
    return covisible_pairs(frustum_overlap(images.cameras, images.T_world_cam, depths), config.pairs_per_image)


def match_pairs(
    images: MapImages,
    features: Sequence[ImageFeatures],
    pairs: Ints,
    config: TrackConfig,
    similarity: float,
    seed: int = 0,
) -> Iterator[PairMatches]:
    """Match the image pairs one after another.

    Args:
        pairs: (P, 2) as from :func:`pairs_to_match`.
        similarity: smallest cosine, from the config or the extractor.
    """
    ratio = config.ratio if config.ratio < 1 else None
    xy = [c.normalize(f.keypoints) for c, f in zip(images.cameras, features)]
    for a, b in pairs.tolist():
        if config.source == "sequential":
            yield _match_consecutive(images, features, a, b, similarity, seed)
            continue
        T_b_a = se3.invert(images.T_world_cam[b]) @ images.T_world_cam[a]
        focal = (images.cameras[a].focal, images.cameras[b].focal)
        found = epipolar_nn(
            features[a].descriptors,
            xy[a],
            features[b].descriptors,
            xy[b],
            T_b_a,
            focal,
            config.band_px,
            similarity,
            ratio,
        )
        yield PairMatches(a, b, *found)


def _match_consecutive(
    images: MapImages, features: Sequence[ImageFeatures], a: int, b: int, similarity: float, seed: int
) -> PairMatches:
    """The paper's tracking step (card, step 2): mutual neighbours, then RANSAC on the essential matrix."""
    pairs, score = mutual_nn(features[a].descriptors, features[b].descriptors, similarity)
    if len(pairs) >= 8:
        relative = estimate_relative_pose(
            features[a].keypoints[pairs[:, 0]],
            features[b].keypoints[pairs[:, 1]],
            images.cameras[a],
            images.cameras[b],
            max_error_px=2.0,
            seed=seed,
        )
        if relative is not None:
            pairs, score = pairs[relative.inliers], score[relative.inliers]
    return PairMatches(a, b, pairs, score)
