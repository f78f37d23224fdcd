# SPDX-License-Identifier: Apache-2.0
"""Random sparse tensors beside their dense grids, for tests against torch's dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as dense

from vision3d.sparse import SparseTensor

CONV = {1: dense.conv1d, 2: dense.conv2d, 3: dense.conv3d}
TRANSPOSE = {1: dense.conv_transpose1d, 2: dense.conv_transpose2d, 3: dense.conv_transpose3d}
SHAPES = {1: (23,), 2: (9, 8), 3: (6, 7, 5)}


@dataclass
class Grid:
    """``x`` has its rows in random order; ``values`` (B, C, *shape) is the same with zeros; ``mask`` (B, *shape)."""

    x: SparseTensor
    values: Tensor
    mask: Tensor


def grid(
    ndim: int,
    channels: int = 3,
    fill: float = 0.3,
    batch: int = 2,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Grid:
    """Random occupancy; the features' gradient goes to ``x.sorted_feats``'s source and to ``values`` separately."""
    generator = torch.Generator().manual_seed(seed)
    shape = tuple(shape or SHAPES[ndim])
    mask = torch.rand((batch, *shape), generator=generator) < fill
    values = torch.randn((batch, channels, *shape), generator=generator, dtype=torch.float64).to(dtype) * mask[:, None]
    coords = mask.nonzero().int()
    coords = coords[torch.randperm(len(coords), generator=generator)]
    return Grid(SparseTensor(coords, at_sites(values, coords), shape, batch), values, mask)


def at_sites(values: Tensor, coords: Tensor) -> Tensor:
    """(N, C) of the dense (B, C, *shape) at (N, 1 + D) coordinates."""
    batch, *space = coords.long().unbind(1)
    return values[(batch, slice(None), *space)]


def mask_of(x: SparseTensor) -> Tensor:
    """(B, *shape) bool: where the tensor has sites."""
    assert x.spatial_shape is not None
    mask = torch.zeros((x.batch_size, *x.spatial_shape), dtype=torch.bool)
    mask[tuple(x.coords.long().unbind(1))] = True
    return mask


def assert_close(found: Tensor, wanted: Tensor, dtype: torch.dtype = torch.float64) -> None:
    """Equal up to the tolerance of the engine: 1e-12 in float64, 1e-5 in float32, relative to the largest value."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype == dtype
    if wanted.numel():
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
        error = (found - wanted).abs().max().item()
        assert error <= tolerance * max(1.0, wanted.abs().max().item())
