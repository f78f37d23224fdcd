# SPDX-License-Identifier: Apache-2.0
"""The training loop: the same weights however often it was interrupted, and what a user is told."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_context import Context

from detection.training.config import TrainConfig
from detection.training.loop import DivergedError, choose_device, to_device, train
from detection.training.schedule import checkpoints, lr_at
from vision3d.errors import ConfigError


class Line(nn.Module):
    """w x + b, with a batch norm's statistics as state that no gradient changes."""

    progress: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.norm = nn.BatchNorm1d(1)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + 0.1 * self.norm(x) + 0.01 * torch.randn(len(x), 1)


class LineTask:
    """Learns y = 3 x + 1. From half of the run a second term joins."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net: Any = Line()
        self.progresses: list[float] = []

    def batch(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        x = torch.from_numpy(rng.random((16, 1)).astype(np.float32))
        return {"x": x, "y": 3 * x + 1}

    def losses(self, batch: dict[str, Tensor], step: int, steps: int) -> dict[str, Tensor]:
        self.progresses.append(float(self.net.progress))
        error = (self.net(batch["x"]) - batch["y"]).square().mean()
        return {"error": error, **({"late": 0.1 * error} if step >= steps // 2 else {})}


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"steps": 60, "lr": 0.05, "warmup": 5, "checkpoint_every": 20, "drops": (0.8,), **changes})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_an_interrupted_training_ends_with_the_same_weights(
    optimizer: Literal["sgd", "adamw"], stop_after: int
) -> None:
    whole = LineTask()
    facts = train(whole, config(optimizer=optimizer), Context(7), "line")
    assert facts["losses"][-1][1] < 0.2 * facts["losses"][0][1]
    assert not whole.net.training

    store: dict[str, Any] = {}
    seen = set()

    class Forgetful(Context):
        """Stops in the middle of the stage after some; what is forgotten counts as made."""

        def cached(self, key: str, make: Any) -> Any:
            if key not in self.store and len(seen) >= stop_after:
                make()
                raise KeyboardInterrupt
            seen.add(key)
            return super().cached(key, make)

    with pytest.raises(KeyboardInterrupt):
        train(LineTask(), config(optimizer=optimizer), Forgetful(7, store), "line")
    context = Context(7, store)
    resumed = LineTask()
    again = train(resumed, config(optimizer=optimizer), context, "line")
    assert any("goes on from step" in line for line in context.lines)
    assert again == facts
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name
    assert list(store) == ["line step 0000060"]


def test_another_seed_gives_other_weights() -> None:
    found = []
    for seed in (0, 0, 1):
        task = LineTask()
        train(task, config(), Context(seed), "line")
        found.append(task.net.linear.weight.item())
    assert found[0] == found[1] != found[2]


def test_the_progress_buffer_is_the_part_that_is_done() -> None:
    task = LineTask()
    train(task, config(steps=4, warmup=0), Context(), "line")
    assert task.progresses == [0.0, 0.25, 0.5, 0.75]


def test_terms_that_come_late_are_recorded() -> None:
    facts = train(LineTask(), config(steps=40), Context(), "line")
    assert facts["loss_terms"] == ["error", "late"]
    assert [len(row) for row in facts["losses"]] == [3, 3]
    assert facts["losses"][0][2] == 0.0 < facts["losses"][1][2]


def test_a_diverging_training_says_where() -> None:
    class Exploding(LineTask):
        def losses(self, batch: dict[str, Tensor], step: int, steps: int) -> dict[str, Tensor]:
            return {"error": super().losses(batch, step, steps)["error"] * (float("nan") if step == 3 else 1.0)}

    with pytest.raises(DivergedError, match=r"line diverged at step 3 \(error nan.*lower the learning rate"):
        train(Exploding(), config(), Context(), "line")


def test_schedule() -> None:
    schedule = config(steps=100, warmup=10, drops=(0.5, 0.9), lr=1.0)
    assert [round(lr_at(s, schedule), 4) for s in (0, 5, 10, 49, 50, 89, 90, 99)] == [
        0.001, 0.5005, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01,
    ]  # fmt: skip
    assert checkpoints(config(steps=50, checkpoint_every=20)) == [20, 40, 50]
    assert checkpoints(config(steps=10, checkpoint_every=20)) == [10]
    # A run shorter than its warm-up still reaches the full rate half-way.
    assert lr_at(5, config(steps=10, warmup=100, drops=(), lr=1.0)) == 1.0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"steps": -1}, "train.steps is -1"),
        ({"drops": (0.9, 0.5)}, "train.drops"),
        ({"drops": (0.0,)}, "train.drops"),
        ({"crop": 8}, "train.crop is 8"),
    ],
)
def test_bad_options(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config(**changes)


def test_no_gpu_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="sees no GPU"):
        choose_device("cuda")


def test_to_device_walks_through_containers() -> None:
    tensor = torch.zeros(2)
    moved = to_device({"a": [tensor, (tensor, "text")], "b": 3}, torch.device("meta"))
    assert moved["a"][0].device.type == "meta"
    assert moved["a"][1][0].device.type == "meta"
    assert moved["a"][1][1] == "text"
    assert moved["b"] == 3


def test_no_steps_leave_the_network_as_it_is() -> None:
    task = LineTask()
    before = {name: value.clone() for name, value in task.net.state_dict().items()}
    facts = train(task, config(steps=0), Context(), "line")
    assert facts["steps"] == 0
    assert all(torch.equal(value, before[name]) for name, value in task.net.state_dict().items())
