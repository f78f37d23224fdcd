# SPDX-License-Identifier: Apache-2.0
"""Boxes proposed around each point: the first bag, and the second around what the first one found (steps 2 and 6).

Boxes are (..., 5) float32 tensors cx, cy, w, h in pixels and theta in radians. Pixel centres lie at integers: an image
covers [-0.5, W - 0.5].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from detection.pointobb.config import PointObbConfig


@dataclass(frozen=True)
class Bags:
    """Proposals of G objects, N each.

    Attributes:
        boxes: (G, N, 5).
        valid: (G, N) bool, which of them count.
        images: (G,) int64, the image of the batch that each object lies in.
    """

    boxes: Tensor
    valid: Tensor
    images: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def of(self, objects: Tensor) -> Bags:
        """The bags of some objects (bool or int64)."""
        return Bags(self.boxes[objects], self.valid[objects], self.images[objects])


def base_scales(points: Tensor, images: Tensor, side_px: float, config: PointObbConfig) -> Tensor:
    """(G, S) ascending sqrt(w h) of the first bag in pixels.

    ``image``: multiples of a hundredth of ``side_px``, the same for every object. ``density``: a geometric series from
    ``smallest_px`` to ``reach`` distances to the nearest other point of the same image, at most 96 % of ``side_px``.

    Args:
        points: (G, 2) pixels.
        images: (G,) which image each lies in.
        side_px: side of the crops that the network is trained on.
    """
    multiples = torch.tensor(config.multiples, dtype=points.dtype, device=points.device)
    if config.scales == "image":
        return (multiples * side_px / 100).expand(len(points), -1)
    low, limit = config.smallest_px, max(0.96 * side_px, 2 * config.smallest_px)
    top = (config.reach * spacing(points, images)).clamp(2 * low, limit)
    steps = torch.linspace(0, 1, len(multiples), dtype=points.dtype, device=points.device)
    return low * (top[:, None] / low) ** steps


def spacing(points: Tensor, images: Tensor) -> Tensor:
    """(G,) distance from each point to the nearest other one of its image, pixels; infinite where there is none."""
    found = points.new_full((len(points),), math.inf)
    for start in range(0, len(points), 1024):  # bounded memory for images with tens of thousands of objects
        rows = torch.arange(start, min(start + 1024, len(points)), device=points.device)
        distance = torch.cdist(points[rows].double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
        distance[images[rows, None] != images[None]] = math.inf
        distance[torch.arange(len(rows), device=points.device), rows] = math.inf
        found[rows] = distance.min(1).values.to(found.dtype)
    return found


def base_bag(points: Tensor, scales: Tensor, ratios: tuple[float, ...], borders: Tensor) -> Tensor:
    """(G, S * R, 5) upright boxes centred on the points, scale-major: ``w = s r``, ``h = s / r``.

    A side that would leave the image is shortened so that the box stays centred on its point and inside; a pixel is
    left for points on the border or beyond.

    Args:
        points: (G, 2) pixels.
        scales: (G, S) pixels.
        borders: (G, 4) left, top, right and bottom of the image that each object lies in.
    """
    r = torch.tensor(ratios, dtype=points.dtype, device=points.device)
    w = (scales[:, :, None] * r).flatten(1)
    h = (scales[:, :, None] / r).flatten(1)
    room = 2 * torch.minimum(points - borders[:, :2], borders[:, 2:] - points).clamp_min(0.5)
    w, h = torch.minimum(w, room[:, :1]), torch.minimum(h, room[:, 1:])
    centre = points[:, None].expand(-1, w.shape[1], -1)
    return torch.cat((centre, torch.stack((w, h, torch.zeros_like(w)), -1)), -1)


def refine_bag(boxes: Tensor, factors: tuple[float, ...], shift: float) -> Tensor:
    """(G, F * F * 5, 5) around (G, 5): every pair of factors on (w, h), each at the centre and shifted both ways.

    The shifts are ``shift`` times w in x and times h in y, in the image's axes, of the box after scaling. The angle
    stays. Size-major; the positions are centre, left, right, up, down.
    """
    f = torch.tensor(factors, dtype=boxes.dtype, device=boxes.device)
    fw, fh = (grid.reshape(-1) for grid in torch.meshgrid(f, f, indexing="ij"))
    dx = torch.tensor([0.0, -1.0, 1.0, 0.0, 0.0], dtype=boxes.dtype, device=boxes.device) * shift
    dy = torch.tensor([0.0, 0.0, 0.0, -1.0, 1.0], dtype=boxes.dtype, device=boxes.device) * shift
    cx, cy, w, h, theta = (column[:, None, None] for column in boxes.unbind(1))
    shape = (len(boxes), len(fw), len(dx))
    wide, high = fw[:, None] * w, fh[:, None] * h
    parts = (cx + dx * wide, cy + dy * high, wide, high, theta)
    return torch.stack([part.expand(shape) for part in parts], -1).flatten(1, 2)


def random_boxes(
    count: int, low_px: float, high_px: float, size: tuple[int, int], theta: float, like: Tensor
) -> Tensor:
    """(count, 5) background candidates: centres uniform in the image, w and h log-uniform, drawn by torch."""
    draw = torch.rand((count, 4), dtype=like.dtype, device=like.device)
    centre = draw[:, :2] * draw.new_tensor(size) - 0.5
    sides = low_px * (max(high_px, low_px) / low_px) ** draw[:, 2:]
    return torch.cat((centre, sides, draw.new_full((count, 1), theta)), 1)
