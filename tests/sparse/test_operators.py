# SPDX-License-Identifier: Apache-2.0
"""The compiled engine's torch operators: what ``torch.library.opcheck`` asks of each, and their derivatives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest
import torch
from grids import grid
from torch import Tensor

from vision3d.sparse import KernelMap, SparseTensor
from vision3d.sparse.backends import load

pytest.importorskip("vision3d.sparse._native")
load("native")
OPS = torch.ops.vision3d

#: Every operator with the arguments to check it on; gradients are checked for those that have them.
CASES: dict[str, Callable[[], list[tuple[Any, ...]]]] = {}


def cases(function: Callable[[], list[tuple[Any, ...]]]) -> Callable[[], list[tuple[Any, ...]]]:
    CASES[function.__name__] = function
    return function


def cloud() -> SparseTensor:
    return grid(3, 4, 0.3, shape=(4, 5, 4)).x


def tables(m: KernelMap) -> tuple[Tensor, ...]:
    return m.pair_in, m.pair_out, m.list_ptr, m.block_in, m.block_out


def maps() -> dict[str, KernelMap]:
    """Every form: submanifold (mirrored), strided, the same from its other side, and two without a pair."""
    sites = cloud().sites
    nothing = SparseTensor(torch.empty((0, 4), dtype=torch.int32), torch.empty(0, 4), batch_size=2).sites
    down = sites.strided((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1))[1]
    subm = sites.subm_map((3, 3, 3), (1, 1, 1))
    empty = nothing.subm_map((3, 3, 3), (1, 1, 1))
    point = sites.subm_map((1, 1, 1), (1, 1, 1))
    return {"subm": subm, "down": down, "up": down.transposed(), "point": point, "empty": empty}


def random(*shape: int, grad: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_(grad)


@cases
def gconv() -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    forms = ((1, None, False), (2, random(6), True), (2, random(6), False))
    for m, (groups, bias, relu) in zip(maps().values(), cycle(forms)):
        weight = random(m.volume, 4 // groups, 6)
        found.append((random(m.n_in, 4), weight, bias, *tables(m), m.n_out, m.mirrored, groups, False, relu))
        back = tables(m.transposed())
        found.append((random(m.n_out, 6), weight, None, *back, m.n_in, m.mirrored, groups, True, relu))
    return found


@cases
def gconv_grad() -> list[tuple[Any, ...]]:
    return [
        (random(m.n_in, 4), random(m.n_out, 6), *tables(m), m.volume, m.mirrored, groups)
        for m, groups in zip(maps().values(), cycle((1, 2)))
    ]


@cases
def pool_sum() -> list[tuple[Any, ...]]:
    return [(random(m.n_in, 4), *tables(m), m.n_out, m.volume, m.mirrored) for m in maps().values()]


@cases
def pool_max() -> list[tuple[Any, ...]]:
    kept = [(*case, True) for case in pool_sum()]
    return kept + [(case[0].detach(), *case[1:], False) for case in pool_sum()]


@cases
def scatter_rows() -> list[tuple[Any, ...]]:
    source = torch.tensor([[0, 2], [-1, 1], [4, 2]], dtype=torch.int32)
    return [(random(3, 2), source, 5), (random(0, 2), source[:0], 5)]


def segments() -> tuple[Tensor, Tensor]:
    return torch.tensor([3, 0, 1, 4]), torch.tensor([0, 2, 2, 4])


@cases
def segment_reduce() -> list[tuple[Any, ...]]:
    return [(random(5, 3), *segments(), mode) for mode in ("sum", "mean", "first")]


@cases
def segment_spread() -> list[tuple[Any, ...]]:
    return [(random(3, 2), *segments(), 5, mode) for mode in ("sum", "mean", "first")]


@cases
def segment_max() -> list[tuple[Any, ...]]:
    return [(random(5, 3), *segments(), True), (random(5, 3, grad=False), *segments(), False)]


@cases
def sample_norm() -> list[tuple[Any, ...]]:
    ptr = torch.tensor([0, 4, 4, 9])
    return [(random(9, 4), ptr, 4, random(4), random(4), 1e-3), (random(9, 4), ptr, 2, None, None, 1e-3)]


@cases
def sample_norm_grad() -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for feats, ptr, groups, weight, bias, eps in sample_norm():
        _, mean, scale = OPS.sample_norm(feats.detach(), ptr, groups, weight, bias, eps)
        found.append((random(9, 4), feats, ptr, groups, weight, mean.detach(), scale.detach(), eps))
    return found


@cases
def sort_coords() -> list[tuple[Any, ...]]:
    coords = cloud().coords
    return [(coords,), (coords[:0],), (coords[:1],)]


@cases
def index_sorted() -> list[tuple[Any, ...]]:
    coords = cloud().sites.coords
    return [(coords,), (coords[:0],)]


@cases
def unique_coords() -> list[tuple[Any, ...]]:
    coords = cloud().coords
    return [(torch.cat([coords, coords[:9]]),), (coords[:0],)]


@cases
def lookup() -> list[tuple[Any, ...]]:
    sites = cloud().sites
    return [(sites.keys, sites.layout, sites.coords.flip(0) + 1)]


@cases
def subm_map() -> list[tuple[Any, ...]]:
    sites = cloud().sites
    return [(sites.keys, sites.layout, [3, 3, 3], [1, 2, 1]), (sites.keys, sites.layout, [1, 1, 1], [1, 1, 1])]


@cases
def output_sites() -> list[tuple[Any, ...]]:
    coords = cloud().sites.coords
    form = ([3, 3, 3], [2, 2, 2], [1, 1, 1], [1, 1, 1])
    return [(coords, *form, None, False), (coords, *form, [2, 2, 2], False), (coords, *form, None, True)]


@cases
def pair_map() -> list[tuple[Any, ...]]:
    sites = cloud().sites
    form = ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1))
    return [(sites.keys, sites.layout, sites.strided(*form)[0].coords, *map(list, form))]


def test_every_operator_is_checked() -> None:
    names = [name.partition("::") for name in torch._C._dispatch_get_all_op_names()]
    ours = {name.partition(".")[0] for library, _, name in names if library == "vision3d"}
    assert {name for name in ours if not name.startswith("spconv")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_opcheck(name: str) -> None:
    """Schema, derivative registration, fake kernel, and agreement of eager with traced forward and backward."""
    for arguments in CASES[name]():
        torch.library.opcheck(getattr(OPS, name).default, arguments)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_fake_kernels_know_half_precision(half: torch.dtype) -> None:
    for name in ("gconv", "gconv_grad", "pool_sum", "segment_reduce", "sample_norm"):
        arguments = tuple(
            a.detach().to(half) if isinstance(a, Tensor) and a.is_floating_point() else a for a in CASES[name]()[0]
        )
        torch.library.opcheck(getattr(OPS, name).default, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(
    "name", ["gconv", "gconv_grad", "pool_sum", "scatter_rows", "segment_reduce", "segment_spread"]
)
def test_first_and_second_derivatives(name: str) -> None:
    op = getattr(OPS, name).default
    for arguments in CASES[name]():
        leaves = [i for i, a in enumerate(arguments) if isinstance(a, Tensor) and a.requires_grad]

        def function(*values: Tensor, arguments: tuple[Any, ...] = arguments, leaves: list[int] = leaves) -> Any:
            given = list(arguments)
            for i, value in zip(leaves, values):
                given[i] = value
            return op(*given)

        inputs = tuple(arguments[i] for i in leaves)
        torch.autograd.gradcheck(function, inputs, fast_mode=True)
        torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_second_derivatives_of_a_convolution_equal_those_of_the_reference() -> None:
    """A gradient penalty through the layer, on both backends."""
    native, reference = load("native"), load("reference")
    for m in maps().values():
        results = []
        for backend in (native, reference):
            feats, weight, bias = random(m.n_in, 4), random(m.volume, 2, 6), random(6)
            out = backend.conv(feats, weight, bias, m, 2, True)
            slope = torch.autograd.grad(out.square().sum(), (feats, weight, bias), create_graph=True)
            penalty = out.sum() + sum(g.square().sum() for g in slope)
            results.append(torch.autograd.grad(penalty, (feats, weight, bias)))
        for mine, theirs in zip(*results):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_derivatives_that_nobody_asked_for_are_not_computed() -> None:
    m = maps()["subm"]
    feats, weight = random(m.n_in, 4), random(m.volume, 4, 6, grad=False)
    out = OPS.gconv(feats, weight, None, *tables(m), m.n_out, m.mirrored, 1, False, False)
    (grad,) = torch.autograd.grad(out.sum(), feats)
    assert grad.shape == feats.shape
    assert not OPS.gconv(feats.detach(), weight, None, *tables(m), m.n_out, m.mirrored, 1, False, False).requires_grad


FRESH = """
import sys, time, torch
start = time.process_time()
import vision3d.sparse as sparse
took = time.process_time() - start
x = sparse.SparseTensor(torch.tensor([[0, 1, 2, 3], [0, 2, 2, 3]], dtype=torch.int32), torch.ones(2, 3))
net = torch.nn.Sequential(
    sparse.SubMConv3d(3, 4, 3), sparse.SparseBatchNorm(4), sparse.SparseInstanceNorm(4), sparse.SparseMaxPool3d(2)
)
net(x).feats.sum().backward()
heavy = [name for name in ("torch._dynamo", "torch._inductor", "scipy", "spconv", "sympy") if name in sys.modules]
print(took, *heavy)
"""


def test_a_fresh_process_imports_quickly_and_no_compiler() -> None:
    """Below 0.1 s beyond torch; the first layers import neither torch's compiler (a second) nor other heavy things."""
    runs = []
    for _ in range(3):
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", FRESH], capture_output=True, text=True, check=False, timeout=60
        )
        assert result.returncode == 0, result.stderr
        took, *heavy = result.stdout.split()
        assert heavy == []
        runs.append(float(took))
        if runs[-1] < 0.1:
            break
    assert min(runs) < 0.1
