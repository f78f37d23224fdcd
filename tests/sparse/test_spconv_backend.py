# SPDX-License-Identifier: Apache-2.0
"""The spconv backend on CPU tensors: equal to the reference wherever the installed build of spconv computes at all."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from vision3d import sparse
from vision3d.sparse.backends import load
from vision3d.sparse.backends import spconv as module
from vision3d.sparse.kernel_map import KernelMap

needs_spconv = pytest.mark.skipif(importlib.util.find_spec("spconv") is None, reason="spconv is not installed")
REFERENCE = load("reference")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
KINDS = ("subm", "subm 1", "subm dilated", "subm transposed", "strided", "tiling", "inverse", "isolated", "empty")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def kernel_map(kind: str, ndim: int, seed: int = 0) -> KernelMap:
    generator = torch.Generator().manual_seed(seed)
    fill = {"isolated": 0.0, "empty": 0.0}.get(kind, 0.4)
    grid = torch.rand((2, *[6] * ndim), generator=generator) < fill
    if kind == "isolated":
        grid[(slice(None), *[slice(None, None, 3)] * ndim)] = True
    coords, _, keys, layout = REFERENCE.sort_coords(grid.nonzero().int())
    one, none = (1,) * ndim, (0,) * ndim
    if kind in ("strided", "tiling", "inverse"):
        kernel, padding = ((2,) * ndim, none) if kind == "tiling" else ((3,) * ndim, one)
        stride = (2,) * ndim
        out = REFERENCE.strided_coords(coords, kernel, stride, padding, one, None)
        found = REFERENCE.pair_map(coords, keys, layout, out, kernel, stride, padding, one)
        return found.transposed() if kind == "inverse" else found
    size = {"subm 1": 1, "subm dilated": 5}.get(kind, 3)
    found = REFERENCE.subm_map(keys, layout, (size,) * ndim, (2,) * ndim if kind == "subm dilated" else one)
    return found.transposed() if kind == "subm transposed" else found


def operands(m: KernelMap, dtype: torch.dtype, groups: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((m.n_in, 6), (m.volume, 6 // groups, 12), (12,))
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return made[0].requires_grad_(), made[1].requires_grad_(), made[2].requires_grad_()


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == expected.dtype
    scale = max(expected.abs().max().item(), 1e-30) if expected.numel() else 1.0
    torch.testing.assert_close(found, expected, rtol=0, atol=scale * TOLERANCE[found.dtype])


@needs_spconv
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("ndim", "dtype"),
    [*product((1, 2, 3), (torch.float32,)), (2, torch.float64), (2, torch.float16), (3, torch.bfloat16)],
)
def test_convolution_and_its_gradients_are_those_of_the_reference(kind: str, ndim: int, dtype: torch.dtype) -> None:
    m = kernel_map(kind, ndim)
    inputs = operands(m, dtype)
    found = load("spconv").conv(*inputs, m, relu=True)
    expected = REFERENCE.conv(*inputs, m, relu=True)
    assert_close(found, expected)
    weights = torch.linspace(-1, 1, expected.numel()).reshape(expected.shape).to(dtype)
    if m.pair_in.numel() and dtype != torch.float16 and module._cpu_only():
        with pytest.raises(NotImplementedError, match="CPU wheel has no backward pass"):
            torch.autograd.grad(found, inputs, weights)
        return
    for ours, its in zip(torch.autograd.grad(found, inputs, weights), torch.autograd.grad(expected, inputs, weights)):
        assert_close(ours, its)


@needs_spconv
@pytest.mark.parametrize("groups", [2, 6])
def test_groups_take_the_reference(groups: int) -> None:
    m = kernel_map("strided", 3)
    inputs = operands(m, torch.float32, groups)
    found, expected = load("spconv").conv(*inputs, m, groups), REFERENCE.conv(*inputs, m, groups)
    assert torch.equal(found, expected)
    for ours, its in zip(torch.autograd.grad(found.sum(), inputs), torch.autograd.grad(expected.sum(), inputs)):
        assert torch.equal(ours, its)


@needs_spconv
def test_operands_of_two_gib_take_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    m = kernel_map("subm", 2)
    inputs = operands(m, torch.float32)
    bytes_out = m.n_out * 12 * 4
    monkeypatch.setattr(module, "spconv_conv", lambda *_: pytest.fail("spconv was called"))
    monkeypatch.setattr(module, "MAX_BYTES", bytes_out - 1)
    assert torch.equal(load("spconv").conv(*inputs, m), REFERENCE.conv(*inputs, m))
    monkeypatch.setattr(module, "MAX_BYTES", bytes_out)
    with pytest.raises(pytest.fail.Exception, match="was called"):
        load("spconv").conv(*inputs, m)


@needs_spconv
def test_wrong_operands_are_named() -> None:
    m = kernel_map("subm", 2)
    feats, weight, _ = operands(m, torch.float32)
    conv = load("spconv").conv
    with pytest.raises(TypeError, match=r"feats \(torch.float32\) and weight \(torch.float64\)"):
        conv(feats, weight.double(), None, m)
    with pytest.raises(ValueError, match="weight has 4 kernel offsets, the kernel map 9"):
        conv(feats, weight[:4], None, m)
    with pytest.raises(ValueError, match=f"feats has {m.n_in - 1} rows, the kernel map {m.n_in} inputs"):
        conv(feats[1:], weight, None, m)
    with pytest.raises(ValueError, match="do not fit, groups=1"):
        conv(feats[:, 1:], weight, None, m)


@needs_spconv
def test_two_threads_give_what_one_gives() -> None:
    grid = torch.rand((1, 24, 24, 24), generator=torch.Generator().manual_seed(2)) < 0.15
    coords, _, keys, layout = REFERENCE.sort_coords(grid.nonzero().int())
    m = REFERENCE.subm_map(keys, layout, (3, 3, 3), (1, 1, 1))
    feats, weight, _ = (t.detach() for t in operands(m, torch.float64))
    expected = REFERENCE.conv(feats, weight, None, m)
    torch.set_num_threads(2)
    for _ in range(5):
        assert_close(load("spconv").conv(feats, weight, None, m), expected)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("kind", ["subm", "subm dilated", "strided", "inverse"])
def test_table_holds_the_pairs_of_every_offset(kind: str) -> None:
    m = kernel_map(kind, 2)
    pairs, swapped = module.pairs_of(m.pair_in, m.pair_out, m.list_ptr, m.volume, m.mirrored)
    assert not swapped
    assert pairs.table.dtype == pairs.counts.dtype == torch.int32
    for offset in range(m.volume):
        count = int(pairs.counts[offset])
        assert (pairs.table[:, offset, count:] == -1).all()
        if m.mirrored and offset == m.volume // 2:
            assert count == 0
            continue
        expected = torch.stack(m.pairs_of(offset)).int()
        assert torch.equal(pairs.table[:, offset, :count], expected)


def test_a_map_is_converted_once_for_both_directions_and_its_table_dies_with_it() -> None:
    gc.collect()
    before = len(module._tables)
    m = kernel_map("strided", 2)

    def pairs(of: KernelMap) -> tuple[module.Pairs, bool]:
        return module.pairs_of(of.pair_in, of.pair_out, of.list_ptr, of.volume, of.mirrored)

    table = pairs(m)[0].table
    assert pairs(m)[0].table is table
    back, swapped = pairs(m.transposed())
    assert back.table is table and swapped
    assert len(module._tables) == before + 1
    del m, back
    gc.collect()
    assert len(module._tables) == before


@needs_spconv
def test_layers_of_a_net_share_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    build = module._table
    monkeypatch.setattr(module, "_table", lambda *args: made.append(1) or build(*args))
    grid = torch.randn((2, 4, 5, 5, 5), generator=torch.Generator().manual_seed(3))
    net = u_net()
    with torch.no_grad(), sparse.backend("reference"):
        x = sparse.SparseTensor.from_dense(grid)
        expected = net(fresh(x))
    with torch.no_grad(), sparse.backend("spconv"):
        y = fresh(x)
        found = net(y)
        assert torch.equal(found.coords, expected.coords)
        assert_close(found.feats, expected.feats)
        net(y)
    assert len(made) == 2


def fresh(x: sparse.SparseTensor) -> sparse.SparseTensor:
    """The same tensor without maps."""
    return sparse.SparseTensor(x.coords, x.feats, x.spatial_shape, x.batch_size)


def u_net() -> nn.Module:
    torch.manual_seed(4)
    down = sparse.SparseConv3d(8, 6, 3, stride=2, padding=1)
    return nn.Sequential(
        sparse.SubMConv3d(4, 8, 3),
        sparse.SubMConv3d(8, 8, 3, bias=False),
        down,
        sparse.SparseInverseConv3d(6, 4, like=down),
    )


@needs_spconv
def test_operators_pass_opcheck_and_compile_without_a_graph_break() -> None:
    m = kernel_map("strided", 2)
    feats, weight, _ = (t.detach() for t in operands(m, torch.float32))
    args = (feats, weight, m.pair_in, m.pair_out, m.list_ptr, m.n_out, m.mirrored)
    torch.library.opcheck(module.spconv_conv, args)
    backend = load("spconv")
    compiled = torch.compile(lambda f, w: backend.conv(f, w, None, m), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(feats, weight), backend.conv(feats, weight, None, m))
    if not module._cpu_only():
        grad = torch.randn((m.n_out, 12), generator=torch.Generator().manual_seed(5))
        torch.library.opcheck(module.spconv_conv_grad, (feats, weight, grad, *args[2:5], m.mirrored))
        torch.library.opcheck(module.spconv_conv, (feats.requires_grad_(), weight.requires_grad_(), *args[2:]))


@needs_spconv
def test_autocast_does_not_reach_inside() -> None:
    m = kernel_map("subm", 3)
    inputs = operands(m, torch.float32)
    expected = load("spconv").conv(*inputs, m)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(load("spconv").conv(*inputs, m), expected)


def test_cuda_tensors_with_the_cpu_wheel_take_the_reference_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = SimpleNamespace(numel=lambda: 10, element_size=lambda: 4, device=torch.device("cuda"), dtype=torch.float32)
    monkeypatch.setattr(module, "_cpu_only", lambda: True)
    module._warn_cpu_only.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"pip uninstall spconv cumm.*pip install 'vision3d\[cuda\]'"):
        assert not module._has_kernels(tensor, 10)
    assert not module._has_kernels(tensor, 10)


@pytest.mark.parametrize(("dtype", "expected"), [(torch.float32, True), (torch.float16, True), (torch.float64, False)])
def test_cuda_dtypes(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, expected: bool) -> None:
    monkeypatch.setattr(module, "_cpu_only", lambda: False)
    tensor = SimpleNamespace(numel=lambda: 10, element_size=lambda: 4, device=torch.device("cuda"), dtype=dtype)
    assert module._has_kernels(tensor, 10) is expected


def test_missing_spconv_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spconv", None)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", None)
    module._spconv.cache_clear()
    try:
        with pytest.raises(ImportError, match=r"needs spconv .*; install it with `pip install 'vision3d\[cuda\]'`"):
            module.SpconvBackend()
    finally:
        module._spconv.cache_clear()


def test_spconv_is_not_imported_for_cpu_tensors() -> None:
    code = (
        "import sys, torch; from vision3d import sparse; "
        "x = sparse.SparseTensor(torch.zeros(1, 4, dtype=torch.int32), torch.ones(1, 2)); "
        "sparse.SubMConv3d(2, 2, 3)(x); assert 'spconv' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@needs_spconv
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_convolution_on_cuda(dtype: torch.dtype) -> None:
    for kind in KINDS:
        m = kernel_map(kind, 3)
        tables = {name: value.cuda() for name, value in vars(m).items() if isinstance(value, Tensor)}
        there = replace(m, **{**tables, "list_ptr": m.list_ptr})
        inputs = operands(m, dtype)
        on_cuda = [t.detach().cuda().requires_grad_() for t in inputs]
        found, expected = load("spconv").conv(*on_cuda, there), REFERENCE.conv(*inputs, m)
        found_grads, expected_grads = (
            torch.autograd.grad(y.sum(), x) for y, x in ((found, on_cuda), (expected, inputs))
        )
        for ours, its in zip((found, *found_grads), (expected, *expected_grads)):
            scale = its.abs().max().item() if its.numel() else 1.0
            torch.testing.assert_close(ours.cpu(), its, rtol=0, atol=scale * 5 * TOLERANCE[dtype])
