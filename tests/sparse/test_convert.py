# SPDX-License-Identifier: Apache-2.0
"""Sparse twins of dense networks: the same weights, the same numbers where both are defined, and the way back."""

from __future__ import annotations

import copy

import pytest
import torch
from dense_nets import GRN, BasicBlock, ChannelsFirstNorm, ConvNeXt, DropPath, ResNet, UNet
from grids import assert_close, at_sites, grid
from torch import Tensor, nn

from vision3d import sparse
from vision3d.sparse import SparseTensor, convert_sparse, export_dense

RULES = {
    ChannelsFirstNorm: lambda norm: with_weights(sparse.SparseLayerNorm(len(norm.weight), norm.eps), norm),
    GRN: lambda grn: with_weights(sparse.SparseGRN(grn.gamma.numel()), grn),
    DropPath: lambda drop: sparse.SparseDropPath(drop.drop_prob),
}
NETS = [ResNet, lambda: ConvNeXt(False), lambda: ConvNeXt(True)]


def with_weights(twin: nn.Module, dense: nn.Module) -> nn.Module:
    for name, parameter in dense.named_parameters():
        twin.get_parameter(name).data = parameter.data.flatten()
    return twin


def network(make) -> nn.Module:
    """Random weights and running statistics everywhere, float64."""
    torch.manual_seed(0)
    net: nn.Module = make().double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1 or "gamma" in name or "beta" in name:
            nn.init.normal_(parameter, 0.5, 0.3)
    return net


def full(shape: tuple[int, ...], channels: int = 3, batch: int = 2) -> tuple[SparseTensor, Tensor]:
    found = grid(len(shape), channels, 1.0, batch, shape)
    return found.x, found.values


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("training", [True, False])
def test_full_grid_equals_dense(engine: str, make, training: bool) -> None:
    dense = network(make).train(training)
    for module in dense.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    twin = convert_sparse(dense, rules=RULES)
    assert twin.training == training
    x, values = full((32, 24))
    assert_close(twin.features(x).dense(), dense.features(values))
    mine, theirs = twin(x), dense(values)
    assert_close(mine, theirs)
    mine.square().sum().backward()
    theirs.square().sum().backward()
    back = export_dense(gradients(twin), copy.deepcopy(dense))
    for wanted, found in zip(dense.parameters(), back.parameters()):
        assert_close(found, wanted.grad)
    for wanted, found in zip(dense.buffers(), twin.buffers()):
        assert_close(found.double(), wanted.double())


def gradients(net: nn.Module) -> nn.Module:
    """A copy whose parameters are the gradients of ``net``."""
    result = copy.deepcopy(net)
    for target, source in zip(result.parameters(), net.parameters()):
        target.data = source.grad.clone()
    return result


def masked(dense: nn.Module, mask: Tensor) -> nn.Module:
    """A copy that multiplies the output of every layer by the mask, at the layer's resolution."""
    result = copy.deepcopy(dense)

    def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        last = output.ndim == 4 and isinstance(module, nn.LayerNorm | nn.Linear | GRN | nn.GELU)
        space = output.shape[1:3] if last else output.shape[2:]
        if output.ndim != 4 or min(space) == 1 or isinstance(module, nn.Identity):
            return output
        scale = (mask.shape[1] // space[0], mask.shape[2] // space[1])
        coarse = mask[:, :: scale[0], :: scale[1]]
        return output * (coarse[..., None] if last else coarse[:, None])

    for module in result.modules():
        if not any(True for _ in module.children()):
            module.register_forward_hook(hook)
    return result


@pytest.mark.parametrize("make", NETS)
def test_masked_grid_equals_the_masked_dense_network(engine: str, make) -> None:
    """As in masked pretraining: whole patches are hidden, the mask is the same at every level."""
    dense = network(make).eval()
    twin = convert_sparse(dense, rules=RULES)
    torch.manual_seed(1)
    patches = torch.rand(2, 4, 3) < 0.5
    mask = patches.repeat_interleave(8, 1).repeat_interleave(8, 2)
    values = torch.randn(2, 3, 32, 24, dtype=torch.float64) * mask[:, None]
    # A maximum over the active sites is that over zeros where all are positive, as they are behind a ReLU.
    y = twin.features(SparseTensor.from_dense(values, mask))
    wanted = masked(dense, mask).features(values)
    assert torch.equal(mask_like(y), mask[:, ::8, ::8])
    assert_close(y.dense(), wanted)
    out = twin(SparseTensor.from_dense(values, mask))
    assert out.shape == (2, 5) and out.isfinite().all()


def mask_like(y: SparseTensor) -> Tensor:
    return y.map(torch.ones_like).dense()[:, 0] > 0


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_u_net_with_restored_sites(engine: str, axes: int) -> None:
    dense = network(lambda: UNet(axes))
    twin = convert_sparse(dense, transposed="restore")
    shape = (8, 6, 10)[:axes]
    x, values = full(shape)
    assert_close(twin(x).dense(), dense(values))
    some = grid(axes, 3, 0.3, shape=shape).x
    y = twin(some)
    assert y.sites is some.sites and y.n_channels == 4
    generating = convert_sparse(dense)
    assert_close(generating(x).dense(), dense(values))
    with pytest.raises(ValueError, match=r"cat: tensor 1: the site sets differ"):
        generating(some)


@pytest.mark.parametrize("out_rule", [None, "dense"])
def test_spreading_twin_equals_dense_on_the_zero_filled_grid(engine: str, out_rule: str | None) -> None:
    """Without biases and norms every active output of the dense network is a site, and nothing else is missing."""
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 8, 3, 2, 1, groups=2, bias=False),
        nn.LeakyReLU(0.2),
        nn.AvgPool2d(2, padding=1),
        nn.ConvTranspose2d(8, 4, 3, 2, 1, 1, bias=False),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 2, (2, 3), padding="valid", bias=False),
    ).double()
    found = grid(2, 3, 0.1, shape=(12, 10))
    twin = convert_sparse(dense, submanifold=False, out_rule=out_rule)
    assert_close(twin(found.x).dense(), dense(found.values))


