# SPDX-License-Identifier: Apache-2.0
"""Which cell answers for which object: against plain loops, and promises to objects of any size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.fcos.assign import SMALLEST, assign
from detection.fcos.network import Cells, cells_of

STRIDES = (4, 8, 16, 32)


def cells(width: int, height: int) -> Cells:
    return cells_of([torch.zeros(1, 1, height // s, width // s) for s in STRIDES], STRIDES)


def random_boxes(count: int, side: float, seed: int, smallest: float = 1.0, largest: float = 250.0) -> Tensor:
    rng = np.random.default_rng(seed)
    sides = np.sort(np.exp(rng.uniform(math.log(smallest), math.log(largest), (count, 2))), axis=1)[:, ::-1]
    centers = rng.uniform(-0.5, side - 0.5, (count, 2))
    return torch.from_numpy(np.column_stack([centers, sides, rng.uniform(-np.pi / 2, np.pi / 2, count)])).float()


def by_loops(boxes: Tensor, image: Tensor, batch: int, grid: Cells, reach: float, radius: float) -> Tensor:
    """What the docstring of ``assign`` says, cell by cell."""
    found = torch.full((batch, len(grid.centers)), -1)
    for b in range(batch):
        for n, (center, stride) in enumerate(zip(grid.centers.tolist(), grid.strides.tolist())):
            best = math.inf
            for g, (cx, cy, w, h, theta) in enumerate(boxes.tolist()):
                fitting = [s for s in STRIDES if max(w, h) <= s * reach]
                if int(image[g]) != b or stride != (fitting[0] if fitting else STRIDES[-1]):
                    continue
                dx, dy = center[0] - cx, center[1] - cy
                half = [min(max(side / 2, SMALLEST * stride), radius * stride) for side in (w, h)]
                along = abs(dx * math.cos(theta) + dy * math.sin(theta)) / half[0]
                across = abs(dy * math.cos(theta) - dx * math.sin(theta)) / half[1]
                distance = max(along, across)
                cost = distance * math.sqrt(w * h)
                if distance < 1 and cost < best:
                    best = cost
                    found[b, n] = g
    return found


@pytest.mark.parametrize(("reach", "radius", "seed"), [(16.0, 1.5, 0), (8.0, 0.75, 1), (4.0, 2.5, 2)])
def test_equals_plain_loops(reach: float, radius: float, seed: int) -> None:
    grid = cells(96, 64)
    boxes = random_boxes(24, 64, seed)
    image = torch.arange(24) % 2
    found = assign(boxes, image, 2, grid, reach, radius)
    assert torch.equal(found, by_loops(boxes, image, 2, grid, reach, radius))
    assert (found >= 0).sum() > 20


def test_every_object_alone_has_a_cell_however_small() -> None:
    grid = cells(128, 128)
    boxes = random_boxes(400, 128, 3, 0.01, 400)
    image = torch.arange(400)
    assert (assign(boxes, image, 400, grid, 16.0, 1.5) >= 0).any(1).all()


def test_small_vehicles_in_a_dense_row_have_cells_of_their_own() -> None:
    """16 x 8 px, 2 px between neighbours, the row turned by 30 degrees."""
    turn = math.radians(30)
    at = torch.arange(12) * 10.0
    x, y = 20 + at * -math.sin(turn), 10 + at * math.cos(turn)
    boxes = torch.stack([x + 80, y, *(torch.full((12,), value) for value in (16.0, 8.0, turn))], 1)
    found = assign(boxes, torch.zeros(12, dtype=torch.int64), 1, cells(160, 160), 16.0, 1.5)
    counts = torch.bincount(found[found >= 0], minlength=12)
    assert counts.min() >= 3
    assert (found >= 0).nonzero()[:, 1].max() < 40 * 40  # the finest level


def test_order_of_objects_does_not_matter() -> None:
    grid = cells(128, 128)
    boxes, order = random_boxes(60, 128, 4), torch.randperm(60, generator=torch.Generator().manual_seed(1))
    image = torch.zeros(60, dtype=torch.int64)
    first = assign(boxes, image, 1, grid, 16.0, 1.5)
    other = assign(boxes[order], image, 1, grid, 16.0, 1.5)
    assert torch.equal(first, torch.where(other >= 0, order[other], -1))


def test_a_small_object_on_a_large_one_keeps_its_cells() -> None:
    boxes = torch.tensor([[33.0, 31.5, 60.0, 50.0, 0.0], [31.5, 31.5, 9.0, 8.0, 0.5]])
    found = assign(boxes, torch.zeros(2, dtype=torch.int64), 1, cells(64, 64), 16.0, 1.5)
    counts = torch.bincount(found[found >= 0], minlength=2)
    assert counts[1] >= 3 and counts[0] >= 1


def test_no_object() -> None:
    found = assign(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), 3, cells(64, 64), 16.0, 1.5)
    assert found.shape == (3, 16 * 16 + 8 * 8 + 4 * 4 + 2 * 2)
    assert (found == -1).all()
