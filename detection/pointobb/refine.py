# SPDX-License-Identifier: Apache-2.0
"""What the second bag needs: boxes kept in the image, and background boxes that touch no proposal (step 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from detection.pointobb.views import Frame

_GRID = 10  # samples per side of a box; the part inside comes in hundredths


def inside_part(boxes: Tensor, images: Tensor, frame: Frame) -> Tensor:
    """(G, N) part of each box (G, N, 5) that shows real content of its image, from 10 x 10 samples of the box."""
    places = _samples(boxes)
    return frame.shows(places.flatten(1, 2), images).reshape(places.shape[:3]).float().mean(-1)


def inside_part_turned(boxes: Tensor, theta: Tensor, size: tuple[int, int]) -> Tensor:
    """(G, N) part of each box (G, N, 5) inside the frame turned by angles (G,) about its centre.

    The published behaviour, kept to be compared: the turned frame is not where the image is.
    """
    centre = boxes.new_tensor([(size[0] - 1) / 2, (size[1] - 1) / 2])
    away = _samples(boxes) - centre
    c, s = (trig(theta)[:, None, None] for trig in (torch.cos, torch.sin))
    u, v = away[..., 0] * c + away[..., 1] * s, away[..., 1] * c - away[..., 0] * s
    return ((u.abs() <= size[0] / 2) & (v.abs() <= size[1] / 2)).float().mean(-1)


def mean_angles(theta: Tensor, images: Tensor) -> Tensor:
    """(G,) for each object the plain mean of the angles (G,) of all objects of its image (G,)."""
    count = int(images.max()) + 1 if len(images) else 0
    total = theta.new_zeros(count).index_add(0, images, theta)
    number = theta.new_zeros(count).index_add(0, images, torch.ones_like(theta))
    return (total / number.clamp_min(1))[images]


def clamp_to(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(G, 5) with centres inside the image and sides no longer than its own."""
    w, h = size
    low = boxes.new_tensor([-0.5, -0.5, 0.0, 0.0])
    high = boxes.new_tensor([w - 0.5, h - 0.5, w, h])
    return torch.cat((torch.minimum(torch.maximum(boxes[:, :4], low), high), boxes[:, 4:]), 1)


def overlap_bound(candidates: Tensor, boxes: Tensor) -> Tensor:
    """(M,) for each candidate (M, 5) the largest upper bound of its IoU with any of the boxes (K, 5).

    The intersection is bounded by the box's upright hull in the candidate's own axes: exact for equal angles, larger
    otherwise. So a candidate whose bound is below a limit is certainly below it. Candidates share one angle.
    """
    if not len(boxes) or not len(candidates):
        return candidates.new_zeros(len(candidates))
    theta = candidates[0, 4]
    c, s = torch.cos(theta), torch.sin(theta)

    def own_axes(which: Tensor) -> Tensor:
        x, y = which[:, 0], which[:, 1]
        return torch.stack((x * c + y * s, y * c - x * s), 1)

    turn = boxes[:, 4] - theta
    cosine, sine = torch.cos(turn).abs(), torch.sin(turn).abs()
    half = torch.stack((boxes[:, 2] * cosine + boxes[:, 3] * sine, boxes[:, 2] * sine + boxes[:, 3] * cosine), 1) / 2
    area = boxes[:, 2] * boxes[:, 3]
    best = candidates.new_zeros(len(candidates))
    for start in range(0, len(boxes), 20_000):  # bounded memory
        rows = slice(start, start + 20_000)
        away = (own_axes(candidates)[:, None] - own_axes(boxes[rows])[None]).abs()
        own = candidates[:, None, 2:4] / 2
        sides = (torch.minimum(own, half[None, rows]) * 2).minimum(own + half[None, rows] - away).clamp_min(0)
        a, b = (candidates[:, 2] * candidates[:, 3])[:, None], area[None, rows]
        common = torch.minimum(sides.prod(-1), torch.minimum(a, b))
        best = torch.maximum(best, (common / (a + b - common).clamp_min(1e-12)).amax(1))
    return best


def _samples(boxes: Tensor) -> Tensor:
    """(G, N, 100, 2) places spread evenly over each box."""
    along = (torch.arange(_GRID, dtype=boxes.dtype, device=boxes.device) + 0.5) / _GRID - 0.5
    v, u = (grid.reshape(-1) for grid in torch.meshgrid(along, along, indexing="ij"))
    cx, cy, w, h, theta = boxes[..., None].unbind(-2)
    c, s = torch.cos(theta), torch.sin(theta)
    return torch.stack((cx + u * w * c - v * h * s, cy + u * w * s + v * h * c), -1)
