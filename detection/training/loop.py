# SPDX-License-Identifier: Apache-2.0
"""The training loop of every network in oriented detection: resumable to the same weights, alone or under torchrun."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from detection.training.config import TrainConfig
from detection.training.schedule import checkpoints, lr_at
from detection.training.state import Arrays, TrainState
from detection.training.task import Task
from vision3d.contracts import FitContext
from vision3d.errors import ConfigError, UserError
from vision3d.nn.team import Team, join

T = TypeVar("T")


class DivergedError(UserError, ArithmeticError):
    """The loss or its gradient is no number any more."""


def train(task: Task, config: TrainConfig, context: FitContext, label: str) -> dict[str, Any]:
    """Train ``task.net`` in place and leave it in eval mode, on the CPU.

    Killed and started again with the same arguments and cache, it goes on from the last checkpoint to the same weights,
    bit for bit on the same machine with the same number of threads. Under ``torchrun`` every process calls this with
    the same arguments and draws crops of its own; gradients are averaged, and only process 0 uses ``context``.

    Args:
        label: of this training among those that share the context; also what the progress bar says.

    Returns:
        facts, JSON-able: steps, parameters, device and the means of the loss's terms on the way.

    Raises:
        ConfigError: a GPU is asked for and there is none.
        DivergedError: the loss is no number any more.
    """
    task.net.to(choose_device(config.device))
    with join(task.net) as team:
        facts = _Training(task, config, context, label, team).run()
    task.net.to("cpu").eval()
    return facts


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: there is no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is cuda, but torch sees no GPU here; use auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def to_device(value: T, device: torch.device) -> T:
    """``value`` with every tensor in it on the device; lists, tuples, named tuples and dicts are walked through."""
    found: Any = value
    if isinstance(value, Tensor):
        found = value.to(device)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        found = type(value)(*(to_device(item, device) for item in value))
    elif isinstance(value, (list, tuple)):
        found = type(value)(to_device(item, device) for item in value)
    elif isinstance(value, dict):
        found = {key: to_device(item, device) for key, item in value.items()}
    return cast(T, found)


class _Training:
    """One training: the loop, its checkpoints and its record."""

    def __init__(self, task: Task, config: TrainConfig, context: FitContext, label: str, team: Team) -> None:
        self.task, self.config, self.context, self.label, self.team = task, config, context, label, team
        self.state = TrainState(task.net, config)
        self._window: list[Mapping[str, float]] = []
        self._ticks: Iterator[int] = iter(())

    def run(self) -> dict[str, Any]:
        start = self._resume()
        steps = range(start, self.config.steps)
        self._ticks = self.context.progress(steps, len(steps), self.label) if self.team.is_main else iter(steps)
        before = start
        try:
            for target in checkpoints(self.config):
                if target > start:
                    self._reach(target, before)
                    before = target
            next(self._ticks, None)  # the last step is done
        finally:
            if isinstance(self._ticks, Generator):
                self._ticks.close()  # the bar goes away, also where the training broke off
        self.team.share_buffers(self.task.net)
        return self._facts()

    def _resume(self) -> int:
        """The step of the last checkpoint, and the state that it holds, in every process."""
        if self.team.is_main:
            kept = [step for step in checkpoints(self.config) if self.context.has(self._key(step))]
            if kept:
                self.state.restore(self.context.cached(self._key(kept[-1]), _damaged))
                for step in kept[:-1]:
                    self.context.forget(self._key(step))
                if self.state.step < self.config.steps:
                    self.context.log(f"{self.label} goes on from step {self.state.step} of {self.config.steps}")
        self.state.share(self.team)
        return self.state.step

    def _reach(self, target: int, before: int) -> None:
        """Train up to a checkpoint; it replaces the one before."""

        def make() -> Arrays:
            while self.state.step < target:
                next(self._ticks)
                self._step()
            self.state.record(self._window)
            self._window = []
            return self.state.arrays()

        if not self.team.is_main:
            make()
            return
        self.context.cached(self._key(target), make)
        if before:
            self.context.forget(self._key(before))
        self.context.log(self._line())

    def _step(self) -> None:
        step, net = self.state.step, self.task.net
        stream = np.random.SeedSequence([self.context.seed, step, self.team.rank])
        rng = np.random.default_rng(stream)
        torch.manual_seed(int(stream.generate_state(1)[0]))
        net.train()
        progress = net.state_dict(keep_vars=True).get("progress")
        if progress is not None:
            progress.fill_(step / self.config.steps)
        for group in self.state.optimizer.param_groups:
            group["lr"] = lr_at(step, self.config)
        batch = to_device(self.task.batch(step, rng), self.team.device)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._autocasts()):
            terms = self.task.losses(batch, step, self.config.steps)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        self.state.optimizer.zero_grad()
        if total.requires_grad:
            total.backward()
        self.team.average_gradients(net)
        norm = nn.utils.clip_grad_norm_(
            [p for p in net.parameters() if p.grad is not None], self.config.clip or math.inf
        )
        if not (bool(torch.isfinite(total)) and bool(torch.isfinite(norm))):
            named = ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
            raise DivergedError(
                f"{self.label} diverged at step {step} ({named}; gradient {float(norm):g}) with "
                f"train.lr {lr_at(step, self.config):g}; lower the learning rate"
            )
        self.state.optimizer.step()
        self.team.share_buffers(net)
        self.state.step += 1
        self._window.append({name: float(term.detach()) for name, term in terms.items()})

    def _autocasts(self) -> bool:
        return self.config.precision == "bfloat16" and self.team.device.type == "cuda"

    def _key(self, step: int) -> str:
        return f"{self.label} step {step:07d}"

    def _line(self) -> str:
        step, *means = self.state.losses[-1]
        terms = ", ".join(f"{name} {mean:.3f}" for name, mean in zip(self.state.terms, means))
        return f"{self.label}: step {step:.0f} of {self.config.steps}: {terms}"

    def _facts(self) -> dict[str, Any]:
        width = 1 + len(self.state.terms)
        return {
            "steps": self.state.step,
            "parameters": sum(p.numel() for p in self.task.net.parameters()),
            "batch": self.config.batch * self.team.size,
            "crop": self.config.crop,
            "processes": self.team.size,
            "device": self.team.device.type,
            "seed": self.context.seed,
            "loss_terms": list(self.state.terms),
            "losses": [row + [0.0] * (width - len(row)) for row in self.state.losses],
        }


def _damaged() -> Arrays:
    raise UserError("the checkpoint of this training cannot be read; --overwrite starts it anew")
