# SPDX-License-Identifier: Apache-2.0
"""From angles in every cell to one per object, and to one per proposal by its size (steps 10 and 11)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detection.pointobb.angle_coder import decode
from vision3d.geometry.rotated.roi_align import pyramid_levels

RADIUS = 1.5  # strides from a point, in x and in y, within which cells are its own


def near_codes(
    codes: Sequence[Tensor], strides: Sequence[int], points: Tensor, images: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean codes of each object's cells on every level.

    Cells within 1.5 strides of a point in x and y are the object's; where several objects claim a cell it goes to the
    nearest (the published rule, the smallest box, ties always: all points have the same).

    Args:
        codes: (B, 3, H_l, W_l) of each level.
        strides: pixels per cell.
        points: (G, 2) pixels.
        images: (G,) which of the B images.

    Returns:
        (G, L, 3) sums over the cells, (G, L) numbers of cells, (G, L, 3) codes of the nearest cell.
    """
    sums, numbers, nearest = [], [], []
    for level, stride in zip(codes, strides, strict=True):
        total, number, at = _on_level(level, stride, points, images)
        sums.append(total)
        numbers.append(number)
        nearest.append(at)
    return torch.stack(sums, 1), torch.stack(numbers, 1), torch.stack(nearest, 1)


def object_angles(sums: Tensor, numbers: Tensor, nearest: Tensor) -> Tensor:
    """(G,) radians: the mean code over all cells of an object on all levels; without any, over the nearest cells."""
    count = numbers.sum(1, keepdim=True)
    mean = torch.where(count > 0, sums.sum(1) / count.clamp_min(1), nearest.mean(1))
    return decode(mean)


def level_angles(sums: Tensor, numbers: Tensor, nearest: Tensor, counts: Tensor | None = None) -> Tensor:
    """(G, L) radians per object and level, detached: mean of its cells, or the nearest cell where it has none.

    Args:
        counts: (G,) bool: objects whose own cells count (those seen in both views). None: the nearest cell for all.
    """
    if counts is None:
        return decode(nearest.detach())
    own = (numbers > 0) & counts[:, None]
    mean = sums / numbers.clamp_min(1)[..., None]
    return decode(torch.where(own[..., None], mean, nearest).detach())


def assign_angles(boxes: Tensor, angles: Tensor, unit_px: float) -> Tensor:
    """Boxes (G, N, 5) with the angle (G, L) of the level that their own size maps to."""
    levels = pyramid_levels(boxes, angles.shape[1], unit_px)
    return torch.cat((boxes[..., :4], angles.gather(1, levels)[..., None]), -1)


def _on_level(codes: Tensor, stride: int, points: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    height, width = codes.shape[2:]
    at = (points + 0.5) / stride - 0.5
    centre = torch.round(at).long()
    reach = torch.arange(-2, 3, device=points.device)
    dy, dx = (grid.reshape(-1) for grid in torch.meshgrid(reach, reach, indexing="ij"))
    x, y = centre[:, :1] + dx, centre[:, 1:] + dy
    away_x, away_y = (x - at[:, :1]).abs(), (y - at[:, 1:]).abs()
    own = (away_x < RADIUS) & (away_y < RADIUS) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    table = codes.permute(0, 2, 3, 1).reshape(-1, codes.shape[1])
    cell = images[:, None] * (height * width) + y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    # The nearest point of each cell; equal distances go to the first object.
    distance = torch.where(own, away_x.square() + away_y.square(), torch.inf)
    best = distance.new_full((len(table),), torch.inf)
    best = best.scatter_reduce(0, cell.flatten(), distance.flatten(), "amin")
    first = own & (distance <= best[cell])
    rows = torch.arange(len(points), device=points.device)[:, None].expand_as(cell)
    owner = torch.full((len(table),), len(points), device=points.device)
    owner = owner.scatter_reduce(0, cell[first], rows[first], "amin")
    first = first & (owner[cell] == rows)
    gathered = table[cell] * first[..., None]
    inner_x, inner_y = centre[:, 0].clamp(0, width - 1), centre[:, 1].clamp(0, height - 1)
    nearest = table[images * (height * width) + inner_y * width + inner_x]
    return gathered.sum(1), first.sum(1), nearest