@pytest.mark.parametrize("count_include_pad", [True, False])
def test_average_pool_counts_as_the_dense_one(engine: str, count_include_pad: bool) -> None:
    """Without padding the zeros of the grid count either way."""
    found = grid(2, 3, 0.3, shape=(8, 6))
    pool = nn.AvgPool2d(2, count_include_pad=count_include_pad)
    assert_close(convert_sparse(pool)(found.x).dense(), pool(found.values))


def test_layers_and_names() -> None:
    net = network(ResNet)
    twin = convert_sparse(net)
    assert isinstance(twin, ResNet) and isinstance(twin.layer1[0], BasicBlock)
    assert repr(twin.conv1) == (
        "SparseConv2d(3, 8, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False, out_rule='floor')"
    )
    assert isinstance(twin.layer1[0].conv1, sparse.SubMConv2d)
    assert isinstance(twin.layer2[0].downsample[0], sparse.SparseConv2d)
    assert isinstance(twin.bn1, sparse.SparseBatchNorm) and isinstance(twin.fc, sparse.SparseLinear)
    assert isinstance(twin.maxpool, sparse.SparseMaxPool2d) and isinstance(twin.relu, sparse.SparseReLU)
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert list(twin.state_dict()) == list(net.state_dict())
    assert isinstance(net.conv1, nn.Conv2d) and net.relu.inplace
    kernel = convert_sparse(nn.Conv3d(2, 2, (1, 3, 5), padding=(0, 2, 2), dilation=(2, 2, 1)))
    assert isinstance(kernel, sparse.SubMConv3d) and kernel.kernel_size == (1, 3, 5)
    for conv in (nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 2), nn.Conv2d(2, 2, 3, padding=2), nn.Conv2d(2, 2, 3, 2, 1)):
        assert isinstance(convert_sparse(conv), sparse.SparseConv2d)
    assert convert_sparse(nn.Conv2d(2, 2, 3)).out_rule == "dense"
    assert convert_sparse(nn.Conv2d(2, 2, 3, 2), out_rule="dense").out_rule == "dense"
    assert isinstance(convert_sparse(nn.Conv2d(2, 2, 3, padding=1), submanifold=False), sparse.SparseConv2d)


def test_weights_are_copies_with_their_flags() -> None:
    net = network(ResNet)
    net.conv1.weight.requires_grad_(False)
    net.bn1.eval()
    twin = convert_sparse(net)
    assert not twin.conv1.weight.requires_grad and twin.layer1[0].conv1.weight.requires_grad
    assert not twin.bn1.training and twin.layer1[0].bn1.training
    assert twin.conv1.weight.dtype == torch.float64
    owned = {p.data_ptr() for p in net.parameters()}
    assert not owned & {p.data_ptr() for p in twin.parameters()}
    before = net.fc.weight.clone()
    with torch.no_grad():
        twin.fc.weight.add_(1)
    assert torch.equal(net.fc.weight, before)


def test_shared_layers_and_weights_stay_shared() -> None:
    conv, other = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)
    other.weight = conv.weight
    twin = convert_sparse(nn.Sequential(conv, nn.ReLU(), conv, other))
    assert twin[0] is twin[2]
    assert twin[3].weight is twin[0].weight and twin[3].bias is not twin[0].bias


def test_training_the_twin_and_exporting_it() -> None:
    """Sparse pretraining, dense use."""
    dense = network(ResNet)
    twin = convert_sparse(dense)
    x, values = full((32, 24))
    optimizer = torch.optim.SGD(twin.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        twin(x).square().mean().backward()
        optimizer.step()
    before = dense(values)
    assert export_dense(twin, dense) is dense
    assert_close(dense.eval()(values), twin.eval()(x))
    assert not torch.allclose(dense.train()(values), before)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, 2, 1, groups=2),
        nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2),
        nn.ConvTranspose3d(4, 6, (1, 2, 3)),
        nn.BatchNorm2d(4),
        nn.InstanceNorm3d(4, affine=True),
        nn.GroupNorm(2, 4),
        nn.PReLU(4),
        nn.Linear(4, 3),
    ],
)
def test_single_layers_come_back(layer: nn.Module) -> None:
    fresh = copy.deepcopy(layer)
    for tensor in (*fresh.parameters(), *fresh.buffers()):
        tensor.data.fill_(3)
    export_dense(convert_sparse(layer), fresh)
    for wanted, found in zip(layer.state_dict().values(), fresh.state_dict().values()):
        assert torch.equal(wanted, found)


