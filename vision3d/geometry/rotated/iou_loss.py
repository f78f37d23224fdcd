# SPDX-License-Identifier: Apache-2.0
"""Exact overlap of rotated boxes that gradients pass through, in torch, row by row.

Seen from box b, the area that a shares with it is an integral along the outline of a: over the part of each side that
lies between the left and right border of b, the height above the lower border, held between the two others, signed by
the direction of travel. So there are no crossings to sort and no cases, and boxes that coincide or touch are as good as
others. Computed in float64.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

SMALLEST_IOU = 1e-6  # under the logarithm
# Sides nearer to upright or level than this count as such: dividing by what is left of their run or rise would lose the
# gradient's digits. The area changes by this part of the box at most.
FLAT = 1e-11


def iou_loss(pred: Tensor, target: Tensor, mode: Literal["linear", "log"] = "linear") -> Tensor:
    """``1 - IoU`` or ``-log IoU`` (N,) of boxes pred (N, 5) and target (N, 5), in the dtype of ``pred``.

    Boxes that are apart have the largest loss and no gradient: train with another loss until they meet.

    Raises:
        ValueError: an unknown mode; or see :func:`paired_iou`.
    """
    iou = paired_iou(pred, target)
    if mode == "linear":
        return 1 - iou
    if mode == "log":
        return -torch.log(iou.clamp_min(SMALLEST_IOU))
    raise ValueError(f"mode must be linear or log, not {mode!r}")


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (N,) of boxes a (N, 5) and b (N, 5): differentiable in both, in the dtype of ``a``.

    0 where a box has no area. At kinks (sides that lie on each other) the gradient is one of the two one-sided ones.

    Raises:
        ValueError: shapes that are not (N, 5) twice.
    """
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 5:
        raise ValueError(f"boxes must be (N, 5) twice, not {tuple(a.shape)} and {tuple(b.shape)}")
    dtype = a.dtype
    a, b = a.double(), b.double()
    area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    solid = (area_a > 0) & (area_b > 0)
    shared = torch.minimum(shared_area(a, b).clamp_min(0), torch.minimum(area_a, area_b))
    union = torch.where(solid, area_a + area_b - shared, 1.0)
    return torch.where(solid, shared / union, 0.0).to(dtype)


def shared_area(a: Tensor, b: Tensor) -> Tensor:
    """Areas (N,) of the intersections of boxes a (N, 5) and b (N, 5); may be off zero by rounding."""
    x, y = _seen_from(a, b)
    half_x, half_y = 0.5 * b[:, 2:3], 0.5 * b[:, 3:4]
    x_end, y_end = x.roll(-1, dims=1), y.roll(-1, dims=1)

    # The part of each side between the left and the right border.
    start, end = torch.clamp(x, -half_x, half_x), torch.clamp(x_end, -half_x, half_x)
    upright = (x_end - x).abs() <= FLAT * (y_end - y).abs()
    slope = (y_end - y) / torch.where(upright, 1.0, x_end - x)
    bottom, height = -half_y, 2 * half_y
    low, high = y + (start - x) * slope - bottom, y_end + (end - x_end) * slope - bottom

    # The mean over that part of the height above the lower border, held between 0 and `height`.
    held_low, held_high = torch.minimum(low.clamp_min(0), height), torch.minimum(high.clamp_min(0), height)
    level = (high - low).abs() <= FLAT * height
    rise = torch.where(level, 1.0, high - low)
    inner = (held_high - held_low) / rise * (0.5 * (held_low + held_high))
    above = (torch.maximum(high, height) - torch.maximum(low, height)) / rise * height
    mean = torch.where(level, 0.5 * (held_low + held_high), inner + above)
    return ((start - end) * mean).sum(dim=1)


def _seen_from(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Corners of ``a`` from the centre and along the sides of ``b``: x and y (N, 4), from +x towards +y around."""
    turn = a[:, 4:] - b[:, 4:]
    c, s = torch.cos(turn), torch.sin(turn)
    cb, sb = torch.cos(b[:, 4:]), torch.sin(b[:, 4:])
    dx, dy = a[:, 0:1] - b[:, 0:1], a[:, 1:2] - b[:, 1:2]
    u = 0.5 * a[:, 2:3] * a.new_tensor([-1.0, 1.0, 1.0, -1.0])
    v = 0.5 * a[:, 3:4] * a.new_tensor([-1.0, -1.0, 1.0, 1.0])
    return dx * cb + dy * sb + c * u - s * v, dy * cb - dx * sb + s * u + c * v
