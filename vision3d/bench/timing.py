# SPDX-License-Identifier: Apache-2.0
"""Times that can be compared: cases take turns with the limit in one process, and ratios are formed turn by turn.

One thread is measured in processor time, which other processes cannot lengthen (they still share the caches); several
threads are measured by the clock on the wall.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

MM_SIZE = 1024
MM_FLOPS = 2.0 * MM_SIZE**3


@dataclass(frozen=True)
class Timing:
    """One case.

    Attributes:
        median_ms: of all turns.
        best_ms: the fastest turn.
        share: (useful flops / median time) / (the same of torch.mm in these turns); None without arithmetic.
        n: turns.
    """

    median_ms: float
    best_ms: float
    share: float | None
    n: int


@dataclass(frozen=True)
class Case:
    """Something to time: ``run``, and its useful flops (0: none to speak of)."""

    run: Callable[[], object]
    flops: float = 0.0


class MatrixProduct:
    """The limit: ``torch.mm`` of two 1024 x 1024 float32 matrices."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._a = torch.randn(MM_SIZE, MM_SIZE, generator=generator)
        self._b = torch.randn(MM_SIZE, MM_SIZE, generator=generator)
        self._out = torch.empty(MM_SIZE, MM_SIZE)

    def __call__(self) -> None:
        torch.mm(self._a, self._b, out=self._out)


def take_turns(cases: Mapping[str, Case], threads: int, turns: int) -> dict[str, Timing]:
    """Time every case ``turns`` times, each time after the limit; the first turn is not counted.

    The limit runs twice and its second time counts: the case before has emptied the caches, and a limit measured
    cold would flatter everything beside it.

    Args:
        cases: by name.
        threads: for torch, and so for every backend.
        turns: at least 1.
    """
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    limit = MatrixProduct()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for turn in range(turns + 1):
        for name, case in cases.items():
            limit_s = 0.0
            if case.flops:
                limit()
                limit_s = _seconds(limit, clock)
            case_s = _seconds(case.run, clock)
            if turn:
                seconds[name].append((limit_s, case_s))
    return {name: _timing(seconds[name], case.flops) for name, case in cases.items()}


def _timing(pairs: list[tuple[float, float]], flops: float) -> Timing:
    times = [case_s for _, case_s in pairs]
    limit_s = statistics.median(mm_s for mm_s, _ in pairs)
    share = (flops / statistics.median(times)) / (MM_FLOPS / limit_s) if flops else None
    return Timing(1e3 * statistics.median(times), 1e3 * min(times), share, len(pairs))


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    result = run()
    elapsed = clock() - start
    del result
    return max(elapsed, 1e-9)
