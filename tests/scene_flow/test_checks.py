# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scene_flow.checks import check_finite, check_plausible
from vision3d.errors import DataError
from vision3d.types import CloudPair


def street(seed: int = 0, n: int = 4000) -> np.ndarray:
    """A flat scan in lidar axes: 60 m by 40 m, 3 m high."""
    rng = np.random.default_rng(seed)
    return (rng.uniform([-30, -20, -2], [30, 20, 1], (n, 3))).astype(np.float32)


def camera(points: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(points[:, [1, 2, 0]])


@pytest.fixture
def pair() -> CloudPair:
    return CloudPair("a -> b", street(0), street(1) + np.float32([1.0, 0.2, 0.0]))


def test_a_sound_pair_passes(pair: CloudPair) -> None:
    check_finite(pair)
    check_plausible(pair)
    check_plausible(replace(pair, source=camera(pair.source), target=camera(pair.target), axes="camera"))


def test_a_room_is_not_flat_and_passes_in_either_axes() -> None:
    rng = np.random.default_rng(0)
    room = rng.uniform([-2, -2.5, 0], [2, 2.5, 2.6], (2000, 3)).astype(np.float32)
    for axes in ("lidar", "camera"):
        check_plausible(CloudPair("room", room, room + np.float32(0.1), axes=axes))


@pytest.mark.parametrize("which", ["source", "target"])
@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.zeros((0, 3), np.float32), "is empty"),
        (np.zeros((5, 2), np.float32), r"shape \(5, 2\), not \(N, 3\)"),
        (np.array([[0, 0, 0], [np.nan, 0, 0], [0, np.inf, 0]], np.float32), "2 of 3 points .* not finite"),
    ],
)
def test_unusable_clouds_are_named(pair: CloudPair, which: str, points: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        check_finite(replace(pair, **{which: points}))
    assert which in str(caught.value)
    assert str(caught.value).startswith("a -> b: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: replace(p, source=1000 * p.source, target=1000 * p.target), "millimetres.*scale=0.001"),
        (lambda p: replace(p, source=p.source / 5000, target=p.target / 5000), "kilometres.*scale=1000"),
        (lambda p: replace(p, target=p.target / 60), "60 times as large"),
        (lambda p: replace(p, target=p.target + np.float32([900, 0, 0])), r"8\d\d.* m apart"),
        (lambda p: replace(p, target=camera(p.target)), "flat along z and the target along y: .*different frames"),
        (lambda p: replace(p, source=camera(p.source), target=camera(p.target)), "z is up: add '.axes=camera'"),
        (lambda p: replace(p, axes="camera"), "y is up: add '.axes=lidar'"),
        (lambda p: replace(p, source=p.source[:, [2, 0, 1]], target=p.target[:, [2, 0, 1]]), "flat along x.*turn them"),
    ],
)
def test_odd_pairs_are_refused_with_a_remedy(pair: CloudPair, change, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=words) as caught:
        check_plausible(change(pair))
    assert "--no-checks" in str(caught.value)


def test_a_few_far_points_do_not_make_a_pair_odd(pair: CloudPair) -> None:
    far = pair.source.copy()
    far[:20] *= 200
    check_plausible(replace(pair, source=far))
