# SPDX-License-Identifier: Apache-2.0
"""Options of every training in oriented detection. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vision3d.errors import ConfigError, check_ranges


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    Attributes:
        steps: of the optimizer; 0 leaves the network as it is.
        batch: crops per step.
        crop: side of the square crops in pixels; smaller images are padded at the right and bottom.
        flip: probability of a horizontal flip.
        optimizer: sgd (momentum 0.9) or adamw.
        lr: learning rate after the warm-up.
        weight_decay: of the optimizer.
        clip: largest norm of the gradient; 0 does not limit it.
        warmup: steps of linear warm-up from a thousandth.
        drops: parts of the run after which the learning rate is divided by ten.
        checkpoint_every: steps between checkpoints.
        precision: bfloat16 uses autocast where the network runs on a GPU.
        device: auto takes a GPU where there is one.
    """

    steps: int = 2000
    batch: int = 2
    crop: int = 256
    flip: float = 0.5
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = 5e-4
    weight_decay: float = 1e-4
    clip: float = 35.0
    warmup: int = 100
    drops: tuple[float, ...] = (0.67, 0.92)
    checkpoint_every: int = 200
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        check_ranges(
            "train",
            self,
            steps=(0, 10_000_000),
            batch=(1, 1024),
            crop=(32, 4096),
            flip=(0, 1),
            lr=(1e-8, 10),
            weight_decay=(0, 1),
            clip=(0, 1e6),
            warmup=(0, 1_000_000),
            checkpoint_every=(1, 1_000_000),
        )
        if any(not 0 < part <= 1 for part in self.drops) or list(self.drops) != sorted(self.drops):
            raise ConfigError(f"train.drops is {self.drops}: must be ascending parts of the run, above 0 and at most 1")


MULTIPLE = 32  # pixels of the coarsest level of the pyramid per cell


def require_multiple(train: TrainConfig) -> None:
    """Raises:
    ConfigError: the crops' side is no multiple of 32, and the network's levels would not fit one another.
    """
    if train.crop % MULTIPLE:
        raise ConfigError(f"train.crop is {train.crop}: must be a multiple of {MULTIPLE}")
