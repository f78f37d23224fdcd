# SPDX-License-Identifier: Apache-2.0
"""The dense encoder: torchvision's parameters, strides, and the sparse twin with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vision3d.nn import SparseResNet, names
from vision3d.nn.image_encoder import ImageEncoder, dense_norm
from vision3d.sparse import SparseTensor, backend, compat, convert_sparse


def fully_active(images: torch.Tensor) -> SparseTensor:
    return SparseTensor.from_dense(images, mask=torch.ones_like(images[:, 0], dtype=torch.bool))


def disturbed(net: nn.Module) -> nn.Module:
    """The net with norms that are not those of a fresh one."""
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            state = module.state_dict()
            drawn = {name: torch.rand_like(value) + 0.5 for name, value in state.items() if value.is_floating_point()}
            module.load_state_dict({**state, **drawn})
    return net


# torchvision's totals less its classifier: 1000 classes on 512 or 2048 channels, and the bias.
@pytest.mark.parametrize(("depth", "total"), [(18, 11176512), (34, 21284672), (50, 23508032)])
def test_parameters_are_those_of_torchvision_without_classifier(depth: int, total: int) -> None:
    net = ImageEncoder(depth)
    assert sum(p.numel() for p in net.parameters()) == total
    state = net.state_dict()
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert {"bn1.running_mean", "layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var"} <= set(state)
    assert ("layer1.0.conv3.weight" in state) == (depth == 50)


@pytest.mark.parametrize("depth", [14, 50])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_strides_and_channels(depth: int, norm: str) -> None:
    net = ImageEncoder(depth, width=8, norm=norm)  # type: ignore[arg-type]
    stages = net(torch.rand(2, 3, 64, 96))
    assert [tuple(s.shape) for s in stages] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(net.num_features, net.strides, strict=True)
    ]


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 32), (16, 8), (12, 6), (7, 1), (2, 1)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    assert dense_norm("group", channels).num_groups == groups


def test_unknown_choices_are_named() -> None:
    with pytest.raises(ValueError, match="unknown depth 20; there are: 14, 18"):
        ImageEncoder(20)
    with pytest.raises(ValueError, match="unknown norm 'layer'"):
        dense_norm("layer", 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [14, 50])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_the_sparse_twin_on_a_full_grid_computes_the_same(depth: int, norm: str) -> None:
    torch.manual_seed(0)
    net = ImageEncoder(depth, width=8, norm=norm).double().eval()  # type: ignore[arg-type]
    disturbed(net)
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    with backend("reference"), torch.no_grad():
        twin = convert_sparse(net)
        for dense, sparse in zip(net(images), twin(fully_active(images)), strict=True):
            assert len(sparse.feats) == dense[:, 0].numel()
            torch.testing.assert_close(sparse.dense(), dense, rtol=1e-9, atol=1e-9)


def test_weights_fit_the_sparse_encoder() -> None:
    torch.manual_seed(0)
    net = ImageEncoder(18, width=8).eval()
    disturbed(net)
    sparse = SparseResNet(3, 18, width=8).eval()
    sparse.load_state_dict(compat.from_dense(net.state_dict(), sparse, rename=names.torchvision))
    images = torch.rand(1, 3, 64, 64)
    with backend("reference"), torch.no_grad():
        for dense, found in zip(net(images), sparse(fully_active(images)), strict=True):
            torch.testing.assert_close(found.dense(), dense, rtol=1e-4, atol=1e-4)
