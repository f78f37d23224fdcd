# SPDX-License-Identifier: Apache-2.0
"""Tracks: which key points of which images are the same point of the world."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tracks:
    """Observations grouped by track, as flat arrays: track k owns ``start[k]:start[k + 1]``, images ascending.

    Attributes:
        start: (N + 1,) offsets.
        image: (M,) image of each observation.
        keypoint: (M,) key point within that image; -1 where the observation is none of the extractor's.
        uv_px: (M, 2) pixels.
    """

    start: Ints
    image: Ints
    keypoint: Ints
    uv_px: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def lengths(self) -> Ints:
        """(N,) observations per track."""
        return np.diff(self.start)

    @property
    def track(self) -> Ints:
        """(M,) the track of each observation."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def subset(self, keep: NDArray[np.bool_], observations: NDArray[np.bool_] | None = None) -> Tracks:
        """The tracks where ``keep`` (N,), with only the observations where the mask (M,) is set."""
        chosen = keep[self.track]
        if observations is not None:
            chosen = chosen & observations
        lengths = np.bincount(self.track[chosen], minlength=len(self))[keep]
        start = np.concatenate([[0], np.cumsum(lengths)])
        return Tracks(start, self.image[chosen], self.keypoint[chosen], self.uv_px[chosen])


def median_descriptors(tracks: Tracks, descriptors: NDArray[np.float32] | NDArray[np.float16]) -> NDArray[np.float32]:
    """(N, C) per-channel median of each track's descriptors, unit norm (card, step 3)."""
    out = np.empty((len(tracks), descriptors.shape[1]), np.float32)
    for length in np.unique(tracks.lengths):
        rows = np.flatnonzero(tracks.lengths == length)
        members = tracks.start[rows][:, None] + np.arange(length)
        out[rows] = np.median(descriptors[members].astype(np.float32), axis=1)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def tracks_from_matches(
    matches: Iterable[tuple[int, int, Ints, NDArray[np.float32]]], keypoints: list[NDArray[np.float64]]
) -> Tracks:
    """Join pairwise matches into tracks with at most one key point per image, the surest matches first.

    Plain connected components chain through a single wrong match into tracks that hold two points of one image.
    Joining by falling similarity and refusing every join that would do so keeps the sure part of such a chain.

    Args:
        matches: (image a, image b, (K, 2) key point indices, (K,) similarities) per pair of images.
        keypoints: (N_i, 2) pixels per image.
    """
    offsets = np.concatenate([[0], np.cumsum([len(k) for k in keypoints])]).astype(np.int64)
    edges, weights = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for a, b, pairs, similarity in matches:
        edges.append(pairs + [offsets[a], offsets[b]])
        weights.append(similarity)
    edge = np.concatenate(edges)
    order = np.lexsort((edge[:, 1], edge[:, 0], -np.concatenate(weights)))
    image = np.repeat(np.arange(len(keypoints)), np.diff(offsets))
    root = _join(edge[order].tolist(), image.tolist())
    return _collect(np.asarray(root), image, offsets, keypoints)


def _join(edges: list[list[int]], image: list[int]) -> list[int]:
    """Union-find whose sets remember their images as the bits of one integer."""
    parent = list(range(len(image)))
    images = [1 << i for i in image]

    def find(x: int) -> int:
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    for a, b in edges:
        ra, rb = find(a), find(b)
        if ra != rb and not images[ra] & images[rb]:
            parent[rb] = ra
            images[ra] |= images[rb]
    return [find(x) for x in range(len(parent))]


def _collect(root: Ints, image: Ints, offsets: Ints, keypoints: list[NDArray[np.float64]]) -> Tracks:
    size = np.bincount(root, minlength=len(root)) if len(root) else np.zeros(0, np.int64)
    member = np.flatnonzero(size[root] >= 2) if len(root) else np.zeros(0, np.int64)
    member = member[np.argsort(root[member], kind="stable")]
    lengths = size[size >= 2]
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    uv = np.concatenate([*keypoints, np.zeros((0, 2))])[member]
    return Tracks(start, image[member], member - offsets[image[member]], uv)
