# SPDX-License-Identifier: Apache-2.0
"""Features of rotated boxes on a pyramid: RoIAlignRotated as one weighted gather over all images and levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def pyramid_levels(boxes: Tensor, levels: int, unit_px: float = 56.0) -> Tensor:
    """(...,) int64 level of each box (..., 5): ``clamp(floor(log2(sqrt(w h) / unit)), 0, levels - 1)``.

    Boxes of twice ``unit_px`` are the smallest of level 1. Lin et al., "Feature Pyramid Networks", CVPR 2017, eq. 1.
    """
    root = (boxes[..., 2].clamp_min(1e-6) * boxes[..., 3].clamp_min(1e-6)).sqrt()
    return torch.floor(torch.log2(root / unit_px)).clamp(0, levels - 1).long()


def roi_align_rotated(
    features: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    images: Tensor,
    levels: Tensor,
    size: int = 7,
    samples: int = 2,
) -> Tensor:
    """Mean features in the bins of rotated boxes; gradients reach the features, not the boxes.

    Each of ``size`` x ``size`` bins (rows along the box's h, columns along its w, in the box's own axes) is the mean of
    ``samples`` x ``samples`` bilinear samples. A pixel x lies at ``(x + 0.5) / stride - 0.5`` of a level. Samples more
    than one cell outside of a map count 0, nearer ones read the border (as RoIAlign does).

    Args:
        features: (B, C, H_l, W_l) of each level, of one dtype.
        strides: pixels per cell of each level.
        boxes: (R, 5) cx, cy, w, h in pixels and theta in radians, clockwise on screen.
        images: (R,) int64, which of the B images.
        levels: (R,) int64, which of the levels.

    Returns:
        (R, size, size, C).
    """
    batch, channels = features[0].shape[:2]
    count = len(boxes)
    table = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in features])
    if not count:
        return table.sum() * 0 + table.new_zeros((0, size, size, channels))
    shapes = torch.tensor([level.shape[2:] for level in features], device=boxes.device)
    cells = shapes.prod(1)
    starts = (torch.cumsum(cells, 0) - cells) * batch
    height, width = shapes[levels, 0], shapes[levels, 1]
    start = starts[levels] + images * cells[levels]
    x, y = _sample_places(boxes.detach(), torch.tensor(strides, device=boxes.device)[levels], size, samples)
    index, weight = _corners(x, y, width[:, None], height[:, None], start[:, None])
    # (R, bins, samples * samples, 4) -> one bag of weighted rows per bin.
    inner = 4 * samples * samples
    pooled = functional.embedding_bag(
        index.reshape(-1, inner),
        table,
        mode="sum",
        per_sample_weights=(weight / (samples * samples)).to(table.dtype).reshape(-1, inner),
    )
    return pooled.reshape(count, size, size, channels)


def _sample_places(boxes: Tensor, stride: Tensor, size: int, samples: int) -> tuple[Tensor, Tensor]:
    """Cell coordinates (R, size * size * samples * samples) of the samples, the samples of a bin side by side."""
    along = (torch.arange(size * samples, device=boxes.device, dtype=boxes.dtype) + 0.5) / (size * samples) - 0.5
    split = along.reshape(size, samples)
    v, u = split[:, None, :, None], split[None, :, None, :]
    shape = (size, size, samples, samples)
    v, u = v.expand(shape).reshape(1, -1), u.expand(shape).reshape(1, -1)
    cx, cy, w, h, theta = boxes.unsqueeze(-1).unbind(1)
    c, s = torch.cos(theta), torch.sin(theta)
    stride = stride[:, None].to(boxes.dtype)
    x = (cx + u * w * c - v * h * s + 0.5) / stride - 0.5
    y = (cy + u * w * s + v * h * c + 0.5) / stride - 0.5
    return x, y


def _corners(x: Tensor, y: Tensor, width: Tensor, height: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the table and bilinear weights of the four cells around each place, (R, places, 4)."""
    inside = (x > -1) & (x < width) & (y > -1) & (y < height)
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    x = torch.minimum(torch.maximum(x, zero), (width - 1).to(x.dtype))
    y = torch.minimum(torch.maximum(y, zero), (height - 1).to(y.dtype))
    left, top = x.floor(), y.floor()
    fx, fy = x - left, y - top
    left, top = left.long(), top.long()
    right, bottom = torch.minimum(left + 1, width - 1), torch.minimum(top + 1, height - 1)
    index = torch.stack(
        (top * width + left, top * width + right, bottom * width + left, bottom * width + right), dim=-1
    )
    weight = torch.stack(((1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy), dim=-1)
    return index + start[..., None], weight * inside[..., None]
