# SPDX-License-Identifier: Apache-2.0
"""One oriented box per point: by the trained layout network, or by the watershed alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from detection.pointobb.class_map.labeller import boxes_in_map
from detection.pointobb.layout.basins import basins_of, measured
from detection.pointobb.layout.config import LayoutConfig
from detection.pointobb.layout.network import LayoutNet
from detection.pointobb.layout.voronoi import spacing
from detection.pointobb.views import pad_to_multiple
from detection.pointobb.windows import OVERLAP, WINDOW, label_in_windows, label_with_network
from detection.problem import Float, Image, Int
from vision3d.geometry import rotated
from vision3d.geometry.rotated import gaussian

SMALLEST = 2.0  # side in pixels of a box that stands in for none
MIRRORS = ((False, False), (True, False), (False, True), (True, True))  # left-right, up-down


class LayoutLabeller:
    """Implements :class:`detection.problem.Labeller`: network, watershed and class map together.

    The network's box is the mean over an image and its mirror images; how the three come together stands at
    :func:`~detection.pointobb.layout.basins.measured`. The score is how far the network's boxes agree: the
    mean overlap coefficient of each with their mean.
    """

    def __init__(self, net: LayoutNet) -> None:
        self.net = net

    def label(self, image: Image, points: Float, labels: Int) -> tuple[Float, Float]:
        """(H, W, 3) uint8, (N, 2) pixels, (N,) classes -> (N, 5) le90 boxes and (N,) scores in [0, 1], in order."""
        return label_with_network(self.net, image, points, labels, self._label)

    @torch.no_grad()
    def _label(self, image: Image, points: Float, labels: Int) -> tuple[Float, Float]:
        device = self.net.progress.device
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 255
        known = torch.from_numpy(labels).long().to(device)
        views, maps = zip(*(self._mirrored(pixels, points, known, *mirror) for mirror in MIRRORS), strict=True)
        boxes, certainty = mean_boxes(np.stack(views))
        score = [gaussian.overlap(torch.from_numpy(view), torch.from_numpy(boxes)).numpy() for view in views]
        shape, config = (image.shape[0], image.shape[1]), self.net.config
        mapped, _ = boxes_in_map(torch.sigmoid(maps[0]), points, labels, shape, self.net.strides[0], config.map)
        found = measured(image, points, boxes, certainty, mapped, config)
        return found, np.clip(np.mean(score, axis=0), 0, 1)

    def _mirrored(
        self, pixels: Tensor, points: Float, labels: Tensor, across: bool, down: bool
    ) -> tuple[Float, Tensor]:
        """(N, 5) le90 boxes found in a mirror image, mirrored back, and its class map (classes, rows, columns), not."""
        height, width = pixels.shape[2:]
        axes = [axis for axis, chosen in ((3, across), (2, down)) if chosen]
        at = np.array(points)
        at[:, 0] = width - 1 - at[:, 0] if across else at[:, 0]
        at[:, 1] = height - 1 - at[:, 1] if down else at[:, 1]
        places = torch.from_numpy(at).float().to(pixels.device)
        answers = self.net(pad_to_multiple(pixels.flip(axes)), places, labels, torch.zeros_like(labels))
        found = answers.at(answers.best()).cpu().double().numpy()
        return np.asarray(rotated.flipped(found, (width, height), across, down)), answers.scores[0]


class WatershedLabeller:
    """Implements :class:`detection.problem.Labeller` without any training: the box of each point's watershed basin.

    The smallest rectangle around the basin. Where that is too small, a square of half the spacing of the points stands
    in, with score 0; the score is the part of its box that a basin fills.
    """

    def __init__(self, config: LayoutConfig | None = None) -> None:
        self.config = config or LayoutConfig()

    def label(self, image: Image, points: Float, labels: Int) -> tuple[Float, Float]:
        """(H, W, 3) uint8, (N, 2) pixels, (N,) classes -> (N, 5) le90 boxes and (N,) scores in [0, 1], in order."""
        if not len(points):
            return np.zeros((0, 5)), np.zeros(0)
        return label_in_windows(image, points, labels, WINDOW, OVERLAP, self._label)

    def _label(self, image: Image, points: Float, labels: Int) -> tuple[Float, Float]:
        basins = basins_of(image, points, None, self.config)
        boxes, valid = basins.tight()
        side = np.maximum(spacing(points, (image.shape[0], image.shape[1])) / 2, SMALLEST)
        boxes[~valid] = np.column_stack([points, side, side, np.zeros(len(points))])[~valid]
        filled = basins.sizes() / np.maximum(boxes[:, 2] * boxes[:, 3], 1)
        return rotated.canonical(boxes), np.where(valid, np.clip(filled, 0, 1), 0.0)


def mean_boxes(views: Float) -> tuple[Float, Float]:
    """Means of (V, N, 5) le90 boxes: sizes by their logarithms, angles as axes.

    An angle weighs what its box is longer than wide: that of a square says nothing.

    Returns:
        (N, 5) le90; and (N,) how far the angles agree, from 0 to 1, times how long the mean box is, 1 - h / w.
    """
    sides = np.maximum(views[..., 2:4], 1e-6)
    weight = np.log(sides[..., 0] / sides[..., 1]) + 1e-3
    theta = rotated.axial_mean(views[..., 4], weight, axis=0)
    agree = np.abs((weight * np.exp(2j * views[..., 4])).sum(0)) / weight.sum(0)
    mean = np.exp(np.log(sides).mean(0))
    boxes = rotated.canonical(np.column_stack([views[..., :2].mean(0), mean, theta]))
    return boxes, agree * (1 - mean[:, 1] / mean[:, 0])
