# SPDX-License-Identifier: Apache-2.0
"""Many registrations at once: each step against the same step done one group and one point at a time."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from scene_flow.classical.groups import Matcher, Motions, PointGroups, fit_motions

Float = NDArray[np.float64]
Int = NDArray[np.int64]
GROUPS = 4


def random_groups(n: int, seed: int, cap: int = 1000) -> tuple[PointGroups, Float, Int, Float]:
    """Groups that overlap in space; group 2 is empty."""
    rng = np.random.default_rng(seed)
    points, group = rng.uniform(-1, 1, (n, 3)), rng.choice([0, 1, 3], n)
    noise_m = rng.uniform(0.05, 0.1, n)
    return PointGroups(points, group, noise_m, GROUPS, cap), points, group, noise_m


def random_motions(count: int, seed: int, planar: bool = False) -> Motions:
    rng = np.random.default_rng(seed)
    turns = rng.normal(0, 0.3, (count, 3)) * ([0, 0, 1] if planar else 1)
    return Motions(Rotation.from_rotvec(turns).as_matrix(), rng.normal(0, 0.3, (count, 3)) * ([1, 1, not planar]))


def test_motions_and_their_inverse() -> None:
    motions = random_motions(5, 0)
    points, which = np.random.default_rng(1).normal(size=(20, 3)), np.arange(20) % 5
    moved = motions(points, which)
    for k in range(20):
        np.testing.assert_allclose(moved[k], motions.R[which[k]] @ points[k] + motions.t[which[k]], atol=1e-12)
    np.testing.assert_allclose(motions.inverse()(moved, which), points, atol=1e-12)


def test_nearest_stays_within_the_group() -> None:
    groups, points, group, _ = random_groups(120, 2)
    rng = np.random.default_rng(3)
    asked, of = rng.uniform(-1, 1, (50, 3)), rng.integers(0, GROUPS, 50)
    distance, row = groups.nearest(asked, of, 0.6)
    for k in range(50):
        own = points[group == of[k]]
        expected = np.linalg.norm(own - asked[k], axis=1).min(initial=np.inf)
        assert distance[k] == (pytest.approx(expected) if expected < 0.6 else np.inf)
        if expected < 0.6:
            np.testing.assert_allclose(np.linalg.norm(groups.points[row[k]] - asked[k]), expected)
    assert np.isfinite(distance).any() and np.isinf(distance).any()


def test_rows_are_spread_evenly_over_each_group() -> None:
    groups, _, group, _ = random_groups(200, 4, cap=10)
    rows, turn = groups.rows(np.array([3, 2, 0, 3]))
    np.testing.assert_array_equal(groups.asked, [10, 10, 0, 10])
    np.testing.assert_array_equal(turn, np.repeat([0, 2, 3], 10))
    np.testing.assert_array_equal(rows[:10], rows[20:])
    first, n = (group < 3).sum(), (group == 3).sum()
    np.testing.assert_array_equal(rows[:10], [first + k * n // 10 for k in range(10)])


def test_centres_are_means() -> None:
    groups, points, group, _ = random_groups(50, 5)
    centres = groups.centres()
    for k in (0, 1, 3):
        np.testing.assert_allclose(centres[k], points[group == k].mean(axis=0))
    assert np.isnan(centres[2]).all()


def test_cost_against_every_distance() -> None:
    source, p, p_group, p_noise = random_groups(80, 6)
    target, q, q_group, q_noise = random_groups(60, 7)
    a, b = np.array([0, 1, 3, 2, 0, 2]), np.array([0, 3, 1, 1, 2, 2])
    motions = random_motions(len(a), 8)
    forth, back = Matcher(source, target, 0.3, False).cost(a, b, motions)

    def unexplained(moved: Float, noise_m: Float, other: Float) -> float:
        shares = []
        for point, noise in zip(moved, noise_m):
            distance = np.linalg.norm(other - point, axis=1).min(initial=np.inf)
            shares.append(min(max(distance - noise, 0) / 0.3, 1))
        return float(np.mean(shares)) if shares else 1.0

    for h in range(len(a)):
        mine, theirs = p_group == a[h], q_group == b[h]
        R, t = motions.R[h], motions.t[h]
        assert forth[h] == pytest.approx(unexplained(p[mine] @ R.T + t, p_noise[mine], q[theirs]))
        assert back[h] == pytest.approx(unexplained((q[theirs] - t) @ R, q_noise[theirs], p[mine]))
    assert 0.01 < forth[0] < 0.99


@pytest.mark.parametrize("planar", [True, False])
def test_fit_is_exact_without_noise(planar: bool) -> None:
    rng = np.random.default_rng(9)
    truth = random_motions(6, 10, planar)
    p, which = rng.normal(size=(120, 3)), rng.integers(0, 6, 120)
    found = fit_motions(p, truth(p, which), rng.uniform(0.1, 1, 120), which, random_motions(6, 11), planar, True)
    np.testing.assert_allclose(found.R, truth.R, atol=1e-9)
    np.testing.assert_allclose(found.t, truth.t, atol=1e-9)


def test_fit_against_scipy_with_noise() -> None:
    rng = np.random.default_rng(12)
    p, q, weight = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), rng.uniform(0.1, 1, 40)
    found = fit_motions(p, q, weight, np.zeros(40, int), random_motions(1, 13), False, True)
    a, b = (x - np.average(x, axis=0, weights=weight) for x in (p, q))
    R = Rotation.align_vectors(b, a, weights=weight)[0].as_matrix()
    np.testing.assert_allclose(found.R[0], R, atol=1e-6)
    assert np.linalg.det(found.R[0]) == pytest.approx(1)


def test_planar_fit_is_the_best_angle() -> None:
    """No other angle and level shift leaves a smaller sum of squares."""
    rng = np.random.default_rng(14)
    p, q, weight = rng.normal(size=(30, 3)), rng.normal(size=(30, 3)), rng.uniform(0.1, 1, 30)
    found = fit_motions(p, q, weight, np.zeros(30, int), random_motions(1, 15), True, True)
    assert found.t[0, 2] == 0 and found.R[0, 2].tolist() == [0, 0, 1]

    def squares(R: Float, t: Float) -> float:
        return float((weight * ((p @ R.T + t - q) ** 2).sum(axis=1)).sum())

    best = squares(found.R[0], found.t[0])
    for angle in np.linspace(-np.pi, np.pi, 721):
        R = Rotation.from_rotvec([0, 0, angle]).as_matrix()
        t = np.average(q - p @ R.T, axis=0, weights=weight) * [1, 1, 0]
        assert best <= squares(R, t) + 1e-9


def test_motions_without_points_stay() -> None:
    before = random_motions(3, 16)
    p = np.random.default_rng(17).normal(size=(10, 3))
    found = fit_motions(p, p + [1.0, 2, 3], np.ones(10), np.full(10, 1), before, False, False)
    np.testing.assert_array_equal(found.R[[0, 2]], before.R[[0, 2]])
    np.testing.assert_array_equal(found.t[[0, 2]], before.t[[0, 2]])
    np.testing.assert_array_equal(found.R[1], np.eye(3))
    np.testing.assert_allclose(found.t[1], [1, 2, 3])


def test_refine_finds_each_group_s_own_motion() -> None:
    rng = np.random.default_rng(18)
    points, group = rng.uniform(-1, 1, (600, 3)) * [2, 1, 1], np.arange(600) % 2
    truth = Motions(
        Rotation.from_rotvec([[0, 0, 0.05], [0, 0, -0.04]]).as_matrix(), np.array([[0.1, 0.05, 0], [-0.1, 0, 0]])
    )
    noise_m = np.full(600, 0.02)
    source = PointGroups(points, group, noise_m, 2, 1000)
    order = rng.permutation(600)
    target = PointGroups(truth(points, group)[order], group[order], noise_m, 2, 1000)
    matcher, both = Matcher(source, target, 0.2, True), np.arange(2)
    start = Motions.shifts(np.zeros((2, 3)))
    found = matcher.refine(both, both, start, (0.4,) * 6 + (0.2,) * 10, turn=True)
    np.testing.assert_allclose(found.R, truth.R, atol=1e-3)
    np.testing.assert_allclose(found.t, truth.t, atol=2e-3)
    assert max(matcher.cost(both, both, found)[0]) < 0.01 < min(matcher.cost(both, both, start)[0])
