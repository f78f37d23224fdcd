# SPDX-License-Identifier: Apache-2.0
"""Every convolution equals torch's dense one at its sites, forward and backward, and has the sites it should have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import pytest
import torch
from grids import CONV, SHAPES, TRANSPOSE, Grid, assert_close, at_sites, grid, mask_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from vision3d.sparse import CoordinateSet, SparseTensor, functional
from vision3d.sparse.layers import layout

EXAMPLES = settings(
    max_examples=70,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Case:
    ndim: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    channels: tuple[int, int]
    batch: int
    fill: float
    bias: bool
    dtype: torch.dtype
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Large enough for one window."""
        reach = [d * (k - 1) + 1 - 2 * p for k, p, d in zip(self.kernel, self.padding, self.dilation)]
        return tuple(max(n, r) for n, r in zip(SHAPES[self.ndim], reach))

    def grid(self) -> Grid:
        return grid(self.ndim, self.channels[0], self.fill, self.batch, self.shape, self.dtype, self.seed)

    def weights(self, transposed: bool = False) -> tuple[Tensor, Tensor | None]:
        """Weight in torch's layout, and bias."""
        torch.manual_seed(self.seed)
        first, second = self.channels if transposed else self.channels[::-1]
        weight = torch.randn((first, second // self.groups, *self.kernel), dtype=self.dtype)
        bias = torch.randn(self.channels[1], dtype=self.dtype) if self.bias else None
        return weight / prod(weight.shape[1:]) ** 0.5, bias


KERNELS = {1: (1, 2, 3, 5, 7), 2: (1, 2, 3, 5, 7), 3: (1, 2, 3)}


@st.composite
def cases(draw: st.DrawFn, odd: bool = False) -> Case:
    ndim = draw(st.integers(1, 3))
    allowed = st.sampled_from([k for k in KERNELS[ndim] if k % 2 or not odd])

    def axes(values: st.SearchStrategy[int]) -> tuple[int, ...]:
        return draw(values.map(lambda v: (v,) * ndim) | st.tuples(*[values] * ndim))

    cin, cout, groups = draw(
        st.sampled_from(
            [(1, 3, 1), (3, 16, 1), (16, 17, 1), (17, 40, 1), (40, 3, 1), (16, 40, 8), (16, 16, 16), (3, 6, 3)]
        )
    )
    return Case(
        ndim,
        axes(allowed),
        axes(st.sampled_from([1, 2, 3, 50])),
        axes(st.integers(0, 2)),
        axes(st.integers(1, 2)),
        groups,
        (cin, cout),
        draw(st.integers(1, 3)),
        draw(st.sampled_from([0.01, 0.05, 0.3, 0.6])),
        draw(st.booleans()),
        draw(st.sampled_from([torch.float64, torch.float64, torch.float32])),
        draw(st.integers(0, 10**6)),
    )


BASE = Case(3, (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, (3, 16), 2, 0.3, True, torch.float64, 7)
LARGE = [
    replace(BASE, kernel=(5, 5, 5), padding=(2, 2, 2)),
    replace(BASE, kernel=(7, 7, 7), padding=(3, 3, 3), channels=(2, 3)),
    replace(BASE, kernel=(1, 3, 3), padding=(0, 1, 1)),
    replace(BASE, kernel=(3, 1, 5), padding=(1, 0, 2), channels=(4, 8), groups=4),
    replace(BASE, kernel=(3, 3, 3), dilation=(2, 1, 2), padding=(2, 1, 2), fill=1.0),
]


def convolve_dense(
    case: Case, values: Tensor, weight: Tensor, bias: Tensor | None, **changes: tuple[int, ...]
) -> Tensor:
    case = replace(case, **changes)
    return CONV[case.ndim](values, weight, bias, case.stride, case.padding, case.dilation, case.groups)


def same(case: Case) -> tuple[int, ...]:
    return tuple(k // 2 * d for k, d in zip(case.kernel, case.dilation))


def check_conv(case: Case, found: Grid, sparse_conv, dense_conv, sites: Tensor | None) -> None:
    """Values, site set and gradients of one convolution; ``sites``: the mask that the output must have."""
    transposed = dense_conv.__name__.startswith("transposed")
    weight, bias = case.weights(transposed)
    feats = found.x.feats.clone().requires_grad_()
    values = found.values.clone().requires_grad_()
    ours = layout.from_dense(weight, case.groups, transposed).requires_grad_()
    weight.requires_grad_()
    biases = [] if bias is None else [(bias.clone().requires_grad_(), bias.clone().requires_grad_())]
    x = found.x.replace(feats)
    y = sparse_conv(x, ours, biases[0][0] if biases else None)
    full = dense_conv(values, weight, biases[0][1] if biases else None)
    assert y.spatial_shape == tuple(full.shape[2:])
    assert y.batch_size == case.batch
    if sites is not None:
        assert torch.equal(mask_of(y), sites)
    wanted = at_sites(full, y.coords)
    assert_close(y.feats, wanted, case.dtype)
    if not len(x) or not len(y):
        return
    probe = torch.randn(y.feats.shape, dtype=case.dtype, generator=torch.Generator().manual_seed(1))
    mine = torch.autograd.grad((y.feats * probe).sum(), [feats, ours, *(a for a, _ in biases)])
    theirs = torch.autograd.grad((wanted * probe).sum(), [values, weight, *(b for _, b in biases)])
    assert_close(mine[0], at_sites(theirs[0], x.coords), case.dtype)
    assert_close(mine[1], layout.from_dense(theirs[1], case.groups, transposed), case.dtype)
    for a, b in zip(mine[2:], theirs[2:]):
        assert_close(a, b, case.dtype)


def touched(case: Case, mask: Tensor) -> Tensor:
    """Output cells of the dense convolution whose window holds a site."""
    ones = torch.ones((1, 1, *case.kernel), dtype=torch.float64)
    hits = CONV[case.ndim](mask[:, None].double(), ones, None, case.stride, case.padding, case.dilation)
    return hits[:, 0] > 0.5


def check_subm(case: Case) -> None:
    found = case.grid()

    def sparse(x: SparseTensor, weight: Tensor, bias: Tensor | None) -> SparseTensor:
        return functional.subm_conv(x, weight, case.kernel, bias, case.dilation, case.groups)

    def convolved(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve_dense(case, values, weight, bias, stride=(1,) * case.ndim, padding=same(case))

    check_conv(case, found, sparse, convolved, found.mask)


def check_strided(case: Case, out_rule: str) -> None:
    found = case.grid()

    def sparse(x: SparseTensor, weight: Tensor, bias: Tensor | None) -> SparseTensor:
        return functional.sparse_conv(
            x, weight, case.kernel, bias, case.stride, case.padding, case.dilation, case.groups, out_rule
        )

    def convolved(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve_dense(case, values, weight, bias)

    sites = touched(case, found.mask)
    keeps = prod(case.kernel) == 1 and prod(case.stride) == 1 and not any(case.padding)
    if out_rule == "floor" and not keeps:
        parents = found.x.coords.long()
        parents[:, 1:] = torch.div(parents[:, 1:], torch.tensor(case.stride), rounding_mode="floor")
        parents = parents[(parents[:, 1:] < torch.tensor(sites.shape[1:])).all(1)]
        sites = torch.zeros_like(sites)
        sites[tuple(parents.unbind(1))] = True
    check_conv(case, found, sparse, convolved, sites)


@EXAMPLES
@given(case=cases(odd=True))
def test_submanifold(engine: str, case: Case) -> None:
    check_subm(case)


@EXAMPLES
@given(case=cases(), out_rule=st.sampled_from(["dense", "dense", "floor"]))
def test_strided(engine: str, case: Case, out_rule: str) -> None:
    check_strided(case, out_rule)


@pytest.mark.parametrize("case", LARGE, ids=lambda case: f"k{case.kernel}d{case.dilation}")
def test_large_and_anisotropic_kernels(engine: str, case: Case) -> None:
    check_subm(case)
    check_strided(replace(case, stride=(2, 1, 3)), "dense")
    check_strided(replace(case, stride=(1, 2, 2)), "floor")


@EXAMPLES
@given(case=cases(), extra=st.booleans())
def test_transposed(engine: str, case: Case, extra: bool) -> None:
    stride = tuple(min(s, 4) for s in case.stride)
    case = replace(case, stride=stride, padding=tuple(min(p, (k - 1) // 2) for p, k in zip(case.padding, case.kernel)))
    added = tuple(int(extra and s > 1) for s in stride)
    found = case.grid()

    def sparse(x: SparseTensor, weight: Tensor, bias: Tensor | None) -> SparseTensor:
        return functional.conv_transpose(
            x, weight, case.kernel, bias, stride, case.padding, added, case.groups, case.dilation
        )

    def transposed(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return TRANSPOSE[case.ndim](values, weight, bias, stride, case.padding, added, case.groups, case.dilation)

    ones = torch.ones((1, 1, *case.kernel), dtype=torch.float64)
    hits = TRANSPOSE[case.ndim](found.mask[:, None].double(), ones, None, stride, case.padding, added, 1, case.dilation)
    check_conv(case, found, sparse, transposed, hits[:, 0] > 0.5)


@EXAMPLES
@given(case=cases(), named=st.booleans())
def test_inverse_restores_sites_and_order(engine: str, case: Case, named: bool) -> None:
    stride = tuple(min(s, 4) for s in case.stride)
    case = replace(case, stride=stride)
    found = case.grid()
    coarse = functional.sparse_conv(
        found.x, torch.zeros((prod(case.kernel), case.channels[0], case.channels[0]), dtype=case.dtype), case.kernel,
        None, stride, case.padding, case.dilation,
    )  # fmt: skip
    torch.manual_seed(case.seed)
    coarse = coarse.replace(torch.randn(coarse.feats.shape, dtype=case.dtype))
    weight, bias = case.weights(transposed=True)
    like = found.x if named else None
    ours = layout.from_dense(weight, case.groups, transposed=True)
    back = functional.inverse_conv(
        coarse, ours, case.kernel, bias, stride, case.padding, case.dilation, case.groups, like
    )
    assert back.sites is found.x.sites
    assert torch.equal(back.coords, found.x.coords)
    # Output padding makes the dense result reach at least as far as the grid that was read.
    full = TRANSPOSE[case.ndim](
        coarse.dense(), weight, bias, stride, case.padding, tuple(s - 1 for s in stride), case.groups, case.dilation
    )
    inside = (back.coords[:, 1:] < torch.tensor(full.shape[2:])).all(1)
    assert_close(back.feats[inside], at_sites(full, back.coords[inside]), case.dtype)
    # Behind the last window nothing arrives.
    rest = back.feats[~inside]
    assert_close(rest, (torch.zeros_like(rest) if bias is None else bias.expand_as(rest)), case.dtype)


@EXAMPLES
@given(case=cases(), fill=st.sampled_from([0.05, 0.5, 1.0]))
def test_prescribed_sites(engine: str, case: Case, fill: float) -> None:
    found = case.grid()
    empty = CONV[case.ndim](found.mask[:, None].double(), torch.ones(1, 1, *case.kernel).double(), None, case.stride,
                            case.padding, case.dilation)  # fmt: skip
    mask = torch.rand((case.batch, *empty.shape[2:]), generator=torch.Generator().manual_seed(case.seed)) < fill
    coords = mask.nonzero().int()
    coords = coords[torch.randperm(len(coords))]
    target = CoordinateSet.from_coords(coords, mask.shape[1:], case.batch, case.stride)

    def sparse(x: SparseTensor, weight: Tensor, bias: Tensor | None) -> SparseTensor:
        y = functional.sparse_conv(
            x, weight, case.kernel, bias, case.stride, case.padding, case.dilation, case.groups, sites=target
        )
        assert y.sites is target
        assert torch.equal(y.coords, coords)
        return y

    def convolved(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve_dense(case, values, weight, bias)

    check_conv(case, found, sparse, convolved, mask)


@pytest.mark.parametrize("out_rule", ["dense", "floor"])
def test_pointwise_kernel_with_padding_moves_the_grid(engine: str, out_rule: str) -> None:
    case = replace(BASE, kernel=(1, 1, 1), padding=(1, 0, 2))
    check_strided(case, out_rule)
    check_strided(replace(case, padding=(0, 0, 0), stride=(1, 2, 1)), out_rule)


def test_prescribed_child_of_another_geometry(engine: str) -> None:
    """The sites come from a layer with one kernel, the values from one with another."""
    found = grid(2, 3)
    child = functional.max_pool(found.x, 3, 2, 1)
    weight = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    y = functional.sparse_conv(found.x, layout.from_dense(weight), 5, None, 2, 2, sites=child)
    assert y.sites is child.sites
    assert_close(y.feats, at_sites(CONV[2](found.values, weight, None, 2, 2), y.coords))


def test_unbounded_grid_with_negative_sites(engine: str) -> None:
    found = grid(2, channels=3, fill=0.4)
    moved = found.x.coords.clone()
    moved[:, 1:] -= torch.tensor([6, 3], dtype=torch.int32)
    x = SparseTensor(moved, found.x.feats, batch_size=2)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    # A grid that starts 6 and 3 cells earlier: strides that divide the shift keep the phase.
    y = functional.sparse_conv(x, layout.from_dense(weight), 3, None, (2, 3), 1)
    wanted = CONV[2](found.values, weight, None, (2, 3), 1)
    coords = y.coords.clone()
    coords[:, 1:] += torch.tensor([3, 1], dtype=torch.int32)
    inside = (coords[:, 1:] >= 0).all(1) & (coords[:, 1:] < torch.tensor(wanted.shape[2:])).all(1)
    assert_close(y.feats[inside], at_sites(wanted, coords[inside]))
    assert int(inside.sum()) == int((touched(replace(BASE, ndim=2, kernel=(3, 3), stride=(2, 3), padding=(1, 1),
                                                     dilation=(1, 1)), found.mask)).sum())  # fmt: skip


def test_four_axes_equal_a_sum_over_time(engine: str) -> None:
    """A kernel over (t, z, y, x) is one three-dimensional convolution per time offset."""
    torch.manual_seed(0)
    mask = torch.rand(2, 3, 4, 4, 5) < 0.3
    values = torch.randn(2, 3, 3, 4, 4, 5, dtype=torch.float64) * mask[:, None]
    x = SparseTensor.from_dense(values, mask)
    weight = torch.randn(4, 3, 3, 3, 3, 3, dtype=torch.float64)
    y = functional.subm_conv(x, layout.from_dense(weight), 3)
    wanted = torch.zeros(2, 4, 3, 4, 4, 5, dtype=torch.float64)
    for t in range(3):
        for k in range(3):
            if 0 <= t + k - 1 < 3:
                wanted[:, :, t] += CONV[3](values[:, :, t + k - 1], weight[:, :, k], padding=1)
    assert_close(y.feats, at_sites(wanted, y.coords))
