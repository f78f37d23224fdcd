# SPDX-License-Identifier: Apache-2.0
"""Weights of other engines: our net with the converted weights computes what theirs does.

spconv's nets run on the CPU in one thread. MinkowskiEngine and torchsparse cannot be installed; their documented kernel
orders are written out here as sums over a dictionary of sites.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vision3d import sparse
from vision3d.sparse import compat
from vision3d.sparse.backends.spconv import _spconv
from vision3d.sparse.layers.norm import SparseBatchNorm
from vision3d.sparse.layers.rowwise import SparseReLU

needs_spconv = pytest.mark.skipif(importlib.util.find_spec("spconv") is None, reason="spconv is not installed")
Site = tuple[int, ...]
Rows = dict[Site, Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def spconv() -> Any:
    _spconv()  # imports it with its deprecation warnings silenced
    import spconv.pytorch

    return spconv.pytorch


def cloud(ndim: int, channels: int, shape: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random sites of a batch of two, and features."""
    generator = torch.Generator().manual_seed(seed)
    sites = (torch.rand((2, *[shape] * ndim), generator=generator) < 0.3).nonzero().int().contiguous()
    return sites, torch.randn((len(sites), channels), generator=generator)


def rows(coords: Tensor, feats: Tensor) -> Rows:
    return {tuple(site): row for site, row in zip(coords.tolist(), feats.detach())}


def assert_same(found: Rows, expected: Rows) -> None:
    assert found.keys() == expected.keys()
    ours, its = (torch.stack([side[site] for site in sorted(expected)]) for side in (found, expected))
    torch.testing.assert_close(ours, its, rtol=0, atol=1e-5 * its.abs().max().item())


def run(net: nn.Module, coords: Tensor, feats: Tensor, shape: Sequence[int] | None = None) -> Rows:
    with torch.no_grad():
        y = net(sparse.SparseTensor(coords, feats, shape, 2))
    return rows(y.coords, y.feats)


# spconv


LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "subm 3": ("SubMConv", {"kernel_size": 3}),
    "subm 1": ("SubMConv", {"kernel_size": 1}),
    "subm dilated": ("SubMConv", {"kernel_size": 3, "dilation": 2}),
    "one": ("SparseConv", {"kernel_size": 1}),
    "one, stride 2": ("SparseConv", {"kernel_size": 1, "stride": 2}),
    "k3 s2 p1": ("SparseConv", {"kernel_size": 3, "stride": 2, "padding": 1}),
    "k2 s2": ("SparseConv", {"kernel_size": 2, "stride": 2}),
    "transposed": ("SparseConvTranspose", {"kernel_size": 3, "stride": 2, "padding": 1}),
}


@needs_spconv
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_layers_compute_what_spconv_computes(spconv: Any, kind: str, ndim: int) -> None:
    name, geometry = LAYERS[kind]
    torch.manual_seed(1)
    native = {"algo": spconv.ConvAlgo.Native}
    theirs = getattr(spconv, f"{name}{ndim}d")(5, 7, bias=True, **geometry, **native)
    ours = getattr(sparse, f"{name}{ndim}d")(5, 7, **geometry)
    ours.load_state_dict(compat.from_spconv(theirs.state_dict(), ours, layout="KRSC"))
    coords, feats = cloud(ndim, 5)
    shape = [6] * ndim
    y = theirs(spconv.SparseConvTensor(feats, coords, shape, 2))
    assert_same(run(ours, coords, feats, shape), rows(y.indices, y.features))
    back = compat.to_spconv(ours)
    assert all(torch.equal(back[key], value) for key, value in theirs.state_dict().items())


def spconv_net(spconv: Any) -> nn.Module:
    native = {"algo": spconv.ConvAlgo.Native, "bias": False}
    net = spconv.SparseSequential(
        spconv.SubMConv3d(4, 16, 3, indice_key="a", **native),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        spconv.SparseConv3d(16, 24, 3, 2, 1, indice_key="b", **native),
        nn.BatchNorm1d(24),
        spconv.SubMConv3d(24, 12, 1, **native),
        spconv.SparseInverseConv3d(12, 8, 3, indice_key="b", **native),
    )
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return net.eval()


