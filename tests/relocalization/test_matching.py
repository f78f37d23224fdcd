# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from relocalization import matching
from relocalization.matching import epipolar_nn, guided_nn, mutual_nn
from vision3d.geometry import se3
from vision3d.geometry.epipolar import epipolar_distances, essential_from_pose

T_B_A = se3.from_rt(se3.rotvec_to_rotation([0.05, -0.2, 0.03]), [0.4, 0.05, 0.1])


def descriptors(rng: np.random.Generator, n: int, channels: int = 16) -> NDArray[np.float32]:
    d = rng.normal(size=(n, channels))
    return (d / np.linalg.norm(d, axis=1, keepdims=True)).astype(np.float32)


def brute_force(a, b, allowed, threshold, ratio=None):
    """Every pair looked at one by one, on the same 2^-20 grid of similarities."""
    s = np.round(a.astype(np.float64) @ b.T.astype(np.float64) * 2**20) / 2**20
    out = []
    for i in range(len(a)):
        for j in range(len(b)):
            row = [(-s[i, k], k) for k in range(len(b)) if allowed[i, k]]
            col = [(-s[k, j], k) for k in range(len(a)) if allowed[k, j]]
            if not allowed[i, j] or min(row)[1] != j or min(col)[1] != i or s[i, j] < threshold:
                continue
            others = [-x for x, k in row if k != j], [-x for x, k in col if k != i]
            if ratio and any(o and 1 - s[i, j] > ratio**2 * (1 - max(o)) for o in others):
                continue
            out.append((i, j))
    return out


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 14), m=st.integers(1, 14), ratio=st.sampled_from([None, 0.9]))
def test_mutual_equals_brute_force(seed: int, n: int, m: int, ratio: float | None) -> None:
    rng = np.random.default_rng(seed)
    a, b = descriptors(rng, n, 4), descriptors(rng, m, 4)
    pairs, similarity = mutual_nn(a, b, 0.3, ratio)
    assert [tuple(p) for p in pairs.tolist()] == brute_force(a, b, np.ones((n, m), bool), 0.3, ratio)
    assert np.allclose(similarity, (a[pairs[:, 0]] * b[pairs[:, 1]]).sum(1), atol=2e-6)


def test_no_pair_below_the_threshold_even_when_all_are_below() -> None:
    rng = np.random.default_rng(0)
    a, b = descriptors(rng, 200, 64), descriptors(rng, 300, 64)
    for threshold in (0.2, 0.35, 0.999):
        pairs, similarity = mutual_nn(a, b, threshold)
        assert (similarity.astype(np.float64) >= threshold).all()
        assert len(pairs) == len(similarity)
    assert len(mutual_nn(a, b, 0.999)[0]) == 0
    assert len(mutual_nn(a, b, 0.2)[0]) > 10


def test_ties_go_to_the_lowest_index_wherever_duplicates_stand() -> None:
    rng = np.random.default_rng(1)
    base = descriptors(rng, 20, 37)
    copies = rng.permutation(np.repeat(np.arange(20), 17))
    pairs, similarity = mutual_nn(base, base[copies], 0.9)
    assert pairs[:, 0].tolist() == list(range(20))
    assert pairs[:, 1].tolist() == [int(np.flatnonzero(copies == k)[0]) for k in range(20)]
    assert np.allclose(similarity, 1, atol=2e-6)
    pairs, _ = mutual_nn(base[copies], base, 0.9)
    assert pairs[np.argsort(pairs[:, 1]), 0].tolist() == [int(np.flatnonzero(copies == k)[0]) for k in range(20)]


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    a = descriptors(rng, 97, 8)
    b = np.concatenate([a[::-1], descriptors(rng, 30, 8), a[:20]])
    xy_a, xy_b = rng.uniform(-0.5, 0.5, (97, 2)), rng.uniform(-0.5, 0.5, (len(b), 2))
    calls = [
        lambda: mutual_nn(a, b, 0.2, 0.9),
        lambda: guided_nn(a, xy_a * 500, b, xy_b * 500, 60, 0.1, 0.9),
        lambda: epipolar_nn(a, xy_a, b, xy_b, T_B_A, (500, 500), 20, 0.1),
    ]
    whole = [call() for call in calls]
    monkeypatch.setattr(matching, "_CELLS", 700)
    for (pairs, similarity), call in zip(whole, calls):
        again = call()
        assert len(pairs) > 3
        assert np.array_equal(again[0], pairs)
        assert np.array_equal(again[1], similarity)


