# SPDX-License-Identifier: Apache-2.0
"""Kernel maps are built once, shared by everything on the same sites, never mixed up, and freed with their tensors."""

from __future__ import annotations

import gc
import weakref

import torch
from grids import grid
from torch import nn

from vision3d import sparse
from vision3d.sparse import functional

F64 = {"dtype": torch.float64}


def test_one_map_for_many_layers_and_the_backward_pass(engine: str) -> None:
    x = grid(3, 4).x
    net = nn.Sequential(
        *[layer for _ in range(3) for layer in (sparse.SubMConv3d(4, 4, 3, **F64), sparse.SparseReLU())]
    )
    feats = x.feats.clone().requires_grad_()
    net(x.replace(feats)).feats.sum().backward()
    assert x.sites.builds == 1
    net(x * 2)
    assert x.sites.builds == 1
    assert len(x.sites.cached_maps()) == 1


def test_another_geometry_is_another_map(engine: str) -> None:
    """Two kernel sizes under one name left weights unused in a published network; here no name exists."""
    x = grid(2, 4).x
    for count, (kernel, dilation) in enumerate([((3, 3), 1), ((1, 3), 1), ((3, 1), 1), ((5, 5), 1), ((3, 3), 2)], 1):
        layer = sparse.SubMConv2d(4, 4, kernel, dilation, **F64)
        layer(x).feats.sum().backward()
        assert x.sites.builds == count
        assert (layer.weight.grad != 0).any(2).any(1).all()
    maps = x.sites.cached_maps()
    assert len({id(m) for m in maps}) == 5


def test_two_branches_get_the_same_child(engine: str) -> None:
    x = grid(3, 4).x
    a = sparse.SparseConv3d(4, 8, 3, 2, 1, **F64)(x)
    b = sparse.SparseConv3d(4, 8, 3, 2, 1, **F64)(sparse.SubMConv3d(4, 4, 3, **F64)(x))
    pooled = sparse.SparseMaxPool3d(3, 2, 1)(x)
    assert a.sites is b.sites is pooled.sites
    assert x.sites.builds == 2
    assert (a + b).sites is a.sites
    other = sparse.SparseConv3d(4, 8, 3, 2, 0, **F64)(x)
    assert other.sites is not a.sites


def test_floor_rule_shares_the_child_over_kernels(engine: str) -> None:
    """A strided 1 x 1 shortcut meets its 3 x 3 branch."""
    x = grid(2, 4).x
    branch = sparse.SparseConv2d(4, 8, 3, 2, 1, out_rule="floor", **F64)(x)
    shortcut = sparse.SparseConv2d(4, 8, 1, 2, out_rule="floor", **F64)(x)
    pooled = functional.avg_pool(x, 2, out_rule="floor")
    assert branch.sites is shortcut.sites
    assert pooled.spatial_shape == (4, 4) and branch.spatial_shape == (5, 4)
    assert (branch + shortcut).sites is branch.sites
    # Windows that do not overlap touch the floor sites and no others.
    assert functional.max_pool(x, 2).sites is pooled.sites


def test_floor_rule_with_stride_one_keeps_the_sites(engine: str) -> None:
    x = grid(2, 4).x
    y = sparse.SparseConv2d(4, 4, 3, 1, 1, out_rule="floor", **F64)
    assert y(x).sites is x.sites
    subm = sparse.SubMConv2d(4, 4, 3, **F64)
    subm.load_state_dict(y.state_dict())
    assert torch.equal(subm(x).feats, y(x).feats)
    assert x.sites.builds == 1


def test_pointwise_layers_need_no_map(engine: str) -> None:
    x = grid(2, 4).x
    for layer in (
        sparse.SubMConv2d(4, 5, 1, **F64),
        sparse.SparseConv2d(4, 5, 1, **F64),
        sparse.SparseConvTranspose2d(4, 5, 1, **F64),
        sparse.SparseInverseConv2d(4, 5, 1, **F64),
    ):
        assert layer(x).sites is x.sites
    assert x.sites.builds == 0


def test_prescribed_sites_keep_their_map(engine: str) -> None:
    x, target = grid(2, 4).x, grid(2, 4, seed=1).x
    layer = sparse.SparseConv2d(4, 4, 3, 1, 1, **F64)
    layer(x, target)
    assert x.sites.builds == 1
    layer(x, target.sites)
    assert x.sites.builds == 1
    layer(x, grid(2, 4, seed=2).x)
    assert x.sites.builds == 2


def test_maps_die_with_their_tensors(engine: str) -> None:
    x = grid(3, 4).x
    net = nn.Sequential(
        sparse.SubMConv3d(4, 4, 3, **F64),
        sparse.SparseConv3d(4, 4, 3, 2, 1, **F64),
        sparse.SubMConv3d(4, 4, 3, **F64),
        sparse.SparseInverseConv3d(4, 4, 3, 2, 1, **F64),
    )
    y = net[:3](x)
    sets = [weakref.ref(x.sites), weakref.ref(y.sites)]
    maps = [weakref.ref(m) for ref in sets for m in ref().cached_maps()]
    assert len(maps) == 3
    z = net[3](y)
    gc.disable()
    try:
        # A child keeps the set it came from, for the layer that goes back; nothing else does.
        del x, z
        assert all(ref() is not None for ref in (*sets, *maps))
        del y
        assert all(ref() is None for ref in (*sets, *maps))
    finally:
        gc.enable()


def test_prescribed_targets_are_not_kept_alive(engine: str) -> None:
    x, target = grid(2, 4).x, grid(2, 4, seed=1).x
    sparse.SparseConv2d(4, 4, 3, 1, 1, **F64)(x, target)
    assert len(x.sites.cached_maps()) == 1
    del target
    assert len(x.sites.cached_maps()) == 0


def test_sharing_works_after_equal_but_separate_construction(engine: str) -> None:
    """The same sites given twice are two sets; sums still work, and the maps stay with their sets."""
    a, b = grid(2, 4).x, grid(2, 4).x
    assert a.sites is not b.sites
    assert torch.equal((a + b).feats, 2 * a.feats)
    sparse.SubMConv2d(4, 4, 3, **F64)(a)
    assert (a.sites.builds, b.sites.builds) == (1, 0)