def our_net() -> nn.Module:
    down = sparse.SparseConv3d(16, 24, 3, 2, 1, bias=False)
    return nn.Sequential(
        sparse.SubMConv3d(4, 16, 3, bias=False),
        SparseBatchNorm(16),
        SparseReLU(),
        down,
        SparseBatchNorm(24),
        sparse.SubMConv3d(24, 12, 1, bias=False),
        sparse.SparseInverseConv3d(12, 8, like=down, bias=False),
    ).eval()


@needs_spconv
def test_a_net_computes_what_spconvs_net_computes_and_back(spconv: Any) -> None:
    torch.manual_seed(2)
    theirs, ours = spconv_net(spconv), our_net()
    ours.load_state_dict(compat.from_spconv(theirs.state_dict(), ours), strict=True)
    coords, feats = cloud(3, 4, shape=8)
    with torch.no_grad():
        y = theirs(spconv.SparseConvTensor(feats, coords, [8, 8, 8], 2))
    expected = rows(y.indices, y.features)
    assert_same(run(ours, coords, feats, [8, 8, 8]), expected)

    again = spconv_net(spconv)
    again.load_state_dict(compat.to_spconv(ours), strict=True)
    with torch.no_grad():
        z = again(spconv.SparseConvTensor(feats, coords, [8, 8, 8], 2))
    assert torch.equal(z.features, y.features)


@needs_spconv
def test_coordinates_in_the_opposite_order(spconv: Any) -> None:
    torch.manual_seed(3)
    theirs = spconv.SparseConv3d(5, 7, (3, 2, 1), (2, 2, 1), algo=spconv.ConvAlgo.Native)
    ours = sparse.SparseConv3d(5, 7, (1, 2, 3), (1, 2, 2))
    ours.load_state_dict(compat.from_spconv(theirs.state_dict(), ours, axes="reversed"))
    coords, feats = cloud(3, 5)
    y = theirs(spconv.SparseConvTensor(feats, coords, [6, 6, 6], 2))
    flipped = coords[:, [0, 3, 2, 1]].contiguous()
    assert_same(run(ours, flipped, feats, [6, 6, 6]), rows(y.indices[:, [0, 3, 2, 1]], y.features))


# MinkowskiEngine and torchsparse, sites (batch, x, y, z)


