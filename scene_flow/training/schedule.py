# SPDX-License-Identifier: Apache-2.0
"""When what happens in a training: how many steps, where checkpoints lie, where loss and learning rate change."""

from __future__ import annotations

from dataclasses import dataclass

from scene_flow.training.config import TrainConfig
from vision3d.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Steps count from 0: step s is the one that turns the state after s steps into that after s + 1.

    Attributes:
        total: steps of the whole training.
        per_epoch: steps of a pass over the pairs; the pairs of an incomplete last batch sit that pass out.
        drop_step: first step with the lower learning rate.
        fsc_step: first step with the consistency loss.
        checkpoint_every: steps between checkpoints.
        lr, low_lr: learning rates before and from ``drop_step``.
    """

    total: int
    per_epoch: int
    drop_step: int
    fsc_step: int
    checkpoint_every: int
    lr: float
    low_lr: float

    @classmethod
    def plan(cls, config: TrainConfig, pairs: int, processes: int = 1) -> Schedule:
        """The schedule for so many training pairs.

        Raises:
            UserError: there are fewer pairs than one step takes.
        """
        taken = config.batch * processes
        if pairs < taken:
            each = f"{config.batch} in each of {processes} processes" if processes > 1 else f"{config.batch}"
            raise UserError(
                f"{pairs} pairs to train on, but a step takes {each}; lower --train.batch or give more pairs"
            )
        per_epoch = pairs // taken
        total = config.steps or config.epochs * per_epoch
        return cls(
            total,
            per_epoch,
            _inside(config.drop_at, total),
            _inside(config.fsc_from, total),
            config.checkpoint_every,
            config.lr,
            config.lr * config.drop_factor,
        )

    def lr_at(self, step: int) -> float:
        """The learning rate of a step."""
        return self.lr if step < self.drop_step else self.low_lr

    def checkpoints(self) -> list[int]:
        """Numbers of steps after which the state is kept, ascending; the last is ``total``."""
        return [*range(self.checkpoint_every, self.total, self.checkpoint_every), self.total]


def _inside(part: float, total: int) -> int:
    """The step at a part of the run. A part below 1 is always within: what is to change late in a run does change."""
    step = round(part * total)
    return min(step, total - 1) if part < 1 else total
