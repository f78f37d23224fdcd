# SPDX-License-Identifier: Apache-2.0
"""A small U-Net learns which voxels lie on a sphere and which on a box, from occupancy alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vision3d.nn import SparseUNet
from vision3d.sparse import SparseTensor, backend


def scene(generator: torch.Generator, objects: int = 3, points: int = 1500) -> tuple[Tensor, Tensor]:
    """(N, 3) voxels of the surfaces of spheres and boxes, (N,) 1 where the surface is a sphere's."""
    places, labels = [], []
    for number in range(2 * objects):
        center = torch.tensor([16.0, 16.0, 16.0 + 32 * number]) + 4 * torch.rand(3, generator=generator)
        size = 5 + 4 * torch.rand(3, generator=generator)
        direction = torch.randn(points, 3, generator=generator)
        if number % 2:
            surface = direction / direction.norm(dim=1, keepdim=True) * size[0]
        else:
            surface = direction / direction.abs().amax(1, keepdim=True) * size
        places.append((center + surface).floor().int())
        labels.append(torch.full((points,), number % 2))
    coords, inverse = torch.unique(torch.cat(places), dim=0, return_inverse=True)
    return coords, torch.zeros(len(coords), dtype=torch.int64).index_copy(0, inverse, torch.cat(labels))


def batch(generator: torch.Generator, samples: int) -> tuple[SparseTensor, Tensor]:
    made = [scene(generator) for _ in range(samples)]
    coords = torch.cat([F.pad(c, (1, 0), value=i) for i, (c, _) in enumerate(made)])
    return SparseTensor(coords, torch.ones(len(coords), 1)), torch.cat([label for _, label in made])


def make_net(seed: int = 0) -> SparseUNet:
    torch.manual_seed(seed)
    return SparseUNet(1, 2, (16, 24, 32), (24, 16), (0, 1, 1), (1, 1), stem_kernel_size=3)


def train(net: SparseUNet, steps: int, rate: float = 5e-3) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(net.parameters(), rate)
    losses = []
    for _ in range(steps):
        x, labels = batch(generator, 1)
        loss = F.cross_entropy(net(x).feats, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_learns_spheres_from_boxes_and_knows_them_in_new_scenes() -> None:
    net = make_net()
    train(net, 40)
    net.eval()
    x, labels = batch(torch.Generator().manual_seed(99), 4)
    with torch.no_grad():
        accuracy = (net(x).feats.argmax(1) == labels).float().mean()
    share = labels.float().mean()
    assert 0.3 < share < 0.7
    assert accuracy > 0.95


def test_backends_agree_on_the_loss_curve() -> None:
    found = train(make_net(), 20, 2e-3)
    with backend("reference"):
        expected = train(make_net(), 20, 2e-3)
    assert found[-1] < 0.7 * found[0]
    assert max(abs(a - b) for a, b in zip(found, expected)) < 1e-3
