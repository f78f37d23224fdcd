# SPDX-License-Identifier: Apache-2.0
"""Overlap of boxes a second time, in torch and by another algorithm: what the other versions are tested against.

The corners of an intersection are the 16 crossings of sides and the 8 corners that lie in the other box; sorted around
their middle they are its outline. The method of the usual kernels, in double precision and with tolerances that are
relative to the boxes. Runs on any device; for tests and small batches.
"""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-12  # of the larger box's extent; what it lets in lies this far outside


def corner_points(boxes: Tensor) -> Tensor:
    """Corners (..., 4, 2) of boxes (..., 5), clockwise on screen."""
    signs = boxes.new_tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    local = signs * boxes[..., None, 2:4]
    c, s = torch.cos(boxes[..., 4, None]), torch.sin(boxes[..., 4, None])
    x, y = local[..., 0], local[..., 1]
    return boxes[..., None, :2] + torch.stack([c * x - s * y, s * x + c * y], dim=-1)


def iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (N, M), float64, of boxes a (N, 5) and b (M, 5)."""
    n, m = len(a), len(b)
    return iou_pairs(a.repeat_interleave(m, 0), b.repeat(n, 1)).view(n, m)


def iou_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (P,), float64, of boxes a (P, 5) and b (P, 5)."""
    a, b = a.double(), b.double()
    area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    shared = torch.minimum(shared_area(a, b), torch.minimum(area_a, area_b))
    solid = (area_a > 0) & (area_b > 0)
    return torch.where(solid, shared / torch.where(solid, area_a + area_b - shared, 1.0), 0.0)


def shared_area(a: Tensor, b: Tensor) -> Tensor:
    """Areas (P,) of the intersections of boxes a (P, 5) and b (P, 5), float64."""
    middle = 0.5 * (a[:, :2] + b[:, :2])
    a = torch.cat([a[:, :2] - middle, a[:, 2:]], dim=1)
    b = torch.cat([b[:, :2] - middle, b[:, 2:]], dim=1)
    p, q = corner_points(a), corner_points(b)
    slack = TOLERANCE * torch.maximum(a[:, 2:4], b[:, 2:4]).amax(dim=1, keepdim=True)
    crossings, crossed = _crossings(p, q)
    points = torch.cat([crossings, p, q], dim=1)
    there = torch.cat([crossed, _inside(p, b, slack), _inside(q, a, slack)], dim=1)

    count = there.sum(dim=1)
    weights = there.double() / count.clamp_min(1)[:, None]
    local = points - (points * weights[..., None]).sum(dim=1, keepdim=True)
    angle = torch.where(there, torch.atan2(local[..., 1], local[..., 0]), torch.inf)
    order = torch.argsort(angle, dim=1)
    outline = torch.gather(local, 1, order[..., None].expand_as(local))
    # Slots behind the last corner repeat the first: they close the outline and add nothing.
    used = torch.arange(outline.shape[1], device=outline.device) < count[:, None]
    outline = torch.where(used[..., None], outline, outline[:, :1])
    following = outline.roll(-1, dims=1)
    cross = outline[..., 0] * following[..., 1] - outline[..., 1] * following[..., 0]
    return torch.where(count >= 3, 0.5 * cross.sum(dim=1), 0.0).clamp_min(0)


def _inside(points: Tensor, boxes: Tensor, slack: Tensor) -> Tensor:
    """Which of the points (P, K, 2) lie in their pair's box (P, 5): (P, K)."""
    d = points - boxes[:, None, :2]
    c, s = torch.cos(boxes[:, 4:]), torch.sin(boxes[:, 4:])
    x, y = (d[..., 0] * c + d[..., 1] * s).abs(), (d[..., 1] * c - d[..., 0] * s).abs()
    return (x <= 0.5 * boxes[:, 2:3] + slack) & (y <= 0.5 * boxes[:, 3:4] + slack)


def _crossings(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Where the sides of outlines p (P, 4, 2) and q (P, 4, 2) cross: points (P, 16, 2) and whether they do (P, 16)."""
    u, v = (p.roll(-1, dims=1) - p)[:, :, None], (q.roll(-1, dims=1) - q)[:, None]
    start, other = p[:, :, None], q[:, None]
    cross = _cross(u, v)
    # Parallel sides cross nowhere; where they lie on each other, corners mark the ends.
    apart = cross.abs() > TOLERANCE * u.norm(dim=-1) * v.norm(dim=-1)
    divisor = torch.where(apart, cross, 1.0)
    along_p, along_q = _cross(other - start, v) / divisor, _cross(other - start, u) / divisor
    low, high = -TOLERANCE, 1 + TOLERANCE
    met = apart & (along_p >= low) & (along_p <= high) & (along_q >= low) & (along_q <= high)
    points = start + along_p[..., None] * u
    return points.flatten(1, 2), met.flatten(1, 2)


def _cross(u: Tensor, v: Tensor) -> Tensor:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
