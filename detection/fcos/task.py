# SPDX-License-Identifier: Apache-2.0
"""Training of the detector, on true boxes or on boxes that a labeller made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from detection.fcos.config import FcosConfig
from detection.fcos.losses import losses_of
from detection.fcos.network import FcosNet
from detection.training.config import TrainConfig, require_multiple
from detection.training.pool import Example, Pool
from vision3d.geometry import rotated


class FcosBatch(NamedTuple):
    """Crops and the objects in them; G objects in all of them together.

    Attributes:
        images: (B, 3, H, W) uint8 RGB.
        boxes: (G, 5) float32 le90.
        labels: (G,) int64.
        weights: (G,) float32.
        image: (G,) int64 the crop of each object.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    weights: Tensor
    image: Tensor


class FcosTask:
    """A :class:`detection.training.task.Task`.

    Args:
        pool: with boxes; their weights, where there are some, are those of the losses.
        train: its ``crop`` must be a multiple of 32.

    Raises:
        ConfigError: it is not.
    """

    def __init__(self, net: FcosNet, pool: Pool, config: FcosConfig, train: TrainConfig) -> None:
        require_multiple(train)
        self.net = net
        self.pool, self.config, self.train = pool, config, train

    def batch(self, step: int, rng: np.random.Generator) -> FcosBatch:
        """Random crops, flipped and turned."""
        crops = []
        for _ in range(self.train.batch):
            crop = self.pool.draw(rng, self.train.flip)
            if rng.random() < self.config.turn:
                crop = turned(crop, int(rng.integers(1, 4)))
            crops.append(crop)
        return batch_of(crops)

    def losses(self, batch: FcosBatch, step: int, steps: int) -> Mapping[str, Tensor]:
        """See :func:`detection.fcos.losses.losses_of`."""
        answers = self.net(batch.images.float() / 255)
        return losses_of(answers, batch.boxes, batch.labels, batch.weights, batch.image, self.config)


def batch_of(crops: list[Example]) -> FcosBatch:
    """Crops of one size, with boxes, as tensors."""
    boxes, weights = [], []
    for crop in crops:
        if crop.boxes is None:
            raise ValueError("a detector is trained on boxes, but the pool knows points only")
        boxes.append(crop.boxes)
        weights.append(np.ones(len(crop.boxes)) if crop.weights is None else crop.weights)
    counts = [len(found) for found in boxes]
    return FcosBatch(
        torch.from_numpy(np.stack([crop.image for crop in crops])).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.concatenate(boxes)).float(),
        torch.from_numpy(np.concatenate([crop.labels for crop in crops])),
        torch.from_numpy(np.concatenate(weights)).float(),
        torch.arange(len(crops)).repeat_interleave(torch.tensor(counts)),
    )


def turned(crop: Example, quarters: int) -> Example:
    """A crop turned by quarter turns, counter-clockwise on screen as in ``np.rot90``."""
    height, width = crop.image.shape[:2]
    as_boxes = np.column_stack([crop.points, np.ones((len(crop.points), 2)), np.zeros(len(crop.points))])
    return replace(
        crop,
        image=np.ascontiguousarray(np.rot90(crop.image, quarters)),
        points=rotated.turned(as_boxes, (width, height), quarters)[:, :2],
        boxes=None if crop.boxes is None else rotated.turned(crop.boxes, (width, height), quarters),
    )
