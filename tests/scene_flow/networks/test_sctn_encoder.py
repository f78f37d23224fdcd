# SPDX-License-Identifier: Apache-2.0
"""SCTN's features of a cloud: voxels, U-Net, interpolation and attention, each against an oracle of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scene_flow.networks.config import NetworkConfig
from scene_flow.networks.encoder import (
    WIDTHS,
    CloudEncoder,
    PointTransformer,
    TooFewPoints,
    VoxelFeatures,
    interpolate_to_points,
)
from vision3d.sparse import SparseTensor, voxelize

SIZE = 0.07
SMALL = NetworkConfig(size="small")


def cloud(n: int = 120, batch: int = 1, seed: int = 0) -> Tensor:
    """(batch, n, 3) points of a metre's cube about the origin."""
    return torch.rand(batch, n, 3, generator=torch.Generator().manual_seed(seed)) - 0.5


def voxels_of(points: Tensor, channels: int = 4) -> SparseTensor:
    """The voxels of one cloud with random features."""
    made = voxelize(points, None, SIZE, lengths=[len(points)]).tensor
    return made.replace(torch.randn(len(made), channels, generator=torch.Generator().manual_seed(1)))


def references(voxels: SparseTensor, corner: bool) -> Tensor:
    """(V, 3) float64 positions that distances are taken to, x first."""
    return (voxels.coords[:, 1:].double().flip(1) + (0.0 if corner else 0.5)) * SIZE


