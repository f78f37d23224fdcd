# SPDX-License-Identifier: Apache-2.0
"""Bad input to layers: a message that names layer, argument and remedy. Empty and tiny input: no error, no NaN."""

from __future__ import annotations

import pytest
import torch
from grids import grid
from torch import nn

from vision3d import sparse
from vision3d.sparse import CoordinateSet, SparseTensor, functional

F64 = {"dtype": torch.float64}
LAYERS = [
    lambda: sparse.SubMConv3d(4, 6, 3),
    lambda: sparse.SubMConv3d(4, 6, 1),
    lambda: sparse.SparseConv3d(4, 6, 3, 2, 1),
    lambda: sparse.SparseConvTranspose3d(4, 6, 2, 2),
    lambda: sparse.SparseInverseConv3d(4, 6, 2, 2),
]
SHAPELESS = [
    *LAYERS[:4],
    lambda: sparse.SparseConv3d(4, 6, 2, 2, out_rule="floor"),
    lambda: sparse.SparseConv3d(4, 4, 3, groups=4),
    lambda: sparse.SparseMaxPool3d(2),
    lambda: sparse.SparseAvgPool3d(3, 2, 1),
    lambda: sparse.SparseUpsample(2),
    lambda: sparse.SparseBatchNorm(4),
    lambda: sparse.SparseInstanceNorm(4),
    lambda: sparse.SparseGroupNorm(2, 4),
    lambda: sparse.SparseLayerNorm(4),
    lambda: sparse.SparseGRN(4),
    lambda: sparse.SparseLinear(4, 6),
    lambda: sparse.SparseDropPath(0.5),
]


def single() -> SparseTensor:
    return grid(3, 4, dtype=torch.float32).x


@pytest.mark.parametrize("make", LAYERS)
def test_input_of_another_kind(make) -> None:
    layer = make()
    kind = rf"{type(layer).__name__}\(4, 6, kernel_size="
    with pytest.raises(TypeError, match=kind + r".*x must be a SparseTensor, not Tensor; SparseTensor\.from_dense"):
        layer(torch.zeros(1, 4, 5, 5, 5))
    with pytest.raises(TypeError, match=kind + ".*x must be a SparseTensor, not list"):
        layer([1])
    with pytest.raises(ValueError, match=kind + ".*x has 3 channels, the layer takes 4"):
        layer(grid(3, 3, dtype=torch.float32).x)
    with pytest.raises(ValueError, match=kind + ".*x has 2 spatial axes, the layer 3; use its 2d form"):
        layer(grid(2, 4, dtype=torch.float32).x)


@pytest.mark.parametrize("make", LAYERS[:4])
def test_dtypes_and_devices(make) -> None:
    layer = make()
    kind = rf"{type(layer).__name__}\(4, 6, kernel_size="
    with pytest.raises(TypeError, match=kind + r".*x is torch\.float64, weight and bias torch\.float32; convert one"):
        layer(single().double())
    with pytest.raises(TypeError, match=kind + r".*x is torch\.bfloat16"):
        layer(single().to(torch.bfloat16))
    layer.bias.data = layer.bias.data.double()
    with pytest.raises(TypeError, match=kind + r".*weight and bias torch\.float64"):
        layer(single())
    with pytest.raises(ValueError, match=kind + ".*x is on cpu, the weight on meta; move one"):
        make().to("meta")(single())


def test_autocast_leaves_a_mixture_with_float64_an_error() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"x is torch\.float64"):
        LAYERS[0]()(single().double())


