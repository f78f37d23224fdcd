# SPDX-License-Identifier: Apache-2.0
"""Small clouds for the tests of the backbones, and the dense counterparts of sparse layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vision3d.sparse import SparseTensor


def random_cloud(
    n: int = 150,
    channels: int = 3,
    samples: Sequence[int] = (0, 1),
    extent: int = 12,
    ndim: int = 3,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    spatial_shape: int | None = None,
    batch_size: int | None = None,
) -> SparseTensor:
    """About n distinct sites in each of the listed samples, rows shuffled."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(0, extent, (n * len(samples), ndim), generator=generator)
    batch = torch.tensor(samples, dtype=torch.int64).repeat_interleave(n)[:, None]
    coords = torch.unique(torch.cat([batch, places], 1), dim=0)
    coords = coords[torch.randperm(len(coords), generator=generator)].int()
    feats = torch.randn(len(coords), channels, generator=generator, dtype=torch.float64).to(dtype)
    return SparseTensor(coords, feats, spatial_shape, batch_size)


def shifted(x: SparseTensor, by: Sequence[int]) -> SparseTensor:
    """The same cloud elsewhere."""
    return SparseTensor(x.coords + torch.tensor([0, *by], dtype=torch.int32), x.feats, None, x.batch_size)


def permuted(x: SparseTensor, rows: Tensor) -> SparseTensor:
    """The same cloud, rows in another order."""
    return SparseTensor(x.coords[rows].contiguous(), x.feats[rows], x.spatial_shape, x.batch_size)


def parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in module.parameters())


def disturbed(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with running statistics and affine parameters that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if "norm" in name and value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator, dtype=torch.float64)
                value.copy_((0.5 + noise if "var" in name or "weight" in name else noise - 0.5).to(value.dtype))
    return module
