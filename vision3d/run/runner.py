# SPDX-License-Identifier: Apache-2.0
"""The loop over samples: read once, step every method, store, tell the hooks."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision3d.contracts import Pipeline, Reader
from vision3d.errors import DataError, UserError
from vision3d.run.console import Console
from vision3d.run.environment import set_seed
from vision3d.run.hooks import Event, Hook
from vision3d.run.store import ResultStore


@dataclass
class Lane:
    """One method on its way through the samples."""

    method: str
    pipeline: Pipeline
    store: ResultStore


@dataclass(frozen=True)
class Policy:
    """What to do when something goes wrong, and the seed."""

    seed: int = 0
    strict: bool = False
    skip_bad: bool = False


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
            sample, read_ms, problem = _read(reader, index, policy)
            for lane in open_lanes_now:
                result, timing_ms = _result(lane, model, sample, name, problem, policy, console, reported)
                event = Event(index, len(reader), name, lane.method, lane.pipeline, model, sample, result)
                for hook in hooks:
                    hook.before(event)
                lane.store.append(result, {"read": read_ms, **timing_ms})
                for hook in hooks:
                    hook.after(event)
        for hook in hooks:
            hook.sample_done()


def _read(reader: Reader, index: int, policy: Policy) -> tuple[Any | None, float, str]:
    """(sample, milliseconds, "") or (None, milliseconds, why it cannot be read)."""
    start_s = time.perf_counter()
    if index in reader.bad:
        sample, problem = None, reader.bad[index]
    else:
        try:
            sample, problem = reader[index], ""
        except DataError as error:
            sample, problem = None, str(error)
    if problem and not policy.skip_bad:
        raise UserError(f"{problem}; --skip-bad counts such samples as failures and goes on")
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
) -> tuple[Any, dict[str, float]]:
    if problem:
        console.note(f"unreadable sample {name}: {problem}")
        return _failure(lane, name, problem, "bad_input"), {}
    previous = lane.store.results[-1] if lane.store.results else None
    set_seed(policy.seed, name)
    start_s = time.perf_counter()
    try:
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
        return _failure(lane, name, reason, "failed"), {"total": (time.perf_counter() - start_s) * 1e3}
    total_ms = (time.perf_counter() - start_s) * 1e3
    return result, {**getattr(result, "timing_ms", {}), "total": total_ms}


def _failure(lane: Lane, name: str, reason: str, status: str) -> Any:
    """The pipeline's result for a failure; which kind of failure it was, the runner knows best."""
    result = lane.pipeline.failure(name, reason)
    if dataclasses.is_dataclass(result) and hasattr(result, "status"):
        return dataclasses.replace(result, status=status)  # type: ignore[type-var]
    return result
