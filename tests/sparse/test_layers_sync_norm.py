# SPDX-License-Identifier: Apache-2.0
"""Two processes with half of the sites each normalise as one process with all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from grids import assert_close, grid
from safetensors.torch import load_file, save_file
from torch import distributed, multiprocessing, nn

from vision3d import sparse
from vision3d.sparse import SparseTensor

BATCHES = 2


def layer(momentum: float | None = 0.1) -> nn.Sequential:
    torch.manual_seed(0)
    norm = sparse.SparseBatchNorm(3, momentum=momentum, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    return nn.Sequential(norm, sparse.SparseReLU())


def sites(step: int) -> SparseTensor:
    """Step 0: both samples have sites; step 1: the second has none, so its process is empty."""
    x = grid(2, 3, seed=step).x
    return x if step == 0 else x.prune(x.coords[:, 0] == 0)


def run(net: nn.Module, x: SparseTensor, step: int) -> dict[str, torch.Tensor]:
    feats = x.feats.clone().requires_grad_()
    net.zero_grad()
    y = net(x.replace(feats))
    (y.feats * feats.detach().cos()).sum().backward()
    results = {"out": y.feats.detach(), "feats": feats.grad, "weight": net[0].weight.grad, "bias": net[0].bias.grad}
    results |= {name: value.clone() for name, value in net[0].named_buffers()}
    return {f"{name}.{step}": value.contiguous() for name, value in results.items()}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    net = sparse.SparseSyncBatchNorm.convert(layer())
    results = {}
    for step in range(BATCHES):
        results |= run(net, sites(step)[rank], step)
    save_file(results, f"{folder}/{rank}.safetensors")
    distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    if not distributed.is_available():
        pytest.skip("torch was built without torch.distributed")
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    net = layer()
    for step in range(BATCHES):
        x = sites(step)
        wanted = run(net, x, step)
        for name in (f"out.{step}", f"feats.{step}"):
            for rank, results in enumerate((first, second)):
                assert_close(results[name], wanted[name][x.coords[:, 0] == rank])
        for name in (f"weight.{step}", f"bias.{step}"):
            assert_close(first[name] + second[name], wanted[name])
        for name in (f"running_mean.{step}", f"running_var.{step}"):
            assert_close(first[name], wanted[name])
            assert torch.equal(first[name], second[name])
        assert first[f"num_batches_tracked.{step}"] == step + 1


def test_conversion_keeps_parameters_and_mode() -> None:
    net = layer(momentum=None).eval()
    norm = net[0]
    converted = sparse.SparseSyncBatchNorm.convert(net)
    assert converted is net and type(net[0]) is sparse.SparseSyncBatchNorm
    assert net[0].weight is norm.weight and net[0].running_var is norm.running_var
    assert not net[0].training and net[0].momentum is None
    assert sparse.SparseSyncBatchNorm.convert(norm).weight is norm.weight


def test_without_processes_it_is_the_ordinary_layer() -> None:
    x = grid(2, 3).x
    plain, sync = layer()[0], sparse.SparseSyncBatchNorm.convert(layer()[0])
    assert torch.equal(sync(x).feats, plain(x).feats)
    assert torch.equal(sync.running_var, plain.running_var)
