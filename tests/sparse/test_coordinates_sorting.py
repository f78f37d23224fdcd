# SPDX-License-Identifier: Apache-2.0
"""Sorting, distinct rows and look-ups: compiled engine = reference = Python's own sort and dictionary."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_oracle import HIGH, LOW, assert_same, cloud_of, random_cloud, rows_of, shaped_clouds, threads
from torch import Tensor

from vision3d.sparse.backends import load
from vision3d.sparse.backends import reference_maps as reference

native = pytest.importorskip("vision3d.sparse.backends.native_maps")

SHAPED = [(ndim, name) for ndim in (1, 2, 3, 4) for name in shaped_clouds(ndim)]


def big_cloud(wide: bool) -> Tensor:
    """20,000 distinct rows out of order; `wide`: their keys leave no room for a row number in 64 bits."""
    generator = torch.Generator().manual_seed(1)
    coords = torch.randint(-60, 60, (20_000, 4), generator=generator)
    coords[:, 0].abs_().remainder_(3)
    coords = torch.unique(coords, dim=0)
    if wide:
        coords[:, 1:] *= coords.new_tensor([400, 8000, 8000])
    return coords[torch.randperm(len(coords), generator=generator)].int()


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_sorted_rows_and_keys_are_what_the_contract_says(ndim: int) -> None:
    coords = random_cloud(ndim, ndim)
    found = native.sort_coords(coords)
    wanted = sorted(map(tuple, coords.tolist()))
    assert [tuple(site) for site in found.coords.tolist()] == wanted
    assert torch.equal(coords[found.order], found.coords)
    low, multiplier = found.layout.tolist()
    assert low == coords.amin(0).tolist()
    extent = [b - a + 1 for a, b in zip(low, coords.amax(0).tolist())]
    places = [multiplier[i] // multiplier[i + 1] for i in range(ndim)]
    assert places == [2 * e - 1 for e in extent[1:]] and multiplier[-1] == 1
    assert found.keys.tolist() == [sum((x - a) * m for x, a, m in zip(site, low, multiplier)) for site in wanted]


@pytest.mark.parametrize(("ndim", "name"), SHAPED)
def test_shaped_clouds_sort_as_in_the_reference(ndim: int, name: str) -> None:
    coords = shaped_clouds(ndim)[name]
    mixed = coords[torch.randperm(len(coords), generator=torch.Generator().manual_seed(0))]
    for rows in (coords, mixed, mixed.flip(0)):
        found = native.sort_coords(rows)
        assert_same(found, reference.sort_coords(rows))
        assert_same(native.index_sorted(found.coords), reference.index_sorted(found.coords))
        doubled = torch.cat([rows, rows.flip(0), rows[::2]])
        assert_same(native.unique_coords(doubled), reference.unique_coords(doubled))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(0, 2**32), st.integers(0, 60), st.sampled_from([1, 3, 40, 2000]))
def test_random_clouds_sort_as_in_the_reference(ndim: int, seed: int, most: int, extent: int) -> None:
    coords = random_cloud(seed, ndim, most, extent=extent)
    assert_same(native.sort_coords(coords), reference.sort_coords(coords))
    repeated = torch.cat([coords, coords[: most // 2]])
    assert_same(native.unique_coords(repeated), reference.unique_coords(repeated))


@pytest.mark.parametrize("wide", [False, True], ids=["one word", "key and row"])
def test_a_large_cloud_is_the_same_on_any_number_of_threads(wide: bool) -> None:
    coords = big_cloud(wide)
    repeated = torch.cat([coords, coords[5000:9000], coords[:1].expand(3000, 4)])
    wanted, distinct = reference.sort_coords(coords), reference.unique_coords(repeated)
    index = reference.index_sorted(wanted.coords)
    for number in (1, 2, 3):
        with threads(number):
            assert_same(native.sort_coords(coords), wanted)
            assert_same(native.sort_coords(wanted.coords), reference.sort_coords(wanted.coords))
            assert_same(native.index_sorted(wanted.coords), index)
            assert_same(native.unique_coords(repeated), distinct)


def test_every_order_of_the_rows_gives_the_same_set() -> None:
    coords = big_cloud(False)
    first = native.sort_coords(coords)
    for seed in range(3):
        order = torch.randperm(len(coords), generator=torch.Generator().manual_seed(seed))
        again = native.sort_coords(coords[order])
        assert_same((again.coords, again.keys, again.layout), (first.coords, first.keys, first.layout))
        assert torch.equal(order[again.order], first.order)


def test_rows_that_are_sorted_already_keep_their_order() -> None:
    coords = native.sort_coords(big_cloud(False)).coords
    assert torch.equal(native.sort_coords(coords).order, torch.arange(len(coords)))


def test_a_view_with_gaps_is_read_as_it_is() -> None:
    coords = random_cloud(3, 3)
    padded = torch.full((len(coords), 8), 99, dtype=torch.int32)
    padded[:, ::2] = coords
    assert_same(native.sort_coords(padded[:, ::2]), reference.sort_coords(coords))


def test_results_own_their_memory() -> None:
    for coords in (native.sort_coords(random_cloud(0, 3)).coords, cloud_of([], 3)):
        arrays = [*native.sort_coords(coords), *native.index_sorted(coords), *native.unique_coords(coords), coords]
        places = [array.untyped_storage().data_ptr() for array in arrays]
        assert len(set(places)) == len(places)


@pytest.mark.parametrize(("ndim", "name"), SHAPED)
def test_lookup_finds_every_site_and_no_other(ndim: int, name: str) -> None:
    found = native.sort_coords(shaped_clouds(ndim)[name])
    near = found.coords[:, None].long() + torch.tensor([[-1], [0], [1], [2]])[None]
    columns = torch.randint(0, 2, (len(near), 4, 1 + ndim), generator=torch.Generator().manual_seed(0)).bool()
    queries = torch.where(columns, near, found.coords[:, None]).reshape(-1, 1 + ndim).clamp(LOW, HIGH)
    corners = torch.tensor([[LOW] * (1 + ndim), [HIGH] * (1 + ndim), [0] + [HIGH] * ndim, [0] * (1 + ndim)])
    queries = torch.cat([queries, corners]).int()
    known = rows_of(found.coords)
    wanted = torch.tensor([known.get(tuple(q), -1) for q in queries.tolist()])
    for asked in (slice(None), slice(0, 0), slice(0, 1)):
        rows = native.lookup(found.keys, found.layout, queries[asked])
        assert_same(rows, wanted[asked])
        assert_same(reference.lookup(found.keys, found.layout, queries[asked]), wanted[asked])


@pytest.mark.parametrize("asked", [1, 300, 20_000], ids=["one", "few", "many"])
@pytest.mark.parametrize("wide", [False, True])
def test_lookup_in_a_large_cloud(asked: int, wide: bool) -> None:
    found = native.sort_coords(big_cloud(wide))
    generator = torch.Generator().manual_seed(2)
    queries = found.coords[torch.randint(0, len(found.coords), (asked,), generator=generator)]
    queries[::3, 2] += 1
    queries[1::7, 0] += 3
    wanted = reference.lookup(found.keys, found.layout, queries)
    for number in (1, 2, 3):
        with threads(number):
            assert_same(native.lookup(found.keys, found.layout, queries), wanted)


class TestErrors:
    """The same words from both backends."""

    @pytest.fixture(params=["native", "reference"])
    def engine(self, request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
        return load(request.param)

    def test_duplicates_are_named(self, engine) -> None:  # type: ignore[no-untyped-def]
        coords = cloud_of([(1, 0, 0), (0, 5, 5), (0, -3, 2), (2, 1, 1), (0, -3, 2), (1, 0, 0)], 2)
        with pytest.raises(ValueError, match=r"coords rows 2 and 4 are both \(0, -3, 2\); merge duplicates first"):
            engine.sort_coords(coords)

    def test_duplicates_are_found_across_the_pieces_of_a_large_cloud(self, engine) -> None:  # type: ignore[no-untyped-def]
        coords = native.sort_coords(big_cloud(False)).coords
        for row in (3, 16384, 19000):
            twice = torch.cat([coords, coords[row : row + 1]])
            with threads(2), pytest.raises(ValueError, match=rf"coords rows {row} and {len(coords)} are both"):
                engine.sort_coords(twice)

    def test_negative_batch_index(self, engine) -> None:  # type: ignore[no-untyped-def]
        coords = cloud_of([(0, 0), (1, 0), (-2, 0), (-3, 1)], 1)
        for sort in (engine.sort_coords, engine.unique_coords, engine.index_sorted):
            with pytest.raises(ValueError, match="coords row 2 has the negative batch index -2"):
                sort(coords)
        with pytest.raises(ValueError, match="negative batch index -"):
            engine.strided_coords(coords, (2,), (2,), (0,), (1,), None)

    @pytest.mark.parametrize("ndim", [2, 3, 4])
    def test_an_extent_too_large_for_keys(self, engine, ndim: int) -> None:  # type: ignore[no-untyped-def]
        coords = cloud_of([(0, *(LOW,) * ndim), (0, *(HIGH,) * ndim)], ndim)
        extent = ", ".join(["1", *("4294967296",) * ndim])
        for sort in (engine.sort_coords, engine.unique_coords, engine.index_sorted):
            with pytest.raises(ValueError, match=rf"too large for 64-bit keys: \[{extent}\] \(batch first\)"):
                sort(coords)

    def test_the_largest_extent_that_fits(self, engine) -> None:  # type: ignore[no-untyped-def]
        # (2 * 2^30 - 1) * (2 * 2^31 - 1) is just below 2^63; one more place along an axis is beyond.
        fits = cloud_of([(0, 0, 0), (0, 2**30 - 1, HIGH)], 2)
        assert engine.sort_coords(fits).keys.tolist() == [0, (2**30 - 1) * (2**32 - 1) + HIGH]
        with pytest.raises(ValueError, match="too large for 64-bit keys"):
            engine.sort_coords(torch.cat([fits, cloud_of([(1, 0, 0)], 2)]))

    def test_a_broken_promise_of_order(self, engine) -> None:  # type: ignore[no-untyped-def]
        for sites, rows in (([(0, 1), (0, 5), (0, 3)], "1 and 2"), ([(0, 1), (0, 1), (0, 3)], "0 and 1")):
            with pytest.raises(ValueError, match=f"promised to ascend strictly, but rows {rows} are"):
                engine.index_sorted(cloud_of(sites, 1))


@pytest.mark.parametrize("coords", [torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.int64), torch.zeros(4).int()])
def test_wrong_dtype_or_rank(coords: Tensor) -> None:
    for call in (native.sort_coords, native.unique_coords, native.index_sorted):
        with pytest.raises(TypeError, match=r"coords must be \(N, 1 \+ D\) int32"):
            call(coords)


@pytest.mark.parametrize("columns", [0, 1, 6])
def test_wrong_number_of_columns(columns: int) -> None:
    for call in (native.sort_coords, native.unique_coords, native.index_sorted):
        with pytest.raises(ValueError, match="2 to 5 columns"):
            call(torch.zeros((3, columns), dtype=torch.int32))


def test_lookup_refuses_what_does_not_fit() -> None:
    found = native.sort_coords(random_cloud(0, 3))
    with pytest.raises(ValueError, match="differ in their number of columns"):
        native.lookup(found.keys, found.layout, found.coords[:, :3])
    with pytest.raises(TypeError, match="int64"):
        native.lookup(found.keys.int(), found.layout, found.coords)
    with pytest.raises(ValueError, match="multipliers must be positive"):
        native.lookup(found.keys, found.layout * 0, found.coords)
    with pytest.raises(ValueError, match="keys must ascend"):
        native.lookup(found.keys.flip(0), found.layout, found.coords)


@pytest.mark.parametrize("rows", [0, 50])
def test_operators_pass_torchs_checks(rows: int) -> None:
    coords = random_cloud(0, 3, rows)
    found = native.sort_coords(coords)
    ops = torch.ops.vision3d
    for op, arguments in (
        (ops.sort_coords, (coords,)),
        (ops.index_sorted, (found.coords,)),
        (ops.unique_coords, (torch.cat([coords, coords]),)),
        (ops.lookup, (found.keys, found.layout, coords)),
    ):
        outcome = torch.library.opcheck(op.default, arguments)
        assert set(outcome.values()) == {"SUCCESS"}