@pytest.mark.parametrize(
    "layer",
    [
        nn.InstanceNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.PReLU(4),
        nn.Hardswish(inplace=True),
        nn.ELU(0.5, inplace=True),
        nn.Tanh(),
        nn.Sigmoid(),
        nn.GELU("tanh"),
        nn.SiLU(inplace=True),
        nn.Dropout(0.5, inplace=True).eval(),
        nn.AvgPool2d(3, 1, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.MaxPool2d(3, 1, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveMaxPool2d((1, 1)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.BatchNorm1d(3)),
        nn.Upsample(scale_factor=(2, 3)),
        nn.Identity(),
    ],
)
def test_single_layers_on_a_full_grid(engine: str, layer: nn.Module) -> None:
    layer = layer.double()
    x, values = full((6, 8), 4)
    y = convert_sparse(layer)(x)
    wanted = layer(values.clone())
    assert_close(y.dense() if isinstance(y, SparseTensor) else y, wanted)
    assert torch.equal(x.feats, at_sites(values, x.coords))


class Scaled(nn.Conv2d):
    """A convolution with code of its own."""


UNSUPPORTED = [
    (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "padding_mode=\"zeros\" only, not 'reflect'"),
    (nn.Conv2d(2, 2, 2, padding="same"), 'padding="same" with the even kernel_size'),
    (nn.MaxPool2d(2, ceil_mode=True), "neither ceil_mode nor return_indices"),
    (nn.AvgPool2d(2, divisor_override=3), "neither ceil_mode nor divisor_override"),
    (nn.AdaptiveAvgPool2d(2), "output_size 1, not 2"),
    (nn.InstanceNorm2d(2, track_running_stats=True), "no running statistics"),
    (nn.LayerNorm((2, 4, 4)), r"normalises channels only, not \(2, 4, 4\)"),
    (nn.Upsample(scale_factor=2, mode="bilinear"), 'mode="nearest" and a whole scale_factor'),
    (nn.Upsample(size=8), "whole scale_factor"),
    (nn.Softmax(1), "it has no sparse twin"),
    (nn.MultiheadAttention(4, 2), "it has no sparse twin"),
    (nn.TransformerEncoderLayer(4, 2), "it has no sparse twin"),
    (ChannelsFirstNorm(4), "it has no sparse twin"),
    (Scaled(2, 2, 3), "it is a Conv2d with code of its own"),
    (nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3)), "it is a Conv2d with code of its own"),
]


@pytest.mark.parametrize(("layer", "reason"), UNSUPPORTED)
def test_layers_without_a_twin_are_named(layer: nn.Module, reason: str) -> None:
    net = nn.Sequential(nn.ReLU(), nn.ModuleDict({"block": nn.Sequential(nn.Identity(), layer)}))
    kind = type(layer).__name__
    with pytest.raises(
        ValueError, match=rf"convert_sparse: layer '1\.block\.1', a {kind}: .*{reason}.*; pass rules=\{{{kind}"
    ):
        convert_sparse(net)
    with pytest.raises(ValueError, match=rf"convert_sparse: the module, a {kind}: "):
        convert_sparse(layer)
    kept = convert_sparse(net, rules={type(layer): lambda module: nn.Identity()})
    assert isinstance(kept[1]["block"][1], nn.Identity)


def test_rules_hold_for_subclasses() -> None:
    net = nn.Sequential(Scaled(2, 2, 3, padding=1))
    twin = convert_sparse(net, rules={nn.Conv2d: lambda conv: sparse.SubMConv2d(2, 2, conv.kernel_size)})
    assert isinstance(twin[0], sparse.SubMConv2d)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="out_rule must be"):
        convert_sparse(nn.ReLU(), out_rule="ceil")
    with pytest.raises(ValueError, match="transposed must be"):
        convert_sparse(nn.ReLU(), transposed="inverse")


def test_export_names_what_is_missing() -> None:
    twin = convert_sparse(nn.Sequential(nn.Conv2d(2, 4, 3, bias=False)))
    with pytest.raises(ValueError, match=r"export_dense: the sparse network has no 0\.bias"):
        export_dense(twin, nn.Sequential(nn.Conv2d(2, 4, 3)))
    with pytest.raises(ValueError, match=r"has no 1\.weight"):
        export_dense(twin, nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"0\.weight is \(4, 2, 3, 3\) in the sparse network, \(4, 2, 5, 5\) here"):
        export_dense(twin, nn.Sequential(nn.Conv2d(2, 4, 5, bias=False)))