def test_zero_and_nan_descriptors_never_match() -> None:
    rng = np.random.default_rng(3)
    a = descriptors(rng, 6)
    b = a.copy()
    a[0], a[1] = 0, np.nan
    b[0], b[1], b[2, 3] = 0, np.nan, np.inf
    uv = np.zeros((6, 2))
    for pairs, _ in (mutual_nn(a, b, -1.0), guided_nn(a, uv, b, uv, 1, -1.0)):
        assert not set(pairs[:, 0]) & {0, 1}
        assert not set(pairs[:, 1]) & {0, 1, 2}
        assert {(3, 3), (4, 4), (5, 5)} <= {tuple(p) for p in pairs.tolist()}
    assert len(mutual_nn(np.zeros((4, 8)), np.zeros((4, 8)), 0.0)[0]) == 0


@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0), (0, 0)])
def test_empty_inputs_give_empty_outputs(n: int, m: int) -> None:
    a, b = np.ones((n, 8), np.float32), np.ones((m, 8), np.float32)
    uv_a, uv_b = np.zeros((n, 2)), np.zeros((m, 2))
    for pairs, similarity in (
        mutual_nn(a, b, 0.5),
        guided_nn(a, uv_a, b, uv_b, 5, 0.5),
        epipolar_nn(a, uv_a, b, uv_b, T_B_A, (500, 500), 2, 0.5),
    ):
        assert pairs.shape == (0, 2)
        assert pairs.dtype == np.int64
        assert similarity.shape == (0,)


def test_torch_half_and_unnormalised_descriptors_match_like_numpy() -> None:
    rng = np.random.default_rng(4)
    a, b = descriptors(rng, 40), descriptors(rng, 50)
    pairs, similarity = mutual_nn(a, b, 0.2)
    scaled = mutual_nn(torch.from_numpy(a * 7), torch.from_numpy(b * 0.1), 0.2)
    assert np.array_equal(scaled[0], pairs)
    assert np.allclose(scaled[1], similarity, atol=2e-6)
    half = mutual_nn(a.astype(np.float16), a.astype(np.float16), 0.9)
    assert half[0].tolist() == [[i, i] for i in range(40)]


def test_different_networks_and_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="two networks"):
        mutual_nn(np.ones((2, 8)), np.ones((2, 9)), 0.5)
    with pytest.raises(ValueError, match="2 descriptors but 3 points in a"):
        guided_nn(np.ones((2, 8)), np.zeros((3, 2)), np.ones((2, 8)), np.zeros((2, 2)), 1, 0.5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), ratio=st.sampled_from([None, 0.9]))
def test_guided_equals_brute_force(seed: int, ratio: float | None) -> None:
    rng = np.random.default_rng(seed)
    a, b = descriptors(rng, 15, 4), descriptors(rng, 18, 4)
    uv_a, uv_b = rng.uniform(0, 50, (15, 2)), rng.uniform(0, 50, (18, 2))
    uv_a[3] = np.nan  # a landmark that is not visible
    radius = rng.uniform(5, 25, 15)
    distance = np.linalg.norm(uv_a[:, None] - uv_b[None], axis=2)
    pairs, _ = guided_nn(a, uv_a, b, uv_b, radius, 0.1, ratio)
    assert [tuple(p) for p in pairs.tolist()] == brute_force(a, b, distance <= radius[:, None], 0.1, ratio)


