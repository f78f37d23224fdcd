# SPDX-License-Identifier: Apache-2.0
"""Kernel maps where engines break: clouds of odd shape, the ends of 32 bits, steps of any size, malformed arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from map_oracle import (
    HIGH,
    LOW,
    assert_same,
    brute_pairs,
    brute_sites,
    brute_subm,
    check_tables,
    cloud_of,
    pairs_of,
    random_cloud,
    shaped_clouds,
)
from torch import Tensor

from vision3d.sparse.backends import reference_maps as reference

native = pytest.importorskip("vision3d.sparse.backends.native_maps")
engine = pytest.importorskip("vision3d.sparse._native")

SHAPED = [(ndim, name) for ndim in (1, 2, 3, 4) for name in shaped_clouds(ndim)]
SIZES = st.sampled_from([1, 2, 3, 4, 7, 1000, 2**16 + 1, 2**30, 2**31 - 1])
PADDINGS = st.sampled_from([0, 1, 2, -5, 1000, 2**30, -(2**31), 2**31 - 1])


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or the words of its ValueError."""
    try:
        return call(*arguments)
    except ValueError as error:
        return str(error)


def filled(values: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """One value per axis, the last ones repeated from the front."""
    return tuple(values[axis % len(values)] for axis in range(ndim))


@pytest.mark.parametrize(("ndim", "name"), SHAPED)
def test_submanifold_maps_of_shaped_clouds(ndim: int, name: str) -> None:
    s = native.sort_coords(shaped_clouds(ndim)[name])
    for size in ((3,), (1, 3), (3, 1), (5,), (7,)) if ndim < 4 else ((3,), (1, 3)):
        for spacing in ((1,), (2, 1), (2**31 - 1,)):
            kernel, dilation = filled(size, ndim), filled(spacing, ndim)
            m = native.subm_map(s.keys, s.layout, kernel, dilation)
            assert_same(m, reference.subm_map(s.keys, s.layout, kernel, dilation))
        if ndim < 3:
            assert pairs_of(native.subm_map(s.keys, s.layout, kernel, (1,) * ndim)) == brute_subm(
                s.coords, kernel, (1,) * ndim
            )


@pytest.mark.parametrize(
    ("size", "step", "pad", "spacing"),
    [
        ((2,), (2,), (0,), (1,)),
        ((3,), (2,), (1,), (1,)),
        ((3, 2), (1, 2), (1, 0), (2, 1)),
        ((3,), (3, 1), (0, 2), (1,)),
        ((2,), (100_000,), (3,), (7,)),
        ((2, 3), (2**31 - 1,), (0,), (2**31 - 1,)),
    ],
    ids=["k2s2", "k3s2", "mixed", "sparse steps", "steps beyond the cloud", "steps of 2^31"],
)
@pytest.mark.parametrize(("ndim", "name"), SHAPED)
def test_layers_on_shaped_clouds(ndim: int, name: str, size: Any, step: Any, pad: Any, spacing: Any) -> None:
    s = native.sort_coords(shaped_clouds(ndim)[name])
    rest = tuple(filled(v, ndim) for v in (size, step, pad, spacing))
    sites = outcome(native.strided_coords, s.coords, *rest, None)
    assert_same(sites, outcome(reference.strided_coords, s.coords, *rest, None))
    if isinstance(sites, Tensor):
        assert_same(sites, cloud_of(brute_sites(s.coords, *rest), ndim))
        m = native.pair_map(s.coords, s.keys, s.layout, sites, *rest)
        assert_same(m, reference.pair_map(s.coords, s.keys, s.layout, sites, *rest))
        assert pairs_of(m) == brute_pairs(s.coords, sites, *rest)
        check_tables(m)
    larger = outcome(native.transposed_coords, s.coords, *rest, None)
    assert_same(larger, outcome(reference.transposed_coords, s.coords, *rest, None))
    for shape in (1, 30, 2**31 - 1):
        bound = (shape,) * ndim
        for made in ("strided_coords", "transposed_coords"):
            found = outcome(getattr(native, made), s.coords, *rest, bound)
            assert_same(found, outcome(getattr(reference, made), s.coords, *rest, bound))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    ndim=st.integers(1, 3),
    seed=st.integers(0, 2**32),
    kernel=st.lists(st.sampled_from([1, 2, 3, 5]), min_size=3, max_size=3),
    steps=st.lists(SIZES, min_size=6, max_size=6),
    pads=st.lists(PADDINGS, min_size=3, max_size=3),
)
def test_steps_of_any_size(ndim: int, seed: int, kernel: list[int], steps: list[int], pads: list[int]) -> None:
    s = native.sort_coords(random_cloud(seed, ndim, most=30))
    rest = kernel[:ndim], steps[:ndim], pads[:ndim], steps[3 : 3 + ndim]
    for made in ("strided_coords", "transposed_coords"):
        found = outcome(getattr(native, made), s.coords, *rest, None)
        assert_same(found, outcome(getattr(reference, made), s.coords, *rest, None))
        if isinstance(found, Tensor):
            m = native.pair_map(s.coords, s.keys, s.layout, found, *rest)
            assert_same(m, reference.pair_map(s.coords, s.keys, s.layout, found, *rest))
    odd = [k | 1 for k in rest[0]]
    m = native.subm_map(s.keys, s.layout, odd, rest[3])
    assert_same(m, reference.subm_map(s.keys, s.layout, odd, rest[3]))


