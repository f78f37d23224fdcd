# SPDX-License-Identifier: Apache-2.0
"""Pooling over kernel maps: the compiled operators against dense pooling, the reference, and bad maps."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as dense

from vision3d.sparse.backends import load
from vision3d.sparse.kernel_map import KernelMap

pytest.importorskip("vision3d.sparse._native")

from vision3d.sparse.backends import native_reduce

NATIVE, REFERENCE = load("native"), load("reference")
POOL = {1: dense.max_pool1d, 2: dense.max_pool2d, 3: dense.max_pool3d}
CONV = {1: dense.conv1d, 2: dense.conv2d, 3: dense.conv3d}


def cloud(n: int, ndim: int, span: int, batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    space = torch.randint(0, span, (n, ndim), generator=generator)
    coords = torch.cat([torch.randint(0, batch, (n, 1), generator=generator), space], 1)
    return coords.unique(dim=0).int()


def strided_map(coords: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, KernelMap]:
    ndim = coords.shape[1] - 1
    geometry = ((kernel,) * ndim, (stride,) * ndim, (padding,) * ndim, (1,) * ndim)
    keys, layout = REFERENCE.index_sorted(coords)
    out = REFERENCE.strided_coords(coords, *geometry, None)
    return out, REFERENCE.pair_map(coords, keys, layout, out, *geometry)


def subm(n: int = 300, ndim: int = 3, span: int = 8, kernel: int = 3) -> KernelMap:
    keys, layout = REFERENCE.index_sorted(cloud(n, ndim, span))
    return REFERENCE.subm_map(keys, layout, (kernel,) * ndim, (1,) * ndim)


def maps() -> dict[str, KernelMap]:
    overlapping = strided_map(cloud(400, 3, 9), 3, 2, 1)[1]
    return {
        "submanifold": subm(),
        "k3 s2": overlapping,
        "k2 s2": strided_map(cloud(400, 3, 9), 2, 2, 0)[1],
        "transposed": overlapping.transposed(),
        "one offset": strided_map(cloud(100, 2, 9), 1, 2, 0)[1],
        "1D k5": strided_map(cloud(300, 1, 400), 5, 3, 2)[1],
    }


MAPS = maps()


def feats_for(kernel_map: KernelMap, channels: int, dtype: torch.dtype = torch.float64, decimals: int = 20) -> Tensor:
    feats = torch.randn(kernel_map.n_in, channels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return feats.round(decimals=decimals).to(dtype) if decimals < 20 else feats.to(dtype)


def both(backend_name: str, feats: Tensor, kernel_map: KernelMap, mode: str) -> tuple[Tensor, Tensor]:
    """Output, and gradient of a fixed weighting of it."""
    leaf = feats.clone().requires_grad_()
    out = load(backend_name).pool(leaf, kernel_map, mode)
    weighting = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(out.dtype)
    (grad,) = torch.autograd.grad(out, leaf, weighting)
    return out.detach(), grad


def tables(kernel_map: KernelMap) -> tuple[Tensor, ...]:
    m = kernel_map
    return m.pair_in, m.pair_out, m.list_ptr, m.block_in, m.block_out


@pytest.mark.parametrize(
    ("ndim", "kernel", "stride", "padding"), [(1, 3, 2, 1), (2, 2, 2, 0), (2, 3, 1, 1), (3, 3, 2, 1), (3, 2, 2, 0)]
)
@pytest.mark.parametrize("mode", ["max", "sum"])
def test_equals_dense_pooling_at_the_sites(ndim: int, kernel: int, stride: int, padding: int, mode: str) -> None:
    span = {1: 60, 2: 12, 3: 7}[ndim]
    coords = cloud(150, ndim, span)
    # The dense grid must hold every output site: those of windows that reach over the end as well.
    size = (span + 2 * padding - 1) // stride + 1
    out_coords, kernel_map = strided_map(coords, kernel, stride, padding)
    keep = ((out_coords[:, 1:] >= 0) & (out_coords[:, 1:] < size)).all(1)
    feats = feats_for(kernel_map, 4).requires_grad_()
    empty = -torch.inf if mode == "max" else 0.0
    grid = feats.new_full((2, *(span + 2 * padding + kernel,) * ndim, 4), empty)
    place = (coords.long() + coords.new_tensor([0] + [padding] * ndim)).unbind(1)
    padded = grid.index_put(place, feats).movedim(-1, 1)
    if mode == "max":
        expected = POOL[ndim](padded, kernel, stride)
    else:
        expected = CONV[ndim](padded, torch.ones(4, 1, *(kernel,) * ndim, dtype=grid.dtype), stride=stride, groups=4)
    at = expected.movedim(1, -1)[out_coords[keep].long().unbind(1)]
    out = NATIVE.pool(feats, kernel_map, mode)[keep]
    assert torch.equal(out, at) if mode == "max" else torch.allclose(out, at, rtol=1e-12, atol=1e-12)
    weighting = torch.randn(at.shape, generator=torch.Generator().manual_seed(3), dtype=at.dtype)
    grads = [torch.autograd.grad(value, feats, weighting, retain_graph=True)[0] for value in (out, at)]
    assert torch.allclose(grads[0], grads[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("channels", [1, 3, 16, 37])
def test_equals_the_reference_with_many_ties(name: str, channels: int) -> None:
    kernel_map = MAPS[name]
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        feats = feats_for(kernel_map, channels, dtype, decimals=0)
        out, grad = both("native", feats, kernel_map, "max")
        expected, expected_grad = both("reference", feats, kernel_map, "max")
        assert torch.equal(out, expected)
        assert torch.allclose(grad, expected_grad, rtol=tolerance, atol=tolerance)
        feats = feats_for(kernel_map, channels, dtype)
        for ours, oracle in zip(both("native", feats, kernel_map, "sum"), both("reference", feats, kernel_map, "sum")):
            assert torch.allclose(ours, oracle, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_storage_only(dtype: torch.dtype) -> None:
    kernel_map = MAPS["submanifold"]
    feats = feats_for(kernel_map, 5, dtype)
    for mode in ("max", "sum"):
        out = NATIVE.pool(feats, kernel_map, mode)
        assert out.dtype == dtype
        assert torch.equal(out, NATIVE.pool(feats.float(), kernel_map, mode).to(dtype))
        assert both("native", feats, kernel_map, mode)[1].dtype == dtype


@pytest.mark.parametrize("name", ["native", "reference"])
def test_the_first_of_equal_inputs_takes_the_gradient(name: str) -> None:
    _, kernel_map = strided_map(torch.tensor([[0, 0], [0, 1], [0, 2]]).int(), 3, 3, 0)
    feats = torch.tensor([[1.0, 3.0, 0.0], [2.0, 3.0, -0.0], [2.0, 1.0, 0.0]], requires_grad=True)
    load(name).pool(feats, kernel_map, "max").sum().backward()
    assert feats.grad is not None
    assert feats.grad.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("name", ["native", "reference"])
def test_nan_is_the_largest_as_in_torch(name: str) -> None:
    feats = feats_for(MAPS["1D k5"], 6, torch.float32)
    feats[torch.rand(feats.shape, generator=torch.Generator().manual_seed(4)) < 0.1] = torch.nan
    coords = cloud(300, 1, 400)
    grid = torch.full((2, 402 + 5, 6), -torch.inf).index_put((coords[:, 0].long(), coords[:, 1].long() + 2), feats)
    expected = dense.max_pool1d(grid.movedim(-1, 1), 5, 3).movedim(1, -1)
    out_coords, kernel_map = strided_map(coords, 5, 3, 2)
    out, grad = both(name, feats, kernel_map, "max")
    assert torch.equal(out.nan_to_num(99.0), expected[out_coords.long().unbind(1)].nan_to_num(99.0))
    assert torch.equal(grad, both("native", feats, kernel_map, "max")[1])


def test_minus_infinity_is_a_value() -> None:
    kernel_map = MAPS["k2 s2"]
    feats = torch.full((kernel_map.n_in, 3), -torch.inf)
    out, grad = both("native", feats, kernel_map, "max")
    assert bool((out == -torch.inf).all())
    assert torch.equal(grad, both("reference", feats, kernel_map, "max")[1])


@pytest.mark.parametrize("mode", ["max", "sum"])
def test_outputs_without_inputs_are_zero_and_pass_no_gradient(mode: str) -> None:
    coords = cloud(50, 2, 9)
    keys, layout = REFERENCE.index_sorted(coords)
    far = torch.cat([coords, coords + torch.tensor([0, 1000, 1000]).int()]).unique(dim=0).int()
    kernel_map = REFERENCE.pair_map(coords, keys, layout, far, (3, 3), (1, 1), (1, 1), (1, 1))
    feats = -1 - feats_for(kernel_map, 3).abs()
    out, grad = both("native", feats, kernel_map, mode)
    lonely = far[:, 1] >= 900
    assert bool((out[lonely] == 0).all()) and bool((out[~lonely] < 0).all())
    assert torch.equal(out, both("reference", feats, kernel_map, mode)[0])
    assert torch.allclose(grad, both("reference", feats, kernel_map, mode)[1], rtol=1e-13)


@pytest.mark.parametrize("mode", ["max", "sum"])
@pytest.mark.parametrize("channels", [0, 3])
def test_empty_inputs(mode: str, channels: int) -> None:
    nothing = torch.empty((0, 4), dtype=torch.int32)
    out_coords, kernel_map = strided_map(nothing, 2, 2, 0)
    feats = torch.empty((0, channels), requires_grad=True)
    out = NATIVE.pool(feats, kernel_map, mode)
    assert out.shape == (0, channels)
    out.sum().backward()
    assert feats.grad is not None and feats.grad.shape == (0, channels)
    # No input, but prescribed outputs.
    sites = cloud(20, 3, 4)
    keys, layout = REFERENCE.index_sorted(nothing)
    kernel_map = REFERENCE.pair_map(nothing, keys, layout, sites, (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1))
    out = NATIVE.pool(feats, kernel_map, mode)
    assert torch.equal(out, torch.zeros(len(sites), channels))
    out.sum().backward()


@pytest.mark.parametrize("mode", ["max", "sum"])
def test_the_same_bits_for_every_number_of_threads(mode: str) -> None:
    kernel_map = subm(4000, 3, 20)
    feats = feats_for(kernel_map, 19, torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(both("native", feats, kernel_map, mode))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0]) and torch.equal(results[0][1], other[1])


@pytest.mark.parametrize("mode", ["max", "sum"])
def test_gradients_are_those_of_finite_differences(mode: str) -> None:
    kernel_map = strided_map(cloud(12, 2, 4), 3, 2, 1)[1]
    feats = feats_for(kernel_map, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: NATIVE.pool(f, kernel_map, mode), (feats,))
    assert torch.autograd.gradgradcheck(lambda f: NATIVE.pool(f, kernel_map, mode), (feats,))


def test_operators_pass_opcheck() -> None:
    kernel_map = subm(40, 2, 6)
    feats = feats_for(kernel_map, 3, torch.float32).requires_grad_()
    sizes = (kernel_map.n_out, kernel_map.volume, kernel_map.mirrored)
    torch.library.opcheck(native_reduce.pool_sum, (feats, *tables(kernel_map), *sizes))
    torch.library.opcheck(native_reduce.pool_max, (feats, *tables(kernel_map), *sizes, True))
    torch.library.opcheck(native_reduce.pool_max, (feats.detach(), *tables(kernel_map), *sizes, False))
    source = native_reduce.pool_max(feats, *tables(kernel_map), *sizes, True)[1]
    torch.library.opcheck(native_reduce.scatter_rows, (feats, source, kernel_map.n_in))


def test_compiles_into_one_graph_for_all_sizes() -> None:
    graphs = []

    def count(module, inputs):  # type: ignore[no-untyped-def]
        graphs.append(module)
        return module.forward

    def step(feats: Tensor, kernel_map: KernelMap) -> Tensor:
        return (NATIVE.pool(feats, kernel_map, "max") * 2).relu()

    compiled = torch.compile(step, backend=count, fullgraph=True, dynamic=True)
    for n in (100, 210, 320):
        kernel_map = subm(n, 2, 20)
        feats = feats_for(kernel_map, 4, torch.float32).requires_grad_()
        assert torch.equal(compiled(feats, kernel_map), step(feats, kernel_map))
    assert len(graphs) == 1


def test_winners_are_kept_only_for_a_gradient() -> None:
    kernel_map = MAPS["k2 s2"]
    feats = feats_for(kernel_map, 4, torch.float32)
    sizes = (kernel_map.n_out, kernel_map.volume, kernel_map.mirrored)
    out, source = native_reduce.pool_max(feats, *tables(kernel_map), *sizes, True)
    assert source.dtype == torch.int32 and torch.equal(feats.gather(0, source.long()), out)
    same, nothing = native_reduce.pool_max(feats, *tables(kernel_map), *sizes, False)
    assert torch.equal(same, out) and nothing.numel() == 0


def test_rows_of_other_strides_are_read_as_they_are() -> None:
    kernel_map = MAPS["k3 s2"]
    feats = feats_for(kernel_map, 6)
    wide = torch.stack([feats, torch.zeros_like(feats)], 2)[:, :, 0]
    assert not wide.is_contiguous()
    assert torch.equal(both("native", wide, kernel_map, "max")[1], both("native", feats, kernel_map, "max")[1])


@pytest.mark.parametrize(
    ("kernel_map", "message"),
    [
        (replace(MAPS["k3 s2"], pair_in=MAPS["k3 s2"].pair_in + 1000), "row number"),
        (replace(MAPS["k3 s2"], pair_in=-1 - MAPS["k3 s2"].pair_in), "row number"),
        (replace(MAPS["k3 s2"], pair_out=MAPS["k3 s2"].pair_out + 1), "row number"),
        (replace(MAPS["k3 s2"], pair_out=MAPS["k3 s2"].pair_out[1:]), "length"),
        (replace(MAPS["k3 s2"], list_ptr=MAPS["k3 s2"].list_ptr + 1), "span"),
        (replace(MAPS["k3 s2"], list_ptr=MAPS["k3 s2"].list_ptr[:-1]), "offsets"),
        (replace(MAPS["k3 s2"], block_out=MAPS["k3 s2"].block_out.flip(1)), "block table"),
        (replace(MAPS["k3 s2"], n_out=MAPS["k3 s2"].n_out + 640), "block table"),
        (replace(MAPS["submanifold"], n_out=MAPS["submanifold"].n_out - 1), "as many"),
    ],
)
@pytest.mark.parametrize("mode", ["max", "sum"])
def test_a_broken_map_is_an_error(kernel_map: KernelMap, message: str, mode: str) -> None:
    feats = torch.zeros((kernel_map.n_in, 3))
    with pytest.raises((ValueError, IndexError), match=message):
        NATIVE.pool(feats, kernel_map, mode)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_a_damaged_map_never_crashes(data: st.DataObject) -> None:
    kernel_map = MAPS[data.draw(st.sampled_from(["submanifold", "k2 s2", "transposed"]))]
    name = data.draw(st.sampled_from(["pair_in", "pair_out", "list_ptr", "block_in", "block_out"]))
    table = getattr(kernel_map, name).clone()
    edge = st.sampled_from([-(2**31), -1, 0, 63, 64, kernel_map.n_in, kernel_map.n_out, 2**31 - 1])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, table.numel() - 1))
        table.view(-1)[place] = data.draw(st.one_of(edge, st.integers(-10, kernel_map.n_in + 10)))
    damaged = replace(kernel_map, **{name: table})
    feats = feats_for(kernel_map, 2, torch.float32).requires_grad_()
    for mode in ("max", "sum"):
        try:
            out = NATIVE.pool(feats, damaged, mode)
            out.sum().backward()
        except (ValueError, IndexError) as error:
            message = str(error)
        else:
            message = "kernel map: taken as sound"
            assert out.shape == (kernel_map.n_out, 2) and bool(out.isfinite().all())
        assert message.startswith("kernel map")


def test_bad_arguments() -> None:
    kernel_map = MAPS["k2 s2"]
    feats = torch.zeros((kernel_map.n_in, 2))
    with pytest.raises(ValueError, match="unknown pooling mode 'avg'"):
        NATIVE.pool(feats, kernel_map, "avg")
    with pytest.raises(ValueError, match="the kernel map has"):
        NATIVE.pool(feats[1:], kernel_map, "max")
    with pytest.raises(TypeError, match="floating"):
        NATIVE.pool(feats.int(), kernel_map, "sum")
    with pytest.raises(IndexError, match="out of range"):
        native_reduce.scatter_rows(feats, torch.full(feats.shape, 5, dtype=torch.int32), 5)


def test_pooling_by_hand() -> None:
    """Every pair of a small map, one by one."""
    kernel_map = strided_map(cloud(30, 2, 5), 3, 2, 1)[1]
    feats = feats_for(kernel_map, 1)
    rows: list[list[float]] = [[] for _ in range(kernel_map.n_out)]
    for offset in range(kernel_map.volume):
        for i, o in itertools.zip_longest(*(r.tolist() for r in kernel_map.pairs_of(offset))):
            rows[o].append(float(feats[i, 0]))
    assert NATIVE.pool(feats, kernel_map, "max")[:, 0].tolist() == [max(r) for r in rows]
    assert NATIVE.pool(feats, kernel_map, "sum")[:, 0].tolist() == pytest.approx([sum(r) for r in rows], rel=1e-12)
