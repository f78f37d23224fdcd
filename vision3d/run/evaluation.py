# SPDX-License-Identifier: Apache-2.0
"""``run`` and ``eval``: from opened data and a model to a complete run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vision3d.contracts import Pipeline, Reader
from vision3d.errors import DataError, UserError
from vision3d.run.config import FullConfig
from vision3d.run.console import Console
from vision3d.run.data import Subset, data_identity
from vision3d.run.environment import set_seed, set_threads
from vision3d.run.files import folder_digest, read_json, write_json
from vision3d.run.folder import RunFolder, slug
from vision3d.run.hooks import Checkpoint, Hook, Pictures, Progress, Watchdog
from vision3d.run.modelfolder import VOLATILE
from vision3d.run.runner import Lane, Policy, open_lanes, run_samples
from vision3d.run.store import copy_results
from vision3d.run.summary import method_summary, run_summary, timing_summary
from vision3d.run.truths import KeptTruths, lazy_truths


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        folder: of the run.
        metrics, timing: what metrics.json and timing.json hold.
        exhibit: what the pipeline has to show, for the report; None when it could not say.
    """

    folder: Path
    metrics: dict[str, Any]
    timing: dict[str, Any]
    exhibit: Any | None


@dataclass(frozen=True)
class Later:
    """An evaluation that repeats another one with another seed.

    Attributes:
        first: folder of the complete run that it repeats; results that no seed changes are copied from there.
        folder: where this one goes, inside the first's.
    """

    first: Path
    folder: Path


