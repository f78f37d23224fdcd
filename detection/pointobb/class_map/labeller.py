# SPDX-License-Identifier: Apache-2.0
"""One oriented box per point, read from the trained class map."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from detection.pointobb.class_map.config import ClassMapConfig
from detection.pointobb.class_map.network import ClassMapNet
from detection.pointobb.class_map.walk import sample, walk
from detection.pointobb.views import pad_to_multiple
from detection.pointobb.windows import label_with_network
from detection.problem import Float, Image, Int


class ClassMapLabeller:
    """Implements :class:`detection.problem.Labeller`. The score is the map's value of the class at the point."""

    def __init__(self, net: ClassMapNet) -> None:
        self.net = net

    def label(self, image: Image, points: Float, labels: Int) -> tuple[Float, Float]:
        """(H, W, 3) uint8, (N, 2) pixels, (N,) classes -> (N, 5) le90 boxes and (N,) scores in [0, 1], in order."""
        return label_with_network(self.net, image, points, labels, self._label)

    @torch.no_grad()
    def _label(self, image: Image, points: Float, labels: Int) -> tuple[Float, Float]:
        height, width = image.shape[:2]
        device = self.net.progress.device
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 255
        coarse = torch.sigmoid(self.net(pad_to_multiple(pixels))[0])
        return boxes_in_map(coarse, points, labels, (height, width), self.net.stride, self.net.config)


def boxes_in_map(
    coarse: Tensor, points: Float, labels: Int, shape: tuple[int, int], stride: int, config: ClassMapConfig
) -> tuple[Float, Float]:
    """Boxes (N, 5) le90 and the map's values at the points (N,).

    Args:
        coarse: (classes, rows, columns) scores in [0, 1], of an image of ``shape`` (H, W) and what was padded to it.
        points: (N, 2) pixels; labels: (N,).
        stride: pixels per cell.
    """
    boxes, scores = np.zeros((len(points), 5)), np.zeros(len(points))
    for kind in np.unique(labels):
        own = labels == kind
        fine = functional.interpolate(
            coarse[None, None, int(kind)], scale_factor=stride, mode="bilinear", align_corners=False
        )
        values = fine[0, 0, : shape[0], : shape[1]].float().cpu().numpy()
        boxes[own] = walk(values, points[own], points, config)
        scores[own] = sample(values, points[own, 0], points[own, 1])
    return boxes, np.clip(scores, 0, 1)