def minkowski_offsets(size: Site) -> list[Site]:
    """The first axis runs fastest; odd extents are centred, even ones start at 0."""
    spans = [range(-(k // 2), k // 2 + 1) if k % 2 else range(k) for k in size]
    return [offset[::-1] for offset in product(*reversed(spans))]


def torchsparse_offsets(size: Site) -> list[Site]:
    """x runs fastest where the volume is odd, z where it is even; even extents start at 0."""
    x, y, z = ([i + 1 - k // 2 if k % 2 == 0 else i - k // 2 for i in range(k)] for k in size)
    if size[0] * size[1] * size[2] % 2:
        return [(a, b, c) for c in z for b in y for a in x]
    return [(a, b, c) for a in x for b in y for c in z]


def brute(inputs: Rows, outputs: set[Site], kernel: Tensor, offsets: list[Site], stride: int, back: bool) -> Rows:
    """``sum_k kernel[k]`` over input = output * stride + offset, or with input and output changing places."""
    result = {}
    for site in outputs:
        total = torch.zeros(kernel.shape[-1])
        for other, row in inputs.items():
            coarse, fine = (other, site) if back else (site, other)
            offset = tuple(f - c * stride for f, c in zip(fine[1:], coarse[1:]))
            if other[0] == site[0] and offset in offsets:
                total = total + row @ kernel[offsets.index(offset)]
        result[site] = total
    return result


def floored(sites: Rows, stride: int) -> set[Site]:
    return {(b, *(c // stride for c in space)) for b, *space in sites}


ORDERS: list[tuple[str, Callable[[Site], list[Site]], Site]] = [
    ("minkowski", minkowski_offsets, (3, 3, 3)),
    ("minkowski", minkowski_offsets, (5, 3, 1)),
    ("minkowski", minkowski_offsets, (2, 2, 2)),
    ("minkowski", minkowski_offsets, (2, 1, 2)),
    ("torchsparse", torchsparse_offsets, (3, 3, 3)),
    ("torchsparse", torchsparse_offsets, (1, 3, 5)),
    ("torchsparse", torchsparse_offsets, (2, 2, 2)),
    ("torchsparse", torchsparse_offsets, (1, 2, 2)),
]


@pytest.mark.parametrize(("engine", "offsets_of", "size"), ORDERS, ids=lambda v: str(v) if not callable(v) else "")
@pytest.mark.parametrize("axes", ["same", "reversed"])
@pytest.mark.parametrize("kind", ["conv", "inverse"])
def test_kernel_order(engine: str, offsets_of: Any, size: Site, axes: str, kind: str) -> None:
    generator = torch.Generator().manual_seed(5)
    offsets = offsets_of(size)
    odd = all(k % 2 for k in size)
    stride = 1 if odd and kind == "conv" else 2
    kernel = torch.randn((len(offsets), 3, 4), generator=generator)
    bias = torch.randn((1, 4) if engine == "minkowski" else (4,), generator=generator)
    coords, feats = cloud(3, 3, shape=5, seed=6)
    fine = rows(coords, feats)
    coarse = floored(fine, stride)
    order = [0, 1, 2, 3] if axes == "same" else [0, 3, 2, 1]
    mine = size if axes == "same" else size[::-1]
    geometry = {"kernel_size": mine, "stride": stride, "padding": tuple(k // 2 if k % 2 else 0 for k in mine)}
    state = {"kernel": kernel, "bias": bias}
    if kind == "conv":
        expected = brute(fine, coarse, kernel, offsets, stride, back=False)
        net: nn.Module = sparse.SparseConv3d(3, 4, out_rule="floor", **geometry)
        x = sparse.SparseTensor(coords[:, order].contiguous(), feats, None, 2)
        net.load_state_dict(compat.convert_state_dict(state, net, engine, axes=axes), strict=True)
        y = net(x)
    else:
        seeds = torch.randn((len(coarse), 3), generator=generator)
        expected = brute(dict(zip(sorted(coarse), seeds)), set(fine), kernel, offsets, stride, back=True)
        net = sparse.SparseInverseConv3d(3, 4, **geometry)
        net.load_state_dict(compat.convert_state_dict(state, net, engine, axes=axes), strict=True)
        low = torch.tensor(sorted(coarse), dtype=torch.int32)[:, order].contiguous()
        y = net(
            sparse.SparseTensor(low, seeds, None, 2, stride=2),
            like=sparse.SparseTensor(coords[:, order].contiguous(), feats, None, 2),
        )
    assert_same(rows(y.coords[:, order], y.feats), {site: row + bias.flatten() for site, row in expected.items()})
    back = compat.export_state_dict(net, engine, axes=axes)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


# torch.nn


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_dense_layers(transposed: bool, groups: int) -> None:
    geometry = {"kernel_size": 3, "stride": 2, "padding": 1, "groups": groups}
    kind, base = ("SparseConvTranspose", nn.ConvTranspose3d) if transposed else ("SparseConv", nn.Conv3d)
    theirs, ours = base(4, 6, **geometry), getattr(sparse, f"{kind}3d")(4, 6, **geometry)
    ours.load_state_dict(compat.from_dense(theirs.state_dict(), ours), strict=True)
    coords, feats = cloud(3, 4)
    x = sparse.SparseTensor(coords, feats, [6, 6, 6], 2)
    y, dense = ours(x), theirs(x.dense())
    site = y.coords.long().unbind(1)
    torch.testing.assert_close(y.feats, dense[site[0], :, site[1], site[2], site[3]], rtol=0, atol=1e-5)
