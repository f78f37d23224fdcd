# SPDX-License-Identifier: Apache-2.0
"""Segment reductions: the public function and the compiled operators, against loops and the reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vision3d.sparse.backends import backend, load
from vision3d.sparse.reduce import MODES, segment_reduce

BACKENDS = ["native", "reference"]


@pytest.fixture(params=BACKENDS)
def each_backend(request: pytest.FixtureRequest) -> str:
    if request.param == "native":
        pytest.importorskip("vision3d.sparse._native")
    return str(request.param)


def values_for(rows: int, channels: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(rows, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def index_for(rows: int, segments: int, seed: int = 1) -> Tensor:
    return torch.randint(0, segments, (rows,), generator=torch.Generator().manual_seed(seed))


def by_loops(values: Tensor, order: Tensor, ptr: Tensor, mode: str) -> Tensor:
    out = torch.zeros(len(ptr) - 1, values.shape[1], dtype=values.dtype)
    for segment in range(len(ptr) - 1):
        rows = order[ptr[segment] : ptr[segment + 1]].tolist()
        for c in range(values.shape[1]):
            column = [float(values[row, c]) for row in rows]
            if column:
                reduced = {"sum": math.fsum(column), "mean": math.fsum(column) / len(column), "max": max(column)}
                out[segment, c] = reduced.get(mode, column[0])
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("rows", "channels", "segments"), [(60, 3, 13), (200, 21, 4), (90, 1, 200), (5, 70, 1)])
def test_equals_loops(each_backend: str, mode: str, rows: int, channels: int, segments: int) -> None:
    values, index = values_for(rows, channels), index_for(rows, segments)
    order = torch.argsort(index, stable=True)
    ptr = torch.searchsorted(index[order], torch.arange(segments + 1))
    expected = by_loops(values, order, ptr, mode)
    with backend(each_backend):
        by_index = segment_reduce(values, index, mode, n_segments=segments)
        by_ptr = segment_reduce(values, mode=mode, ptr=ptr, order=order)
        sorted_rows = segment_reduce(values[order], mode=mode, ptr=ptr.int())
    for result in (by_index, by_ptr, sorted_rows):
        assert torch.allclose(result, expected, rtol=1e-13, atol=1e-13)
        if mode in ("max", "first"):
            assert torch.equal(result, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_backends_agree_in_values_and_gradients(mode: str, dtype: torch.dtype) -> None:
    pytest.importorskip("vision3d.sparse._native")
    values = values_for(300, 5).round(decimals=1).to(dtype)
    values[7, 1], values[30, 2] = torch.nan, torch.inf
    index = index_for(300, 40)
    weighting = values_for(41, 5, dtype, seed=3)
    results = []
    for name in BACKENDS:
        leaf = values.clone().requires_grad_()
        with backend(name):
            out = segment_reduce(leaf, index, mode, n_segments=41)
        assert out.dtype == dtype
        results.append((out.detach(), torch.autograd.grad(out, leaf, weighting)[0]))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for ours, oracle in zip(*results):
        assert torch.allclose(ours, oracle, rtol=tolerance, atol=tolerance, equal_nan=True)
    if mode in ("max", "first"):
        assert torch.equal(results[0][0].nan_to_num(9.0), results[1][0].nan_to_num(9.0))
        assert torch.equal(results[0][1], results[1][1])


def test_order_may_leave_rows_out_and_name_them_twice(each_backend: str) -> None:
    values = values_for(6, 2).requires_grad_()
    order, ptr = torch.tensor([4, 1, 1, 5, 4, 0]), torch.tensor([1, 3, 3, 6])
    with backend(each_backend):
        out = segment_reduce(values, mode="sum", ptr=ptr, order=order)
        assert torch.allclose(out, torch.stack([2 * values[1], 0 * values[0], values[5] + values[4] + values[0]]))
        out.sum().backward()
        assert values.grad is not None
        assert values.grad[:, 0].tolist() == [1, 2, 0, 0, 1, 1]
        values.grad = None
        # A maximum has one winner, also among copies of itself.
        segment_reduce(values, mode="max", ptr=ptr, order=order).sum().backward()
    assert values.grad[:, 0].sum() == 2 and values.grad[1].tolist() == [1, 1]


def test_the_first_of_equal_rows_takes_the_gradient_of_a_maximum(each_backend: str) -> None:
    values = torch.tensor([[1.0], [2.0], [2.0], [0.0], [0.0]], requires_grad=True)
    with backend(each_backend):
        segment_reduce(values, torch.tensor([0, 0, 0, 1, 1]), "max").sum().backward()
    assert values.grad is not None
    assert values.grad[:, 0].tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("mode", MODES)
def test_nothing_in_nothing_out(each_backend: str, mode: str) -> None:
    with backend(each_backend):
        for rows, channels, segments in ((0, 3, 0), (0, 3, 4), (5, 0, 4)):
            values = torch.zeros((rows, channels), requires_grad=True)
            out = segment_reduce(values, torch.zeros(rows, dtype=torch.int64), mode, n_segments=segments)
            assert torch.equal(out, torch.zeros(segments, channels))
            out.sum().backward()
            assert values.grad is not None and torch.equal(values.grad, torch.zeros(rows, channels))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_those_of_finite_differences(each_backend: str, mode: str) -> None:
    values, index = values_for(12, 3).requires_grad_(), index_for(12, 5)
    with backend(each_backend):
        assert torch.autograd.gradcheck(lambda v: segment_reduce(v, index, mode), (values,))
        assert torch.autograd.gradgradcheck(lambda v: segment_reduce(v, index, mode), (values,))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("segments", [1, 3, 2000])
def test_the_same_bits_for_every_number_of_threads(mode: str, segments: int) -> None:
    pytest.importorskip("vision3d.sparse._native")
    values, index = values_for(20000, 17, torch.float32), index_for(20000, segments)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = values.clone().requires_grad_()
            out = segment_reduce(leaf, index, mode)
            results.append((out.detach(), torch.autograd.grad(out.square().sum(), leaf)[0]))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0]) and torch.equal(results[0][1], other[1])


def test_a_long_sum_of_floats_keeps_its_digits() -> None:
    pytest.importorskip("vision3d.sparse._native")
    values = torch.full((300000, 1), 0.1)
    exact = 300000 * float(values[0, 0])
    total = segment_reduce(values, torch.zeros(300000, dtype=torch.int64), "sum")
    assert float(total) == pytest.approx(exact, rel=1e-7)
    mean = segment_reduce(values, torch.zeros(300000, dtype=torch.int64), "mean")
    assert float(mean) == float(values[0, 0])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_the_order_of_rows_does_not_matter(each_backend: str, mode: str) -> None:
    values, index = values_for(100, 4), index_for(100, 9)
    shuffle = torch.randperm(100, generator=torch.Generator().manual_seed(5))
    with backend(each_backend):
        once, again = (segment_reduce(values, index, mode), segment_reduce(values[shuffle], index[shuffle], mode))
    assert torch.allclose(once, again, rtol=1e-13) if mode != "max" else torch.equal(once, again)


def test_operators_pass_opcheck() -> None:
    pytest.importorskip("vision3d.sparse._native")
    from vision3d.sparse.backends import native_reduce

    values = values_for(20, 3, torch.float32).requires_grad_()
    order, ptr = torch.randperm(20), torch.tensor([0, 3, 3, 12, 20])
    for mode in ("sum", "mean", "first"):
        torch.library.opcheck(native_reduce.reduce_rows, (values, order, ptr, mode))
        torch.library.opcheck(native_reduce.spread_rows, (values_for(4, 3).requires_grad_(), order, ptr, 20, mode))
    torch.library.opcheck(native_reduce.max_rows, (values, order, ptr, True))
    torch.library.opcheck(native_reduce.max_rows, (values.detach(), order, ptr, False))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_wild_row_numbers_never_crash(data: st.DataObject) -> None:
    pytest.importorskip("vision3d.sparse._native")
    wild = st.one_of(st.integers(-2, 12), st.sampled_from([2**31, 2**63 - 1, -(2**63)]))
    order = torch.tensor(data.draw(st.lists(wild, max_size=12)), dtype=torch.int64)
    ptr = torch.tensor(data.draw(st.lists(st.integers(-1, 13), min_size=1, max_size=6)), dtype=torch.int64)
    if data.draw(st.booleans()):
        ptr = ptr.sort()[0]
    values = values_for(10, 3, torch.float32).requires_grad_()
    for mode in MODES:
        try:
            out = load("native").segment_reduce(values, order, ptr, mode)
            out.sum().backward()
        except (ValueError, IndexError) as error:
            message = str(error)
        else:
            message = "ptr and order are sound"
            assert out.shape == (len(ptr) - 1, 3)
        assert "ptr" in message or "order" in message


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"index": torch.tensor([0, 1, -1])}, ValueError, "index row 2 is -1"),
        ({"index": torch.tensor([0, 5, 1]), "n_segments": 4}, ValueError, "index row 1 is 5, but segments are 0 to 3"),
        ({"index": torch.tensor([0, 1])}, ValueError, "2 entries, values 3 rows"),
        ({"index": torch.tensor([0.0, 1.0, 2.0])}, TypeError, "index must be integer"),
        ({"index": torch.zeros(3, 1, dtype=torch.int64)}, ValueError, "one axis"),
        ({"index": torch.zeros(3).long(), "order": torch.zeros(3).long()}, ValueError, "order belongs to ptr"),
        ({"index": torch.zeros(3).long(), "ptr": torch.zeros(3).long()}, ValueError, "either index or ptr"),
        ({}, ValueError, "either index or ptr"),
        ({"ptr": torch.tensor([0, 4])}, ValueError, "ptr must ascend"),
        ({"ptr": torch.tensor([0, 2, 1])}, ValueError, "ptr must ascend"),
        ({"ptr": torch.tensor([], dtype=torch.int64)}, ValueError, "ptr must ascend"),
        ({"ptr": torch.tensor([0, 1]), "order": torch.tensor([3])}, ValueError, "order entry 0 is 3"),
        ({"ptr": torch.tensor([0, 1]), "n_segments": 1}, ValueError, "n_segments belongs to index"),
        ({"index": torch.zeros(3).long(), "mode": "median"}, ValueError, "unknown reduction 'median'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        segment_reduce(torch.zeros(3, 2), **arguments)  # type: ignore[arg-type]


def test_bad_values() -> None:
    index = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(TypeError, match="floating"):
        segment_reduce(torch.zeros(3, 2, dtype=torch.int64), index)
    with pytest.raises(ValueError, match=r"\(P, C\)"):
        segment_reduce(torch.zeros(3), index)
