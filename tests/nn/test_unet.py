# SPDX-License-Identifier: Apache-2.0
"""The sparse U-Net against a dense one that is masked to the active sites, and what its arguments build."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sparse_clouds import disturbed, parameters, permuted, random_cloud, shifted
from torch import Tensor, nn
from torch.nn import functional as F

from vision3d.nn import SparseUNet
from vision3d.sparse import SparseTensor, backend

SCTN = {
    "channels": (64, 64, 128, 128),
    "decoder_channels": (128, 128, 128),
    "blocks": (1, 1, 1, 1),
    "decoder_blocks": (1, 1, 1),
    "stem_kernel_size": 7,
    "down_kernel_size": 3,
    "norm": "instance",
    "conv_activation": False,
    "widen": "conv",
    "skip": "conv",
    "merge": "after",
    "head_channels": (64,),
    "out_rule": "floor",
}


def small(ndim: int = 3, **options: Any) -> SparseUNet:
    torch.manual_seed(0)
    plan: dict[str, Any] = {
        "channels": (8, 8, 12),
        "decoder_channels": (12, 8),
        "blocks": (0, 1, 1),
        "decoder_blocks": (1, 1),
        "ndim": ndim,
        "stem_kernel_size": 3,
    }
    return SparseUNet(3, 5, **{**plan, **options})


class Masked:
    """Runs the modules of a U-Net densely; every result is set to zero outside the level's mask."""

    def __init__(self, net: SparseUNet, mask: Tensor, floor: bool) -> None:
        self.net = net
        self.ndim = mask.ndim - 2
        self.conv = (F.conv1d, F.conv2d, F.conv3d)[self.ndim - 1]
        self.up = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.ndim - 1]
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[self.ndim - 1]
        self.masks = [mask]
        for down in net.down:
            kernel, padding = (2, 0) if floor else (down.conv.kernel_size[0], down.conv.padding[0])
            self.masks.append(pool(self.masks[-1], kernel, 2, padding))

    def convolve(self, conv: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        bias = conv.bias
        if "Inverse" in type(conv).__name__:
            extra = [
                m - ((n - 1) * 2 - 2 * p + k)
                for m, n, p, k in zip(mask.shape[2:], x.shape[2:], conv.padding, conv.kernel_size)
            ]
            return self.up(x, conv.dense_weight(), bias, conv.stride, conv.padding, extra) * mask
        return self.conv(x, conv.dense_weight(), bias, conv.stride, conv.padding) * mask

    def norm(self, norm: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        rows = x.movedim(1, -1)[mask[:, 0] > 0]
        out = torch.zeros_like(x).movedim(1, -1)
        if "Batch" in type(norm).__name__:
            rows = F.batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
            out[mask[:, 0] > 0] = rows
        else:
            for sample in range(len(x)):
                here = mask[sample, 0] > 0
                rows = x[sample].movedim(0, -1)[here]
                rows = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + norm.eps).sqrt()
                out[sample, here] = rows * norm.weight + norm.bias
        return out.movedim(-1, 1)

    def block(self, block: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        y = self.norm(block.norm1, self.convolve(block.conv1, x, mask), mask).relu()
        y = self.norm(block.norm2, self.convolve(block.conv2, y, mask), mask)
        if block.downsample is not None:
            x = self.norm(block.downsample[1], self.convolve(block.downsample[0], x, mask), mask)
        return (x + y).relu()

    def conv_block(self, block: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        y = self.convolve(block.conv, x, mask)
        y = y if isinstance(block.norm, nn.Identity) else self.norm(block.norm, y, mask)
        return y if isinstance(block.activation, nn.Identity) else y.relu()

    def __call__(self, x: Tensor) -> Tensor:
        x = self.conv_block(self.net.stem, x, self.masks[0])
        skips = []
        for level, blocks in enumerate(self.net.encoder):
            if level:
                x = self.conv_block(self.net.down[level - 1], x, self.masks[level])
            before = x
            for block in blocks:
                x = self.block(block, x, self.masks[level])
            skips.append(before if self.net.skip == "conv" else x)
        for up, blocks, skip, mask in zip(self.net.up, self.net.decoder, skips[-2::-1], self.masks[-2::-1]):
            x = self.conv_block(up, x, mask)
            x = torch.cat([x, skip], 1) if self.net.merge == "before" else x
            for block in blocks:
                x = self.block(block, x, mask)
            x = torch.cat([x, skip], 1) if self.net.merge == "after" else x
        for module in self.net.head:
            x = (
                self.conv_block(module, x, self.masks[0])
                if hasattr(module, "conv")
                else self.convolve(module, x, self.masks[0])
            )
        return x


@pytest.mark.parametrize(
    ("ndim", "options"),
    [
        (2, {}),
        (3, {}),
        (3, {"down_kernel_size": 3}),
        (3, {"down_kernel_size": 3, "out_rule": "floor"}),
        (2, {**SCTN, "channels": (8, 8, 12, 12), "decoder_channels": (12, 12, 12), "head_channels": (8,)}),
        (3, {"widen": "conv", "blocks": (1, 1, 1), "head_channels": (6,)}),
    ],
)
def test_equals_a_dense_unet_masked_to_the_active_sites(ndim: int, options: dict[str, Any]) -> None:
    net = disturbed(small(ndim, **options)).double().eval()
    size = 16 if ndim == 2 else 12
    x = random_cloud(60 if ndim == 2 else 250, extent=size, ndim=ndim, dtype=torch.float64, spatial_shape=size)
    mask = x.replace(torch.ones(len(x), 1, dtype=torch.float64)).dense()
    with torch.no_grad():
        expected = Masked(net, mask, options.get("out_rule") == "floor")(x.dense())
        found = net(x).dense()
    assert found.abs().max() > 1e-3
    assert (found - expected).abs().max() < 1e-10 * max(1.0, float(expected.abs().max()))


def test_backbone_of_sctn_has_its_parameters() -> None:
    with torch.device("meta"):
        net = SparseUNet(3, 64, **SCTN)
    way_down = parameters(net.stem) + parameters(net.down) + parameters(net.encoder)
    assert way_down == 3_054_144
    assert parameters(net.up) + parameters(net.decoder) + parameters(net.head) == 4_663_616


def test_backbone_of_sctn_runs_on_two_clouds() -> None:
    net = SparseUNet(3, 64, **SCTN)
    x = random_cloud(80, extent=10)
    y = net(x)
    assert y.n_channels == 64 and torch.equal(y.coords, x.coords)
    levels = net.encode(x)
    assert len(levels[0]) == len(x)
    assert [level.stride for level in levels] == [(1,) * 3, (2,) * 3, (4,) * 3, (8,) * 3]


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_output_has_the_sites_of_the_input_in_the_users_order(ndim: int) -> None:
    net = small(ndim).eval()
    x = random_cloud(ndim=ndim)
    levels = net.encode(x)
    assert [level.stride[0] for level in levels] == [1, 2, 4]
    assert [level.n_channels for level in levels] == [8, 8, 12]
    y = net(x)
    assert torch.equal(y.coords, x.coords) and y.feats.shape == (len(x), 5)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert torch.equal(net(permuted(x, rows)).feats, y.feats[rows])


def test_moves_with_the_cloud_by_multiples_of_the_total_stride() -> None:
    net = disturbed(small()).eval()
    x = random_cloud()
    assert torch.equal(net(shifted(x, (8, -4, 12))).feats, net(x).feats)
    assert not torch.allclose(net(shifted(x, (1, 0, 0))).feats, net(x).feats)


def test_stem_reaches_further_with_a_larger_kernel() -> None:
    """One active site; another at distance 3 changes its output only through a kernel that reaches it."""
    coords = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 3]], dtype=torch.int32)
    for kernel, seen in ((5, False), (7, True)):
        stem = small(stem_kernel_size=kernel, norm="none").stem
        alone = stem(SparseTensor(coords[:1], torch.ones(1, 3))).feats[0]
        both = stem(SparseTensor(coords, torch.ones(2, 3))).feats[0]
        assert torch.allclose(alone, both) is not seen


