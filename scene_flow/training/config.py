# SPDX-License-Identifier: Apache-2.0
"""How a scene flow network is trained. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vision3d.errors import ConfigError

# field -> (smallest, largest) value that makes sense; both are allowed.
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 1_000_000),
    "steps": (0, 1_000_000_000),
    "batch": (1, 4096),
    "points": (1, 10_000_000),
    "drop_at": (0, 1),
    "drop_factor": (0, 1),
    "clip": (0, math.inf),
    "fsc_weight": (0, math.inf),
    "fsc_from": (0, 1),
    "fsc_neighbours": (2, 1024),
    "validate": (0, 1_000_000_000),
    "validate_every": (1, 1_000_000_000),
    "checkpoint_every": (1, 1_000_000_000),
    "workers": (0, 64),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "consistency": ("fsc", "uniform"),
    "precision": ("float32", "bfloat16"),
    "augment": ("none", "turn", "all"),
}


@dataclass(frozen=True)
class TrainConfig:
    """The recipe of SCTN (Li et al., AAAI 2022) by default; its lengths are parts of the run, so that a short run has
    the same phases as a long one.

    Attributes:
        epochs: passes over the training pairs; counts only while ``steps`` is 0.
        steps: optimisation steps in all; a run that is continued goes on up to them, never beyond.
        batch: pairs per step and process.
        points: drawn from each cloud, independently, every time that a pair is seen.
        lr: of Adam.
        drop_at: part of the run after which the learning rate falls (epoch 50 of 60); 1 never lets it fall.
        drop_factor: what it is multiplied by then.
        clip: largest norm of the gradient; 0 does not clip.
        fsc_weight: of the feature-aware consistency loss; 0 leaves it out.
        fsc_from: part of the run after which that loss counts (epoch 40 of 60).
        fsc_clamp: whether neighbours whose features point apart count as nothing instead of negatively.
        fsc_neighbours: nearest points of the source that a point is compared with, itself included.
        tau: how alike two features must be to move together.
        consistency: ``fsc``, or ``uniform`` for plain smoothness: all neighbours count as if their features were equal.
        precision: ``bfloat16`` computes the U-Net and the attention in half the bits; set convolutions and the
            transport never. It saves memory and time on CUDA cards, and brings no speed on a CPU.
        compensate: undo the sensor's motion and leave the ground out where the pair knows them, as is done when the
            network is used.
        augment: ``none``; ``turn`` turns a pair about the vertical; ``all`` also mirrors it, and scales it by 0.9 to
            1.1.
        validate: pairs held out to measure the error, spread evenly over the data: a share below 1, else a number.
        validate_every: steps between two measurements of it; it is measured at the end in any case.
        checkpoint_every: steps that are lost, at most, when the training is killed.
        workers: threads that prepare the next batch while this one is learnt; 0 prepares it in between. More than one
            need a reader that may be asked from several threads at once.
    """

    epochs: int = 60
    steps: int = 0
    batch: int = 4
    points: int = 8192
    lr: float = 1e-3
    drop_at: float = 5 / 6
    drop_factor: float = 0.1
    clip: float = 0.0
    fsc_weight: float = 0.30
    fsc_from: float = 2 / 3
    fsc_clamp: bool = False
    fsc_neighbours: int = 32
    tau: float = 0.45
    consistency: Literal["fsc", "uniform"] = "fsc"
    precision: Literal["float32", "bfloat16"] = "float32"
    compensate: bool = True
    augment: Literal["none", "turn", "all"] = "none"
    validate: float = 0.0
    validate_every: int = 1000
    checkpoint_every: int = 100
    workers: int = 1

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                limit = f"at least {low:g}" if value < low else f"at most {high:g}"
                raise ConfigError(f"train.{name}: must be {limit}, got {value}")
        for name in ("lr", "tau"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"train.{name}: must be more than 0, got {value}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"train.{name}: '{getattr(self, name)}' is not one of {', '.join(known)}")
        if self.validate >= 1 and self.validate != int(self.validate):
            raise ConfigError(f"train.validate: {self.validate} is neither a share below 1 nor a whole number of pairs")
