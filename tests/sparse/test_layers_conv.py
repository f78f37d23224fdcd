# SPDX-License-Identifier: Apache-2.0
"""Convolution layers as modules: gradients, initial weights, state dicts, autocast, isolation of samples, shifts."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from grids import assert_close, grid
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vision3d import sparse
from vision3d.sparse import SparseTensor, backend, functional
from vision3d.sparse.layers import layout
from vision3d.sparse.layers.conv import ConvNd

F64 = {"dtype": torch.float64}
LAYERS = [
    lambda: sparse.SubMConv2d(4, 6, 3, **F64),
    lambda: sparse.SubMConv2d(4, 6, (1, 3), dilation=2, groups=2, **F64),
    lambda: sparse.SubMConv2d(4, 4, 5, groups=4, bias=False, **F64),
    lambda: sparse.SubMConv2d(4, 6, 1, **F64),
    lambda: sparse.SubMConv2d(4, 6, 1, groups=2, **F64),
    lambda: sparse.SparseConv2d(4, 6, 3, 2, 1, **F64),
    lambda: sparse.SparseConv2d(4, 8, 2, 2, groups=4, out_rule="floor", **F64),
    lambda: sparse.SparseConv2d(4, 6, (3, 2), (1, 2), (0, 1), (2, 1), **F64),
    lambda: sparse.SparseConv2d(4, 6, 1, **F64),
]
PAIRS = [
    (nn.Conv1d, sparse.SubMConv1d),
    (nn.Conv2d, sparse.SubMConv2d),
    (nn.Conv3d, sparse.SubMConv3d),
    (nn.Conv3d, sparse.SparseConv3d),
    (nn.ConvTranspose1d, sparse.SparseConvTranspose1d),
    (nn.ConvTranspose3d, sparse.SparseConvTranspose3d),
    (nn.ConvTranspose2d, sparse.SparseInverseConv2d),
]


@pytest.mark.parametrize("make", LAYERS)
def test_gradients_of_features_weight_and_bias(engine: str, make) -> None:
    torch.manual_seed(0)
    layer = make()
    x = grid(2, 4, shape=(5, 4)).x
    parameters = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())
    names = [name for name, _ in layer.named_parameters()]

    def run(feats: Tensor, *values: Tensor) -> Tensor:
        y: SparseTensor = torch.func.functional_call(layer, dict(zip(names, values)), (x.replace(feats),))
        return y.feats

    assert torch.autograd.gradcheck(run, (x.feats.clone().requires_grad_(), *parameters))


@pytest.mark.parametrize("make", LAYERS)
def test_native_equals_reference(make) -> None:
    pytest.importorskip("vision3d.sparse._native")
    torch.manual_seed(0)
    layer = make()
    results = []
    for name in ("native", "reference"):
        with backend(name):
            x = grid(2, 4).x
            feats = x.feats.clone().requires_grad_()
            y = layer(x.replace(feats))
            grads = torch.autograd.grad(y.feats.square().sum(), [feats, *layer.parameters()])
            results.append((y.coords, y.feats, *grads))
    for a, b in zip(*results):
        if a.dtype == torch.int32:
            assert torch.equal(a, b)
        else:
            assert_close(a, b)


@pytest.mark.parametrize(("dense", "ours"), PAIRS)
@pytest.mark.parametrize("groups", [1, 2])
def test_a_seed_gives_the_weights_it_gives_torch(dense, ours, groups: int) -> None:
    torch.manual_seed(5)
    wanted = dense(4, 6, 3, groups=groups)
    torch.manual_seed(5)
    layer = ours(4, 6, 3, groups=groups)
    assert layer.weight.shape == (3**layer.ndim, 4 // groups, 6)
    assert layer.weight.is_contiguous()
    assert torch.equal(layer.dense_weight(), wanted.weight)
    assert torch.equal(layer.bias, wanted.bias)
    torch.manual_seed(5)
    layer.reset_parameters()
    assert torch.equal(layer.dense_weight(), wanted.weight)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_layouts_come_back(transposed: bool, groups: int) -> None:
    weight = torch.randn((8, 12 // groups, 3, 1, 2) if transposed else (12, 8 // groups, 3, 1, 2))
    ours = layout.from_dense(weight, groups, transposed)
    assert ours.shape == (6, 8 // groups, 12)
    assert torch.equal(layout.to_dense(ours, (3, 1, 2), groups, transposed), weight)
    with pytest.raises(ValueError, match="6 kernel offsets"):
        layout.to_dense(ours, (3, 3, 2), groups, transposed)


def test_relu_in_the_epilogue(engine: str) -> None:
    found = grid(2, 4)
    for make in LAYERS:
        layer = make()
        given = (layer.weight, layer.kernel_size, layer.bias)
        if isinstance(layer, sparse.SubMConv2d):
            feats = found.x.feats.clone().requires_grad_()
            y = functional.subm_conv(found.x.replace(feats), *given, layer.dilation, layer.groups, relu=True)
            wanted = layer(found.x.replace(feats)).feats.relu()
            assert_close(y.feats, wanted)
            assert (y.feats == 0).any()
            a, b = (torch.autograd.grad(out.sum(), feats, retain_graph=True)[0] for out in (y.feats, wanted))
            assert_close(a, b)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_its_dtype_in_training_and_evaluation(engine: str, training: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = grid(3, 8, dtype=torch.float32).x
    for layer in (sparse.SubMConv3d(8, 8, 3), sparse.SubMConv3d(8, 8, 1), sparse.SparseConv3d(8, 8, 3, 2, 1)):
        layer.train(training)
        wanted = layer(x).feats
        with torch.autocast("cpu", dtype):
            found = layer(x).feats
        assert found.dtype == dtype
        assert (found.float() - wanted).abs().max() < 2e-2 * wanted.abs().max()
        found.float().sum().backward()
        assert layer.weight.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype):
        double = sparse.SubMConv3d(8, 8, 3, **F64)
        assert double(x.double()).dtype == torch.float64
    with torch.autocast("cpu", dtype, enabled=False):
        assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("make", [*LAYERS, lambda: sparse.SparseInverseConv2d(4, 6, 3, 2, 1, **F64)])
def test_copies_and_safetensors(make, tmp_path: Path) -> None:
    layer = make()
    x = grid(2, 4).x
    if isinstance(layer, sparse.SparseInverseConv2d):
        x = sparse.SparseConv2d(4, 4, 3, 2, 1, **F64)(x)
    twin = copy.deepcopy(layer)
    assert repr(twin) == repr(layer)
    assert twin.weight is not layer.weight
    wanted = layer(x).feats
    assert torch.equal(twin(x).feats, wanted)
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    fresh = make()
    assert not torch.equal(fresh.weight, layer.weight)
    fresh.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    assert torch.equal(fresh(x).feats, wanted)


def test_state_dicts_carry_the_layout_version() -> None:
    layer = sparse.SubMConv3d(3, 4, 3)
    state = layer.state_dict()
    assert state._metadata[""]["version"] == 1
    state._metadata[""]["version"] = 2
    with pytest.raises(RuntimeError, match=r"weight has layout version 2, this release knows 1"):
        layer.load_state_dict(state)


@pytest.mark.parametrize("shape", [(4, 3, 3, 3, 3), (4, 3, 3, 3, 3)[::-1], (27, 4, 3), (4, 3)])
def test_foreign_weights_point_to_compat(shape: tuple[int, ...]) -> None:
    net = nn.Sequential(sparse.SubMConv3d(3, 4, 3))
    state = {"0.weight": torch.zeros(shape), "0.bias": torch.zeros(4)}
    with pytest.raises(RuntimeError, match=r"0\.weight is \(.*SubMConv3d\(3, 4, .*vision3d\.sparse\.compat"):
        net.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*0\.bias"):
        net.load_state_dict({"0.weight": torch.zeros(27, 3, 4)})


def test_repr_shows_what_differs_from_the_defaults() -> None:
    assert repr(sparse.SubMConv3d(3, 16, 3)) == "SubMConv3d(3, 16, kernel_size=(3, 3, 3), padding=(1, 1, 1))"
    layer = sparse.SparseConv2d(4, 8, (1, 3), 2, 1, 2, 4, False, "floor")
    assert repr(layer) == (
        "SparseConv2d(4, 8, kernel_size=(1, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), groups=4, "
        "bias=False, out_rule='floor')"
    )


def test_devices_and_dtypes_of_parameters() -> None:
    layer = sparse.SparseConv3d(3, 4, 3, device="meta", dtype=torch.float16)
    assert layer.weight.device.type == "meta"
    assert layer.bias.dtype == torch.float16
    assert sparse.SubMConv1d(3, 4, 3).double().weight.dtype == torch.float64


def test_half_precision_storage(engine: str) -> None:
    torch.manual_seed(0)
    x = grid(3, 8, dtype=torch.float32).x
    layer = sparse.SubMConv3d(8, 8, 3)
    wanted = layer(x).feats
    found = layer.bfloat16()(x.to(torch.bfloat16)).feats
    assert found.dtype == torch.bfloat16
    assert (found.float() - wanted).abs().max() < 2e-2 * wanted.abs().max()


def two_levels(**options: object) -> nn.Sequential:
    torch.manual_seed(0)
    down = sparse.SparseConv3d(8, 8, 3, 2, 1, **options)
    return nn.Sequential(
        sparse.SubMConv3d(3, 8, 3, **options),
        sparse.SubMConv3d(8, 8, 5, groups=8, **options),
        down,
        sparse.SubMConv3d(8, 8, 3, groups=2, **options),
        sparse.SparseInverseConv3d(8, 4, like=down, **options),
        sparse.SparseConvTranspose3d(4, 3, 2, 2, **options),
    )


def test_samples_do_not_meet(engine: str) -> None:
    """A batch equals its samples alone bit for bit; changing one leaves the others."""
    net = two_levels()
    x = grid(3, 3, batch=3, dtype=torch.float32).x
    whole = net(x)
    for index in range(3):
        alone = net(x[index])
        assert torch.equal(whole[index].coords, alone.coords)
        assert torch.equal(whole[index].feats, alone.feats)
    feats = x.feats.clone()
    feats[x.coords[:, 0] == 1] += 1
    changed = net(x.replace(feats))
    for index, moved in enumerate((False, True, False)):
        assert torch.equal(changed[index].feats, whole[index].feats) != moved


def test_shifts_shift_the_output(engine: str) -> None:
    net = two_levels()
    found = grid(3, 3, dtype=torch.float32).x
    x = SparseTensor(found.coords, found.feats, batch_size=2)
    shift = torch.tensor([0, 2, -4, 6], dtype=torch.int32)
    moved = SparseTensor(x.coords + shift, x.feats, batch_size=2)
    a, b = net(x), net(moved)
    assert torch.equal(a.feats, b.feats)
    # The last layer doubles the resolution of the first.
    assert torch.equal(a.coords + 2 * shift, b.coords)
    far = SparseTensor(x.coords + 2**30 * torch.tensor([0, 1, -1, 1], dtype=torch.int32), x.feats, batch_size=2)
    assert torch.equal(net[:5](far).feats, net[:5](x).feats)


def test_row_order_follows_the_user(engine: str) -> None:
    net = two_levels()[:5]
    x = grid(3, 3, dtype=torch.float32).x
    order = torch.randperm(len(x))
    y = net(SparseTensor(x.coords[order], x.feats[order], x.spatial_shape, 2))
    assert torch.equal(y.coords, x.coords[order])
    assert torch.equal(y.feats, net(x).feats[order])


def test_threads_change_nothing() -> None:
    pytest.importorskip("vision3d.sparse._native")
    net = two_levels()
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x = grid(3, 3, fill=0.5, shape=(12, 11, 10), dtype=torch.float32).x
            y = net(x)
            grads = torch.autograd.grad(y.feats.square().sum(), list(net.parameters()))
            results.append([y.coords, y.feats, *grads])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_checkpointing_recomputes_the_same(engine: str) -> None:
    net = two_levels()[:5]
    x = grid(3, 3, dtype=torch.float32).x
    results = []
    for checkpointed in (False, True):
        feats = x.feats.clone().requires_grad_()
        inside = x.replace(feats)
        y = checkpoint(net, inside, use_reentrant=False) if checkpointed else net(inside)
        results.append([y.feats, *torch.autograd.grad(y.feats.square().sum(), [feats, *net.parameters()])])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_layers_of_every_number_of_axes() -> None:
    for axes in (1, 2, 3, 4):
        x = SparseTensor(torch.zeros((1, 1 + axes), dtype=torch.int32), torch.ones(1, 2))
        for kind in ("SubMConv", "SparseConv", "SparseConvTranspose", "SparseInverseConv"):
            layer = getattr(sparse, f"{kind}{axes}d")(2, 3, 3)
            assert isinstance(layer, ConvNd) and layer.ndim == axes
            if kind != "SparseInverseConv":
                assert layer(x).n_channels == 3
