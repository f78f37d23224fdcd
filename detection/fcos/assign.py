# SPDX-License-Identifier: Apache-2.0
"""Which cell answers for which object."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detection.fcos.network import Cells

# Half sides of the region that answers, in strides, are at least this: more than half a cell's diagonal, so that every
# object has a cell, however small it is.
SMALLEST = 0.75


def assign(boxes: Tensor, image: Tensor, batch: int, cells: Cells, reach: float, radius: float) -> Tensor:
    """The object of each cell, or -1.

    An object belongs to one level: the finest whose stride times ``reach`` is at least its long side, or the coarsest.
    There it takes the cells within ``radius`` strides of its centre, along its axes, that lie inside of it. A cell
    that two objects want goes to the one whose centre is nearer, in units of that object's region, and that is
    smaller: the product of this distance and the square root of the box's area decides.

    Memory grows with objects, not with objects times cells.

    Args:
        boxes: (G, 5) of all images of the batch.
        image: (G,) int64 the image of each.
        batch: number of images.

    Returns:
        (batch, N) int64 rows of ``boxes``.
    """
    device, total = boxes.device, len(cells.centers)
    grids = torch.tensor(cells.grids, device=device)  # (levels, 2)
    sizes = grids.prod(1)
    starts = sizes.cumsum(0) - sizes
    strides = cells.strides[starts]
    found = torch.full((batch * total,), -1, dtype=torch.int64, device=device)
    if not len(boxes):
        return found.view(batch, total)
    long = boxes[:, 2:4].amax(1)
    level = (long[:, None] > strides[:-1] * reach).sum(1)
    stride = strides[level]
    half = torch.minimum((boxes[:, 2:4] / 2).maximum(stride[:, None] * SMALLEST), stride[:, None] * radius)
    # The region fits the square of +-window cells around the cell of its centre, whatever its angle.
    window = math.ceil(radius * math.sqrt(2) + 0.5)
    steps = torch.arange(-window, window + 1, device=device)
    columns, rows = grids[level].unbind(1)
    first = starts[level]
    at = torch.round((boxes[:, :2] + 0.5) / stride[:, None] - 0.5).long()
    x = (at[:, :1] + steps)[:, None, :].expand(-1, len(steps), -1)
    y = (at[:, 1:] + steps)[:, :, None].expand(-1, -1, len(steps))
    distance = _distance(x, y, boxes, stride, half)
    inside = (x >= 0) & (y >= 0) & (x < columns[:, None, None]) & (y < rows[:, None, None]) & (distance < 1)
    cell = (image * total + first)[:, None, None] + y * columns[:, None, None] + x
    owner = torch.arange(len(boxes), device=device)[:, None, None].expand_as(cell)
    cost = distance * boxes[:, 2:4].prod(1).sqrt()[:, None, None]
    cell, owner, cost = cell[inside], owner[inside], cost[inside]
    best = torch.full((batch * total,), math.inf, dtype=cost.dtype, device=device)
    best.scatter_reduce_(0, cell, cost, "amin")
    wins = cost == best[cell]
    nobody = len(boxes)  # of two objects at the same cost the first wins
    found.fill_(nobody).scatter_reduce_(0, cell[wins], owner[wins], "amin")
    found[found == nobody] = -1
    return found.view(batch, total)


def _distance(x: Tensor, y: Tensor, boxes: Tensor, stride: Tensor, half: Tensor) -> Tensor:
    """(G, K, K) cells -> distance from the centre along the box's axes, 1 at the border of its region."""
    dx = (x + 0.5) * stride[:, None, None] - 0.5 - boxes[:, 0, None, None]
    dy = (y + 0.5) * stride[:, None, None] - 0.5 - boxes[:, 1, None, None]
    cos, sin = (f(boxes[:, 4])[:, None, None] for f in (torch.cos, torch.sin))
    along = (dx * cos + dy * sin).abs() / half[:, 0, None, None]
    across = (dy * cos - dx * sin).abs() / half[:, 1, None, None]
    return torch.maximum(along, across)
