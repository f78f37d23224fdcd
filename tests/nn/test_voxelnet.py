# SPDX-License-Identifier: Apache-2.0
"""The VoxelNet middle encoder: parameters of the published plans, and the shapes of dense arithmetic."""

from __future__ import annotations

import pytest
import torch
from sparse_clouds import disturbed, parameters, random_cloud
from torch import nn

from vision3d.nn import VoxelNetEncoder
from vision3d.sparse import SparseTensor, backend


def dense_shapes(shape: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """Of the four stages and the last convolution, by torch's own layers."""
    layers = [
        nn.Conv3d(1, 1, 3, 1, 1),
        nn.Conv3d(1, 1, 3, 2, 1),
        nn.Conv3d(1, 1, 3, 2, 1),
        nn.Conv3d(1, 1, 3, 2, (0, 1, 1)),
        nn.Conv3d(1, 1, (3, 1, 1), (2, 1, 1), 0),
    ]
    x = torch.empty(1, 1, *shape, device="meta")
    found = []
    for layer in layers:
        x = layer.to("meta")(x)
        found.append(tuple(x.shape[2:]))
    return found


@pytest.mark.parametrize(("block", "expected"), [("conv", 711_872), ("residual", 2_694_880)])
def test_parameters_are_those_of_the_published_plans(block: str, expected: int) -> None:
    """Counted on OpenPCDet's VoxelBackBone8x and VoxelResBackBone8x with 4 input channels."""
    with torch.device("meta"):
        assert parameters(VoxelNetEncoder(4, block=block)) == expected


def test_parameters_added_up_by_hand() -> None:
    pairs = [(4, 16), (16, 16), (16, 32), (32, 32), (32, 32), (32, 64), *((64, 64),) * 5]
    total = sum(27 * a * b + 2 * b for a, b in pairs) + 3 * 64 * 128 + 2 * 128
    assert total == 711_872


@pytest.mark.parametrize("shape", [(41, 1600, 1408), (41, 1504, 1504), (33, 48, 40)])
def test_shapes_are_those_of_dense_arithmetic(shape: tuple[int, int, int]) -> None:
    net = VoxelNetEncoder(4).eval()
    generator = torch.Generator().manual_seed(0)
    places = torch.stack([torch.randint(0, n, (100,), generator=generator) for n in shape], 1)
    batch = torch.arange(100)[:, None] % 2
    coords = torch.unique(torch.cat([batch, places], 1), dim=0).int()
    x = SparseTensor(coords, torch.randn(len(coords), 4, generator=generator), shape)
    with torch.no_grad():
        features = net.forward_features(x)
    assert [f.spatial_shape for f in features] == dense_shapes(shape)
    assert [f.n_channels for f in features] == [16, 32, 64, 64, 128]
    if shape[1] < 100:
        with torch.no_grad():
            view = net(x)
        assert view.shape == (2, 128 * 1, 6, 5)


def test_bird_eye_view_stacks_the_layers_of_z_in_the_channels() -> None:
    torch.manual_seed(0)
    net = disturbed(VoxelNetEncoder(4, out_channels=6, channels=(4, 4, 6, 6))).eval()
    x = random_cloud(200, 4, extent=40, spatial_shape=41)
    with torch.no_grad():
        view, last = net(x), net.forward_features(x)[-1]
    assert last.spatial_shape == (2, 6, 6) and view.shape == (2, 12, 6, 6)
    for (sample, z, row, column), feats in zip(last.coords.tolist(), last.feats):
        assert torch.equal(view[sample, z::2, row, column], feats)
    assert int((view != 0).any(1).sum()) <= len(last)


def test_equals_the_dense_net_where_the_grid_is_full() -> None:
    """All sites active: every layer is the dense one, so the whole encoder is."""
    torch.manual_seed(0)
    net = disturbed(VoxelNetEncoder(2, out_channels=4, channels=(3, 4, 4, 4))).double().eval()
    shape = (33, 16, 24)
    grid = torch.randn(1, 2, *shape, dtype=torch.float64)
    x = SparseTensor.from_dense(grid, torch.ones(1, *shape, dtype=torch.bool))
    with torch.no_grad():
        found = net(x)
        y = grid
        for block in (m for m in net.modules() if hasattr(m, "conv")):
            conv, norm = block.conv, block.norm
            y = nn.functional.conv3d(y, conv.dense_weight(), None, conv.stride, conv.padding)
            y = nn.functional.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
            y = y.relu()
    assert (found - y.flatten(1, 2)).abs().max() < 1e-10 * float(y.abs().max())


def test_backends_agree() -> None:
    torch.manual_seed(0)
    net = VoxelNetEncoder(3, out_channels=4, channels=(4, 4, 4, 4), block="residual").double()
    found = net(random_cloud(80, dtype=torch.float64, extent=32, spatial_shape=32))
    with backend("reference"):
        expected = net(random_cloud(80, dtype=torch.float64, extent=32, spatial_shape=32))
    assert (found - expected).abs().max() < 1e-9


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="give the SparseTensor a spatial_shape"):
        VoxelNetEncoder(3)(random_cloud(10))
    with pytest.raises(ValueError, match="leave no output"):
        VoxelNetEncoder(3)(random_cloud(10, spatial_shape=12))
    with pytest.raises(ValueError, match="unknown block 'plain'; there are: conv, residual"):
        VoxelNetEncoder(3, block="plain")
    with pytest.raises(ValueError, match="channels must be four"):
        VoxelNetEncoder(3, channels=(16, 32))
