# SPDX-License-Identifier: Apache-2.0
"""Layers that act on single sites are torch's own on the features; torch's functions on sparse tensors."""

from __future__ import annotations

import pytest
import torch
from grids import assert_close, grid
from torch import nn
from torch.nn import functional as dense

from vision3d import sparse
from vision3d.sparse import SparseTensor

PAIRS = [
    (sparse.SparseReLU(), nn.ReLU()),
    (sparse.SparseLeakyReLU(0.3), nn.LeakyReLU(0.3)),
    (sparse.SparsePReLU(4), nn.PReLU(4)),
    (sparse.SparseGELU(), nn.GELU()),
    (sparse.SparseGELU("tanh"), nn.GELU("tanh")),
    (sparse.SparseSiLU(), nn.SiLU()),
    (sparse.SparseSigmoid(), nn.Sigmoid()),
    (sparse.SparseModule(nn.Softplus(2)), nn.Softplus(2)),
    (sparse.SparseDropout(0.3).eval(), nn.Dropout(0.3).eval()),
]


@pytest.mark.parametrize(("ours", "rows"), PAIRS)
def test_equal_to_torch_on_rows_and_on_plain_tensors(ours: nn.Module, rows: nn.Module) -> None:
    x = grid(3, 4, dtype=torch.float32).x
    kept = x.feats.clone()
    y = ours(x)
    assert y.sites is x.sites
    assert torch.equal(y.sorted_feats, rows(x.sorted_feats))
    assert torch.equal(x.feats, kept)
    assert torch.equal(ours(x.feats), rows(x.feats))


def test_linear_is_the_pointwise_convolution() -> None:
    torch.manual_seed(0)
    linear = sparse.SparseLinear(4, 6)
    torch.manual_seed(0)
    same = nn.Linear(4, 6)
    assert torch.equal(linear.weight, same.weight)
    x = grid(3, 4, dtype=torch.float32).x
    conv = sparse.SubMConv3d(4, 6, 1)
    with torch.no_grad():
        conv.weight.copy_(linear.weight.t()[None])
        conv.bias.copy_(linear.bias)
    assert_close(linear(x).feats, conv(x).feats, torch.float32)
    assert torch.equal(linear(x.feats), same(x.feats))
    with pytest.raises(ValueError, match=r"SparseLinear\(.*x has 3 channels, the layer takes 4"):
        linear(grid(3, 3, dtype=torch.float32).x)


def test_dropout_drops_and_scales() -> None:
    x = grid(3, 4, fill=0.9).x
    ones = x.map(torch.ones_like)
    torch.manual_seed(0)
    y = sparse.SparseDropout(0.25)(ones).feats
    assert set(y.unique().tolist()) == {0.0, 1 / 0.75}
    assert 0.6 < (y > 0).double().mean() < 0.9


def test_drop_path_drops_whole_samples() -> None:
    x = grid(2, 4, batch=40, fill=0.5).x
    ones = x.map(torch.ones_like)
    layer = sparse.SparseDropPath(0.25)
    torch.manual_seed(0)
    y = layer(ones)
    kept = sparse.functional.global_pool(y, "max")
    assert all(row.tolist() in ([0.0] * 4, [1 / 0.75] * 4) for row in kept)
    assert 20 < int((kept[:, 0] > 0).sum()) < 40
    assert layer.eval()(ones) is ones
    assert (sparse.SparseDropPath(1.0)(ones).feats == 0).all()
    with pytest.raises(ValueError, match=r"SparseDropPath: p must be in \[0, 1\], not 2"):
        sparse.SparseDropPath(2)


def test_a_sequence_of_layers() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        sparse.SubMConv3d(4, 8, 3),
        sparse.SparseBatchNorm(8),
        sparse.SparseReLU(),
        sparse.SparseLinear(8, 6),
        sparse.SparseGlobalPool(),
        sparse.SparseLinear(6, 2),
    )
    out = net(grid(3, 4, dtype=torch.float32).x)
    assert out.shape == (2, 2)
    out.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


FUNCTIONS = [
    torch.relu,
    torch.sigmoid,
    torch.tanh,
    dense.relu,
    lambda x: dense.relu(x, inplace=True),
    dense.relu6,
    lambda x: dense.leaky_relu(x, 0.2, inplace=True),
    dense.elu,
    lambda x: dense.silu(x, inplace=True),
    dense.mish,
    dense.hardswish,
    dense.gelu,
    lambda x: dense.gelu(x, approximate="tanh"),
    dense.softplus,
    dense.logsigmoid,
    lambda x: dense.dropout(x, 0.5, training=False),
    lambda x: torch.clamp(x, min=0.1),
    lambda x: dense.layer_norm(x, (4,)),
    nn.ReLU(inplace=True),
    nn.Hardtanh(),
]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_torch_functions_act_on_rows(function) -> None:
    x = grid(2, 4).x
    kept = x.feats.clone()
    y = function(x)
    assert isinstance(y, SparseTensor) and y.sites is x.sites
    assert torch.equal(y.sorted_feats, function(x.sorted_feats.clone()))
    assert torch.equal(x.feats, kept)


@pytest.mark.parametrize("function", [lambda x: torch.softmax(x, 1), lambda x: dense.conv2d(x, torch.ones(1, 4, 1, 1))])
def test_other_torch_functions_are_errors(function) -> None:
    with pytest.raises(TypeError, match=r"torch's (softmax|conv2d) is not defined for a SparseTensor; use a layer"):
        function(grid(2, 4).x)


def test_forward_code_of_dense_blocks() -> None:
    """Residual sums in place, concatenation, channels-last and back, mean over the grid."""

    def block(x, scale):
        out = dense.relu(x)
        out = torch.cat([out, out], dim=1).permute(0, 2, 3, 1)
        out = torch.permute(dense.layer_norm(out, (8,)), (0, 3, 1, 2))
        out = scale * out
        out += torch.cat((x, x), 1)
        return out.mean([-2, -1]), torch.mean(out, (2, 3), keepdim=True)

    found = grid(2, 4, fill=1.0)
    scale = torch.randn(8, 1, 1, dtype=torch.float64)
    for mine, theirs in zip(block(found.x, scale), block(found.values, scale)):
        assert_close(mine, theirs)


@pytest.mark.parametrize("dims", [(0, 1, 3, 2), (1, 0, 2, 3), (0, 2, 3)])
def test_other_permutations_are_errors(dims: tuple[int, ...]) -> None:
    x = grid(2, 4).x
    assert x.permute(0, 2, 3, 1) is x and x.permute(0, 3, 1, 2) is x and x.permute(0, -2, -1, 1) is x
    with pytest.raises(ValueError, match=r"can be permuted by \(0, 2, 3, 1\) and \(0, 3, 1, 2\) only"):
        x.permute(*dims)


def test_mean_over_some_axes_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"has a mean over all of \(2, 3\) only"):
        grid(2, 4).x.mean([2])
