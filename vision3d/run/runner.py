# SPDX-License-Identifier: Apache-2.0
"""The loop over samples: read once, step every method, store, tell the hooks."""

from __future__ import annotations

import dataclasses
import functools
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision3d.contracts import Pipeline, Reader
from vision3d.errors import DataError, UserError
from vision3d.run.console import Console
from vision3d.run.environment import set_seed
from vision3d.run.hooks import Event, Hook
from vision3d.run.memory import PeakMemory
from vision3d.run.store import ResultStore


@dataclass
class Lane:
    """One method on its way through the samples."""

    method: str
    pipeline: Pipeline
    store: ResultStore


@dataclass(frozen=True)
class Policy:
    """What to do when something goes wrong, the seed, and whether pictures may look at the truth."""

    seed: int = 0
    strict: bool = False
    skip_bad: bool = False
    show_truth: bool = False


def open_lanes(folder: Path, pipeline: Pipeline, baselines: Mapping[str, Pipeline], reader: Reader) -> list[Lane]:
    """The pipeline's lane and those of its baselines, each continuing where its file ends."""
    lanes = [Lane("", pipeline, ResultStore(folder, pipeline.result_type, reader))]
    for name, baseline in baselines.items():
        lanes.append(Lane(name, baseline, ResultStore(folder / "baselines" / name, baseline.result_type, reader)))
    return lanes


def run_samples(
    lanes: Sequence[Lane], model: Any, reader: Reader, policy: Policy, hooks: Sequence[Hook], console: Console
) -> None:
    """Fill every lane's store. Samples whose results are all there are not even read.

    Raises:
        UserError: a sample cannot be read and ``skip_bad`` is off; the watchdog; a user's mistake found in a step.
        Exception: whatever a step raises, under ``strict``.
    """
    reported: set[str] = set()
    for index in range(len(reader)):
        open_lanes_now = [lane for lane in lanes if len(lane.store) <= index]
        if open_lanes_now:
            name = reader.key(index)
            sample, read_ms, problem = _read(reader, index, lanes[0].pipeline, policy)
            for lane in open_lanes_now:
                truth = functools.partial(reader.truth, index) if policy.show_truth else _no_truth
                result, timing_ms, peak_mb = _result(
                    lane, model, sample, name, problem, policy, console, reported, truth
                )
                event = Event(index, len(reader), name, lane.method, lane.pipeline, model, sample, result, truth)
                for hook in hooks:
                    hook.before(event)
                lane.store.append(result, {"read": read_ms, **timing_ms}, peak_mb)
                for hook in hooks:
                    hook.after(event)
        for hook in hooks:
            hook.sample_done()


def _no_truth() -> None:
    return None


def _read(reader: Reader, index: int, pipeline: Pipeline, policy: Policy) -> tuple[Any | None, float, str]:
    """(sample, milliseconds, "") or (None, milliseconds, why it cannot be read or used)."""
    start_s = time.perf_counter()
    if index in reader.bad:
        sample, problem = None, reader.bad[index]
    else:
        try:
            sample, problem = reader[index], ""
            if hasattr(pipeline, "check"):
                pipeline.check(sample)
        except DataError as error:
            sample, problem = None, str(error)
    if problem and not policy.skip_bad:
        raise UserError(f"{problem}; --skip-bad counts what is bad and goes on")
    return sample, (time.perf_counter() - start_s) * 1e3, problem


def _result(
    lane: Lane,
    model: Any,
    sample: Any | None,
    name: str,
    problem: str,
    policy: Policy,
    console: Console,
    reported: set[str],
    truth: Callable[[], Any | None],
) -> tuple[Any, dict[str, float], float | None]:
    """(result, milliseconds by stage, megabytes that the step needed at most, where that can be measured)."""
    if problem:
        console.note(f"unreadable sample {name}: {problem}")
        return _failure(lane, name, problem, "bad_input"), {}, None
    previous = lane.store.previous
    set_seed(policy.seed, name)
    memory = PeakMemory()
    memory.start()
    start_s = time.perf_counter()
    try:
        if getattr(lane.pipeline, "sees_truth", False):
            pipeline: Any = lane.pipeline  # an optional form of the protocol
            result = pipeline.step(model, sample, previous, truth=truth())
        else:
            result = lane.pipeline.step(model, sample, previous)
    except Exception as error:
        # A mistake of the user's (a missing extra, say) would fail every sample alike; a DataError is this one's.
        if policy.strict or (isinstance(error, UserError) and not isinstance(error, DataError)):
            raise
        first_line = (str(error).strip().splitlines() or [""])[0]
        reason = f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
        if type(error).__name__ not in reported:
            reported.add(type(error).__name__)
            where = traceback.extract_tb(error.__traceback__)[-1]
            label = f" of {lane.method}" if lane.method else ""
            console.warn(
                f"step{label} failed on {name}: {reason} (in {Path(where.filename).name}:{where.lineno}; "
                "counted as a failure, later ones alike are not repeated here; --strict stops instead)"
            )
        timing_ms = {"total": (time.perf_counter() - start_s) * 1e3}
        return _failure(lane, name, reason, "failed"), timing_ms, memory.stop_mb()
    total_ms = (time.perf_counter() - start_s) * 1e3
    return result, {**getattr(result, "timing_ms", {}), "total": total_ms}, memory.stop_mb()


def _failure(lane: Lane, name: str, reason: str, status: str) -> Any:
    """The pipeline's result for a failure; which kind of failure it was, the runner knows best."""
    result = lane.pipeline.failure(name, reason)
    if dataclasses.is_dataclass(result) and hasattr(result, "status"):
        return dataclasses.replace(result, status=status)  # type: ignore[type-var]
    return result
