# SPDX-License-Identifier: Apache-2.0
"""When what happens in a training: learning rate and checkpoints by step."""

from __future__ import annotations

from detection.training.config import TrainConfig

WARMUP_FROM = 1e-3


def lr_at(step: int, config: TrainConfig) -> float:
    """Linear warm-up from a thousandth, then the learning rate, a tenth of it after each drop."""
    lr = config.lr
    for part in config.drops:
        if step >= round(part * config.steps):
            lr *= 0.1
    warmup = min(config.warmup, config.steps // 2)
    if step < warmup:
        lr *= WARMUP_FROM + (1 - WARMUP_FROM) * step / warmup
    return lr


def checkpoints(config: TrainConfig) -> list[int]:
    """Numbers of steps after which the state is kept, ascending; the last is the whole training."""
    return [*range(config.checkpoint_every, config.steps, config.checkpoint_every), config.steps]
