# SPDX-License-Identifier: Apache-2.0
"""`run` and `eval` on the toy: what is counted, what is written, what is resumed."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError, UserError
from vision3d.run import registry
from vision3d.run.config import RunnerConfig, default_config
from vision3d.run.console import Console
from vision3d.run.data import open_data
from vision3d.run.evaluation import Evaluation, Outcome
from vision3d.run.fitting import Fit
from vision3d.run.folder import find_run
from vision3d.types import Metric


class Bench:
    """The toy and a model of it, ready to be evaluated in the current folder."""

    def __init__(self) -> None:
        self.spec = registry.load(registry.PIPELINES, "toy")
        self.base = default_config(self.spec)
        self.said = io.StringIO()

    def fit(self, source: Path) -> None:
        data = open_data(str(source), DataConfig(), Console())
        Fit(self.spec.make(self.base.pipeline), self.base, data.reader, Path("model"), Console()).execute()

    def job(
        self,
        source: Path,
        verb: Any = "eval",
        data: Any = None,
        runner: Any = None,
        pipeline: Any = None,
        **options: Any,
    ) -> Evaluation:
        names = {"baselines", "resume"}
        job_options = {k: options.pop(k) for k in names & set(options)}
        config = replace(
            self.base,
            pipeline=replace(self.base.pipeline, **options),
            data=DataConfig(**(data or {})),
            runner=RunnerConfig(**(runner or {})),
        )
        console = Console(self.said)
        reader = open_data(str(source), config.data, console).reader
        pipeline = pipeline or self.spec.make(config.pipeline)
        return Evaluation(verb, pipeline, config, reader, Path("model"), console, command="vision3d ...", **job_options)

    def run(self, source: Path, **options: Any) -> Outcome:
        return self.job(source, **options).execute()


@pytest.fixture
def bench(toys: Path, numbers: Callable[..., Path]) -> Bench:
    bench = Bench()
    bench.fit(numbers(8))
    return bench


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def value(summary: dict[str, Any], name: str) -> Any:
    return next(m for m in summary["metrics"] if m["name"] == name)


def test_a_run_folder(bench: Bench, numbers: Callable[..., Path]) -> None:
    outcome = bench.run(numbers(8), baselines=True, data={"select": "1::2"})
    folder = outcome.folder
    assert folder.parent == Path("runs/toy/some-numbers")
    assert sorted(p.name for p in folder.iterdir()) == [
        "DONE",
        "baselines",
        "checkpoints",
        "command.txt",
        "config.yaml",
        "environment.json",
        "log.txt",
        "metrics.json",
        "results.jsonl",
        "run.json",
        "timing.json",
        "timing.jsonl",
        "values.txt",
        "viz",
    ]
    assert Path("runs/latest").resolve() == folder.resolve() == find_run("latest", Path("runs")).resolve()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == outcome.metrics
    assert [row["name"] for row in lines(folder / "results.jsonl")] == ["n001", "n003", "n005", "n007"]
    assert value(metrics, "recall") == {"name": "recall", "value": 1.0, "unit": "", "better": "higher", "n": 4}
    # guesses of the baseline are zero, so its errors are the truths 4, 8, 12, 16
    assert value(metrics["baselines"]["zero"], "median_error")["value"] == pytest.approx(10.0, abs=1e-3)
    assert (folder / "baselines/zero/values.txt").exists()
    timing = json.loads((folder / "timing.json").read_text())
    assert set(timing["timing_ms"]) == {"read", "sleep", "total"}
    assert set(timing["baselines"]["zero"]["timing_ms"]["total"]) == {"median", "p95", "n"}
    state = json.loads((folder / "checkpoints/state.json").read_text())
    assert state["pipeline"] == state["zero"] == {"complete": 4, "of": 4, "last": "n007"}
    assert len(list((folder / "viz").glob("frame_*.png"))) == 4
    assert outcome.exhibit.charts[0].name == "values"
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["numpy"] == np.__version__


def test_metrics_hold_no_time_and_no_place(bench: Bench, numbers: Callable[..., Path]) -> None:
    source = numbers(8)
    first = bench.run(source).folder
    second = bench.run(source, runner={"runs": Path("elsewhere"), "pictures": 0}).folder
    assert first != second
    for name in ("metrics.json", "results.jsonl", "run.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert not (second / "viz").exists()


def test_two_runs_in_one_second_have_two_folders(bench: Bench, numbers: Callable[..., Path]) -> None:
    folders = {bench.run(numbers(8)).folder for _ in range(4)}
    assert len(folders) == 4


def test_an_exception_is_a_counted_failure(bench: Bench, numbers: Callable[..., Path]) -> None:
    metrics = bench.run(numbers(8), break_on="n002").metrics
    assert (metrics["n_frames"], metrics["n_failed"], metrics["n_skipped"]) == (8, 1, 0)
    assert metrics["failures"] == [{"name": "n002", "status": "failed", "reason": "ZeroDivisionError: no way"}]
    assert value(metrics, "max_error") == {
        "name": "max_error",
        "value": None,
        "unit": "m",
        "better": "lower",
        "n": 8,
        "infinite": True,
    }
    assert value(metrics, "recall")["value"] == 7 / 8
    assert "step failed on n002: ZeroDivisionError: no way (in vision3d_toys.py:" in bench.said.getvalue()


def test_strict_lets_it_through_and_keeps_what_is_done(bench: Bench, numbers: Callable[..., Path]) -> None:
    with pytest.raises(ZeroDivisionError):
        bench.run(numbers(8), break_on="n002", runner={"strict": True})
    folder = Path("runs/latest").resolve()
    assert (folder / "FAILED").read_text().startswith("ZeroDivisionError: no way")
    assert len(lines(folder / "results.jsonl")) == 2
    assert "2 of 8 samples are complete; the same command with --resume runs/toy/" in bench.said.getvalue()


def test_a_mistake_of_the_users_is_no_failure_of_a_sample(bench: Bench, numbers: Callable[..., Path]) -> None:
    toy = bench.spec.make(bench.base.pipeline)

    def step(model: Any, sample: Any, previous: Any) -> Any:
        raise UserError("install it first")

    toy.step = step
    with pytest.raises(UserError, match="install it first"):
        bench.run(numbers(8), pipeline=toy)


def test_unreadable_samples(bench: Bench, numbers: Callable[..., Path]) -> None:
    source = numbers(6, row1=["n001", None, 4.0], row3=["n003", None, None], row4=["n004", "absent", 10.0])
    with pytest.raises(UserError, match=r"n004 has no entry; --skip-bad leaves"):
        bench.run(source)
    with pytest.raises(UserError, match=r"n001 cannot be read; --skip-bad counts"):
        bench.run(source, data={"select": ":3"})
    metrics = bench.run(source, data={"skip_bad": True}, baselines=True).metrics
    assert (metrics["n_frames"], metrics["n_failed"], metrics["n_skipped"]) == (5, 2, 1)
    assert [(f["name"], f["status"]) for f in metrics["failures"]] == [("n001", "bad_input"), ("n004", "bad_input")]
    assert metrics["skipped"] == [{"name": "n003", "reason": "no truth is known"}]
    assert metrics["baselines"]["zero"]["n_failed"] == 2
    assert value(metrics, "recall") == {"name": "recall", "value": 0.6, "unit": "", "better": "higher", "n": 5}


def test_samples_without_truth(bench: Bench, numbers: Callable[..., Path]) -> None:
    source = numbers(4, row2=["n002", 3.0, None])
    with pytest.raises(UserError, match="no truth for 1 of 4 samples, first n002; --skip-bad leaves them out"):
        bench.run(source)
    assert bench.run(source, verb="run").metrics["n_frames"] == 4
    blind = numbers(2, "blind", row0=["a", 1.0, None], row1=["b", 2.0, None])
    with pytest.raises(UserError, match="blind has no truth for any of its 2 samples: `run` needs none"):
        bench.run(blind, data={"skip_bad": True})
    assert bench.run(blind, verb="run").metrics["metrics"] == []


def test_the_watchdog(bench: Bench, numbers: Callable[..., Path]) -> None:
    source = numbers(8, row1=["n001", None, 4.0], row3=["n003", None, 8.0], row4=["n004", None, 10.0])
    options = {"data": {"skip_bad": True}}
    bench.run(source, runner={"watchdog": 3}, **options)
    with pytest.raises(UserError, match=r"watchdog: 2 failures in a row, stopped at sample 5 of 8 \(n004: "):
        bench.run(source, runner={"watchdog": 2}, **options)
    assert Path("runs/latest/FAILED").exists()


def test_drawing_that_fails_costs_only_the_pictures(bench: Bench, numbers: Callable[..., Path]) -> None:
    toy = bench.spec.make(bench.base.pipeline)
    toy.draw = lambda model, sample, result, truth: np.zeros((3, 3))
    toy.exhibit = lambda model, results, truths: 1 / 0
    outcome = bench.run(numbers(8), pipeline=toy)
    assert outcome.exhibit is None
    said = bench.said.getvalue()
    assert said.count("no more pictures: drawing n000 failed (ValueError: draw must return an (H, W, 3)") == 1
    assert "nothing to show (ZeroDivisionError" in said


@pytest.mark.parametrize(("count", "drawn"), [(1, [0]), (2, [0, 7]), (3, [0, 4, 7]), (99, list(range(8)))])
def test_pictures_are_spread(bench: Bench, numbers: Callable[..., Path], count: int, drawn: list[int]) -> None:
    folder = bench.run(numbers(8), runner={"pictures": count}).folder
    assert sorted(p.name for p in (folder / "viz").iterdir()) == [f"frame_{i:06d}.png" for i in drawn]


def test_failures_are_drawn_besides(bench: Bench, numbers: Callable[..., Path]) -> None:
    folder = bench.run(numbers(8), break_on="n003", runner={"pictures": 2}).folder
    assert sorted(p.name for p in (folder / "viz").iterdir()) == [f"frame_{i:06d}.png" for i in (0, 3, 7)]


@pytest.mark.parametrize("method", ["mean", "zero"])
@pytest.mark.parametrize("at", [0, 3, 7])
def test_a_stopped_run_resumes_to_the_same_bytes(
    bench: Bench, numbers: Callable[..., Path], at: int, method: str
) -> None:
    source = numbers(8)
    whole = bench.run(source, baselines=True, break_on="n005")
    job = bench.job(source, baselines=True, break_on="n005", runner={"strict": False})
    cls = type(job.pipeline)
    step = cls.step
    steps: list[tuple[str, str]] = []

    def stopping(self: Any, model: Any, sample: Any, previous: Any = None) -> Any:
        if sample.name == f"n{at:03d}" and self.config.mode == method:
            raise KeyboardInterrupt
        return step(self, model, sample, previous)

    def counting(self: Any, model: Any, sample: Any, previous: Any = None) -> Any:
        steps.append((sample.name, self.config.mode))
        return step(self, model, sample, previous)

    cls.step = stopping
    with pytest.raises(KeyboardInterrupt):
        job.execute()
    folder = Path("runs/latest").resolve()
    assert (folder / "FAILED").read_text().startswith("interrupted (complete: ")
    cls.step = counting
    outcome = bench.run(source, baselines=True, break_on="n005", resume=folder)
    cls.step = step
    assert steps[0] == (f"n{at:03d}", method)
    assert len(steps) == 16 - 2 * at - (method == "zero")
    assert outcome.folder == folder
    assert not (folder / "FAILED").exists()
    for name in ("metrics.json", "results.jsonl", "baselines/zero/results.jsonl", "values.txt", "viz/frame_000007.png"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert outcome.timing["timing_ms"]["total"]["n"] == 8


def test_resuming_a_complete_run_computes_nothing(
    bench: Bench, numbers: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = numbers(8)
    first = bench.run(source)
    before = (first.folder / "metrics.json").read_bytes()
    monkeypatch.setattr(sys.modules["vision3d_toys"].NumberReader, "__getitem__", lambda self, i: pytest.fail("read"))
    again = bench.run(source, resume=first.folder)
    assert (again.folder / "metrics.json").read_bytes() == before


def test_resume_is_refused_for_another_command(bench: Bench, numbers: Callable[..., Path]) -> None:
    source = numbers(8)
    folder = bench.run(source).folder
    with pytest.raises(ConfigError, match=r"cannot resume, the command differs: pipeline\.bonus: None -> 1\.0"):
        bench.run(source, resume=folder, bonus=1.0)
    with pytest.raises(ConfigError, match="verb: eval -> run"):
        bench.run(source, resume=folder, verb="run")
    with pytest.raises(ConfigError, match="baselines: False -> True"):
        bench.run(source, resume=folder, baselines=True)
    with pytest.raises(ConfigError, match=r"data:truth: 8 \("):
        bench.run(numbers(8, row0=["n000", 1.0, 9.0]), resume=folder)
    numbers(8)
    Path("model/toy.safetensors").write_bytes(Path("model/toy.safetensors").read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigError, match=r"model: \w{16} -> \w{16}"):
        bench.run(source, resume=folder)
    with pytest.raises(DataError, match="no such run folder"):
        bench.run(source, resume=Path("nowhere"))
    with pytest.raises(DataError, match="is no run folder"):
        bench.run(source, resume=Path("model"))


def test_truths_that_follow_from_a_recipe_are_read_only_to_score(
    curves: Path, numbers: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = curves_job(numbers(4, row2=["n002", "absent", None]), "eval", pictures=0, data={"skip_bad": True})
    base = job.reader.base  # type: ignore[attr-defined]
    base.truth_identity = "doubles"
    reads: list[int] = []
    truth = type(base).truth
    monkeypatch.setattr(type(base), "truth", lambda self, i: reads.append(i) or truth(self, i))  # type: ignore[func-returns-value]
    metrics = job.execute().metrics
    assert (metrics["n_frames"], metrics["n_skipped"]) == (3, 1)
    assert reads == [2, 0, 1, 3]


def curves_job(source: Path, verb: Any, data: Any = None, **runner: Any) -> Evaluation:
    spec = registry.load(registry.PIPELINES, "curves")
    config = replace(default_config(spec), data=DataConfig(**(data or {})), runner=RunnerConfig(**runner))
    reader = open_data(str(source), config.data, Console()).reader
    return Evaluation(verb, spec.make(config.pipeline), config, reader, None, Console(), command="vision3d ...")


def test_pictures_see_the_truth_in_eval_only(curves: Path, numbers: Callable[..., Path]) -> None:
    import cv2

    source = numbers(4)
    for verb, wanted in (("eval", [2, 4, 6, 8]), ("run", [0, 0, 0, 0])):
        folder = curves_job(source, verb).execute().folder
        found = [cv2.imread(str(folder / f"viz/frame_{i:06d}.png")).mean() for i in range(4)]
        assert found == wanted


def test_truths_are_read_for_pictures_only_where_one_is_drawn(
    curves: Path, numbers: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = curves_job(numbers(8), "run", pictures=2)
    drawn: list[Any] = []
    job.pipeline.draw = lambda model, sample, result, truth: drawn.append(truth) or np.zeros((2, 2, 3), np.uint8)  # type: ignore[method-assign, func-returns-value]
    monkeypatch.setattr(type(job.reader.base), "truth", lambda self, i: pytest.fail("read"))  # type: ignore[attr-defined]
    job.execute()
    assert drawn == [None, None]


def test_the_first_three_pictured_samples_can_be_turned(curves: Path, numbers: Callable[..., Path]) -> None:
    from vision3d.run.cloud_files import read_cloud_view

    source = numbers(8)
    folder = curves_job(source, "eval", pictures=5).execute().folder
    assert sorted(p.name for p in (folder / "viz").glob("cloud_*")) == [f"cloud_{i:06d}.npz" for i in (0, 2, 4)]
    view = read_cloud_view(folder / "viz/cloud_000002.npz")
    assert view.title == "n002: 6.0"
    stored = np.load(folder / "arrays/000002.npz")
    np.testing.assert_array_equal(view.layers[0].points, stored["000000/points"])
    assert not list(curves_job(source, "eval", pictures=0).execute().folder.glob("viz"))


@pytest.mark.parametrize("at", [1, 3, 5])
def test_clouds_and_pictures_of_failures_are_the_same_after_a_resume(
    curves: Path, numbers: Callable[..., Path], at: int
) -> None:
    source = numbers(8, row2=["n002", None, 6.0])  # unreadable: a failure that is not drawn

    def job(stop: int, resume: Path | None = None) -> Evaluation:
        job = curves_job(source, "eval", pictures=2)
        step, cls = job.pipeline.step, type(job.pipeline)

        def stopping(model: Any, sample: Any, previous: Any = None) -> Any:
            if sample.name == f"n{stop:03d}":
                raise KeyboardInterrupt
            if sample.name in ("n001", "n004", "n005"):
                raise ZeroDivisionError
            return cls.step(job.pipeline, model, sample, previous)

        assert step
        job.pipeline.step = stopping  # type: ignore[method-assign]
        data = replace(job.config.data, skip_bad=True)
        return replace(job, config=replace(job.config, data=data), resume=resume)

    whole = job(99).execute().folder
    with pytest.raises(KeyboardInterrupt):
        job(at).execute()
    killed = Path("runs/latest").resolve()
    job(99, killed).execute()
    found, wanted = ({p.name: p.read_bytes() for p in (run / "viz").iterdir()} for run in (killed, whole))
    assert sorted(wanted) == ["cloud_000000.npz", "cloud_000007.npz", *(f"frame_{i:06d}.png" for i in (0, 1, 4, 7))]
    assert found == wanted
    state = [json.loads((run / "checkpoints/state.json").read_text()) for run in (killed, whole)]
    assert state[0] == state[1]


def test_the_memory_of_a_step_is_in_the_timing_alone(bench: Bench, numbers: Callable[..., Path]) -> None:
    outcome = bench.run(numbers(8), baselines=True)
    [peak] = {frozenset(found["peak_mb"]) for found in (outcome.timing, outcome.timing["baselines"]["zero"])}
    assert peak == {"median", "max", "n"}
    assert outcome.timing["peak_mb"]["n"] == 8
    assert all(row["peak_mb"] >= 0 for row in lines(outcome.folder / "timing.jsonl"))
    assert "peak_mb" not in (outcome.folder / "metrics.json").read_text()
    assert "peak_mb" not in outcome.timing["timing_ms"]


def test_a_run_holds_neither_results_nor_truths(curves: Path, numbers: Callable[..., Path]) -> None:
    """Each is read when the pipeline looks at it: that is what score gets."""
    job = curves_job(numbers(4), "eval")
    seen: list[Any] = []
    score = job.pipeline.score

    def looking(results: Any, truths: Any) -> Any:
        seen.append((type(results).__name__, type(truths).__name__, results[1] is results[1]))
        return score(results, truths)

    job.pipeline.score = looking  # type: ignore[method-assign]
    job.execute()
    assert seen == [("Lazy", "Lazy", False)]


def test_a_metric_that_is_no_number_is_a_bug(bench: Bench, numbers: Callable[..., Path]) -> None:
    toy = bench.spec.make(bench.base.pipeline)
    toy.score = lambda results, truths: [Metric("odd", float("nan"), "", "lower", 1)]
    with pytest.raises(ValueError, match="metric odd is not a number"):
        bench.run(numbers(8), pipeline=toy)


def test_a_sample_depends_on_no_random_number_of_another(bench: Bench, numbers: Callable[..., Path]) -> None:
    source = numbers(8)
    every = {row["name"]: row["draw"] for row in lines(bench.run(source).folder / "results.jsonl")}
    some = {r["name"]: r["draw"] for r in lines(bench.run(source, data={"select": "::3"}).folder / "results.jsonl")}
    assert some == {name: every[name] for name in some}
    other = lines(bench.run(source, runner={"seed": 1}).folder / "results.jsonl")
    assert other[0]["draw"] != every["n000"]
    assert len(set(every.values())) == 8


def test_latest_before_any_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no latest run yet"):
        find_run("latest", tmp_path)
    (tmp_path / "latest").write_text("toy/x/1\n")
    assert find_run("latest", tmp_path) == tmp_path / "toy/x/1"


def test_a_pipeline_that_sees_the_truth(bench: Bench, numbers: Callable[..., Path]) -> None:
    from vision3d_toys import Guess, Toy  # type: ignore[import-not-found]

    class Shown(Toy):  # type: ignore[misc]
        sees_truth = True

        def step(self, model: float, sample: Any, previous: Any = None, truth: float | None = None) -> Any:
            return Guess(sample.name, truth)

        def write_tables(self, results: Any, truths: Any, folder: Path) -> None:
            (folder / "table.txt").write_text(" ".join(f"{r.value}/{t}" for r, t in zip(results, truths)))

    source = numbers(3)
    outcome = bench.run(source, pipeline=Shown(bench.base.pipeline))
    assert value(outcome.metrics, "max_error")["value"] == 0.0
    pairs = [pair.split("/") for pair in (outcome.folder / "table.txt").read_text().split()]
    assert len(pairs) == 3
    assert all(found == true for found, true in pairs)
    # In a run it is told nothing, and there is nothing to make tables of.
    outcome = bench.run(source, verb="run", pipeline=Shown(bench.base.pipeline))
    assert [row["value"] for row in lines(outcome.folder / "results.jsonl")] == [None] * 3
    assert not (outcome.folder / "table.txt").exists()
