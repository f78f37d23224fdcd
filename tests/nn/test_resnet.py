# SPDX-License-Identifier: Apache-2.0
"""The sparse ResNet against the dense one with the same weights, and its parameter counts."""

from __future__ import annotations

import pytest
import torch
from sparse_clouds import disturbed, parameters, random_cloud
from torch import Tensor, nn
from torch.nn import functional as F

from vision3d.nn import SparseResNet, names
from vision3d.nn.resnet import PLANS
from vision3d.sparse import SparseTensor, backend, compat


class DenseBlock(nn.Module):
    """Basic block or bottleneck of torch's own layers, named as in torchvision."""

    def __init__(self, width: int, planes: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = planes * 4 if bottleneck else planes
        plan = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        self.depth = len(plan)
        channels = width
        for i, (kernel, step) in enumerate(plan, 1):
            made = out if i == self.depth else planes
            self.add_module(f"conv{i}", nn.Conv2d(channels, made, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(made))
            channels = made
        self.downsample = None
        if stride != 1 or width != out:
            self.downsample = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            y = y.relu() if i < self.depth else y
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class DenseResNet(nn.Module):
    """The dense net, with a classifier that the sparse twin has no use for."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        kind, depths = PLANS[depth]
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for i, blocks in enumerate(depths):
            stage = []
            for j in range(blocks):
                stage.append(DenseBlock(channels, width * 2**i, 2 if i and not j else 1, kind == "bottleneck"))
                channels = width * 2**i * (4 if kind == "bottleneck" else 1)
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        found = []
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            found.append(x)
        return found


@pytest.mark.parametrize(
    ("depth", "expected"),
    # torchvision's totals less its classifier: 1000 classes on 512 or 2048 channels, and the bias.
    [
        (18, 11_689_512 - 513_000),
        (34, 21_797_672 - 513_000),
        (50, 25_557_032 - 2_049_000),
        (101, 44_549_160 - 2_049_000),
        (152, 60_192_808 - 2_049_000),
    ],
)
def test_parameters_in_2d_are_those_of_torchvision_without_classifier(depth: int, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(SparseResNet(3, depth)) == expected


def test_parameters_in_3d_added_up_by_hand() -> None:
    def block(width: int, planes: int) -> int:
        side = width * planes + 2 * planes if width != planes else 0
        return 27 * planes * (width + planes) + 4 * planes + side

    expected = (
        4 * 343 * 64 + 128 + sum(block(w, p) + block(p, p) for w, p in ((64, 64), (64, 128), (128, 256), (256, 512)))
    )
    with torch.device("meta"):
        assert parameters(SparseResNet(4, 18, ndim=3)) == expected


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("train", [False, True])
def test_equals_the_dense_net_with_its_weights_on_a_full_grid(depth: int, train: bool) -> None:
    torch.manual_seed(0)
    dense = disturbed(DenseResNet(depth, 4)).double().train(train)
    net = SparseResNet(3, depth, width=4).double().train(train)
    net.load_state_dict(compat.from_dense(dense.state_dict(), net, rename=names.torchvision))
    images = torch.randn(2, 3, 70, 50, dtype=torch.float64)
    with torch.no_grad():
        stages = net(SparseTensor.from_dense(images, torch.ones(2, 70, 50, dtype=torch.bool)))
        expected = dense(images)
    assert [stage.stride for stage in stages] == [(4, 4), (8, 8), (16, 16), (32, 32)]
    assert [stage.n_channels for stage in stages] == net.num_features
    for stage, wanted in zip(stages, expected):
        found = stage.dense()
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() < 1e-9 * max(1.0, float(wanted.abs().max()))
    if train:
        assert torch.allclose(net.layer1[0].norm1.running_var, dense.layer1[0].bn1.running_var, atol=1e-12)


def test_stages_of_the_floor_rule_are_the_parents_of_the_sites() -> None:
    net = SparseResNet(3, 14, ndim=3, width=4, stem_kernel_size=3, stem_stride=1, stem_pool=False, out_rule="floor")
    x = random_cloud(60, extent=20)
    stages = net(x)
    assert [stage.stride[0] for stage in stages] == [1, 2, 4, 8]
    for stage in stages:
        parents = torch.cat([x.coords[:, :1], x.coords[:, 1:] // stage.stride[0]], 1)
        assert torch.equal(stage.coords, torch.unique(parents, dim=0)) or stage.stride[0] == 1


def test_a_shortcut_reaches_every_site_of_its_block() -> None:
    """Active inputs at odd coordinates: a strided 1x1 kernel alone would have no output there."""
    net = SparseResNet(3, 14, ndim=2, width=4, stem_stride=1, stem_kernel_size=3, stem_pool=False).eval()
    coords = torch.tensor([[0, 5, 5], [0, 5, 7]], dtype=torch.int32)
    stages = net(SparseTensor(coords, torch.randn(2, 3), spatial_shape=12))
    dense_rule = {(y, x) for site in ((5, 5), (5, 7)) for y in (2, 3) for x in ((site[1] - 1) // 2, (site[1] + 1) // 2)}
    assert {tuple(site[1:]) for site in stages[1].coords.tolist()} == dense_rule


def test_backends_agree() -> None:
    torch.manual_seed(0)
    net = SparseResNet(3, 14, ndim=2, width=4).double()
    found = net(random_cloud(100, ndim=2, extent=40, dtype=torch.float64))
    with backend("reference"):
        expected = net(random_cloud(100, ndim=2, extent=40, dtype=torch.float64))
    for a, b in zip(found, expected):
        assert torch.equal(a.coords, b.coords) and (a.feats - b.feats).abs().max() < 1e-9


def test_unknown_depth_is_named() -> None:
    with pytest.raises(ValueError, match="unknown depth 20; there are: 14, 18, 34"):
        SparseResNet(3, 20)
