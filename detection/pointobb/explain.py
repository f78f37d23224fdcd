# SPDX-License-Identifier: Apache-2.0
"""What a PointOBB network sees: the boxes offered for a point and their scores, and the angle of each cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from detection.pointobb import angle_coder
from detection.pointobb.bags import Bags, base_bag, base_scales
from detection.pointobb.mil import label_scores
from detection.pointobb.network import PointObbNet
from detection.pointobb.views import pad_to_multiple
from detection.problem import Float, Image, Int


@dataclass(frozen=True)
class Sight:
    """What the network sees in an image.

    Attributes:
        bag: (N, 5) the boxes offered for one of the points in the first stage, pixels.
        scores: (N,) of these boxes, for the point's class.
        angles: (h, w) radians of the cells of the finest level, in [-pi/2, pi/2).
        stride: pixels per cell.
    """

    bag: Float
    scores: Float
    angles: NDArray[np.float64]
    stride: int


@torch.no_grad()
def sight(net: PointObbNet, image: Image, points: Float, labels: Int, index: int) -> Sight:
    """Look at (H, W, 3) uint8 RGB with points (N, 2) and classes (N,); ``index`` is the point whose bag is wanted."""
    device = net.side_px.device
    height, width = image.shape[:2]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 255
    features = net.backbone(pad_to_multiple(pixels))
    at = torch.from_numpy(points).float().to(device)
    rows = torch.zeros(len(at), dtype=torch.long, device=device)
    one = slice(index, index + 1)
    scales = base_scales(at, rows, float(net.side_px), net.config)[one]
    border = torch.tensor([[-0.5, -0.5, width - 0.5, height - 0.5]], device=device)
    boxes = base_bag(at[one], scales, net.config.ratios, border)
    scored = net.score(features, Bags(boxes, torch.ones_like(boxes[..., 0], dtype=torch.bool), rows[one]), 0)
    scores = label_scores(scored.cls, scored.ins, torch.from_numpy(labels[one]).long().to(device))
    stride = net.backbone.strides[0]
    angles = angle_coder.decode(net.angle_head(features)[0][0].movedim(0, -1))
    rows_shown, columns_shown = -(-height // stride), -(-width // stride)
    return Sight(
        boxes[0].double().cpu().numpy(),
        scores[0].double().cpu().numpy(),
        angles[:rows_shown, :columns_shown].double().cpu().numpy(),
        stride,
    )
