# SPDX-License-Identifier: Apache-2.0
"""Seeds of displacements: against votes counted one pair at a time, and on shapes that were shifted."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from numpy.typing import NDArray

from scene_flow.classical.displacements import BIN_M, LEVEL_M, displacement_seeds

Float = NDArray[np.float64]


def votes_one_by_one(source: Float, target: Float, window_m: float, planar: bool) -> dict[tuple[int, ...], float]:
    """The mean of the votes of each bin and its neighbours, by bin."""
    axes, half = (2 if planar else 3), int(np.ceil(window_m / BIN_M - 0.5))
    votes: dict[tuple[int, ...], float] = {}
    for p, q in product(source, target):
        if planar and abs(q[2] - p[2]) >= LEVEL_M:
            continue
        at = tuple(int(np.floor(d / BIN_M + 0.5)) for d in (q - p)[:axes])
        if max(map(abs, at)) > half:
            continue
        votes[at] = votes.get(at, 0) + 1
    mean: dict[tuple[int, ...], float] = {}
    for at, n in votes.items():
        for step in product((-1, 0, 1), repeat=axes):
            near = tuple(a + s for a, s in zip(at, step))
            if max(map(abs, near)) <= half:
                mean[near] = mean.get(near, 0) + n / 3**axes
    return mean


@pytest.mark.parametrize("planar", [True, False])
def test_against_votes_counted_one_by_one(planar: bool) -> None:
    rng = np.random.default_rng(0)
    source, target = rng.uniform(-1, 1, (40, 3)), rng.uniform(-1, 1, (30, 3))
    mean = votes_one_by_one(source, target, 0.9, planar)
    axes = 2 if planar else 3
    peaks = {
        at: n for at, n in mean.items()
        if all(n >= mean.get(tuple(a + s for a, s in zip(at, step)), 0) - 1e-6
               for step in product(range(-2, 3), repeat=axes))
    }  # fmt: skip
    seeds = displacement_seeds(source, target, 0.9, 1000, planar)
    found = [tuple(round(x) for x in s[:axes] / BIN_M) for s in seeds]
    assert len(found) > 1 and set(found) == set(peaks)
    heights = [peaks[at] for at in found]
    assert all(a >= b - 1e-6 for a, b in pairwise(heights)), "fullest first"
    np.testing.assert_allclose(seeds[:, :axes], np.array(found) * BIN_M, atol=1e-12)
    np.testing.assert_array_equal(displacement_seeds(source, target, 0.9, 2, planar), seeds[:2])


@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("shift", [(1.0, 0.0), (-0.4, 2.1), (0.0, 0.0), (2.4, -2.4)])
def test_a_shifted_shape(shift: tuple[float, float], planar: bool) -> None:
    shape = np.random.default_rng(1).uniform(-1, 1, (150, 3)) * [2, 0.8, 0.7]
    move = np.array([*shift, 0.0 if planar else 0.6])
    first = displacement_seeds(shape, shape + move, 2.5, 3, planar)[0]
    assert np.abs(first - move).max() <= BIN_M + 1e-9


def test_displacements_beyond_the_window_have_no_seeds() -> None:
    points = np.random.default_rng(2).uniform(0, 0.2, (20, 3))
    assert displacement_seeds(points, points + [5.0, 0, 0], 2.0, 5, True).shape == (0, 3)


def test_a_wide_window_has_wider_bins() -> None:
    shape = np.random.default_rng(1).uniform(-1, 1, (150, 3)) * [2, 0.8, 0.7]
    first = displacement_seeds(shape, shape + [20.0, -31.0, 0.0], 40.0, 1, True)[0]
    assert np.abs(first - [20.0, -31.0, 0.0]).max() <= 80.0 / 61


@pytest.mark.parametrize("planar", [True, False])
def test_order_of_points_does_not_matter(planar: bool) -> None:
    rng = np.random.default_rng(3)
    source, target = rng.uniform(-1, 1, (60, 3)), rng.uniform(-1, 1, (50, 3))
    np.testing.assert_array_equal(
        displacement_seeds(source, target, 1.0, 5, planar),
        displacement_seeds(rng.permutation(source), rng.permutation(target), 1.0, 5, planar),
    )


def test_no_points_no_seeds() -> None:
    assert displacement_seeds(np.zeros((0, 3)), np.zeros((4, 3)), 1.0, 5, False).shape == (0, 3)