@pytest.mark.parametrize("corner", [False, True])
def test_interpolation_is_the_weighted_mean_of_the_32_nearest_voxels(corner: bool) -> None:
    points = cloud()[0]
    voxels = voxels_of(points)
    asked = cloud(30, seed=2)[0]
    found = interpolate_to_points(voxels, asked, [30], SIZE, corner)
    distance = torch.cdist(asked.double(), references(voxels, corner))
    for i in range(30):
        near = distance[i].argsort()[:32]
        weight = 1 / (distance[i, near] + 1e-7)
        wanted = (weight[:, None] * voxels.feats[near]).sum(0) / weight.sum()
        assert (found[i] - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("corner", [False, True])
def test_interpolation_reproduces_constants_and_what_lies_on_a_voxel(corner: bool) -> None:
    points = cloud()[0]
    voxels = voxels_of(points)
    constant = interpolate_to_points(voxels.replace(torch.full((len(voxels), 2), 3.0)), points, [120], SIZE, corner)
    assert (constant - 3).abs().max() < 1e-5
    on_voxels = references(voxels, corner)
    found = interpolate_to_points(voxels, on_voxels, [len(voxels)], SIZE, corner)
    assert (found - voxels.feats).abs().max() < 1e-4


def test_interpolation_keeps_samples_apart() -> None:
    points = cloud(80, batch=2)
    both = voxelize(points.flatten(0, 1), None, SIZE, lengths=[80, 80]).tensor
    found = interpolate_to_points(both, points.flatten(0, 1), [80, 80], SIZE)
    for b in range(2):
        alone = voxelize(points[b], None, SIZE).tensor
        wanted = interpolate_to_points(alone, points[b], [80], SIZE)
        assert (found[80 * b : 80 * (b + 1)] - wanted).abs().max() < 1e-6


def test_gradient_goes_through_the_interpolation() -> None:
    points = cloud(40)[0].double()
    voxels = voxels_of(points)
    assert torch.autograd.gradcheck(
        lambda feats: interpolate_to_points(voxels.replace(feats), points, [40], SIZE),
        voxels.feats.double().requires_grad_(),
    )


def test_fewer_than_32_voxels_are_refused_with_the_remedy() -> None:
    features = VoxelFeatures(WIDTHS["small"], replace(SMALL, voxel_size_m=0.5))
    points = torch.cat([cloud(64), 5 * cloud(64)])
    with pytest.raises(TooFewPoints, match=r"64 points fill 8 voxels of 0\.5 m, and the network needs 32; take"):
        features(points)


def test_a_voxel_is_described_by_the_mean_or_by_the_first_of_its_points() -> None:
    """What the stem sees: absolute coordinates of the representative."""
    points = cloud(1500)
    seen: dict[str, SparseTensor] = {}
    for kind in ("mean", "first"):
        features = VoxelFeatures(WIDTHS["small"], replace(SMALL, representative=kind))
        features.unet.register_forward_pre_hook(lambda _, x, kind=kind: seen.setdefault(kind, x[0]) and None)
        features(points)
    cells = (points[0].double() / SIZE).floor().flip(1)
    assert torch.equal(seen["mean"].coords, seen["first"].coords)
    assert len(seen["mean"]) == len(cells.unique(dim=0)) < 1400
    for row, cell in enumerate(seen["mean"].coords[:, 1:]):
        inside = points[0, (cells == cell).all(1)]
        assert (seen["mean"].feats[row] - inside.mean(0)).abs().max() < 1e-6
        assert torch.equal(seen["first"].feats[row], inside[0])


def test_order_of_points_does_not_matter_with_the_mean() -> None:
    torch.manual_seed(0)
    encoder = CloudEncoder(replace(SMALL, voxel_size_m=0.1)).eval()
    points = cloud(300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (encoder(points[:, order]) - encoder(points)[:, order]).abs().max() < 1e-4


class DenseUNet:
    """The card's table computed on a dense grid, every result set to zero outside of the occupied cells."""

    def __init__(self, net: nn.Module, occupied: Tensor) -> None:
        self.net = net
        self.masks = [occupied]
        for _ in range(3):
            self.masks.append(F.max_pool3d(self.masks[-1], 2))

    def conv(self, layer: nn.Module, x: Tensor, level: int, stride: int = 1) -> Tensor:
        weight = layer.dense_weight()
        return F.conv3d(x, weight, layer.bias, stride, weight.shape[-1] // 2) * self.masks[level]

    def transposed(self, layer: nn.Module, x: Tensor, level: int) -> Tensor:
        return F.conv_transpose3d(x, layer.dense_weight(), None, 2, 1, 1) * self.masks[level]

    def norm(self, layer: nn.Module, x: Tensor, level: int) -> Tensor:
        mask = self.masks[level]
        mean = (x * mask).sum((2, 3, 4), keepdim=True) / mask.sum()
        var = ((x - mean).square() * mask).sum((2, 3, 4), keepdim=True) / mask.sum()
        scaled = (x - mean) / (var + layer.eps).sqrt() * layer.weight[:, None, None, None]
        return (scaled + layer.bias[:, None, None, None]) * mask

    def block(self, blocks: nn.Sequential, x: Tensor, level: int) -> Tensor:
        (block,) = blocks
        y = self.norm(block.norm1, self.conv(block.conv1, x, level), level).relu()
        return (x + self.norm(block.norm2, self.conv(block.conv2, y, level), level)).relu()

    def __call__(self, x: Tensor) -> Tensor:
        net, skips = self.net, []
        x = self.norm(net.stem.norm, self.conv(net.stem.conv, x, 0), 0)
        for level in range(4):
            if level:
                down = net.down[level - 1]
                x = self.norm(down.norm, self.conv(down.conv, x, level, 2), level)
            skips.append(x)
            x = self.block(net.encoder[level], x, level)
        for level in (2, 1, 0):
            up = net.up[2 - level]
            x = self.norm(up.norm, self.transposed(up.conv, x, level), level)
            x = torch.cat([self.block(net.decoder[2 - level], x, level), skips[level]], 1)
        x = self.conv(net.head[0].conv, x, 0).relu()
        return self.conv(net.head[1], x, 0)


def test_unet_equals_the_cards_table_on_a_dense_grid() -> None:
    torch.manual_seed(0)
    unet = VoxelFeatures(WIDTHS["small"], SMALL).unet.double()
    with torch.no_grad():
        for parameter in unet.parameters():  # norms that do something
            parameter.add_(0.1 * torch.randn_like(parameter))
    cells = torch.randperm(16**3, generator=torch.Generator().manual_seed(0))[:500]
    coords = torch.stack([torch.zeros(500).long(), cells // 256, cells // 16 % 16, cells % 16], 1).int()
    x = SparseTensor(coords, torch.randn(500, 3, dtype=torch.float64))
    z, y, w = (coords[:, i].long() for i in (1, 2, 3))
    dense = torch.zeros(1, 3, 16, 16, 16, dtype=torch.float64)
    dense[0, :, z, y, w] = x.feats.T
    occupied = torch.zeros(1, 1, 16, 16, 16, dtype=torch.float64)
    occupied[0, 0, z, y, w] = 1
    with torch.no_grad():
        found = unet(x)
        wanted = DenseUNet(unet, occupied)(dense)[0, :, z, y, w].T
    assert torch.equal(found.coords, coords)
    assert wanted.abs().max() > 0.1
    assert (found.feats - wanted).abs().max() < 1e-10


def attention(max_keys: int) -> PointTransformer:
    torch.manual_seed(0)
    made = PointTransformer(WIDTHS["small"], max_keys).eval()
    with torch.no_grad():
        for layer in (made.query, made.key):
            layer.weight.mul_(4)  # an attention that is far from uniform
    return made


def test_attention_is_the_cards_step_5() -> None:
    net = attention(0)
    points, features = cloud(50, batch=2), F.normalize(torch.randn(2, 50, 32), dim=-1)
    with torch.no_grad():
        found = net(points, features)
        for b in range(2):
            hidden = net.position[2](net.position[1](net.position[0](points[b])))
            g = features[b] + net.position[5](net.position[4](net.position[3](hidden)))
            for i in range(50):
                logits = torch.stack([(g[i] @ net.query.weight.T) @ (g[j] @ net.key.weight.T) for j in range(50)])
                share = (logits / 32**0.5).softmax(0)
                assert (found[b, i] - share @ (g @ net.value.weight.T)).abs().max() < 1e-5


def test_a_code_of_the_position_is_normalised_over_all_points_of_the_batch() -> None:
    net = attention(0).train()
    code = net.position(cloud(40, batch=2).flatten(0, 1))
    moments = [net.position[4].running_mean, net.position[1].running_mean]
    assert all(bool((m != 0).any()) for m in moments) and code.shape == (80, 32)


def test_attention_through_cells_is_exact_where_a_cell_is_one_place() -> None:
    """Repeated points: a cell that counts as often as it has points gives what all of its points give."""
    points = cloud(40)
    features = F.normalize(torch.randn(1, 40, 32, generator=torch.Generator().manual_seed(1)), dim=-1)
    times = torch.arange(40) % 5 + 1
    many, their = points.repeat_interleave(times, 1), features.repeat_interleave(times, 1)
    with torch.no_grad():
        wanted = attention(0)(many, their)
        found = attention(100)(many, their)
        assert many.shape[1] == 120 and (found - wanted).abs().max() < 1e-5
        unweighted = attention(0)(points, features).repeat_interleave(times, 1)
        assert (unweighted - wanted).abs().max() > 1e-3


def test_attention_through_cells_comes_near_and_nearer() -> None:
    points = cloud(2000)
    waves = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    features = F.normalize(torch.sin(3 * points @ waves), dim=-1)
    with torch.no_grad():
        wanted = attention(0)(points, features)
        errors = [float((attention(k)(points, features) - wanted).norm() / wanted.norm()) for k in (50, 400, 1999)]
        assert errors[2] < errors[1] < errors[0] < 0.2 and errors[2] < 0.02
        assert torch.equal(attention(2000)(points, features), wanted)


def test_setconv_features_take_the_place_of_the_unets() -> None:
    torch.manual_seed(0)
    encoder = CloudEncoder(replace(SMALL, features="setconv", attention=False)).eval()
    with torch.no_grad():
        found = encoder(cloud(60, batch=2))
    assert found.shape == (2, 60, 32) and (found.norm(dim=-1) - 1).abs().max() < 1e-5
