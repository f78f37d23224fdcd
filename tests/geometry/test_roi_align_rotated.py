# SPDX-License-Identifier: Apache-2.0
"""Features of rotated boxes against loops over samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision3d.geometry.rotated.roi_align import pyramid_levels, roi_align_rotated

STRIDES = (4, 8, 16)


def maps(batch: int = 2, channels: int = 3, side: int = 64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, channels, side // 4, side // 2)
    return [
        torch.randn(shape[0], shape[1], shape[2] * 4 // s, shape[3] * 4 // s, generator=generator).double()
        for s in STRIDES
    ]


def some_boxes(count: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    low, high = [-10, -10, 0.5, 0.5, -2], [140, 70, 90, 60, 2]
    return torch.from_numpy(rng.uniform(low, high, (count, 5)))


def by_loops(level: NDArray[np.float64], stride: int, box: NDArray[np.float64], size: int, samples: int) -> object:
    """One box on one (C, H, W) map, sample by sample, from the definition of RoIAlignRotated."""
    channels, height, width = level.shape
    cx, cy, w, h, theta = box
    out = np.zeros((size, size, channels))
    for row in range(size):
        for column in range(size):
            for i in range(samples):
                for j in range(samples):
                    v = (-0.5 + (row + (i + 0.5) / samples) / size) * h
                    u = (-0.5 + (column + (j + 0.5) / samples) / size) * w
                    x = (cx + u * math.cos(theta) - v * math.sin(theta) + 0.5) / stride - 0.5
                    y = (cy + u * math.sin(theta) + v * math.cos(theta) + 0.5) / stride - 0.5
                    if not (-1 < x < width and -1 < y < height):
                        continue
                    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
                    x0, y0 = int(x), int(y)
                    x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
                    fx, fy = x - x0, y - y0
                    top = (1 - fx) * level[:, y0, x0] + fx * level[:, y0, x1]
                    bottom = (1 - fx) * level[:, y1, x0] + fx * level[:, y1, x1]
                    out[row, column] += ((1 - fy) * top + fy * bottom) / samples**2
    return out


@pytest.mark.parametrize(("size", "samples"), [(7, 2), (3, 1), (2, 3)])
def test_equals_loops_over_samples(size: int, samples: int) -> None:
    features, boxes = maps(), some_boxes(12)
    images = torch.arange(12) % 2
    levels = torch.arange(12) % 3
    found = roi_align_rotated(features, STRIDES, boxes, images, levels, size, samples).numpy()
    assert found.shape == (12, size, size, 3)
    for k in range(12):
        level = features[levels[k]][images[k]].numpy()
        wanted = by_loops(level, STRIDES[levels[k]], boxes[k].numpy(), size, samples)
        np.testing.assert_allclose(found[k], wanted, atol=1e-12)


def test_a_ramp_is_read_at_the_bins_centres() -> None:
    """On f(x, y) = x the mean of a bin is the x of its centre, in pixels, at every stride."""
    for stride in STRIDES:
        cells = torch.arange(32, dtype=torch.float64)
        ramp = ((cells + 0.5) * stride - 0.5).expand(1, 1, 32, 32)
        side = 32 * stride
        box = torch.tensor([[side / 2, side / 2, side / 3, side / 8, 0.6]], dtype=torch.float64)
        zero = torch.zeros(1, dtype=torch.long)
        found = roi_align_rotated([ramp], [stride], box, zero, zero, 4, 2)[0, :, :, 0]
        along = (torch.arange(4, dtype=torch.float64) + 0.5) / 4 - 0.5
        wanted = side / 2 + along * side / 3 * math.cos(0.6) - along[:, None] * side / 8 * math.sin(0.6)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)


def test_a_quarter_turn_of_the_box_turns_its_bins() -> None:
    features = maps()
    box = torch.tensor([[50.0, 30.0, 24.0, 24.0, 0.0]], dtype=torch.float64)
    turned = box + torch.tensor([0, 0, 0, 0, math.pi / 2], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.long)
    a, b = (roi_align_rotated(features, STRIDES, x, zero, zero) for x in (box, turned))
    # The turned box's first axis points down: its rows run along -x, its columns along y.
    torch.testing.assert_close(b[0], a[0].transpose(0, 1).flip(0), rtol=0, atol=1e-12)


def test_a_turned_map_and_box_give_the_same_features() -> None:
    generator = torch.Generator().manual_seed(0)
    level = torch.randn(1, 2, 16, 16, generator=generator).double()
    turned = level.rot90(-1, (2, 3))  # clockwise on screen
    box = torch.tensor([[20.0, 37.0, 25.0, 11.0, 0.3]], dtype=torch.float64)
    x, y = float(box[0, 0]), float(box[0, 1])
    moved = torch.tensor([[63 - y, x, 25.0, 11.0, 0.3 + math.pi / 2]], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.long)
    a = roi_align_rotated([level], [4], box, zero, zero)
    b = roi_align_rotated([turned], [4], moved, zero, zero)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_gradients_reach_every_level_and_are_right() -> None:
    features = [level[:1, :1].clone().requires_grad_() for level in maps(side=32)]
    boxes = torch.tensor([[20, 12, 15, 9, 0.4], [30, 10, 40, 9, -1.0], [22, 14, 30, 25, 0.1]], dtype=torch.float64)
    zero, levels = torch.zeros(3, dtype=torch.long), torch.arange(3)

    def pooled(*maps: Tensor) -> Tensor:
        return roi_align_rotated(maps, STRIDES, boxes, zero, levels, 2, 2)

    assert torch.autograd.gradcheck(pooled, tuple(features))
    pooled(*features).sum().backward()
    assert all(level.grad is not None and float(level.grad.abs().sum()) > 0 for level in features)


def test_without_a_box_there_is_nothing_but_a_graph() -> None:
    features = [level.requires_grad_() for level in maps()]
    none = torch.zeros(0, dtype=torch.long)
    found = roi_align_rotated(features, STRIDES, torch.zeros(0, 5, dtype=torch.float64), none, none)
    assert found.shape == (0, 7, 7, 3)
    found.sum().backward()


def test_levels_follow_the_size_of_the_box() -> None:
    sides = torch.tensor([1.0, 56, 111.9, 112.1, 223, 225, 449, 4000, 0])
    boxes = torch.stack((sides * 0, sides * 0, sides * 2, sides / 2, sides * 0), 1)
    assert pyramid_levels(boxes, 4).tolist() == [0, 0, 0, 1, 1, 2, 3, 3, 0]
    assert pyramid_levels(boxes, 2, 28.0).tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0]
