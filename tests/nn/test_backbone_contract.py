# SPDX-License-Identifier: Apache-2.0
"""What holds for every backbone: dtypes, copies, files, empty clouds, samples apart, gradients everywhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sparse_clouds import disturbed, random_cloud
from torch import Tensor, nn

from vision3d.nn import PointTransformer, SparseResNet, SparseUNet, VoxelNetEncoder
from vision3d.sparse import SparseTensor

SHAPE = 32


def unet(ndim: int = 3, norm: str = "batch") -> nn.Module:
    return SparseUNet(3, 5, (6, 6, 8), (8, 6), (0, 1, 1), (1, 1), ndim, stem_kernel_size=3, norm=norm)


def attention() -> nn.Module:
    return PointTransformer(
        3,
        stride=(2,),
        enc_depths=(1, 1),
        enc_channels=(8, 8),
        enc_num_head=(2, 2),
        enc_patch_size=(16, 16),
        dec_depths=(1,),
        dec_channels=(8,),
        dec_num_head=(2,),
        dec_patch_size=(16,),
        drop_path=0.0,
        shuffle_orders=False,
    )


BACKBONES: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "unet 2D": (2, lambda: unet(2)),
    "unet 3D": (3, unet),
    "unet 3D instance norm": (3, lambda: unet(norm="instance")),
    "resnet 2D": (2, lambda: SparseResNet(3, 14, 2, width=4)),
    "resnet 3D bottleneck": (3, lambda: SparseResNet(3, 50, 3, width=2, stem_kernel_size=3, out_rule="floor")),
    "voxelnet": (3, lambda: VoxelNetEncoder(3, 4, channels=(4, 4, 4, 4))),
    "voxelnet residual": (3, lambda: VoxelNetEncoder(3, 4, "residual", (4, 4, 4, 4))),
    "point transformer": (3, attention),
}


@pytest.fixture(params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> tuple[int, nn.Module]:
    ndim, make = BACKBONES[request.param]
    torch.manual_seed(0)
    return ndim, disturbed(make())


def cloud(ndim: int, dtype: torch.dtype = torch.float32, samples: tuple[int, ...] = (0, 1)) -> SparseTensor:
    return random_cloud(90, 3, samples, SHAPE, ndim, dtype, spatial_shape=SHAPE, batch_size=max(samples) + 1)


def tensors(found: Tensor | SparseTensor | list[SparseTensor]) -> list[Tensor]:
    """Features, whatever a backbone returns."""
    if isinstance(found, Tensor):
        return [found]
    return [found.feats] if isinstance(found, SparseTensor) else [x.feats for x in found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("train", [True, False])
def test_results_have_the_dtype_of_the_input(backbone: tuple[int, nn.Module], dtype: torch.dtype, train: bool) -> None:
    ndim, net = backbone
    found = tensors(net.to(dtype).train(train)(cloud(ndim, dtype)))
    assert all(f.dtype == dtype and f.isfinite().all() for f in found)
    assert any(float(f.detach().abs().max()) > 0 for f in found)


def test_single_precision_is_close_to_double(backbone: tuple[int, nn.Module]) -> None:
    ndim, net = backbone
    net.eval()
    with torch.no_grad():
        single = tensors(net(cloud(ndim)))
        double = tensors(net.double()(cloud(ndim, torch.float64)))
    for a, b in zip(single, double):
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_autocast_is_close_and_gives_one_dtype_in_train_and_eval(backbone: tuple[int, nn.Module]) -> None:
    ndim, net = backbone
    found = {}
    for train in (True, False):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found[train] = tensors(net.train(train)(cloud(ndim)))
    assert [f.dtype for f in found[True]] == [f.dtype for f in found[False]]
    with torch.no_grad():
        expected = tensors(net.eval()(cloud(ndim)))
    for a, b in zip(found[False], expected):
        assert (a.float() - b).norm() <= 4e-2 * b.norm()


def test_copies_and_files_give_the_same_net(backbone: tuple[int, nn.Module], tmp_path: Path) -> None:
    ndim, net = backbone
    net.eval()
    twin = copy.deepcopy(net)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    with torch.no_grad():
        expected = tensors(net(cloud(ndim)))
        assert all(torch.equal(a, b) for a, b in zip(tensors(twin(cloud(ndim))), expected))
        for value in twin.parameters():
            value.zero_()
        twin.load_state_dict(load_file(tmp_path / "net.safetensors"))
        assert all(torch.equal(a, b) for a, b in zip(tensors(twin(cloud(ndim))), expected))


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("train", [True, False])
def test_no_site_and_one_site(backbone: tuple[int, nn.Module], n: int, train: bool) -> None:
    ndim, net = backbone
    x = SparseTensor(torch.full((n, 1 + ndim), 1, dtype=torch.int32), torch.ones(n, 3), SHAPE, 2)
    found = tensors(net.train(train)(x))
    assert all(f.isfinite().all() for f in found)
    sum(f.sum() for f in found).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_samples_stay_apart(backbone: tuple[int, nn.Module]) -> None:
    """Of four samples one is empty: each gives in the batch what it gives alone."""
    ndim, net = backbone
    net.double().eval()
    x = cloud(ndim, torch.float64, (0, 1, 3))
    with torch.no_grad():
        whole = net(x)
        for sample in range(4):
            alone = net(x[sample])
            if isinstance(whole, Tensor):
                assert (whole[sample] - alone[0]).abs().max() < 1e-12
                continue
            for a, b in zip(
                [whole] if isinstance(whole, SparseTensor) else whole,
                [alone] if isinstance(alone, SparseTensor) else alone,
            ):
                assert torch.equal(a[sample].coords, b.coords)
                assert len(b) == 0 or (a[sample].feats - b.feats).abs().max() < 1e-12


def test_gradients_reach_input_and_all_parameters(backbone: tuple[int, nn.Module]) -> None:
    ndim, net = backbone
    net.double().train()
    x = cloud(ndim, torch.float64)
    feats = x.sorted_feats.clone().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    found = tensors(net(x.with_sorted(feats)))
    sum((f * torch.randn(f.shape, generator=generator, dtype=f.dtype)).sum() for f in found).backward()
    assert feats.grad is not None and feats.grad.abs().max() > 0
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == []


def test_twice_the_same_bytes(backbone: tuple[int, nn.Module]) -> None:
    ndim, net = backbone

    def run() -> list[Tensor]:
        twin = copy.deepcopy(net).train()
        found = tensors(twin(cloud(ndim)))
        sum(f.sum() for f in found).backward()
        return [*found, *(p.grad for p in twin.parameters() if p.grad is not None)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run()))