def test_sites_beyond_the_last_full_window_keep_their_rows() -> None:
    coords = torch.tensor([[0, 0, 0, 0], [0, 4, 4, 4]], dtype=torch.int32)
    x = SparseTensor(coords, torch.ones(2, 3), spatial_shape=5)
    net = small().eval()
    assert [len(level) for level in net.encode(x)] == [2, 1, 1]
    assert torch.equal(net(x).coords, coords) and net(x).feats.isfinite().all()


def test_without_head_the_features_come_out() -> None:
    torch.manual_seed(0)
    net = SparseUNet(3, None, (8, 8), (6,), (0, 1), (1,), stem_kernel_size=3)
    assert net.num_features == 6 and net(random_cloud()).n_channels == 6


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "none"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "leaky_relu"])
def test_norms_and_activations_by_name(norm: str, activation: str) -> None:
    net = small(norm=norm, activation=activation)
    x = random_cloud(40)
    net(x).feats.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_bottlenecks_are_four_times_as_wide() -> None:
    net = small(block="bottleneck")
    assert [level.n_channels for level in net.encode(random_cloud(40))] == [8, 32, 48]


def test_backends_agree() -> None:
    net = small().double()
    x = random_cloud(dtype=torch.float64)
    found = net(x).feats
    gradients = torch.autograd.grad(found.sin().sum(), list(net.parameters()))
    with backend("reference"):
        expected = net(random_cloud(dtype=torch.float64)).feats
        others = torch.autograd.grad(expected.sin().sum(), list(net.parameters()))
    assert (found - expected).abs().max() < 1e-10
    assert all((a - b).abs().max() < 1e-9 * max(1.0, float(b.abs().max())) for a, b in zip(gradients, others))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (8,)}, "channels needs at least two levels"),
        ({"blocks": (1, 1)}, r"blocks has 2 levels; 3 channels need 3"),
        ({"decoder_channels": (8,)}, r"decoder_channels has 1 levels; 3 channels need 2"),
        ({"skip": "stem"}, "skip must be 'block' or 'conv', not 'stem'"),
        ({"norm": "batchnorm"}, "unknown norm 'batchnorm'; there are: batch, instance, layer, none"),
        ({"activation": "swish"}, "unknown activation 'swish'"),
        ({"block": "dense"}, "unknown block 'dense'; there are: basic, bottleneck"),
        ({"ndim": 5}, "ndim must be one of 1, 2, 3, 4, not 5"),
        ({"stem_kernel_size": 4}, "odd"),
    ],
)
def test_arguments_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
