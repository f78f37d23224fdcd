# SPDX-License-Identifier: Apache-2.0
"""Norms against torch's, on full grids and on rows; few and no sites; half precision."""

from __future__ import annotations

import copy

import pytest
import torch
from grids import assert_close, at_sites, grid
from torch import Tensor, nn

from vision3d import sparse
from vision3d.sparse import SparseTensor

F64 = {"dtype": torch.float64}


def with_random_parameters(layer: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def empty(channels: int, dtype: torch.dtype = torch.float64, batch: int = 2) -> SparseTensor:
    coords = torch.zeros((0, 3), dtype=torch.int32)
    return SparseTensor(coords, torch.zeros((0, channels), dtype=dtype), (4, 4), batch)


class DenseGRN(nn.Module):
    """ConvNeXt V2's own, on (B, H, W, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels, **F64))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels, **F64))

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1)
        norm = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        response = norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)
        return (self.gamma * (x * response) + self.beta + x).movedim(-1, 1)


@pytest.mark.parametrize(
    ("ours", "dense"),
    [
        (sparse.SparseBatchNorm(6, **F64), nn.BatchNorm2d(6, **F64)),
        (sparse.SparseInstanceNorm(6, affine=True, **F64), nn.InstanceNorm2d(6, affine=True, **F64)),
        (sparse.SparseInstanceNorm(6), nn.InstanceNorm2d(6)),
        (sparse.SparseGroupNorm(3, 6, **F64), nn.GroupNorm(3, 6, **F64)),
        (sparse.SparseGroupNorm(1, 6, affine=False), nn.GroupNorm(1, 6, affine=False)),
        (sparse.SparseGRN(6, **F64), DenseGRN(6)),
    ],
)
def test_full_grid_equals_dense(engine: str, ours: nn.Module, dense: nn.Module) -> None:
    with_random_parameters(ours)
    with_random_parameters(dense)
    found = grid(2, 6, fill=1.0)
    feats, values = found.x.feats.clone().requires_grad_(), found.values.clone().requires_grad_()
    y, wanted = ours(found.x.replace(feats)), dense(values)
    assert_close(y.feats, at_sites(wanted, y.coords))
    probe = torch.randn_like(wanted)
    mine = torch.autograd.grad((y.feats * at_sites(probe, y.coords)).sum(), [feats, *ours.parameters()])
    theirs = torch.autograd.grad((wanted * probe).sum(), [values, *dense.parameters()])
    assert_close(mine[0], at_sites(theirs[0], y.coords))
    for a, b in zip(mine[1:], theirs[1:]):
        assert_close(a, b.reshape(a.shape))


@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_batch_norm_is_torchs_over_rows(options: dict[str, object]) -> None:
    ours, rows = sparse.SparseBatchNorm(4, **options, **F64), nn.BatchNorm1d(4, **options, **F64)
    for seed in range(3):
        x = grid(3, 4, seed=seed).x
        assert torch.equal(ours(x).sorted_feats, rows(x.sorted_feats))
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), rows.state_dict().values()))
    assert torch.equal(ours.eval()(x).sorted_feats, rows.eval()(x.sorted_feats))
    assert torch.equal(ours(x.sorted_feats), rows(x.sorted_feats))


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("sites", [0, 1])
def test_batch_norm_of_fewer_than_two_sites(sites: int, tracked: bool) -> None:
    layer = with_random_parameters(sparse.SparseBatchNorm(4, track_running_stats=tracked, **F64))
    if tracked:
        layer(grid(2, 4).x)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    x = SparseTensor(torch.zeros((sites, 3), dtype=torch.int32), torch.randn(sites, 4, **F64), batch_size=1)
    feats = x.feats.clone().requires_grad_()
    y = layer(x.replace(feats))
    y.feats.sum().backward()
    for value in (y.feats, feats.grad, layer.weight.grad, layer.bias.grad):
        assert value.isfinite().all()
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    wanted = copy.deepcopy(layer).eval()(x).feats if tracked else layer.bias.expand(sites, 4)
    assert_close(y.feats, wanted)


def test_layer_norm_is_torchs_over_channels() -> None:
    ours = with_random_parameters(sparse.SparseLayerNorm(4, **F64))
    rows = with_random_parameters(nn.LayerNorm(4, **F64))
    x = grid(3, 4).x
    assert torch.equal(ours(x).feats, rows(x.feats))
    assert torch.equal(ours(x.feats), rows(x.feats))
    assert sparse.SparseLayerNorm(4, bias=False).bias is None
    assert list(ours.state_dict()) == list(rows.state_dict())


LAYERS = [
    lambda dtype=torch.float64: sparse.SparseBatchNorm(4, dtype=dtype),
    lambda dtype=torch.float64: sparse.SparseLayerNorm(4, dtype=dtype),
    lambda dtype=torch.float64: sparse.SparseGroupNorm(2, 4, dtype=dtype),
    lambda dtype=torch.float64: sparse.SparseInstanceNorm(4, affine=True, dtype=dtype),
    lambda dtype=torch.float64: sparse.SparseGRN(4, dtype=dtype),
]
PER_SAMPLE = LAYERS[2:]


@pytest.mark.parametrize("make", LAYERS)
def test_gradients(engine: str, make) -> None:
    layer = with_random_parameters(make())
    x = grid(2, 4, fill=0.5, batch=3, shape=(3, 4)).x
    x = x.prune(x.coords[:, 0] != 1)
    names = [name for name, _ in layer.named_parameters()]
    parameters = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())

    def run(feats: Tensor, *values: Tensor) -> Tensor:
        y: SparseTensor = torch.func.functional_call(layer, dict(zip(names, values)), (x.replace(feats),))
        return y.feats

    assert torch.autograd.gradcheck(run, (x.feats.clone().requires_grad_(), *parameters))


@pytest.mark.parametrize("make", PER_SAMPLE)
def test_second_derivatives(engine: str, make) -> None:
    layer = with_random_parameters(make())
    x = grid(2, 4, fill=0.5, shape=(3, 2)).x

    def run(feats: Tensor) -> Tensor:
        y: SparseTensor = layer(x.replace(feats))
        return y.feats

    assert torch.autograd.gradgradcheck(run, (x.feats.clone().requires_grad_(),))


@pytest.mark.parametrize("make", PER_SAMPLE)
def test_a_sample_alone_gives_the_same_bits(engine: str, make) -> None:
    layer = with_random_parameters(make(torch.float32))
    x = grid(3, 4, batch=3, dtype=torch.float32).x
    whole = layer(x)
    for index in range(3):
        assert torch.equal(whole[index].feats, layer(x[index]).feats)


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_no_site_one_site_and_one_empty_sample(engine: str, make, training: bool) -> None:
    layer = with_random_parameters(make()).train(training)
    single = SparseTensor(torch.tensor([[1, 2, 3]], dtype=torch.int32), torch.randn(1, 4, **F64), (4, 4), 3)
    some = grid(2, 4, batch=3).x
    for x in (empty(4), single, some.prune(some.coords[:, 0] != 1), some * 0):
        feats = x.feats.clone().requires_grad_()
        layer.zero_grad()
        y = layer(x.replace(feats))
        assert y.sites is x.sites
        y.feats.square().sum().backward()
        for value in (y.feats, feats.grad, *(p.grad for p in layer.parameters())):
            assert value.isfinite().all()


def test_one_site_per_sample_gives_the_shift(engine: str) -> None:
    coords = torch.tensor([[0, 2, 3], [1, 0, 0]], dtype=torch.int32)
    x = SparseTensor(coords, torch.randn(2, 4, **F64))
    layer = with_random_parameters(sparse.SparseInstanceNorm(4, affine=True, **F64))
    assert_close(layer(x).feats, layer.bias.expand(2, 4))


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_and_autocast(engine: str, make, training: bool) -> None:
    """As torch's norms on the CPU: float32 parameters take half precision, which comes back, train and eval alike."""
    layer = with_random_parameters(make(torch.float32)).train(training)
    x = grid(3, 4, dtype=torch.float32).x
    wanted = copy.deepcopy(layer)(x).feats
    half = copy.deepcopy(layer)(x.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (half.feats.float() - wanted).abs().max() < 2e-2 * wanted.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        assert copy.deepcopy(layer)(x.to(torch.bfloat16)).dtype == torch.bfloat16
        assert copy.deepcopy(layer)(x).dtype == torch.float32


def test_dead_channels_and_zero_features_have_gradients_without_nan(engine: str) -> None:
    layer = with_random_parameters(sparse.SparseGRN(4, **F64))
    x = grid(2, 4).x
    feats = (x.feats * torch.tensor([1, 0, 1, 0])).requires_grad_()
    layer(x.replace(feats)).feats.sum().backward()
    assert feats.grad.isfinite().all()


@pytest.mark.parametrize("make", LAYERS)
def test_errors_name_the_layer(make) -> None:
    layer = make()
    kind = type(layer).__name__
    with pytest.raises(ValueError, match=rf"{kind}\(.*x has 3 channels, the layer takes 4"):
        layer(grid(2, 3).x)
    with pytest.raises(TypeError, match=rf"{kind}\(.*float32.*float64; convert one with \.to\(\)"):
        layer(grid(2, 4, dtype=torch.float32).x)


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="group_norm: num_groups must divide the 4 channels of x, not be 3"):
        sparse.functional.group_norm(grid(2, 4).x, 3)
    with pytest.raises(ValueError, match=r"instance_norm: weight must be \(4,\) for x, not \(3,\)"):
        sparse.functional.instance_norm(grid(2, 4).x, torch.ones(3, **F64))
