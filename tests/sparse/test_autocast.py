# SPDX-License-Identifier: Apache-2.0
"""Automatic mixed precision, and half precision as storage: sums stay float32 within."""

from __future__ import annotations

import pytest
import torch
from grids import at_sites, grid
from torch import Tensor, nn

from vision3d import sparse
from vision3d.nn import SparseUNet
from vision3d.sparse import SparseTensor

HALVES = [torch.bfloat16, torch.float16]

#: Layers and the dtype they return under autocast: convolutions that of autocast, norms that of their input.
LAYERS = {
    "subm": lambda: sparse.SubMConv3d(4, 6, 3),
    "one_tap": lambda: sparse.SubMConv3d(4, 6, 1),
    "depthwise": lambda: sparse.SubMConv3d(4, 4, 3, groups=4),
    "strided": lambda: sparse.SparseConv3d(4, 6, 3, 2, 1),
    "transposed": lambda: sparse.SparseConvTranspose3d(4, 6, 2, 2),
    "linear": lambda: sparse.SparseLinear(4, 6),
    "batch_norm": lambda: nn.Sequential(sparse.SubMConv3d(4, 4, 1), sparse.SparseBatchNorm(4)),
    "instance_norm": lambda: nn.Sequential(sparse.SubMConv3d(4, 4, 1), sparse.SparseInstanceNorm(4, affine=True)),
    "group_norm": lambda: nn.Sequential(sparse.SubMConv3d(4, 4, 1), sparse.SparseGroupNorm(2, 4)),
    "layer_norm": lambda: nn.Sequential(sparse.SubMConv3d(4, 4, 1), sparse.SparseLayerNorm(4)),
    "response_norm": lambda: nn.Sequential(sparse.SubMConv3d(4, 4, 1), sparse.SparseGRN(4)),
    "max_pool": lambda: nn.Sequential(sparse.SubMConv3d(4, 4, 1), sparse.SparseMaxPool3d(2)),
    "avg_pool": lambda: nn.Sequential(sparse.SubMConv3d(4, 4, 1), sparse.SparseAvgPool3d(2)),
    "upsample": lambda: nn.Sequential(sparse.SubMConv3d(4, 4, 1), sparse.SparseUpsample(2)),
    "activations": lambda: nn.Sequential(sparse.SubMConv3d(4, 4, 1), sparse.SparseReLU(), sparse.SparseGELU()),
}


def unet(norm: str = "batch") -> SparseUNet:
    return SparseUNet(4, 3, (8, 8, 16), (8, 8), blocks=(1, 1, 1), decoder_blocks=(1, 1), stem_kernel_size=3, norm=norm)


def cloud(seed: int = 0, fill: float = 0.4) -> SparseTensor:
    return grid(3, 4, fill, shape=(9, 10, 11), dtype=torch.float32, seed=seed).x


def relative(found: Tensor, wanted: Tensor) -> float:
    return ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", LAYERS)
def test_training_and_evaluation_agree_on_the_dtype(engine: str, name: str, half: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    x = cloud()
    wanted = layer.eval()(x).feats
    for training in (False, True):
        layer.train(training)
        with torch.autocast("cpu", dtype=half):
            y = layer(x)
        assert y.dtype == half
        # Batch statistics are others than the running ones.
        if name != "batch_norm" or not training:
            assert relative(y.feats, wanted) < 2e-2
        layer.zero_grad()
        y.feats.float().square().sum().backward()
        for parameter in layer.parameters():
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None
            assert parameter.grad.dtype == torch.float32
            assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("half", HALVES)
def test_a_net_stays_within_two_percent_of_float32(norm: str, half: torch.dtype) -> None:
    torch.manual_seed(0)
    net = unet(norm)
    x = cloud(fill=0.5)
    for training in (True, False):
        net.train(training)
        buffers = {name: value.clone() for name, value in net.named_buffers()}
        wanted = net(x).feats
        for name, value in net.named_buffers():
            value.copy_(buffers[name])
        with torch.autocast("cpu", dtype=half):
            found = net(x).feats
        assert found.dtype == half
        assert relative(found, wanted) < 2e-2


@pytest.mark.parametrize("half", HALVES)
def test_gradients_lose_no_more_than_those_of_the_dense_net(half: torch.dtype) -> None:
    """On a full grid the sparse twin and the dense net compute the same, and round it alike."""
    torch.manual_seed(0)
    full = grid(3, 4, 1.1, shape=(6, 7, 8), dtype=torch.float32)
    dense = nn.Sequential(
        nn.Conv3d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 3, 1)
    )
    twin = sparse.convert_sparse(dense)
    target = torch.randn(len(full.x), 3)
    errors = []
    for net in (dense, twin):
        grads = []
        for enabled in (False, True):
            net.zero_grad()
            with torch.autocast("cpu", dtype=half, enabled=enabled):
                y = at_sites(net(full.values), full.x.coords) if net is dense else net(full.x).feats
            assert y.dtype == (half if enabled else torch.float32)
            nn.functional.mse_loss(y.float(), target).backward()
            grads.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
        errors.append(relative(grads[1], grads[0]))
    assert errors[1] < 1.1 * errors[0]


@pytest.mark.parametrize("half", HALVES)
def test_half_precision_is_storage(engine: str, half: torch.dtype) -> None:
    """A layer in half precision is the float32 layer of the same numbers, rounded once at its end."""
    torch.manual_seed(0)
    layer = sparse.SubMConv3d(4, 6, 3, dtype=half)
    wide = sparse.SubMConv3d(4, 6, 3)
    wide.load_state_dict(layer.state_dict())
    x = cloud().to(half)
    feats, wide_feats = x.sorted_feats.clone().requires_grad_(), x.sorted_feats.float().requires_grad_()
    y, z = layer(x.with_sorted(feats)), wide(x.with_sorted(wide_feats))
    torch.testing.assert_close(y.sorted_feats, z.sorted_feats.to(half), rtol=0, atol=0)
    grad = torch.randn_like(y.sorted_feats)
    y.sorted_feats.backward(grad)
    z.sorted_feats.backward(grad.float())
    for mine, theirs in ((feats, wide_feats), (layer.weight, wide.weight), (layer.bias, wide.bias)):
        assert mine.grad is not None
        assert mine.grad.dtype == half
        torch.testing.assert_close(mine.grad, theirs.grad.to(half), rtol=1e-2, atol=1e-3)


def test_autocast_leaves_float64_alone(engine: str) -> None:
    layer = sparse.SubMConv3d(4, 4, 3, dtype=torch.float64)
    x = cloud().double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.float64


def test_a_gradient_scaler_finds_no_infinities() -> None:
    torch.manual_seed(0)
    net = unet()
    optimizer = torch.optim.SGD(net.parameters(), 1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    x = cloud()
    before = net.stem.conv.weight.detach().clone()
    with torch.autocast("cpu", dtype=torch.float16):
        loss = net(x).feats.float().square().mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**8
    assert not torch.equal(net.stem.conv.weight, before)
