# SPDX-License-Identifier: Apache-2.0
"""Kernel maps: compiled engine = reference = a dictionary of sites; threads, translation, batches, torch.compile."""

from __future__ import annotations

import random

import pytest
import torch
from map_oracle import (
    assert_same,
    brute_pairs,
    brute_sites,
    brute_subm,
    check_tables,
    cloud_of,
    pairs_of,
    random_cloud,
    threads,
)
from torch import Tensor

from vision3d.sparse.backends import load
from vision3d.sparse.backends import reference_maps as reference
from vision3d.sparse.kernel_map import KernelMap

native = pytest.importorskip("vision3d.sparse.backends.native_maps")

Ints = tuple[int, ...]
ONE, TWO, THREE, ZERO = (1,) * 3, (2,) * 3, (3,) * 3, (0,) * 3


def geometry(seed: int, ndim: int) -> tuple[Ints, Ints, Ints, Ints, Ints | None]:
    """Kernel, stride, padding, dilation and output shape."""
    source = random.Random(seed)

    def axes(*values: int) -> Ints:
        return tuple(source.choice(values) for _ in range(ndim))

    kernel = axes(1, 2, 3, 4, 5) if ndim < 4 else axes(1, 2, 3)
    shape = axes(1, 3, 8, 50) if source.random() < 0.4 else None
    return kernel, axes(1, 2, 2, 3), axes(0, 1, 2), axes(1, 1, 2, 3), shape


def room() -> Tensor:
    """The walls of a box, 9,800 voxels in random order, in a batch with an empty sample."""
    grid = torch.zeros(30, 40, 50, dtype=torch.bool)
    grid[[0, -1]] = grid[:, [0, -1]] = grid[:, :, [0, -1]] = True
    walls = grid.nonzero() - 7
    rows = torch.cat([torch.nn.functional.pad(walls, (1, 0), value=b) for b in (0, 2)])
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))].int()


