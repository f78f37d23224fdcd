# SPDX-License-Identifier: Apache-2.0
"""Batches of pairs, the same for the same seed and step whenever and by whichever process they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scene_flow.training.config import TrainConfig
from scene_flow.training.scenes import Scene, draw
from vision3d.contracts import Reader
from vision3d.errors import DataError
from vision3d.types import CloudPair, FlowTruth

Prepare = Callable[[CloudPair, FlowTruth], Scene]

# What the random numbers are for: they keep the streams of one seed apart.
_ORDER, _POINTS, _HELD_OUT = 1, 2, 3


class Batch(NamedTuple):
    """B pairs of P points each, camera axes, metres.

    Attributes:
        source, target: (B, P, 3) float32.
        flow: (B, P, 3) float32, zero where it is not known.
        valid: (B, P) bool, where it is.
    """

    source: Tensor
    target: Tensor
    flow: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(*(part.to(device) for part in self))


class _Job(NamedTuple):
    """One pair of a batch: its position in the reader, and the key of its random numbers."""

    position: int
    key: tuple[int, ...]
    augment: str


def held_out(pairs: int, validate: float) -> list[int]:
    """Positions of the pairs to measure on, spread evenly (SCTN's recipe: 2000 of 19640); a share below 1 or a number.

    One pair at least is left to train on.
    """
    if validate <= 0 or pairs < 2:
        return []
    count = round(validate * pairs) if validate < 1 else int(validate)
    count = min(max(count, 1), pairs - 1)
    return sorted(set(np.linspace(0, pairs - 1, count).round().astype(int).tolist()))


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, pairs: int) -> tuple[int, ...]:
    """The order in which an epoch visits the pairs."""
    return tuple(np.random.default_rng([seed, _ORDER, epoch]).permutation(pairs).tolist())


class Batches:
    """Makes batches from a reader, one ahead of its use. A context manager: it owns threads.

    Args:
        prepare: pair and truth -> scene.
        log: gets one line per kind of oddity.
        voxel_size_m: edge of the network's voxels, of which it needs 32 filled in either cloud; 0 where it has none.
        rank, size: of this process among those that share each step: it gets ``config.batch`` pairs of the
            ``config.batch * size`` of a step.
    """

    def __init__(
        self,
        reader: Reader,
        config: TrainConfig,
        seed: int,
        prepare: Prepare,
        log: Callable[[str], None],
        voxel_size_m: float = 0.0,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        self.reader, self.config, self.seed = reader, config, seed
        self.prepare, self.log, self.voxel_size_m = prepare, log, voxel_size_m
        self.rank, self.size = rank, size
        self.held_out = held_out(len(reader), config.validate)
        self._out = set(self.held_out)
        self.training = [i for i in range(len(reader)) if i not in self._out]
        self._pool = ThreadPoolExecutor(config.workers) if config.workers else None
        self._remarks: dict[str, str] = {}  # by kind; threads add, the main thread says each kind once
        self._said: set[str] = set()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def steps(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's batches for the steps from ``start`` up to ``stop``."""
        return self._one_ahead(self._jobs_of(step) for step in range(start, stop))

    def validation(self) -> Iterator[Batch]:
        """This process's share of the held-out pairs, the same points each time; the last batch may be smaller."""
        mine = self.held_out[self.rank :: self.size]
        jobs = [_Job(i, (self.seed, _HELD_OUT, i), "none") for i in mine]
        return self._one_ahead(jobs[i : i + self.config.batch] for i in range(0, len(jobs), self.config.batch))

    def _jobs_of(self, step: int) -> list[_Job]:
        taken = self.config.batch * self.size
        epoch, within = divmod(step, len(self.training) // taken)
        first = within * taken + self.rank * self.config.batch
        order = epoch_order(self.seed, epoch, len(self.training))
        positions = [self.training[i] for i in order[first : first + self.config.batch]]
        return [_Job(i, (self.seed, _POINTS, epoch, i), self.config.augment) for i in positions]

    def _one_ahead(self, batches: Iterable[Sequence[_Job]]) -> Iterator[Batch]:
        if self._pool is None:
            for jobs in batches:
                yield self._collated([self._drawn(job) for job in jobs])
            return
        waiting: list[Future[Scene]] | None = None
        for jobs in batches:
            coming = [self._pool.submit(self._drawn, job) for job in jobs]
            if waiting is not None:
                yield self._collated([future.result() for future in waiting])
            waiting = coming
        if waiting is not None:
            yield self._collated([future.result() for future in waiting])

    def _collated(self, scenes: Sequence[Scene]) -> Batch:
        for kind, text in list(self._remarks.items()):
            if kind not in self._said:
                self._said.add(kind)
                self.log(text)
        columns = zip(*((scene.source, scene.target, scene.flow, scene.valid) for scene in scenes))
        return Batch(*(torch.from_numpy(np.stack(column)) for column in columns))

    def _drawn(self, job: _Job) -> Scene:
        """What is drawn from the scene of a job, or from the next one in which there is something to learn.

        Raises:
            DataError: a pair has no truth, or there is nothing to learn in any of them.
        """
        count = len(self.reader)
        for at in (*range(job.position, count), *range(job.position)):
            if (at in self._out) != (job.position in self._out):
                continue
            scene = self._scene(at)
            if not scene.usable:
                self._replaces(at, "has too few points to learn from once ground and bad points are left out")
                continue
            few = min(len(scene.source), len(scene.target))
            drawn = draw(scene, self.config.points, np.random.default_rng(job.key), job.augment)
            if self.voxel_size_m and not drawn.fills_voxels(self.voxel_size_m):
                self._replaces(at, f"fills fewer than 32 voxels of {self.voxel_size_m:g} m")
                continue
            if few < self.config.points:
                self._remarks.setdefault(
                    "few",
                    f"{self.reader.key(at)} has {few} points, fewer than the {self.config.points} that are drawn: "
                    "some are repeated, here and in other such pairs",
                )
            return drawn
        raise DataError(self.reader.name, "no pair has enough points whose true flow is known")

    def _scene(self, position: int) -> Scene:
        truth = self.reader.truth(position)
        if truth is None:
            raise DataError(self.reader.key(position), "has no true flow; a network learns from pairs that have")
        return self.prepare(self.reader[position], truth)

    def _replaces(self, position: int, why: str) -> None:
        text = f"{self.reader.key(position)} {why}: the next pair takes its place, here and in other such cases"
        self._remarks.setdefault(why, text)