CONSTRUCTIONS = [
    (lambda: sparse.SubMConv3d(4, 6, 2), ValueError, r"SubMConv3d: .*odd kernel_size.*\(2, 2, 2\); use SparseConv"),
    (lambda: sparse.SubMConv3d(4, 6, (3, 2, 3)), ValueError, r"odd kernel_size on every axis, not \(3, 2, 3\)"),
    (lambda: sparse.SubMConv3d(4, 6, 3, 0), ValueError, "SubMConv3d: dilation must be at least 1 on every axis, not 0"),
    (lambda: sparse.SubMConv3d(4, 6, (3, 3)), ValueError, "kernel_size has 2 values for 3 axes"),
    (lambda: sparse.SubMConv3d(4, 6, 3.0), TypeError, "kernel_size must be an integer or 3 of them, not 3.0"),
    (lambda: sparse.SubMConv3d(4, 6, 3, groups=3), ValueError, "SubMConv3d: groups=3 must divide in_channels=4"),
    (lambda: sparse.SubMConv3d(0, 6, 3), ValueError, "SubMConv3d: in_channels"),
    (lambda: sparse.SparseConv2d(4, 6, 0), ValueError, "SparseConv2d: kernel_size must be at least 1"),
    (lambda: sparse.SparseConv2d(4, 6, 3, 0), ValueError, "SparseConv2d: stride must be at least 1"),
    (lambda: sparse.SparseConv2d(4, 6, 3, 1, -1), ValueError, "SparseConv2d: padding must be at least 0"),
    (
        lambda: sparse.SparseConv2d(4, 6, 3, out_rule="x"),
        ValueError,
        'SparseConv2d: out_rule must be "dense" or "floor"',
    ),
    (lambda: sparse.SparseConvTranspose2d(4, 6, 3, output_padding=-1), ValueError, "output_padding must be at least 0"),
]