def test_guided_radius_is_inclusive_and_a_wide_one_equals_mutual() -> None:
    rng = np.random.default_rng(5)
    a, b = descriptors(rng, 60), descriptors(rng, 70)
    uv_a, uv_b = rng.uniform(0, 50, (60, 2)), rng.uniform(0, 50, (70, 2))
    for ratio in (None, 0.95):
        assert np.array_equal(guided_nn(a, uv_a, b, uv_b, 1000, 0.2, ratio)[0], mutual_nn(a, b, 0.2, ratio)[0])
    one = np.ones((1, 4))
    assert len(guided_nn(one, [[0, 0]], one, [[3, 4]], 5.0, 0.5)[0]) == 1
    assert len(guided_nn(one, [[0, 0]], one, [[3, 4]], 4.999, 0.5)[0]) == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_epipolar_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = descriptors(rng, 14, 4), descriptors(rng, 16, 4)
    xy_a, xy_b = rng.uniform(-0.5, 0.5, (14, 2)), rng.uniform(-0.5, 0.5, (16, 2))
    E, focal, band = essential_from_pose(T_B_A), (500.0, 700.0), 60.0
    i, j = (k.ravel() for k in np.mgrid[:14, :16])
    distance_a, distance_b = epipolar_distances(E, xy_a[i], xy_b[j])
    near = (distance_a * focal[0] <= band) & (distance_b * focal[1] <= band)
    # Depths of the closest approach, by least squares, one pair at a time.
    front = np.zeros(len(i), bool)
    for k in range(len(i)):
        ray_a, ray_b = T_B_A[:3, :3] @ [*xy_a[i[k]], 1], np.array([*xy_b[j[k]], 1])
        depths = np.linalg.lstsq(np.stack([ray_a, -ray_b], 1), -T_B_A[:3, 3], rcond=None)[0]
        parallel = np.arccos(np.clip(ray_a @ ray_b / np.linalg.norm(ray_a) / np.linalg.norm(ray_b), -1, 1))
        front[k] = (depths > 0).all() or parallel <= band / 500
    allowed = (near & front).reshape(14, 16)
    pairs, _ = epipolar_nn(a, xy_a, b, xy_b, T_B_A, focal, band, 0.1)
    assert [tuple(p) for p in pairs.tolist()] == brute_force(a, b, allowed, 0.1)


def test_epipolar_finds_true_matches_among_copies_and_respects_depth() -> None:
    rng = np.random.default_rng(6)
    points = rng.uniform([-1, -1, 2], [1, 1, 5], (300, 3))
    xy_a = points[:, :2] / points[:, 2:]
    in_b = se3.transform(T_B_A, points)
    xy_b = in_b[:, :2] / in_b[:, 2:]
    a = np.repeat(descriptors(rng, 10, 32), 30, axis=0)  # thirty points look the same: texture that repeats
    order = rng.permutation(300)
    found, _ = epipolar_nn(a, xy_a, a[order], xy_b[order], T_B_A, (500, 500), 0.5, 0.9, max_depth=5.2, min_depth=1.5)
    free, _ = mutual_nn(a, a[order], 0.9)
    assert (order[found[:, 1]] == found[:, 0]).sum() > 10 * (order[free[:, 1]] == free[:, 0]).sum() > 0
    far, _ = epipolar_nn(a, xy_a, a[order], xy_b[order], T_B_A, (500, 500), 0.5, 0.9, min_depth=1e3)
    assert len(far) == 0
    near, _ = epipolar_nn(a, xy_a, a[order], xy_b[order], T_B_A, (500, 500), 0.5, 0.9, min_parallax_deg=40)
    assert len(near) == 0


def test_a_pure_rotation_restricts_nothing_but_parallel_rays() -> None:
    rng = np.random.default_rng(7)
    a = descriptors(rng, 50)
    xy = rng.uniform(-0.4, 0.4, (50, 2))
    R = se3.rotvec_to_rotation([0, 0.1, 0])
    turned = np.concatenate([xy, np.ones((50, 1))], 1) @ R.T
    pairs, _ = epipolar_nn(a, xy, a, turned[:, :2] / turned[:, 2:], se3.from_rt(R, [0, 0, 0]), (500, 500), 2, 0.5)
    assert pairs.tolist() == [[i, i] for i in range(50)]


def test_three_thousand_by_three_thousand_is_fast() -> None:
    rng = np.random.default_rng(8)
    a = descriptors(rng, 3000, 128)
    b = a[rng.permutation(3000)]
    xy_a, xy_b = rng.uniform(-0.6, 0.6, (3000, 2)), rng.uniform(-0.6, 0.6, (3000, 2))
    product = min(_seconds(lambda: torch.from_numpy(a) @ torch.from_numpy(b).T) for _ in range(3))
    # Bounds relative to the bare matrix product, so that a busy machine does not decide.
    assert min(_seconds(lambda: mutual_nn(a, b, 0.7)) for _ in range(3)) < 12 * product + 0.05
    assert min(_seconds(lambda: epipolar_nn(a, xy_a, b, xy_b, T_B_A, (525, 525), 2, 0.7)) for _ in range(3)) < (
        20 * product + 0.1
    )


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
