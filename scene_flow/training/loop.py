# SPDX-License-Identifier: Apache-2.0
"""Training of a flow network: resumable to the same weights, alone or in several processes."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from scene_flow.networks.sctn import Sctn
from scene_flow.training.batches import Batch, Batches, Prepare
from scene_flow.training.config import TrainConfig
from scene_flow.training.objective import Loss, loss_of
from scene_flow.training.scenes import scene_as_known, scene_untouched
from scene_flow.training.schedule import Schedule
from scene_flow.training.state import Arrays, TrainState
from vision3d.contracts import FitContext, Reader
from vision3d.errors import UserError
from vision3d.nn.team import Team, join


class DivergedError(UserError, ArithmeticError):
    """The loss or its gradient is no number any more."""


def train_network(
    net: nn.Module, train: Reader, config: TrainConfig, context: FitContext, prepare: Prepare | None = None
) -> dict[str, Any]:
    """Train ``net`` in place on the pairs of ``train`` and leave it in eval mode.

    Killed and started again with the same arguments and cache, it goes on from the last checkpoint to the same weights,
    bit for bit on the same machine with the same number of threads. Under ``torchrun`` every process calls this with
    the same arguments; only process 0 uses ``context``.

    Args:
        net: (B, N, 3) and (B, M, 3) float32 metres in camera axes -> :class:`scene_flow.networks.output.FlowOutput`.
        prepare: pair and truth -> scene, where more is known of a pair than the pair itself knows (an estimated
            ground, say); by default ``config.compensate`` decides.

    Returns:
        facts, JSON-able: what was trained on, and the losses and held-out errors on the way. ``seconds`` and
        ``steps_per_second`` differ from run to run.

    Raises:
        UserError: fewer pairs than a step takes.
        DataError: pairs without truth.
        DivergedError: the loss is no number any more.
    """
    prepare = prepare or (scene_as_known if config.compensate else scene_untouched)
    with join(net) as team:
        log = context.log if team.is_main else _silent
        voxel_size_m = net.config.voxel_size_m if isinstance(net, Sctn) and net.config.features == "unet" else 0.0
        with Batches(train, config, context.seed, prepare, log, voxel_size_m, team.rank, team.size) as batches:
            return _Training(net, batches, config, context, team).run()


class _Training:
    """One training: the loop, its checkpoints and its record."""

    def __init__(self, net: nn.Module, batches: Batches, config: TrainConfig, context: FitContext, team: Team) -> None:
        self.net, self.batches, self.config, self.context, self.team = net, batches, config, context, team
        self.schedule = Schedule.plan(config, len(batches.training), team.size)
        self.state = TrainState(net, config.lr)
        self.model = net
        self._window: list[tuple[float, float]] = []
        self._coming: Iterator[Batch] = iter(())
        self._ticks: Iterator[int] = iter(())

    def run(self) -> dict[str, Any]:
        """Train up to the schedule's end and report."""
        if self.config.precision == "bfloat16" and self.team.device.type == "cpu":
            self._say("train.precision=bfloat16 brings no speed on a CPU; float32 is more exact")
        start = self._resume()
        total = self.schedule.total
        self.model = self.team.wrapped(self.net)
        self._coming = self.batches.steps(start, total)
        steps = range(start, total)
        self._ticks = self.context.progress(steps, len(steps), "training") if self.team.is_main else iter(steps)
        before = start
        try:
            for target in self.schedule.checkpoints():
                if target > start:
                    self._reach(target, before)
                    before = target
            next(self._ticks, None)  # the last step is done
        finally:
            _close(self._ticks)
        self.team.share_buffers(self.net)
        self.net.eval()
        return self._facts()

    def _resume(self) -> int:
        """The step of the last checkpoint, and the state that it holds, in every process."""
        if self.team.is_main:
            kept = [step for step in self.schedule.checkpoints() if self.context.has(_key(step))]
            if kept:
                self.state.restore(self.context.cached(_key(kept[-1]), _damaged))
                for step in kept[:-1]:
                    self.context.forget(_key(step))
                self._say(f"training goes on from step {self.state.step} of {self.schedule.total}")
        self.state.share(self.team)
        return self.state.step

    def _reach(self, target: int, before: int) -> None:
        """Train up to a checkpoint; it replaces the one before."""

        def make() -> Arrays:
            self._advance(target)
            return self.state.arrays()

        if not self.team.is_main:
            self._advance(target)
            return
        self.context.cached(_key(target), make)
        if before:
            self.context.forget(_key(before))
        self._say(self._progress_line())

    def _advance(self, target: int) -> None:
        began_s = time.perf_counter()
        while self.state.step < target:
            next(self._ticks)
            self._step(next(self._coming).to(self.team.device))
            if self._measures_now():
                self.state.validations.append((self.state.step, *self._validate()))
        self.state.losses.append((target, *np.mean(self._window, axis=0).tolist()))
        self._window = []
        self.state.seconds += time.perf_counter() - began_s

    def _step(self, batch: Batch) -> None:
        """One step of Adam on the batches of all processes together."""
        step, team = self.state.step, self.team
        _seed(self.context.seed, step, team.rank)
        self.model.train()
        for group in self.state.adam.param_groups:
            group["lr"] = self.schedule.lr_at(step)
        # Means over all processes' valid points: each process's mean counts by its share of them. Gradients are
        # averaged over processes, hence the factor.
        valid = float(batch.valid.sum())
        share = valid * team.size / max(team.total(valid)[0], 1.0)
        loss = self._loss(batch, step >= self.schedule.fsc_step)
        self.state.adam.zero_grad()
        (loss.total * share).backward()
        part = share / team.size
        sums = team.total(*(float(value.detach()) * part for value in loss))
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip or math.inf)
        if not (math.isfinite(sums[0]) and bool(torch.isfinite(norm))):
            raise DivergedError(
                f"training diverged at step {step}: loss {sums[0]:g}, gradient {float(norm):g} with "
                f"train.lr {self.schedule.lr_at(step):g}; lower --train.lr, or limit the gradient by --train.clip"
            )
        self.state.adam.step()
        self.state.step += 1
        self._window.append((sums[1], sums[2]))

    def _loss(self, batch: Batch, with_consistency: bool) -> Loss:
        with torch.autocast(self.team.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            output = self.model(batch.source, batch.target)
        return loss_of(output, batch, self.config, with_consistency)

    def _measures_now(self) -> bool:
        if not self.batches.held_out:
            return False
        return self.state.step % self.config.validate_every == 0 or self.state.step == self.schedule.total

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """EPE of the network and of zero flow, metres: mean over points, then over held-out pairs."""
        self.team.share_buffers(self.net)
        self.net.eval()
        sums = [0.0, 0.0, 0.0]
        for batch in self.batches.validation():
            source, target, flow, valid = batch.to(self.team.device)
            found = self.net(source, target).flow.float()
            known = valid.any(1)
            count = valid.sum(1).clamp_min(1)
            for k, error in enumerate((found - flow, flow)):
                per_pair = (error.norm(dim=-1) * valid).sum(1) / count
                sums[k] += float(per_pair[known].double().sum())
            sums[2] += int(known.sum())
        epe, zero, pairs = self.team.total(*sums)
        return epe / max(pairs, 1), zero / max(pairs, 1)

    def _progress_line(self) -> str:
        step, loss, consistency = self.state.losses[-1]
        line = f"step {step:.0f} of {self.schedule.total}: loss {loss:.4f} m"
        if consistency:
            line += f", consistency {consistency:.4f} m"
        if self.state.validations:
            at, epe, zero = self.state.validations[-1]
            line += f"; held-out EPE {epe:.4f} m at step {at:.0f} (zero flow {zero:.4f} m)"
        return line

    def _say(self, message: str) -> None:
        if self.team.is_main:
            self.context.log(message)

    def _facts(self) -> dict[str, Any]:
        state, config = self.state, self.config
        facts: dict[str, Any] = {
            "pairs": len(self.batches.training),
            "pairs_held_out": len(self.batches.held_out),
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "steps": state.step,
            "epochs": round(state.step / self.schedule.per_epoch, 3),
            "lr_drop_step": self.schedule.drop_step,
            "fsc_from_step": self.schedule.fsc_step,
            "batch": config.batch * self.team.size,
            "processes": self.team.size,
            "points": config.points,
            "precision": config.precision,
            "device": self.team.device.type,
            "seed": self.context.seed,
            "loss_m": state.losses[-1][1],
            "consistency_m": state.losses[-1][2],
            "losses": [list(row) for row in state.losses],
            "seconds": round(state.seconds, 3),
            "steps_per_second": round(state.step / max(state.seconds, 1e-9), 3),
        }
        if state.validations:
            _, facts["held_out_epe3d_m"], facts["held_out_zero_flow_epe3d_m"] = state.validations[-1]
            facts["validations"] = [list(row) for row in state.validations]
        return facts


def _key(step: int) -> str:
    return f"training step {step:06d}"


def _close(ticks: Iterator[int]) -> None:
    """Take the progress bar away, also where the training broke off: what went wrong is printed below it."""
    if isinstance(ticks, Generator):
        ticks.close()


def _damaged() -> Arrays:
    raise UserError("the checkpoint of this training cannot be read; --overwrite starts it anew")


def _seed(seed: int, step: int, rank: int) -> None:
    """For networks that draw numbers themselves: a step's are the same whether or not the run was interrupted."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))


def _silent(_: str) -> None:
    """Only process 0 speaks."""
