# SPDX-License-Identifier: Apache-2.0
"""Pools and upsampling against torch's dense ones, where these mean the same."""

from __future__ import annotations

import pytest
import torch
from grids import assert_close, at_sites, grid, mask_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as dense

from vision3d import sparse
from vision3d.sparse import SparseTensor, functional

MAX = {1: dense.max_pool1d, 2: dense.max_pool2d, 3: dense.max_pool3d}
AVERAGE = {1: dense.avg_pool1d, 2: dense.avg_pool2d, 3: dense.avg_pool3d}
EXAMPLES = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int, int, int, int, int]:
    ndim, kernel = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return ndim, kernel, draw(st.integers(1, 3)), draw(st.integers(0, kernel // 2)), 1, draw(st.integers(0, 99))


@EXAMPLES
@given(window=windows(), fill=st.sampled_from([0.05, 0.4, 1.0]), out_rule=st.sampled_from(["dense", "floor"]))
def test_max_over_active_sites(engine: str, window: tuple[int, ...], fill: float, out_rule: str) -> None:
    ndim, kernel, stride, padding, dilation, seed = window
    found = grid(ndim, 3, fill, seed=seed)
    y = functional.max_pool(found.x, kernel, stride, padding, dilation, out_rule)
    low = found.values.masked_fill(~found.mask[:, None], -torch.inf)
    wanted = MAX[ndim](low, kernel, stride, padding)
    if out_rule == "dense":
        assert torch.equal(mask_of(y), wanted[:, 0] > -torch.inf)
    assert y.spatial_shape == tuple(wanted.shape[2:])
    wanted = at_sites(wanted, y.coords)
    # A floor site whose window misses every input gives 0.
    assert_close(y.feats, wanted.masked_fill(wanted == -torch.inf, 0))


@EXAMPLES
@given(window=windows(), fill=st.sampled_from([0.05, 0.4, 1.0]), out_rule=st.sampled_from(["dense", "floor"]))
def test_average_over_active_sites(engine: str, window: tuple[int, ...], fill: float, out_rule: str) -> None:
    ndim, kernel, stride, padding, _, seed = window
    found = grid(ndim, 3, fill, seed=seed)
    wanted = AVERAGE[ndim](found.values, kernel, stride, padding)
    share = AVERAGE[ndim](found.mask[:, None].double(), kernel, stride, padding)
    y = functional.avg_pool(found.x, kernel, stride, padding, True, out_rule)
    assert_close(y.feats, at_sites(wanted, y.coords))
    y = functional.avg_pool(found.x, kernel, stride, padding, False, out_rule)
    assert_close(y.feats, at_sites(wanted / share.masked_fill(share == 0, 1), y.coords))
    if out_rule == "dense":
        assert torch.equal(mask_of(y), share[:, 0] > 0)


def test_dilated_maximum(engine: str) -> None:
    found = grid(2, 3, 0.4)
    y = functional.max_pool(found.x, 2, 1, 1, (2, 1))
    low = found.values.masked_fill(~found.mask[:, None], -torch.inf)
    assert_close(y.feats, at_sites(MAX[2](low, 2, 1, 1, (2, 1)), y.coords))


@pytest.mark.parametrize("mode", ["mean", "max", "sum"])
def test_global_pool(engine: str, mode: str) -> None:
    found = grid(3, 5, batch=3)
    found.x = found.x.prune(found.x.coords[:, 0] != 1)
    pooled = sparse.SparseGlobalPool(mode)(found.x)
    assert pooled.shape == (3, 5)
    for sample in (0, 2):
        rows = found.x.feats[found.x.coords[:, 0] == sample]
        wanted = rows.amax(0) if mode == "max" else getattr(rows, mode)(0)
        assert_close(pooled[sample], wanted)
    assert (pooled[1] == 0).all()
    kept = sparse.SparseGlobalPool(mode, keepdim=True)(found.x)
    assert kept.shape == (3, 5, 1, 1, 1)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: functional.max_pool(x, 3, 2, 1).feats,
        lambda x: functional.avg_pool(x, 3, 2, 1).feats,
        lambda x: functional.avg_pool(x, 2, count_include_inactive=True).feats,
        lambda x: functional.global_pool(x, "mean"),
        lambda x: functional.global_pool(x, "max"),
        lambda x: functional.global_pool(x, "sum"),
        lambda x: functional.upsample(x, 2).feats,
        lambda x: functional.upsample(functional.max_pool(x, 2), 2, like=x).feats,
    ],
)
def test_gradients(engine: str, pool) -> None:
    x = grid(2, 2, shape=(5, 4)).x

    def run(feats: Tensor) -> Tensor:
        out: Tensor = pool(x.replace(feats))
        return out

    assert torch.autograd.gradcheck(run, (x.feats.clone().requires_grad_(),))