@pytest.mark.parametrize(("make", "kind", "message"), CONSTRUCTIONS)
def test_arguments_are_checked_at_construction(make, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_no_output_left_of_the_grid() -> None:
    with pytest.raises(ValueError, match=r"kernel_size \(5, 5\).*leave no output of spatial_shape \(4, 9\)"):
        sparse.SparseConv2d(4, 6, 5, **F64)(grid(2, 4, shape=(4, 9)).x)


def test_output_padding_below_the_stride() -> None:
    layer = sparse.SparseConvTranspose2d(4, 6, 3, 2, output_padding=2, **F64)
    with pytest.raises(ValueError, match=r"output_padding \(2, 2\) must be below stride \(2, 2\)"):
        layer(grid(2, 4).x)


def test_prescribed_sites_that_do_not_fit() -> None:
    x = grid(2, 4).x
    layer = sparse.SparseConv2d(4, 6, 3, 2, 1, **F64)
    coarse = layer(x)
    cases = [
        (x, r"sites has stride \(1, 1\), the layer's output has \(2, 2\)"),
        (CoordinateSet.from_coords(coarse.coords, (5, 4), 3, 2), "sites has batch_size 3, the layer's output has 2"),
        (CoordinateSet.from_coords(coarse.coords, (9, 4), 2, 2), r"sites has spatial_shape \(9, 4\).*has \(5, 4\)"),
        (grid(3, 4).x, "sites has spatial axes 3, the layer's output has 2"),
    ]
    for sites, message in cases:
        with pytest.raises(ValueError, match=message):
            layer(x, sites)
    with pytest.raises(TypeError, match=r"SparseConv2d\(.*sites must be a SparseTensor or a CoordinateSet, not Tensor"):
        layer(x, coarse.coords)
    # A set without a declared extent fits any.
    assert layer(x, CoordinateSet.from_coords(coarse.coords, None, 2, 2)).spatial_shape is None


def test_like_that_does_not_fit() -> None:
    x = grid(2, 4).x
    coarse = functional.max_pool(x, 2)
    layer = sparse.SparseInverseConv2d(4, 6, 2, 2, **F64)
    with pytest.raises(ValueError, match=r"like has stride \(2, 2\), the layer's output has \(1, 1\)"):
        layer(coarse, coarse)
    with pytest.raises(TypeError, match="like must be a SparseTensor or a CoordinateSet, not int"):
        layer(coarse, 3)


FUNCTIONS = [
    (
        lambda x, w: functional.subm_conv(x, w[:8], 3),
        r"subm_conv: weight must be \(K, Cin / groups, Cout\) = \(9, 4, Cout\)",
    ),
    (lambda x, w: functional.subm_conv(x, w.flatten(), 3), "subm_conv: weight must be"),
    (lambda x, w: functional.subm_conv(x, w, 3, groups=2), r"weight must be .* = \(9, 2, Cout\)"),
    (lambda x, w: functional.subm_conv(x, w, 3, groups=3), "groups must divide the 4 channels of x, not be 3"),
    (lambda x, w: functional.subm_conv(x, w[:, :2, :5], 3, groups=2), "groups=2 must divide the 5 output channels"),
    (lambda x, w: functional.subm_conv(x, w, 3, torch.zeros(5, **F64)), r"bias must be \(6,\), not \(5,\)"),
    (lambda x, w: functional.subm_conv(x, w, 4), "subm_conv: a submanifold convolution needs an odd kernel_size"),
    (lambda x, w: functional.sparse_conv(x, w, 3, padding=-1), "sparse_conv: padding must be at least 0"),
    (lambda x, w: functional.sparse_conv(x, w, 3, out_rule="ceil"), "sparse_conv: out_rule must be"),
    (lambda x, w: functional.conv_transpose(x, w, 3, dilation=0), "conv_transpose: dilation must be at least 1"),
    (lambda x, w: functional.inverse_conv(x, w, 3), "inverse_conv: no layer with kernel_size"),
    (lambda x, w: functional.max_pool(x, 0), "max_pool: kernel_size must be at least 1"),
    (lambda x, w: functional.upsample(x, 0), "upsample: scale_factor must be at least 1"),
    (lambda x, w: functional.group_norm(x, 3), "group_norm: num_groups must divide"),
]


@pytest.mark.parametrize(("call", "message"), FUNCTIONS)
def test_functions_check_their_arguments(engine: str, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(grid(2, 4).x, torch.zeros(9, 4, 6, **F64))


def no_sites(shape: tuple[int, ...] | None, batch: int) -> SparseTensor:
    return SparseTensor(torch.zeros((0, 4), dtype=torch.int32), torch.zeros(0, 4), shape, batch)


@pytest.mark.parametrize("make", SHAPELESS)
@pytest.mark.parametrize(
    "x", [no_sites((6, 6, 6), 2), no_sites(None, 2), no_sites(None, 0)], ids=["shape", "none", "batch0"]
)
def test_no_sites_through_every_layer(engine: str, make, x: SparseTensor) -> None:
    layer = make()
    feats = x.feats.clone().requires_grad_()
    y = layer(x.replace(feats))
    assert len(y) == 0 and y.batch_size == x.batch_size
    y.feats.sum().backward()
    assert feats.grad.shape == (0, 4)
    for parameter in layer.parameters():
        assert parameter.grad is not None and (parameter.grad == 0).all()


def test_no_sites_through_a_u_net_and_a_head(engine: str) -> None:
    down = sparse.SparseConv3d(4, 8, 3, 2, 1)
    net = nn.Sequential(
        sparse.SubMConv3d(4, 4, 3), down, sparse.SparseBatchNorm(8), sparse.SparseReLU(),
        sparse.SparseInverseConv3d(8, 4, like=down), sparse.SparseGlobalPool("max"), nn.Linear(4, 2),
    )  # fmt: skip
    for x in (no_sites((6, 6, 6), 2), no_sites(None, 3)):
        out = net(x)
        assert torch.equal(out, net[-1].bias.expand(x.batch_size, 2))
        out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("make", SHAPELESS)
def test_one_site_and_one_empty_sample(engine: str, make) -> None:
    torch.manual_seed(0)
    layer = make()
    coords = torch.tensor([[1, 3, 2, 4]], dtype=torch.int32)
    one = SparseTensor(coords, torch.randn(1, 4), (6, 6, 6), 3)
    three = grid(3, 4, batch=3, dtype=torch.float32).x
    for x in (one, three.prune(three.coords[:, 0] != 1)):
        feats = x.feats.clone().requires_grad_()
        y = layer(x.replace(feats))
        assert y.batch_size == 3
        y.feats.sum().backward()
        assert y.feats.isfinite().all() and feats.grad.isfinite().all()
        assert set(y.coords[:, 0].tolist()) <= set(x.coords[:, 0].tolist())


def test_features_that_are_not_contiguous(engine: str) -> None:
    x = single()
    layer = sparse.SubMConv3d(4, 6, 3)
    wide = torch.cat([x.feats, x.feats], 1)
    columns = wide[:, :4]
    rows = x.feats.t().contiguous().t()
    assert not columns.is_contiguous() and not rows.is_contiguous()
    for feats in (columns, rows):
        assert torch.equal(layer(x.replace(feats)).feats, layer(x).feats)
    wanted = layer(x).feats
    layer.weight.data = layer.weight.data.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not layer.weight.is_contiguous()
    assert torch.equal(layer(x).feats, wanted)
