# SPDX-License-Identifier: Apache-2.0
"""Objects do not overlap: the upper bound of sizes, from the layout of the points alone.

Source: the Gaussian overlap loss of Point2RBox-v2 (Yu et al., CVPR 2025).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vision3d.geometry.rotated import gaussian


def overlap_loss(boxes: Tensor, images: Tensor, touch: float = 0.6065, slope: float = 0.01) -> Tensor:
    """Mean over objects of what their Gaussians share with those of the other objects of the same image; scalar.

    The share is the Bhattacharyya coefficient: 1 for equal boxes, ``touch`` for equal circles side by side. Above
    ``touch`` it counts in full, below at ``slope``, so that objects that are apart are hardly pushed.

    Args:
        boxes: (N, 5).
        images: (N,) ascending numbers of the images.
    """
    if len(boxes) < 2:
        return boxes.sum() * 0
    total = boxes.new_zeros(())
    for rows in torch.split(torch.arange(len(boxes), device=boxes.device), _counts(images)):
        own = boxes[rows]
        shared = gaussian.overlap(own[:, None], own[None])
        # What leaky_relu gives below its knee is constant for pairs without any overlap: only the rest is counted.
        cost = functional.leaky_relu(shared - touch, slope) + touch * slope
        total = total + cost.sum() - cost.diagonal().sum()
    return total / len(boxes)


def _counts(images: Tensor) -> list[int]:
    return torch.unique_consecutive(images, return_counts=True)[1].tolist()
