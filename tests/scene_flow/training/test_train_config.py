# SPDX-License-Identifier: Apache-2.0
"""The options of training and the schedule that follows from them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scene_flow.training.config import TrainConfig
from scene_flow.training.schedule import Schedule
from vision3d.errors import ConfigError, UserError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("steps", -1),
        ("batch", 0),
        ("points", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("tau", 0.0),
        ("drop_at", 1.1),
        ("fsc_from", -0.1),
        ("fsc_weight", -1.0),
        ("fsc_weight", float("nan")),
        ("fsc_neighbours", 1),
        ("clip", -1.0),
        ("validate", -1.0),
        ("validate", 2.5),
        ("checkpoint_every", 0),
        ("workers", -1),
        ("precision", "float16"),
        ("consistency", "smooth"),
        ("augment", "mirror"),
    ],
)
def test_values_out_of_range_are_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^train\.{field}: .*{value}"):
        TrainConfig(**{field: value})  # type: ignore[arg-type]


def test_options_load_without_torch() -> None:
    code = "import sys, scene_flow.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_default_is_the_papers_schedule() -> None:
    """Card: 60 epochs, consistency from epoch 40, learning rate down from epoch 50, last incomplete batch dropped."""
    plan = Schedule.plan(TrainConfig(), pairs=17_640)
    assert plan.per_epoch == 4410
    assert plan.total == 60 * 4410
    assert plan.fsc_step == 40 * 4410
    assert plan.drop_step == 50 * 4410
    assert plan.lr_at(50 * 4410 - 1) == 1e-3
    assert plan.lr_at(50 * 4410) == pytest.approx(1e-4)
    assert Schedule.plan(TrainConfig(), pairs=17_643).total == plan.total
    assert Schedule.plan(TrainConfig(), pairs=17_640, processes=5).per_epoch == 882


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
def test_what_is_to_change_changes_within_the_run(steps: int) -> None:
    plan = Schedule.plan(TrainConfig(steps=steps), pairs=4)
    assert plan.total == steps
    assert plan.fsc_step <= plan.drop_step < steps
    never = Schedule.plan(TrainConfig(steps=steps, drop_at=1, fsc_from=1), pairs=4)
    assert never.fsc_step == never.drop_step == steps


def test_checkpoints_end_with_the_run() -> None:
    config = TrainConfig(steps=10, checkpoint_every=4)
    assert Schedule.plan(config, 4).checkpoints() == [4, 8, 10]
    assert Schedule.plan(TrainConfig(steps=8, checkpoint_every=4), 4).checkpoints() == [4, 8]
    assert Schedule.plan(TrainConfig(steps=3, checkpoint_every=4), 4).checkpoints() == [3]


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(UserError, match=r"3 pairs to train on, but a step takes 4; lower --train\.batch"):
        Schedule.plan(TrainConfig(), pairs=3)
    with pytest.raises(UserError, match="7 pairs to train on, but a step takes 4 in each of 2 processes"):
        Schedule.plan(TrainConfig(), pairs=7, processes=2)