def test_upsampling_repeats(engine: str) -> None:
    found = grid(2, 3, 0.4)
    y = sparse.SparseUpsample((2, 3))(found.x)
    assert torch.equal(y.dense(), dense.interpolate(found.values, scale_factor=(2, 3), mode="nearest"))
    assert y.spatial_shape == (18, 24)


def test_upsampling_onto_the_sites_that_were_pooled(engine: str) -> None:
    x = grid(3, 3, 0.4, shape=(6, 8, 4)).x
    pooled = functional.max_pool(x, 2)
    builds = x.sites.builds
    y = functional.upsample(pooled, 2, like=x)
    assert y.sites is x.sites
    assert x.sites.builds == builds
    wanted = dense.interpolate(pooled.dense(), scale_factor=2, mode="nearest")
    assert torch.equal(y.feats, at_sites(wanted, x.coords))


def test_a_site_without_a_parent_gets_zero(engine: str) -> None:
    coarse = SparseTensor(torch.tensor([[0, 1]], dtype=torch.int32), torch.ones(1, 1), stride=2)
    fine = SparseTensor(torch.tensor([[0, 5], [0, 3], [0, 1]], dtype=torch.int32), torch.zeros(3, 1))
    assert functional.upsample(coarse, 2, like=fine).feats[:, 0].tolist() == [0, 1, 0]


def test_prescribed_sites(engine: str) -> None:
    x = grid(2, 3, 0.4, shape=(8, 8)).x
    coarse = functional.max_pool(grid(2, 3, 0.2, shape=(8, 8), seed=4).x, 2)
    for pool in (sparse.SparseMaxPool2d(2), sparse.SparseAvgPool2d(2)):
        y = pool(x, coarse)
        assert y.sites is coarse.sites
        own = pool(x).dense()
        assert torch.equal(y.feats, at_sites(own, y.coords))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32(engine: str, dtype: torch.dtype) -> None:
    coords = torch.stack([torch.zeros(4096), torch.arange(4096)], 1).int()
    x = SparseTensor(coords, torch.full((4096, 1), 100.0, dtype=dtype))
    y = functional.avg_pool(x, 4096)
    assert y.dtype == dtype and y.feats.item() == 100
    assert functional.global_pool(x).item() == 100


def test_kernel_maps_are_shared_with_convolutions(engine: str) -> None:
    x = grid(3, 4).x
    pooled = sparse.SparseMaxPool3d(3, 2, 1)(x)
    averaged = sparse.SparseAvgPool3d(3, 2, 1)(x)
    convolved = sparse.SparseConv3d(4, 4, 3, 2, 1, dtype=torch.float64)(x)
    assert pooled.sites is averaged.sites is convolved.sites
    assert x.sites.builds == 1


def test_arguments() -> None:
    assert sparse.SparseMaxPool3d((1, 2, 2)).stride == (1, 2, 2)
    assert repr(sparse.SparseAvgPool2d(3, 2, 1, True, "floor")) == (
        "SparseAvgPool2d(kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), out_rule='floor', "
        "count_include_inactive=True)"
    )
    with pytest.raises(ValueError, match=r"SparseMaxPool2d: stride must be at least 1"):
        sparse.SparseMaxPool2d(2, 0)
    with pytest.raises(ValueError, match="""SparseMaxPool2d: out_rule must be "dense" or "floor", not 'ceil'"""):
        sparse.SparseMaxPool2d(2, out_rule="ceil")
    with pytest.raises(ValueError, match="mode must be"):
        sparse.SparseGlobalPool("min")
    with pytest.raises(ValueError, match="global_pool: mode must be"):
        functional.global_pool(grid(1).x, "min")
