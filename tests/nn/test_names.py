# SPDX-License-Identifier: Apache-2.0
"""Names of published nets: every one finds its place, and the weights give the same net."""

from __future__ import annotations

import pytest
import torch
from sparse_clouds import disturbed, random_cloud
from torch import Tensor, nn

from vision3d.nn import MinkUNet, SparseResNet, VoxelNetEncoder, names
from vision3d.sparse import compat

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def minkowski_names(depths: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...]) -> list[tuple[str, str]]:
    """(published, ours) for MinkUNet with basic blocks, written down level by level."""
    pairs = [("conv0p1s1.kernel", "stem.conv.weight"), ("final.kernel", "head.0.weight"), ("final.bias", "head.0.bias")]
    norms = [("bn0", "stem.norm")]
    skips = (*down[2::-1], 32)
    for i in range(8):
        stride = (1, 2, 4, 8, 16, 8, 4, 2)[i]
        theirs, ours, side = (f"conv{i + 1}", f"bn{i + 1}", "down") if i < 4 else (f"convtr{i}", f"bntr{i}", "up")
        pairs.append((f"{theirs}p{stride}s2.kernel", f"{side}.{i % 4}.conv.weight"))
        norms.append((ours, f"{side}.{i % 4}.norm"))
        level = f"encoder.{i + 1}" if i < 4 else f"decoder.{i - 4}"
        width = (32, *down)[i] if i < 4 else up[i - 4] + skips[i - 4]
        for j in range(depths[i]):
            a, b = f"block{i + 1}.{j}", f"{level}.{j}"
            pairs += [(f"{a}.conv{k}.kernel", f"{b}.conv{k}.weight") for k in (1, 2)]
            norms += [(f"{a}.norm{k}", f"{b}.norm{k}") for k in (1, 2)]
            if j == 0 and width != (*down, *up)[i]:
                pairs.append((f"{a}.downsample.0.kernel", f"{b}.downsample.0.weight"))
                norms.append((f"{a}.downsample.1", f"{b}.downsample.1"))
    return pairs + [(f"{a}.bn.{n}", f"{b}.{n}") for a, b in norms for n in NORM]


@pytest.mark.parametrize(
    ("variant", "depths", "up"),
    [("14A", (1,) * 8, (128, 128, 96, 96)), ("34C", (2, 3, 4, 6, 2, 2, 2, 2), (256, 128, 96, 96))],
)
def test_every_name_of_minkunet_finds_its_place(variant: str, depths: tuple[int, ...], up: tuple[int, ...]) -> None:
    with torch.device("meta"):
        wanted = set(MinkUNet(3, 20, variant).state_dict())
    pairs = minkowski_names(depths, (32, 64, 128, 256), up)
    assert {ours for _, ours in pairs} == wanted
    for theirs, ours in pairs:
        renamed = names.minkowski(theirs)
        assert renamed is not None
        assert renamed.replace(".bn.", ".").replace(".kernel", ".weight") == ours


def test_weights_of_minkunet_give_the_same_net() -> None:
    """Ours, exported under MinkowskiEngine's names and layout, and back."""
    torch.manual_seed(0)
    net = disturbed(MinkUNet(3, 5, "14A", ndim=2)).eval()
    back = {ours: theirs for theirs, ours in minkowski_names((1,) * 8, (32, 64, 128, 256), (128, 128, 96, 96))}
    exported = compat.export_state_dict(net, "minkowski", axes="reversed")
    published: dict[str, Tensor] = {}
    for name, value in exported.items():
        plain = name.replace(".bn.", ".").replace(".kernel", ".weight")
        published[back[plain]] = value
    twin = MinkUNet(3, 5, "14A", ndim=2).eval()
    twin.load_state_dict(compat.from_minkowski(published, twin, rename=names.minkowski, axes="reversed"))
    x = random_cloud(50, extent=30, ndim=2)
    with torch.no_grad():
        assert torch.equal(twin(x).feats, net(x).feats)


def openpcdet_names(residual: bool) -> list[tuple[str, str]]:
    """(published, ours), without the parameters' own names."""
    pairs = [
        (f"conv_{side}.{i}", f"conv_{side}.{n}") for side in ("input", "out") for i, n in enumerate(("conv", "norm"))
    ]
    for stage in range(4):
        first = 0 if stage == 0 else 1
        if first:
            pairs += [(f"conv{stage + 1}.0.{i}", f"stages.{stage}.0.{n}") for i, n in enumerate(("conv", "norm"))]
        count = 2 if residual or stage else 1
        for j in range(first, first + count):
            a, b = f"conv{stage + 1}.{j}", f"stages.{stage}.{j}"
            if residual:
                pairs += [(f"{a}.{t}{k}", f"{b}.{o}{k}") for k in (1, 2) for t, o in (("conv", "conv"), ("bn", "norm"))]
            else:
                pairs += [(f"{a}.{i}", f"{b}.{n}") for i, n in enumerate(("conv", "norm"))]
    return pairs


@pytest.mark.parametrize("block", ["conv", "residual"])
def test_weights_of_openpcdet_give_the_same_net(block: str) -> None:
    torch.manual_seed(0)
    plan = (4, 5, 6, 7)
    net = disturbed(VoxelNetEncoder(3, 8, block, plan)).eval()
    theirs = {ours: published for published, ours in openpcdet_names(block == "residual")}
    published = {}
    for name, value in compat.to_spconv(net).items():
        path, _, last = name.rpartition(".")
        published[f"backbone_3d.{theirs[path]}.{last}"] = value
    assert {name.rpartition(".")[0] for name in net.state_dict()} == set(theirs)
    published["dense_head.conv_cls.weight"] = torch.zeros(2, 2)
    twin = VoxelNetEncoder(3, 8, block, plan).eval()
    twin.load_state_dict(compat.from_spconv(published, twin, rename=names.openpcdet))
    x = random_cloud(80, extent=32, spatial_shape=32)
    with torch.no_grad():
        assert torch.equal(twin(x), net(x))


def test_names_of_torchvision() -> None:
    assert names.torchvision("fc.weight") is None
    assert names.torchvision("bn1.running_mean") == "norm1.running_mean"
    assert names.torchvision("layer2.0.bn2.weight") == "layer2.0.norm2.weight"
    assert names.torchvision("layer2.0.downsample.1.bias") == "layer2.0.downsample.1.bias"
    with torch.device("meta"):
        net: nn.Module = SparseResNet(3, 50)
    assert all(names.torchvision(name.replace("norm", "bn")) == name for name in net.state_dict())