@dataclass(frozen=True)
class Evaluation:
    """One ``run`` (results only) or ``eval`` (results against truth).

    Attributes:
        reader: the samples, unusable ones included.
        model: the model's folder or file of weights; None for a pipeline that needs none.
        baselines: whether the pipeline's baselines step the same samples.
        resume: an unfinished run folder of the same command.
        command: as typed, for the record.
        later: set for a repetition with another seed; it shows nothing and is taken up by itself where it was left.
    """

    verb: Literal["run", "eval"]
    pipeline: Pipeline
    config: FullConfig
    reader: Reader
    model: Path | None
    console: Console
    baselines: bool = False
    resume: Path | None = None
    command: str = ""
    reader_name: str = ""
    skipped: list[dict[str, str]] = field(default_factory=list)
    later: Later | None = None

    def execute(self) -> Outcome:
        """Run what is missing, then score what is stored.

        Raises:
            UserError: see :func:`vision3d.run.runner.run_samples`; the run folder is kept and says how it ended.
        """
        reader = self._scored_samples() if self.verb == "eval" else self.reader
        identity = self._identity(reader)
        baselines = self._baselines() if self.baselines else {}
        _check_names(baselines)
        folder = self._folder(reader, identity)
        if self.later is not None and folder.complete:
            metrics, timing = (read_json(folder.path / name) for name in ("metrics.json", "timing.json"))
            return Outcome(folder.path, metrics, timing, None)
        self.console.log_to(folder.path / "log.txt")
        lanes: list[Lane] = []
        try:
            self._copy_what_no_seed_changes(folder.path, baselines)
            lanes = open_lanes(folder.path, self.pipeline, baselines, reader)
            model = self._run(lanes, reader, folder)
            outcome = self._finish(lanes, model, reader, folder, identity)
        except BaseException as error:
            done = min((len(lane.store) for lane in lanes), default=0)
            word = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            folder.failed(f"{word} (complete: {done} of {len(reader)} samples)")
            self.console.note(
                f"{done} of {len(reader)} samples are complete; the same command with "
                f"--resume {(self.later.first if self.later else folder.path).as_posix()} goes on from there"
            )
            raise
        finally:
            self.console.log_to(None)
            for lane in lanes:
                lane.store.close()
        return outcome

    @property
    def deterministic(self) -> bool:
        """Whether the seed changes nothing, in no method."""
        baselines = self.pipeline.baselines() if self.baselines and hasattr(self.pipeline, "baselines") else {}
        return all(getattr(method, "deterministic", False) for method in (self.pipeline, *baselines.values()))

    def _baselines(self) -> dict[str, Pipeline]:
        baselines = dict(self.pipeline.baselines()) if hasattr(self.pipeline, "baselines") else {}
        if not baselines and self.later is None:
            self.console.warn(f"pipeline '{self.config.pipeline_name}' has no baselines")
        return baselines

    def _scored_samples(self) -> Reader:
        """The samples whose truth is known; the others are listed as skipped.

        Raises:
            UserError: a truth is missing and ``skip_bad`` is off, or none is known.
        """
        reader = self.reader if isinstance(self.reader, KeptTruths) else KeptTruths(self.reader)
        # A reader that can tell its truths without a look at each has one for every sample that it can read.
        doubtful = reader.bad if getattr(reader, "truth_identity", "") else range(len(reader))
        unknown = [i for i in doubtful if reader.truth(i) is None]
        if not unknown:
            return reader
        if len(unknown) == len(self.reader):
            raise UserError(
                f"{self.reader.name} has no truth for any of its {len(self.reader)} samples: "
                "`run` needs none, or give one with --truth"
            )
        if not self.config.data.skip_bad:
            raise UserError(
                f"{self.reader.name}: no truth for {len(unknown)} of {len(self.reader)} samples, "
                f"first {self.reader.key(unknown[0])}; --skip-bad leaves them out and lists them"
            )
        for i in unknown:
            reason = self.reader.bad.get(i, "no truth is known")
            self.skipped.append({"name": self.reader.key(i), "reason": reason})
            self.console.note(f"skipped {self.reader.key(i)}: {reason}")
        without = set(unknown)
        return Subset(reader, [i for i in range(len(reader)) if i not in without])

    def _identity(self, reader: Reader) -> dict[str, Any]:
        """Everything that the results depend on, as dotted path -> value."""
        identity = {"verb": self.verb, "baselines": self.baselines, **self.config.identity()}
        identity |= {f"data:{key}": value for key, value in data_identity(reader, self.verb == "eval").items()}
        identity["data:reader"] = self.reader_name
        if self.model is not None:
            identity["model"] = folder_digest(self.model, VOLATILE)[:16]
        return identity

    def _folder(self, reader: Reader, identity: Mapping[str, Any]) -> RunFolder:
        if self.later is not None:
            inside = self.later.folder
            if (inside / "run.json").exists():
                return RunFolder.resume(inside, identity)
            return RunFolder.create(self.config, self.verb, reader.name, identity, self.command, inside)
        if self.resume is None:
            return RunFolder.create(self.config, self.verb, reader.name, identity, self.command)
        return RunFolder.resume(self.resume, identity)

    def _copy_what_no_seed_changes(self, folder: Path, baselines: Mapping[str, Pipeline]) -> None:
        if self.later is None:
            return
        if getattr(self.pipeline, "deterministic", False):
            copy_results(self.later.first, folder)
        for name, baseline in baselines.items():
            if getattr(baseline, "deterministic", False):
                copy_results(self.later.first / "baselines" / name, folder / "baselines" / name)

    def _run(self, lanes: Sequence[Lane], reader: Reader, folder: RunFolder) -> Any:
        """Load the model and fill the stores; returns the model."""
        runner = self.config.runner
        set_threads(runner.threads)
        set_seed(runner.seed)
        model = self.pipeline.load(self.model) if self.model is not None else None
        done = min(len(lane.store) for lane in lanes)
        if done:
            self.console.note(f"resuming: {done} of {len(reader)} samples are complete")
        policy = Policy(runner.seed, runner.strict, self.config.data.skip_bad, show_truth=self.verb == "eval")
        state = {
            lane.method: Checkpoint.entry(count, len(reader), reader.key(count - 1))
            for lane in lanes
            if (count := len(lane.store))
        }
        label = f"{self.verb} {self.config.pipeline_name}"
        with self.console.progress(len(reader), label) as advance:
            hooks: list[Hook] = [
                Pictures(folder.path, runner.pictures, len(reader), self.console, len(lanes[0].store)),
                Checkpoint(folder.path, state),
                Watchdog(runner.watchdog),
                Progress(advance),
            ]
            try:
                run_samples(lanes, model, reader, policy, hooks, self.console)
            finally:
                for hook in hooks:
                    hook.close()
        return model

    def _finish(
        self, lanes: Sequence[Lane], model: Any, reader: Reader, folder: RunFolder, identity: Mapping[str, Any]
    ) -> Outcome:
        """Score, export, and write the two summaries; DONE comes last."""
        truths: Sequence[Any] = lazy_truths(reader) if self.verb == "eval" else []
        summaries: dict[str, dict[str, Any]] = {}
        for lane in lanes:
            set_seed(self.config.runner.seed)
            metrics = lane.pipeline.score(lane.store.results, truths) if truths else []
            summaries[lane.method] = method_summary(lane.store.heads, metrics)
        main = summaries.pop("")
        metrics_json = run_summary(
            self.verb, self.config.pipeline_name, self.config.plain(), identity, main, summaries, self.skipped
        )
        timing_json = timing_summary({lane.method: lane.store for lane in lanes})
        for lane in lanes:
            if hasattr(lane.pipeline, "export"):
                lane.pipeline.export(lane.store.results, lane.store.folder)
            if truths and hasattr(lane.pipeline, "write_tables"):
                lane.pipeline.write_tables(lane.store.results, truths, lane.store.folder)
        write_json(folder.path / "timing.json", timing_json)
        write_json(folder.path / "metrics.json", metrics_json)
        exhibit = self._exhibit(lanes[0], model, truths) if self.later is None else None
        folder.done()
        return Outcome(folder.path, metrics_json, timing_json, exhibit)

    def _exhibit(self, lane: Lane, model: Any, truths: Sequence[Any]) -> Any | None:
        """The pipeline's exhibit; pictures are an extra, so what goes wrong here costs only them."""
        if not hasattr(lane.pipeline, "exhibit"):
            return None
        try:
            return lane.pipeline.exhibit(model, lane.store.results, truths)
        except Exception as error:
            self.console.warn(f"the pipeline has nothing to show ({type(error).__name__}: {error})")
            return None


def _check_names(baselines: Mapping[str, Pipeline]) -> None:
    for name in baselines:
        if slug(name) != name:
            raise UserError(f"baseline '{name}' cannot be a folder name; letters, digits, '.', '_' and '-' can")


def require_model(path: Path | None, needed: bool, pipeline: str) -> Path | None:
    """The model as given by the user, a folder or a file of weights.

    Raises:
        UserError: it is missing where the pipeline needs one.
        DataError: there is no such folder or file.
    """
    if path is None:
        if needed:
            raise UserError(f"pipeline '{pipeline}' needs --model, a folder that `vision3d fit {pipeline}` wrote")
        return None
    if not path.exists():
        raise DataError(path, "no such model folder")
    return path
