# SPDX-License-Identifier: Apache-2.0
"""Training of the class map from points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from detection.pointobb.class_map.config import ClassMapConfig
from detection.pointobb.class_map.labels import UNKNOWN, label_map
from detection.pointobb.class_map.network import ClassMapNet
from detection.training.config import TrainConfig, require_multiple
from detection.training.pool import Pool


class Batch(NamedTuple):
    """Crops of a step."""

    images: Tensor  # (B, 3, H, W) float32 in [0, 1]
    labels: Tensor  # (B, H / stride, W / stride)


class ClassMapTask:
    """Implements :class:`detection.training.task.Task`. The pool knows points only."""

    def __init__(self, net: ClassMapNet, pool: Pool, config: ClassMapConfig, train: TrainConfig) -> None:
        require_multiple(train)
        self.net, self.pool, self.config, self.train = net, pool, config, train

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Random crops; half of them are turned by 90 degrees on top of the pool's mirroring."""
        stride = self.net.stride
        images, labels = [], []
        for _ in range(self.train.batch):
            crop = self.pool.draw(rng, self.train.flip)
            shape = (crop.image.shape[0] // stride, crop.image.shape[1] // stride)
            turns = int(rng.integers(2))
            images.append(np.rot90(crop.image, turns).copy())
            labels.append(np.rot90(label_map(crop.points, crop.labels, shape, stride, self.config), turns).copy())
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        return Batch(pixels.contiguous(), torch.from_numpy(np.stack(labels)))

    def losses(self, batch: Batch, step: int, steps: int) -> Mapping[str, Tensor]:
        """The focal loss over pixels that are known."""
        return {"map": map_loss(self.net(batch.images), batch.labels, self.config)}


def map_loss(logits: Tensor, labels: Tensor, config: ClassMapConfig) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017) of every class against the rest, per positive cell; scalar.

    Args:
        logits: (B, C, H, W).
        labels: (B, H, W) classes, BACKGROUND or UNKNOWN; the last do not count.
    """
    logits = logits.float()  # bfloat16 has too few digits for the logarithm
    classes = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    positive = labels[:, None] == classes
    probability = torch.sigmoid(logits)
    wrong = torch.where(positive, 1 - probability, probability)
    weight = torch.where(positive, config.positive, 1 - config.positive) * wrong**config.focus
    loss = weight * functional.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")
    known = (labels != UNKNOWN)[:, None]
    return (loss * known).sum() / positive.sum().clamp_min(1)
