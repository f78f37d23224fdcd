# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from relocalization.tracks import Tracks, tracks_from_matches

Matches = list[tuple[int, int, NDArray[np.int64], NDArray[np.float32]]]


def keypoints_of(counts: list[int], seed: int = 0) -> list[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return [rng.uniform(0, 100, (n, 2)) for n in counts]


def as_sets(tracks: Tracks) -> set[frozenset[tuple[int, int]]]:
    cuts = tracks.start[1:-1]
    pairs = [zip(i.tolist(), k.tolist()) for i, k in zip(np.split(tracks.image, cuts), np.split(tracks.keypoint, cuts))]
    return {frozenset(p) for p in pairs} - {frozenset()}


def garbage(seed: int, n_images: int = 6, n_keypoints: int = 12) -> tuple[Matches, list[NDArray[np.float64]]]:
    """Matches one to one per pair of images but otherwise at random, so full of contradictions."""
    rng = np.random.default_rng(seed)
    matches: Matches = []
    for a in range(n_images):
        for b in range(a + 1, n_images):
            k = int(rng.integers(0, n_keypoints))
            pairs = np.stack([rng.permutation(n_keypoints)[:k], rng.permutation(n_keypoints)[:k]], axis=1)
            matches.append((a, b, pairs.astype(np.int64), rng.random(k).astype(np.float32)))
    return matches, keypoints_of([n_keypoints] * n_images, seed)


def joined_greedily(matches: Matches) -> set[frozenset[tuple[int, int]]]:
    """The definition, on sets: the surest match first, no join that puts two key points of an image together."""
    edges = sorted(
        (-float(s), (a, int(i)), (b, int(j))) for a, b, pairs, score in matches for (i, j), s in zip(pairs, score)
    )
    group: dict[tuple[int, int], frozenset[tuple[int, int]]] = {}
    for _, p, q in edges:
        first, second = group.get(p, frozenset([p])), group.get(q, frozenset([q]))
        union = first | second
        if first != second and len({image for image, _ in union}) == len(union):
            group.update(dict.fromkeys(union, union))
    return {g for g in group.values() if len(g) > 1}


@pytest.mark.parametrize("seed", range(4))
def test_without_contradictions_tracks_are_the_connected_components(seed: int) -> None:
    """Points seen by some images each; a random part of the true matches is found."""
    rng = np.random.default_rng(seed)
    n_images, n_points = 7, 40
    sees = rng.random((n_images, n_points)) < 0.6
    name = np.cumsum(sees, axis=1) - 1  # key point of a point in an image
    shuffle = [rng.permutation(int(row.sum())) for row in sees]
    matches: Matches = []
    rows, cols = [], []
    for a in range(n_images):
        for b in range(a + 1, n_images):
            both = np.flatnonzero(sees[a] & sees[b] & (rng.random(n_points) < 0.3))
            pairs = np.stack([shuffle[a][name[a, both]], shuffle[b][name[b, both]]], axis=1)
            matches.append((a, b, pairs, rng.random(len(both)).astype(np.float32)))
            rows += [a * 1000 + i for i in pairs[:, 0]]
            cols += [b * 1000 + j for j in pairs[:, 1]]
    graph = coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(8000, 8000))
    _, label = connected_components(graph, directed=False)
    groups: dict[int, set[tuple[int, int]]] = {}
    for node in set(rows + cols):
        groups.setdefault(int(label[node]), set()).add((node // 1000, node % 1000))
    keypoints = keypoints_of([int(row.sum()) for row in sees])
    tracks = tracks_from_matches(matches, keypoints)
    assert as_sets(tracks) == {frozenset(g) for g in groups.values()}
    assert len(tracks) == len(groups)
    for image, keypoint, uv in zip(tracks.image, tracks.keypoint, tracks.uv_px):
        assert np.array_equal(uv, keypoints[image][keypoint])


@pytest.mark.parametrize("seed", range(6))
def test_contradictions_are_joined_as_the_definition_says(seed: int) -> None:
    matches, keypoints = garbage(seed)
    tracks = tracks_from_matches(matches, keypoints)
    assert as_sets(tracks) == joined_greedily(matches)
    pairs = np.stack([tracks.track, tracks.image])
    assert len(np.unique(pairs, axis=1).T) == len(tracks.image), "two key points of an image in one track"
    inner = np.diff(tracks.track) == 0
    assert (np.diff(tracks.image)[inner] > 0).all(), "images ascend within a track"
    assert (tracks.lengths >= 2).all()


def test_a_wrong_match_does_not_chain_two_tracks() -> None:
    """Two points seen by images 0, 1 and 2; one weak match confuses them."""
    right = np.array([[0, 0], [1, 1]])
    sure = np.array([0.95, 0.9], np.float32)
    wrong = np.array([[0, 1]])
    matches: Matches = [(0, 1, right, sure), (1, 2, right, sure), (0, 2, wrong, np.array([0.7], np.float32))]
    tracks = tracks_from_matches(matches, keypoints_of([2, 2, 2]))
    assert as_sets(tracks) == {frozenset([(0, k), (1, k), (2, k)]) for k in (0, 1)}


def test_order_of_the_pairs_does_not_matter() -> None:
    matches, keypoints = garbage(3)
    matches = [(a, b, pairs, np.round(score, 1)) for a, b, pairs, score in matches]  # many ties
    first = tracks_from_matches(matches, keypoints)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(matches))
        again = tracks_from_matches((matches[i] for i in order), keypoints)
        for name in ("start", "image", "keypoint", "uv_px"):
            assert getattr(again, name).tobytes() == getattr(first, name).tobytes()


@pytest.mark.parametrize("counts", [[], [0, 0], [5, 0, 3]])
def test_no_match_gives_no_track(counts: list[int]) -> None:
    none = [(0, 1, np.zeros((0, 2), np.int64), np.zeros(0, np.float32))] if len(counts) > 1 else []
    tracks = tracks_from_matches(none, keypoints_of(counts))
    assert len(tracks) == 0 and tracks.uv_px.shape == (0, 2) and tracks.track.shape == (0,)


def test_subset_equals_a_loop() -> None:
    matches, keypoints = garbage(1)
    tracks = tracks_from_matches(matches, keypoints)
    rng = np.random.default_rng(0)
    keep, observed = rng.random(len(tracks)) < 0.5, rng.random(len(tracks.image)) < 0.7
    part = tracks.subset(keep, observed)
    assert len(part) == keep.sum()
    for new, old in enumerate(np.flatnonzero(keep)):
        rows = np.arange(tracks.start[old], tracks.start[old + 1])
        rows = rows[observed[rows]]
        own = slice(part.start[new], part.start[new + 1])
        assert np.array_equal(part.keypoint[own], tracks.keypoint[rows])
        assert np.array_equal(part.uv_px[own], tracks.uv_px[rows])