class TestAgainstBruteForce:
    @pytest.mark.parametrize("seed", range(40))
    @pytest.mark.parametrize("ndim", [1, 2, 3, 4])
    def test_submanifold(self, ndim: int, seed: int) -> None:
        source = random.Random(seed)
        kernel = tuple(source.choice((1, 3, 5, 7) if ndim < 3 else (1, 3, 5)) for _ in range(ndim))
        dilation = tuple(source.choice((1, 1, 2)) for _ in range(ndim))
        found = native.sort_coords(random_cloud(seed, ndim, most=seed))
        m = native.subm_map(found.keys, found.layout, kernel, dilation)
        assert_same(m, reference.subm_map(found.keys, found.layout, kernel, dilation))
        assert pairs_of(m) == brute_subm(found.coords, kernel, dilation)
        check_tables(m)

    @pytest.mark.parametrize("seed", range(40))
    @pytest.mark.parametrize("ndim", [1, 2, 3, 4])
    def test_strided(self, ndim: int, seed: int) -> None:
        *rest, shape = geometry(seed, ndim)
        found = native.sort_coords(random_cloud(seed, ndim, most=seed))
        sites = native.strided_coords(found.coords, *rest, shape)
        assert_same(sites, reference.strided_coords(found.coords, *rest, shape))
        assert_same(sites, cloud_of(brute_sites(found.coords, *rest, shape), ndim))
        m = native.pair_map(found.coords, found.keys, found.layout, sites, *rest)
        assert_same(m, reference.pair_map(found.coords, found.keys, found.layout, sites, *rest))
        assert pairs_of(m) == brute_pairs(found.coords, sites, *rest)
        check_tables(m)

    @pytest.mark.parametrize("seed", range(40))
    @pytest.mark.parametrize("ndim", [1, 2, 3, 4])
    def test_transposed(self, ndim: int, seed: int) -> None:
        *rest, shape = geometry(seed, ndim)
        found = native.sort_coords(random_cloud(seed, ndim, most=seed // 2))
        sites = native.transposed_coords(found.coords, *rest, shape)
        assert_same(sites, reference.transposed_coords(found.coords, *rest, shape))
        assert_same(sites, cloud_of(brute_sites(found.coords, *rest, shape, transposed=True), ndim))

    @pytest.mark.parametrize("seed", range(40))
    @pytest.mark.parametrize("ndim", [1, 2, 3, 4])
    def test_onto_any_set(self, ndim: int, seed: int) -> None:
        *rest, _ = geometry(seed, ndim)
        found = native.sort_coords(random_cloud(seed, ndim, most=seed, samples=3))
        target = native.sort_coords(random_cloud(1000 + seed, ndim, most=39 - seed, samples=2)).coords
        m = native.pair_map(found.coords, found.keys, found.layout, target, *rest)
        assert_same(m, reference.pair_map(found.coords, found.keys, found.layout, target, *rest))
        assert pairs_of(m) == brute_pairs(found.coords, target, *rest)

    def test_unsorted_and_repeated_inputs_have_the_same_outputs(self) -> None:
        coords = random_cloud(0, 3)
        twice = torch.cat([coords, coords.flip(0)])
        for make in (native.strided_coords, native.transposed_coords):
            wanted = make(native.sort_coords(coords).coords, THREE, TWO, ONE, ONE, None)
            assert_same(make(twice, THREE, TWO, ONE, ONE, None), wanted)


class TestKnownMaps:
    """Maps small enough to write down."""

    def test_three_sites_on_a_line(self) -> None:
        found = native.sort_coords(cloud_of([(0, 4), (0, 5), (0, 7)], 1))
        m = native.subm_map(found.keys, found.layout, (3,), (1,))
        assert (m.pair_in.tolist(), m.pair_out.tolist(), m.list_ptr.tolist()) == ([1], [0], [0, 1])
        assert pairs_of(m) == [[(0, 1)], [(0, 0), (1, 1), (2, 2)], [(1, 0)]]
        assert pairs_of(native.subm_map(found.keys, found.layout, (3,), (2,)))[2] == [(2, 1)]

    def test_batches_do_not_touch(self) -> None:
        found = native.sort_coords(cloud_of([(0, 9), (1, 0), (1, 1)], 1))
        assert pairs_of(native.subm_map(found.keys, found.layout, (3,), (1,)))[2] == [(2, 1)]

    def test_kernel_one_needs_no_pairs(self) -> None:
        found = native.sort_coords(random_cloud(0, 3))
        m = native.subm_map(found.keys, found.layout, ONE, ONE)
        assert m.pair_in.shape == (0,) and m.list_ptr.tolist() == [0] and m.block_in.shape == (0, 2)
        assert m.n_pairs == len(found.coords)

    def test_one_site_has_all_the_outputs_that_see_it(self) -> None:
        coords = cloud_of([(0, 4)], 1)
        assert native.strided_coords(coords, (3,), (2,), (1,), (1,), None).tolist() == [[0, 2]]
        assert native.strided_coords(coords, (4,), (2,), (1,), (1,), None).tolist() == [[0, 1], [0, 2]]
        assert native.strided_coords(coords, (4,), (2,), (1,), (1,), (2,)).tolist() == [[0, 1]]
        assert native.strided_coords(cloud_of([(0, 3)], 1), (1,), (2,), (0,), (1,), None).shape == (0, 2)
        assert native.transposed_coords(coords, (3,), (2,), (1,), (1,), None).tolist() == [[0, 7], [0, 8], [0, 9]]

    def test_full_cube_has_every_inner_pair(self) -> None:
        grid = torch.ones(1, 5, 6, 7).nonzero().int()
        found = native.sort_coords(grid)
        m = native.subm_map(found.keys, found.layout, THREE, ONE)
        wanted = [
            (5 - abs(z)) * (6 - abs(y)) * (7 - abs(x)) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)
        ]
        assert [len(pairs) for pairs in pairs_of(m)] == wanted and m.n_pairs == sum(wanted)


class TestProperties:
    @pytest.fixture
    def walls(self):  # type: ignore[no-untyped-def]
        return native.sort_coords(room())

    @pytest.mark.parametrize("kernel", [(1, 1, 3), (3, 3, 3), (3, 1, 5), (5, 5, 5), (1, 7, 1)])
    @pytest.mark.parametrize("dilation", [(1, 1, 1), (1, 2, 2)])
    def test_submanifold_on_any_number_of_threads(self, walls, kernel: Ints, dilation: Ints) -> None:  # type: ignore[no-untyped-def]
        wanted = reference.subm_map(walls.keys, walls.layout, kernel, dilation)
        for number in (1, 2, 3):
            with threads(number):
                assert_same(native.subm_map(walls.keys, walls.layout, kernel, dilation), wanted)

    @pytest.mark.parametrize(
        ("kernel", "stride", "padding", "dilation"),
        [(TWO, TWO, ZERO, ONE), (THREE, TWO, ONE, ONE), (THREE, ONE, ONE, ONE), (THREE, TWO, ONE, TWO)],
        ids=["k2s2", "k3s2", "k3s1", "k3s2d2"],
    )
    def test_strided_on_any_number_of_threads(  # type: ignore[no-untyped-def]
        self, walls, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints
    ) -> None:
        rest = kernel, stride, padding, dilation
        sites = reference.strided_coords(walls.coords, *rest, None)
        wanted = reference.pair_map(walls.coords, walls.keys, walls.layout, sites, *rest)
        larger = reference.transposed_coords(sites, *rest, None)
        for number in (1, 2, 3):
            with threads(number):
                assert_same(native.strided_coords(walls.coords, *rest, None), sites)
                assert_same(native.pair_map(walls.coords, walls.keys, walls.layout, sites, *rest), wanted)
                assert_same(native.transposed_coords(sites, *rest, None), larger)

    def test_long_lines_are_cut_anywhere(self) -> None:
        found = native.sort_coords(random_cloud(0, 1, most=60_000, extent=40_000))
        target = native.sort_coords(random_cloud(1, 1, most=60_000, extent=20_000)).coords
        subm = reference.subm_map(found.keys, found.layout, (5,), (1,))
        pairs = {
            d: reference.pair_map(found.coords, found.keys, found.layout, target, (3,), (2,), (1,), (d,))
            for d in (1, 2)
        }
        for number in (1, 3):
            with threads(number):
                assert_same(native.subm_map(found.keys, found.layout, (5,), (1,)), subm)
                for d, wanted in pairs.items():
                    m = native.pair_map(found.coords, found.keys, found.layout, target, (3,), (2,), (1,), (d,))
                    assert_same(m, wanted)

    def test_order_of_the_rows_does_not_matter(self, walls) -> None:  # type: ignore[no-untyped-def]
        again = native.sort_coords(room().flip(0))
        wanted = native.subm_map(walls.keys, walls.layout, THREE, ONE)
        assert_same(native.subm_map(again.keys, again.layout, THREE, ONE), wanted)

    def test_translation_by_strides_moves_outputs_and_keeps_maps(self, walls) -> None:  # type: ignore[no-untyped-def]
        shift = torch.tensor([0, 2000, -400, 2**30]).int()
        moved = native.sort_coords(walls.coords + shift)
        subm = native.subm_map(walls.keys, walls.layout, THREE, ONE)
        assert_same(native.subm_map(moved.keys, moved.layout, THREE, ONE), subm)
        sites = native.strided_coords(walls.coords, THREE, TWO, ONE, ONE, None)
        other = native.strided_coords(moved.coords, THREE, TWO, ONE, ONE, None)
        assert_same(other, sites + shift // 2)
        m = native.pair_map(walls.coords, walls.keys, walls.layout, sites, THREE, TWO, ONE, ONE)
        assert_same(native.pair_map(moved.coords, moved.keys, moved.layout, other, THREE, TWO, ONE, ONE), m)

    def test_a_batch_is_its_samples_one_after_the_other(self) -> None:
        parts = [random_cloud(seed, 3, samples=1) for seed in (0, 1)]
        batch = native.sort_coords(
            torch.cat([part + torch.tensor([b, 0, 0, 0]).int() for b, part in zip((1, 4), parts)])
        )
        single = [native.sort_coords(part) for part in parts]
        maps = [pairs_of(native.subm_map(s.keys, s.layout, THREE, ONE)) for s in single]
        first = len(parts[0])
        joined = [a + [(i + first, o + first) for i, o in b] for a, b in zip(*maps)]
        assert pairs_of(native.subm_map(batch.keys, batch.layout, THREE, ONE)) == joined

    @pytest.mark.parametrize("size", [1, 2, 3, 5])
    def test_windows_that_tile_hold_every_input_once(self, walls, size: int) -> None:  # type: ignore[no-untyped-def]
        k = (size,) * 3
        sites = native.strided_coords(walls.coords, k, k, ZERO, ONE, None)
        m = native.pair_map(walls.coords, walls.keys, walls.layout, sites, k, k, ZERO, ONE)
        assert torch.equal(m.pair_in.sort().values, torch.arange(len(walls.coords)).int())
        assert torch.equal(m.pair_out.unique(), torch.arange(len(sites)).int())
        corner = torch.cat([walls.coords[:, :1], torch.div(walls.coords[:, 1:], size, rounding_mode="floor")], 1)
        assert torch.equal(sites, torch.unique(corner, dim=0).int())

    def test_strided_outputs_are_those_with_pairs(self, walls) -> None:  # type: ignore[no-untyped-def]
        sites = native.strided_coords(walls.coords, THREE, TWO, ONE, ONE, None)
        m = native.pair_map(walls.coords, walls.keys, walls.layout, sites, THREE, TWO, ONE, ONE)
        assert torch.equal(m.pair_out.unique(), torch.arange(len(sites)).int())
        check_tables(m)

    def test_what_a_layer_reads_its_transposition_generates(self, walls) -> None:  # type: ignore[no-untyped-def]
        sites = native.strided_coords(walls.coords, THREE, TWO, ONE, ONE, None)
        back = native.sort_coords(native.transposed_coords(sites, THREE, TWO, ONE, ONE, None))
        assert bool((native.lookup(back.keys, back.layout, walls.coords) >= 0).all())

    def test_results_own_their_memory(self) -> None:
        for coords in (random_cloud(0, 3), cloud_of([], 3)):
            s = native.sort_coords(coords)
            sites = native.strided_coords(s.coords, TWO, TWO, ZERO, ONE, None)
            maps = (
                native.subm_map(s.keys, s.layout, THREE, ONE),
                native.pair_map(s.coords, s.keys, s.layout, sites, TWO, TWO, ZERO, ONE),
            )
            arrays = [*s, sites, *(v for m in maps for v in vars(m).values() if isinstance(v, Tensor))]
            places = [array.untyped_storage().data_ptr() for array in arrays]
            assert len(set(places)) == len(places)


class TestOperators:
    @pytest.mark.parametrize("rows", [0, 40])
    def test_torchs_checks_pass(self, rows: int) -> None:
        s = native.sort_coords(random_cloud(0, 3, rows))
        sites = native.strided_coords(s.coords, TWO, TWO, ZERO, ONE, None)
        ops = torch.ops.vision3d
        for op, arguments in (
            (ops.subm_map, (s.keys, s.layout, THREE, ONE)),
            (ops.pair_map, (s.keys, s.layout, sites, TWO, TWO, ZERO, ONE)),
            (ops.output_sites, (s.coords, TWO, TWO, ZERO, ONE, None, False)),
            (ops.output_sites, (s.coords, TWO, TWO, ZERO, ONE, (4, 4, 4), True)),
        ):
            assert set(torch.library.opcheck(op.default, arguments).values()) == {"SUCCESS"}

    def test_a_map_build_compiles_once_for_all_sizes(self) -> None:
        def build(coords: Tensor) -> tuple[KernelMap, KernelMap, KernelMap]:
            s = native.sort_coords(coords)
            sites = native.strided_coords(s.coords, TWO, TWO, ZERO, ONE, None)
            keys, layout = native.index_sorted(sites)
            return (
                native.subm_map(s.keys, s.layout, THREE, ONE),
                native.pair_map(s.coords, s.keys, s.layout, sites, TWO, TWO, ZERO, ONE),
                native.subm_map(keys, layout, THREE, ONE),
            )

        torch._dynamo.reset()
        compiled = torch.compile(build, fullgraph=True, dynamic=True, backend="aot_eager")
        for most in (40, 25, 300, 2, 77):
            coords = random_cloud(most, 3, most)
            with torch._dynamo.config.patch(error_on_recompile=most != 40):
                assert_same(compiled(coords), build(coords))


class TestErrors:
    @pytest.fixture(params=["native", "reference"])
    def engine(self, request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
        return load(request.param)

    @pytest.fixture
    def found(self):  # type: ignore[no-untyped-def]
        return native.sort_coords(random_cloud(0, 3))

    def test_even_kernels_have_no_centre(self, engine, found) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(ValueError, match=r"odd kernel_size, not \(3, 2, 3\)"):
            engine.subm_map(found.keys, found.layout, (3, 2, 3), ONE)

    @pytest.mark.parametrize("padding", [-(2**31) + 10, 2**31 - 1])
    def test_outputs_beyond_32_bits(self, engine, padding: int) -> None:  # type: ignore[no-untyped-def]
        far = cloud_of([(0, 100 if padding > 0 else -100)], 1)
        with pytest.raises(ValueError, match="an output coordinate does not fit 32 bits"):
            engine.strided_coords(far, (1,), (1,), (padding,), (1,), None)
        with pytest.raises(ValueError, match="an output coordinate does not fit 32 bits"):
            engine.transposed_coords(cloud_of([(0, 2**30)], 1), (1,), (3,), (padding // 2,), (1,), None)
        assert engine.strided_coords(far, (1,), (1,), (padding,), (1,), (10,)).shape == (0, 2)

    def test_outputs_too_far_apart_for_keys(self, engine) -> None:  # type: ignore[no-untyped-def]
        coords = cloud_of([(0, 0, 0, 0), (0, 2**20, 2**20, 2**20)], 3)
        with pytest.raises(ValueError, match=r"too large for 64-bit keys: \[1, 8388609, 8388609, 8388609\]"):
            engine.transposed_coords(coords, ONE, (8, 8, 8), ZERO, ONE, None)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("kernel_size", (3, 0, 3)),
        ("kernel_size", (3, -3, 3)),
        ("stride", (1, 0, 1)),
        ("stride", (1, 2**31, 1)),
        ("dilation", (0, 1, 1)),
        ("padding", (0, 2**31, 0)),
        ("padding", (0, -(2**31) - 1, 0)),
    ],
)
def test_geometry_out_of_range(name: str, values: Ints) -> None:
    s = native.sort_coords(random_cloud(0, 3))
    given = {"kernel_size": THREE, "stride": ONE, "padding": ZERO, "dilation": ONE, name: values}
    for call in (
        lambda: native.strided_coords(s.coords, *given.values(), None),
        lambda: native.transposed_coords(s.coords, *given.values(), None),
        lambda: native.pair_map(s.coords, s.keys, s.layout, s.coords, *given.values()),
    ):
        with pytest.raises(
            ValueError, match=f"{name} must be from .* not {values[1] if values[1] != 1 else values[0]}"
        ):
            call()


def test_geometry_of_another_dimension() -> None:
    s = native.sort_coords(random_cloud(0, 3))
    with pytest.raises(ValueError, match="stride has 2 values for 3 axes"):
        native.strided_coords(s.coords, THREE, (1, 1), ZERO, ONE, None)
    with pytest.raises(ValueError, match="kernel_size has 4 values for 3 axes"):
        native.subm_map(s.keys, s.layout, (3,) * 4, ONE)
    with pytest.raises(ValueError, match="out_shape has 1 values for 3 axes"):
        native.strided_coords(s.coords, THREE, ONE, ZERO, ONE, (5,))
    with pytest.raises(ValueError, match="more than 2\\^20 offsets"):
        native.subm_map(s.keys, s.layout, (1001, 1001, 1001), ONE)
    with pytest.raises(ValueError, match="differ in their number of columns"):
        native.pair_map(s.coords, s.keys, s.layout, s.coords[:, :3], (3, 3), (1, 1), (0, 0), (1, 1))


def test_sets_out_of_order() -> None:
    s = native.sort_coords(random_cloud(0, 3))
    with pytest.raises(ValueError, match="must ascend strictly"):
        native.subm_map(s.keys.flip(0), s.layout, THREE, ONE)
    with pytest.raises(ValueError, match="must ascend strictly"):
        native.pair_map(s.coords, s.keys.flip(0), s.layout, s.coords, THREE, ONE, ZERO, ONE)
    with pytest.raises(ValueError, match="output coords must ascend strictly"):
        native.pair_map(s.coords, s.keys, s.layout, s.coords.flip(0), THREE, ONE, ZERO, ONE)
