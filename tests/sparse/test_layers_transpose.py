# SPDX-License-Identifier: Apache-2.0
"""Layers that go back to a finer grid: what they restore, where they look for it, gradients."""

from __future__ import annotations

import pytest
import torch
from grids import TRANSPOSE, assert_close, at_sites, grid
from torch import Tensor, nn

from vision3d import sparse
from vision3d.sparse import SparseTensor, functional

F64 = {"dtype": torch.float64}


@pytest.mark.parametrize(
    "make",
    [
        lambda: sparse.SparseConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, **F64),
        lambda: sparse.SparseConvTranspose2d(4, 6, 1, **F64),
        lambda: sparse.SparseInverseConv2d(4, 6, 3, 2, 1, groups=2, **F64),
        lambda: sparse.SparseInverseConv2d(4, 4, 3, 2, 1, groups=4, bias=False, **F64),
    ],
)
def test_gradients(engine: str, make) -> None:
    torch.manual_seed(0)
    layer = make()
    x = functional.max_pool(grid(2, 4, shape=(6, 5)).x, 3, 2, 1)
    names = [name for name, _ in layer.named_parameters()]
    parameters = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())

    def run(feats: Tensor, *values: Tensor) -> Tensor:
        y: SparseTensor = torch.func.functional_call(layer, dict(zip(names, values)), (x.replace(feats),))
        return y.feats

    assert torch.autograd.gradcheck(run, (x.feats.clone().requires_grad_(), *parameters))


def test_u_net_restores_every_level(engine: str) -> None:
    """Two levels down and up: sites, order and maps of each level are those on the way down."""
    x = grid(3, 3, shape=(9, 8, 7)).x
    down = [sparse.SparseConv3d(3, 3, 3, 2, 1, **F64), sparse.SparseConv3d(3, 3, 2, 2, **F64)]
    up = [sparse.SparseInverseConv3d(3, 3, like=layer, **F64) for layer in down]
    middle = down[0](x)
    bottom = sparse.SubMConv3d(3, 3, 3, **F64)(down[1](middle))
    builds = x.sites.builds + middle.sites.builds + bottom.sites.builds
    back = up[1](bottom)
    assert back.sites is middle.sites
    top = up[0](back)
    assert top.sites is x.sites
    assert torch.equal(top.coords, x.coords)
    assert x.sites.builds + middle.sites.builds + bottom.sites.builds == builds
    assert (top + x).sites is x.sites


def test_partner_found_after_pool_and_through_other_layers(engine: str) -> None:
    x = grid(2, 4).x
    pooled = sparse.SparseMaxPool2d(2)(x)
    net = nn.Sequential(sparse.SubMConv2d(4, 4, 3, **F64), sparse.SparseBatchNorm(4, **F64), sparse.SparseReLU())
    back = sparse.SparseInverseConv2d(4, 4, 2, 2, **F64)(net(pooled))
    assert back.sites is x.sites


def test_like_shares_the_partner_map(engine: str) -> None:
    x = grid(2, 4).x
    y = sparse.SparseConv2d(4, 4, 3, 2, 1, **F64)(x)
    builds = x.sites.builds
    layer = sparse.SparseInverseConv2d(4, 4, 3, 2, 1, **F64)
    for like in (x, x.sites, None):
        assert layer(y, like).sites is x.sites
    assert x.sites.builds == builds


def test_like_restores_sites_that_no_layer_read(engine: str) -> None:
    x = grid(2, 4).x
    y = sparse.SparseConv2d(4, 4, 2, 2, **F64)(x)
    other = grid(2, 4, seed=5).x
    layer = sparse.SparseInverseConv2d(4, 3, 2, 2, **F64)
    back = layer(y, like=other)
    assert back.sites is other.sites
    full = TRANSPOSE[2](y.dense(), layer.dense_weight(), layer.bias, 2)
    inside = (back.coords[:, 1:] < torch.tensor(full.shape[2:])).all(1)
    assert_close(back.feats[inside], at_sites(full, back.coords[inside]))


def test_transposed_onto_prescribed_sites(engine: str) -> None:
    x = functional.max_pool(grid(2, 4).x, 2)
    target = grid(2, 1, fill=0.5, seed=3, shape=(8, 8)).x
    layer = sparse.SparseConvTranspose2d(4, 3, 3, 2, 1, 1, **F64)
    y = layer(x, sites=target)
    assert y.sites is target.sites
    full = TRANSPOSE[2](x.dense(), layer.dense_weight(), layer.bias, 2, 1, 1)
    assert_close(y.feats, at_sites(full, y.coords))


def test_generated_stride_and_shape() -> None:
    x = SparseTensor(torch.tensor([[0, 1, 2]], dtype=torch.int32), torch.ones(1, 1), (3, 4), stride=(4, 2))
    y = sparse.SparseConvTranspose2d(1, 1, 2, 2, output_padding=1)(x)
    assert y.stride == (2, 1)
    assert y.spatial_shape == (7, 9)
    assert y.coords[:, 1:].tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


def test_unknown_partner_names_the_remedy() -> None:
    y = sparse.SparseConv2d(4, 4, 3, 2, 1, **F64)(grid(2, 4).x)
    layer = sparse.SparseInverseConv2d(4, 4, 2, 2, **F64)
    with pytest.raises(
        ValueError, match=r"SparseInverseConv2d\(4, 4, .*no layer with kernel_size \(2, 2\).*pass like="
    ):
        layer(y)
    pruned = y.prune(torch.ones(len(y), dtype=torch.bool))
    with pytest.raises(ValueError, match="pass like="):
        sparse.SparseInverseConv2d(4, 4, 3, 2, 1, **F64)(pruned)


def test_construction_from_the_partner() -> None:
    down = sparse.SparseConv3d(4, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 2))
    up = sparse.SparseInverseConv3d(8, 4, like=down)
    assert (up.kernel_size, up.stride, up.padding, up.dilation) == ((1, 3, 3), (1, 2, 2), (0, 1, 1), (1, 1, 2))
    with pytest.raises(TypeError, match="like must be the partner SparseConv, not Conv3d"):
        sparse.SparseInverseConv3d(8, 4, like=nn.Conv3d(4, 8, 3))
    with pytest.raises(TypeError, match="needs kernel_size, or like="):
        sparse.SparseInverseConv3d(8, 4)