class TestEndsOf32Bits:
    """o * stride - padding + k * dilation is wider than the coordinates it comes from."""

    ENDS = cloud_of([(0, LOW), (0, LOW + 1), (0, -1), (0, 0), (0, HIGH - 1), (0, HIGH)], 1)

    def test_neighbours_do_not_wrap_around(self) -> None:
        s = native.sort_coords(self.ENDS)
        m = native.subm_map(s.keys, s.layout, (3,), (1,))
        assert pairs_of(m)[2] == [(1, 0), (3, 2), (5, 4)]
        assert pairs_of(native.subm_map(s.keys, s.layout, (3,), (2**31 - 1,)))[2] == [(2, 0), (3, 1), (4, 2), (5, 3)]

    def test_strides_divide_towards_minus_infinity(self) -> None:
        found = native.strided_coords(self.ENDS, (2,), (2,), (0,), (1,), None)
        assert found[:, 1].tolist() == [LOW // 2, -1, 0, HIGH // 2]

    def test_targets_beyond_32_bits_are_not_found(self) -> None:
        s = native.sort_coords(cloud_of([(0, 0), (0, 1)], 1))
        out = cloud_of([(0, LOW), (0, 0), (0, 2**30), (0, HIGH)], 1)
        m = native.pair_map(s.coords, s.keys, s.layout, out, (2,), (4,), (0,), (1,))
        assert pairs_of(m) == [[(0, 1)], [(1, 1)]]

    def test_batch_indices_up_to_the_end(self) -> None:
        s = native.sort_coords(cloud_of([(0, 0), (HIGH, 0), (HIGH, 1)], 1))
        assert pairs_of(native.subm_map(s.keys, s.layout, (3,), (1,)))[2] == [(2, 1)]
        sites = native.strided_coords(s.coords, (2,), (2,), (0,), (1,), None)
        assert sites.tolist() == [[0, 0], [HIGH, 0]]


def test_a_large_kernel_on_few_sites() -> None:
    s = native.sort_coords(random_cloud(0, 3, most=5, samples=1))
    m = native.subm_map(s.keys, s.layout, (31, 31, 31), (1, 1, 1))
    assert m.n_pairs == 25 and m.list_ptr.shape == (31**3 // 2 + 1,)
    assert_same(m, reference.subm_map(s.keys, s.layout, (31, 31, 31), (1, 1, 1)))


# Malformed arguments: an error or a map whose numbers are in range, never a crash.

WILD = st.sampled_from([0, 1, 2, 3, 5, 63, -1, -7, 2**31, 2**40, -(2**62), 2**63 - 1, -(2**63)])
SMALL = st.integers(-3, 9)
INTS = st.one_of(st.lists(st.one_of(SMALL, WILD), max_size=5), st.just([3, 3]), st.just([2, 2]), st.just([1, 1]))
KEYS = st.one_of(
    st.lists(st.one_of(SMALL, WILD), max_size=80), st.lists(st.integers(0, 300), max_size=90, unique=True).map(sorted)
)
LAYOUTS = st.one_of(
    st.lists(st.one_of(SMALL, WILD), min_size=6, max_size=6),
    st.sampled_from([[0, 0, 0, 100, 10, 1], [-2, 0, 3, 35, 7, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 2**62, 2**31, 1]]),
)
ROWS = st.lists(
    st.tuples(st.integers(-1, 3), st.one_of(SMALL, st.just(LOW)), st.one_of(SMALL, st.just(HIGH))), max_size=60
)


def settled(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result, or None for a plain Python error."""
    try:
        return call(*arguments)
    except (ValueError, TypeError, OverflowError, MemoryError):
        return None


def check_range(arrays: Any, n_in: int, n_out: int) -> None:
    pair_in, pair_out, ptr, block_in, block_out = arrays
    for rows, n in ((pair_in, n_in), (pair_out, n_out)):
        assert rows.numel() == 0 or 0 <= int(rows.min()) <= int(rows.max()) < n
    assert ptr[0] == 0 and ptr[-1] == len(pair_in) and bool((ptr[1:] >= ptr[:-1]).all())
    for table in (block_in, block_out):
        assert torch.equal(table[:, -1].long(), ptr[1:] - ptr[:-1])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(KEYS, LAYOUTS, ROWS, INTS, INTS, INTS, INTS, st.integers(-1, 3))
@example([0, 1, 2], [0, 0, 0, 4, 2, 1], [(0, 0, 0)], [3, 3], [1, 1], [0, 0], [1, 1], 2)
def test_malformed_arguments(  # type: ignore[no-untyped-def]
    keys, layout, rows, kernel, stride, padding, dilation, number: int
) -> None:
    key = torch.tensor(keys, dtype=torch.int64)
    box = torch.tensor(layout, dtype=torch.int64).reshape(2, 3)
    coords = torch.tensor(rows, dtype=torch.int32).reshape(-1, 3)
    found = settled(engine.subm_map, key, box, kernel, dilation, number)
    if found is not None:
        check_range(found, len(key), len(key))
    found = settled(engine.pair_map, key, box, coords, kernel, stride, padding, dilation, number)
    if found is not None:
        check_range(found, len(key), len(coords))
    found = settled(engine.lookup, key, box, coords, number)
    if found is not None and len(found):
        assert -1 <= int(found.min()) <= int(found.max()) < len(key)
    for transposed in (False, True):
        for shape in (None, padding):
            settled(engine.output_sites, coords, kernel, stride, padding, dilation, shape, transposed, number)
    for call in (engine.sort_coords, engine.unique_coords, engine.index_sorted):
        settled(call, coords, number)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.float(),
        lambda t: t[::2],
        lambda t: t[None],
        lambda t: t.tolist(),
        lambda t: None,
    ],
    ids=["dtype", "gaps", "rank", "list", "none"],
)
def test_arrays_of_the_wrong_kind_are_refused(spoil: Callable[[Tensor], Any]) -> None:
    s = native.sort_coords(random_cloud(0, 3, most=20))
    three, one = [3] * 3, [1] * 3
    calls: list[tuple[Callable[..., Any], list[Any], tuple[int, ...]]] = [
        (engine.sort_coords, [s.coords, 1], (0,)),
        (engine.unique_coords, [s.coords, 1], (0,)),
        (engine.index_sorted, [s.coords, 1], (0,)),
        (engine.lookup, [s.keys, s.layout, s.coords, 1], (0, 1, 2)),
        (engine.subm_map, [s.keys, s.layout, three, one, 1], (0, 1)),
        (engine.pair_map, [s.keys, s.layout, s.coords, three, one, one, one, 1], (0, 1, 2)),
        (engine.output_sites, [s.coords, three, one, one, one, None, False, 1], (0,)),
    ]
    for call, arguments, tensors in calls:
        for at in tensors:
            wrong = list(arguments)
            wrong[at] = spoil(wrong[at])
            with pytest.raises((TypeError, ValueError)):
                call(*wrong)
