# SPDX-License-Identifier: Apache-2.0
"""The trained detector: images to boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from detection.fcos.config import FcosConfig
from detection.fcos.network import MULTIPLE, FcosNet
from detection.problem import Detections, Float, Image
from detection.training.pool import MEAN_RGB
from vision3d.geometry import rotated


class FcosDetector:
    """A :class:`detection.problem.Detector`.

    Args:
        net: trained; it is put into eval mode and stays on its device.
    """

    def __init__(self, net: FcosNet, config: FcosConfig, classes: tuple[str, ...]) -> None:
        self.net = net.eval()
        self.config, self.classes = config, classes

    @torch.inference_mode()
    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Detections of each (H, W, 3) uint8 RGB image, best first, in its pixels; boxes' centres lie inside."""
        if not images:
            return []
        device = self.net.scales.device
        answers = self.net(padded(images).to(device).float() / 255)
        scores = answers.logits.sigmoid() * answers.quality.sigmoid()[..., None]
        return [self._of(image, *rows) for image, *rows in zip(images, answers.boxes, scores)]

    def _of(self, image: Image, boxes: Tensor, scores: Tensor) -> Detections:
        height, width = image.shape[:2]
        x, y = boxes[:, 0], boxes[:, 1]
        inside = (x >= -0.5) & (y >= -0.5) & (x < width - 0.5) & (y < height - 0.5)
        row, label = ((scores >= self.config.score) & inside[:, None]).nonzero(as_tuple=True)
        score = scores[row, label]
        # Stable, so that equal scores stay in the order of the cells.
        best = torch.sort(score, descending=True, stable=True).indices[: self.config.candidates]
        found = boxes[row[best]].double().cpu().numpy()
        return suppressed(found, score[best].double().cpu().numpy(), label[best].cpu().numpy(), self.config)


def suppressed(boxes: Float, scores: Float, labels: np.ndarray, config: FcosConfig) -> Detections:
    """Boxes in the canonical form, without the weaker ones of a class that overlap a stronger one, best first.

    Args:
        boxes: (M, 5) whose angle is any and whose w may be below h, as the network or its ONNX file returns them.
        scores: (M,).
        labels: (M,) int64.
    """
    boxes = rotated.canonical(boxes)
    kept = rotated.nms(boxes, scores, config.nms, labels)[: config.most]
    return Detections(boxes[kept], scores[kept], labels[kept].astype(np.int64))


def padded(images: Sequence[Image]) -> Tensor:
    """(H, W, 3) images -> (B, 3, H', W') uint8: one size, a multiple of 32, filled up at the right and bottom."""
    height, width = (-(-max(image.shape[axis] for image in images) // MULTIPLE) * MULTIPLE for axis in (0, 1))
    filled = np.empty((len(images), height, width, 3), np.uint8)
    filled[:] = MEAN_RGB
    for canvas, image in zip(filled, images):
        canvas[: image.shape[0], : image.shape[1]] = image
    return torch.from_numpy(filled).permute(0, 3, 1, 2)
