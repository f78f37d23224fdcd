# SPDX-License-Identifier: Apache-2.0
"""Layers among processes and threads: DDP, data loader workers, forks, checkpointing, copies."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from vision3d import sparse
from vision3d.nn import SparseUNet
from vision3d.sparse import SparseTensor
from vision3d.sparse.backends import load

# Python 3.12 warns of any fork of a process with threads; that it works is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*is multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def cloud(seed: int, points: int = 200, extent: int = 10, channels: int = 3) -> SparseTensor:
    """One sample, rows in random order."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(extent**3, generator=generator)[:points]
    coords = torch.stack([cells * 0, cells // extent**2, cells // extent % extent, cells % extent], 1).int()
    return SparseTensor(coords, torch.randn(points, channels, generator=generator), batch_size=1)


def unet(norm: str = "instance") -> SparseUNet:
    torch.manual_seed(0)
    return SparseUNet(3, 2, (4, 8), (4,), blocks=(0, 1), decoder_blocks=(1,), stem_kernel_size=3, norm=norm)


def loss_of(net: nn.Module, seed: int) -> Tensor:
    out: Tensor = net(cloud(seed)).feats.square().mean()
    return out


def gradients(net: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def _ddp_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        net = nn.parallel.DistributedDataParallel(unet())
        for _ in range(2):
            net.zero_grad()
            loss_of(net, rank).backward()
        safetensors.torch.save_file(
            {str(i): grad for i, grad in enumerate(gradients(net))}, f"{folder}/rank{rank}.safetensors"
        )
        torch.distributed.barrier()  # who leaves while the other still talks to it aborts
    finally:
        torch.distributed.destroy_process_group()


def test_ddp_averages_gradients(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_ddp_rank, (str(tmp_path),), nprocs=2)
    net = unet()
    ((loss_of(net, 0) + loss_of(net, 1)) / 2).backward()
    wanted = gradients(net)
    for rank in (0, 1):
        found = safetensors.torch.load_file(tmp_path / f"rank{rank}.safetensors")
        assert len(found) == len(wanted)
        for index, grad in enumerate(wanted):
            torch.testing.assert_close(found[str(index)], grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("training", [True, False])
def test_checkpointing_changes_no_bit(training: bool) -> None:
    """The second forward pass finds the maps of the first one."""

    class Net(nn.Module):
        def __init__(self, recompute: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.recompute = recompute
            self.stem = sparse.SubMConv3d(3, 4, 3)
            self.block = nn.Sequential(
                sparse.SparseConv3d(4, 8, 3, 2, 1), sparse.SparseBatchNorm(8, momentum=None), sparse.SparseReLU(),
                sparse.SparseDropout(0.3), sparse.SubMConv3d(8, 8, 3), sparse.SparseInstanceNorm(8),
            )  # fmt: skip

        def forward(self, x: SparseTensor) -> SparseTensor:
            y = self.stem(x)
            if not self.recompute:
                return self.block(y)
            found: SparseTensor = checkpoint(self.block, y, use_reentrant=False)
            return found

    results = []
    for recompute in (False, True):
        net = Net(recompute).train(training)
        x = cloud(0)
        torch.manual_seed(1)
        y = net(x).feats
        built = x.sites.builds
        y.square().sum().backward()
        assert x.sites.builds == built
        results.append([y.detach(), *gradients(net)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


class Clouds(Dataset[SparseTensor]):
    """Makes the tensors, and the maps of a first layer and of a downsampling, in the worker."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> SparseTensor:
        return cloud(index)


def collate_tensors(samples: list[SparseTensor]) -> dict[str, Tensor]:
    x = sparse.cat(samples, 0)
    kernel_map = x.sites.subm_map((3, 3, 3), (1, 1, 1))
    return {"coords": x.coords, "feats": x.feats, "pairs": torch.tensor(kernel_map.n_pairs)}


def collate_sparse(samples: list[SparseTensor]) -> SparseTensor:
    x = sparse.cat(samples, 0)
    x.sites.subm_map((3, 3, 3), (1, 1, 1))
    x.sites.strided((2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1))
    return x


def test_loader_workers_make_tensors(two_threads: None) -> None:
    """Forked after the parent's own thread pool, and torch's, were at work."""
    net = unet()
    net(cloud(0, 20_000, 40))
    loader = DataLoader(
        Clouds(), batch_size=2, num_workers=2, collate_fn=collate_tensors, multiprocessing_context="fork", timeout=60
    )
    found = list(loader)
    assert len(found) == 3
    for index, batch in enumerate(found):
        wanted = collate_tensors([cloud(2 * index), cloud(2 * index + 1)])
        assert all(torch.equal(batch[name], wanted[name]) for name in wanted)


def test_loader_workers_send_sparse_tensors_with_their_maps() -> None:
    net = unet()
    loader = DataLoader(
        Clouds(), batch_size=2, num_workers=2, collate_fn=collate_sparse, multiprocessing_context="fork", timeout=60
    )
    for index, x in enumerate(loader):
        wanted = net(collate_sparse([cloud(2 * index), cloud(2 * index + 1)])).feats
        before = x.sites.builds
        assert before == len(x.sites.cached_maps()) == 2
        assert torch.equal(net(x).feats, wanted)
        assert x.sites.builds == before


def _convolve_in_child(x: SparseTensor, weight: Tensor, wanted: Tensor) -> None:
    # Only the engine's own threads: torch's OpenMP ones do not survive a fork.
    torch.set_num_threads(2)
    kernel_map = load("native").subm_map(x.sites.keys, x.sites.layout, (3, 3, 3), (1, 1, 1))
    found = load("native").conv(x.sorted_feats, weight, None, kernel_map)
    torch.set_num_threads(1)
    assert torch.equal(found, wanted)


def test_the_thread_pool_works_in_a_forked_child(two_threads: None) -> None:
    pytest.importorskip("vision3d.sparse._native")
    x = cloud(0, 20_000, 40, 8)
    weight = torch.randn(27, 8, 8)
    wanted = load("native").conv(x.sorted_feats, weight, None, x.sites.subm_map((3, 3, 3), (1, 1, 1)))
    for _ in range(2):
        child = multiprocessing.get_context("fork").Process(target=_convolve_in_child, args=(x, weight, wanted))
        child.start()
        child.join(60)
        code = child.exitcode
        child.kill()
        assert code == 0
    # The parent's pool goes on as before.
    assert torch.equal(
        load("native").conv(x.sorted_feats, weight, None, x.sites.subm_map((3, 3, 3), (1, 1, 1))), wanted
    )


def test_python_threads_may_share_a_net_and_a_tensor() -> None:
    net = unet().eval()
    wanted = net(cloud(0, 2000, 20)).feats.detach()
    for _ in range(3):
        x = cloud(0, 2000, 20)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, x=x: net(x).feats.detach(), range(8)))
        assert all(torch.equal(y, wanted) for y in found)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_of_tensors_keep_maps_and_stand_alone(way: str) -> None:
    net = unet()
    x = cloud(3)
    wanted = net(x)
    made = copy.deepcopy(x) if way == "deepcopy" else pickle.loads(pickle.dumps(x))
    assert made.sites is not x.sites
    assert made.root is made.sites
    assert torch.equal(made.coords, x.coords)
    assert torch.equal(made.feats, x.feats)
    assert (made.batch_size, made.stride, made.spatial_shape) == (x.batch_size, x.stride, x.spatial_shape)
    assert made.sites.builds == x.sites.builds == len(made.sites.cached_maps())
    assert torch.equal(net(made).feats, wanted.feats)
    assert made.sites.builds == x.sites.builds
    made.sorted_feats.zero_()
    assert x.feats.abs().sum() > 0
    # A derived tensor takes its history along: the inverse layer finds its partner.
    down = sparse.SparseConv3d(3, 4, 3, 2, 1)
    up = sparse.SparseInverseConv3d(4, 3, like=down)
    coarse = down(x).detach()
    moved = copy.deepcopy(coarse) if way == "deepcopy" else pickle.loads(pickle.dumps(coarse))
    assert torch.equal(up(moved).coords, x.coords)
    assert torch.equal(up(moved).feats, up(coarse).feats)


def test_copies_of_nets_are_independent() -> None:
    net = unet("batch")
    twin = copy.deepcopy(net)
    loss_of(twin, 0).backward()
    assert all(p.grad is None for p in net.parameters())
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert net(cloud(0)).feats.abs().sum() > 0


def test_weights_travel_without_pickle(tmp_path: Path) -> None:
    net = unet("batch")
    net(cloud(0))
    safetensors.torch.save_file(net.state_dict(), tmp_path / "net.safetensors")
    torch.manual_seed(5)
    other = SparseUNet(3, 2, (4, 8), (4,), blocks=(0, 1), decoder_blocks=(1,), stem_kernel_size=3)
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "net.safetensors"))
    assert torch.equal(other.eval()(cloud(1)).feats, net.eval()(cloud(1)).feats)
