# SPDX-License-Identifier: Apache-2.0
"""Evaluations over several seeds: means and spreads, one complete run each, taken up wherever they were left."""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError
from vision3d.run import registry
from vision3d.run.config import RunnerConfig, default_config
from vision3d.run.console import Console
from vision3d.run.data import open_data
from vision3d.run.evaluation import Evaluation, Outcome
from vision3d.run.seeds import Series, over_seeds, read_seeds, with_spread


def metric(value: float | None, name: str = "epe3d", **more: Any) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "m", "better": "lower", "n": 4, **more}


def document(value: float | None, failed: int = 0, **more: Any) -> dict[str, Any]:
    extra = {"infinite": True} if value is None else {}
    return {"pipeline": "p", "dataset": "d", "n_failed": failed, "metrics": [metric(value, **extra)], **more}


def test_mean_and_spread_are_the_samples() -> None:
    found = over_seeds({3: document(1.0), 4: document(2.0, failed=2), 5: document(6.0)})
    assert (found["seeds"], found["runs"]) == ([3, 4, 5], [".", "seeds/4", "seeds/5"])
    # variance of 1, 2, 6 about 3 with n - 1: (4 + 1 + 9) / 2
    assert found["metrics"] == [metric(3.0, spread=7.0**0.5, values=[1.0, 2.0, 6.0])]
    assert found["n_failed_by_seed"] == [0, 2, 0]
    merged = with_spread({**document(1.0), "seed": 3, "failures": []}, found)
    assert (merged["n_failed"], merged["seed"], merged["seeds"]) == (2, 3, [3, 4, 5])
    assert merged["metrics"] == found["metrics"]


def test_equal_values_have_no_spread_and_keep_every_digit() -> None:
    [found] = over_seeds({s: document(0.1) for s in range(3)})["metrics"]
    assert (found["value"], found["spread"]) == (0.1, 0.0)


def test_infinity_stays_infinite_and_a_single_value_has_no_spread() -> None:
    [found] = over_seeds({0: document(1.0), 1: document(None)})["metrics"]
    assert (found["value"], found["spread"], found["values"], found["infinite"]) == (None, None, [1.0, None], True)
    [found] = over_seeds({0: document(1.0)})["metrics"]
    assert (found["value"], found["spread"]) == (1.0, None)


def test_a_metric_that_only_some_seeds_have() -> None:
    other = document(2.0)
    other["metrics"].append(metric(5.0, "epe2d"))
    found = over_seeds({0: document(1.0), 1: other, 2: other})["metrics"]
    assert [(m["name"], m["values"]) for m in found] == [("epe3d", [1.0, 2.0, 2.0]), ("epe2d", [5.0, 5.0])]


class Bench:
    """The pipeline with arrays, ready to be evaluated in the current folder."""

    def __init__(self, source: Path) -> None:
        self.spec = registry.load(registry.PIPELINES, "curves")
        self.source = source
        self.said = io.StringIO()
        self.steps: list[tuple[str, str]] = []
        self.stop_at = -1

    def job(self, seed: int = 5, resume: Path | None = None, **options: Any) -> Evaluation:
        base = default_config(self.spec)
        config = replace(base, pipeline=replace(base.pipeline, **options), runner=RunnerConfig(seed=seed))
        console = Console(self.said)
        reader = open_data(str(self.source), DataConfig(), console).reader
        pipeline = self.spec.make(config.pipeline)
        return Evaluation(
            "eval", self.watched(pipeline), config, reader, None, console, baselines=True, resume=resume, command="v"
        )

    def watched(self, pipeline: Any) -> Any:
        """The pipeline, its steps recorded, and stopping in place of the step number ``stop_at``."""
        cls = type(pipeline)
        bench = self

        class Watched(cls):  # type: ignore[misc, valid-type]
            def step(self, model: Any, sample: Any, previous: Any = None) -> Any:
                if len(bench.steps) == bench.stop_at:
                    raise KeyboardInterrupt
                bench.steps.append((sample.name, self.config.mode))
                return super().step(1.0, sample, previous)

            def baselines(self) -> Any:
                return {name: Watched(method.config) for name, method in super().baselines().items()}

        return Watched(pipeline.config)

    def run(self, count: int = 3, **options: Any) -> tuple[Outcome, dict[str, Any]]:
        return Series(self.job(**options), count).execute()


@pytest.fixture
def bench(curves: Path, numbers: Callable[..., Path]) -> Bench:
    return Bench(numbers(4))


def content(folder: Path) -> dict[str, bytes]:
    volatile = {"timing.json", "timing.jsonl", "log.txt"}
    files = (p for p in folder.rglob("*") if p.is_file() and p.name not in volatile)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_each_seed_is_a_complete_run(bench: Bench) -> None:
    first, summary = bench.run()
    assert Path("runs/latest").resolve() == first.folder.resolve()
    folders = [first.folder / run for run in summary["runs"]]
    assert folders[1] == first.folder / "seeds/6"
    found = []
    for seed, folder in zip((5, 6, 7), folders, strict=True):
        metrics = json.loads((folder / "metrics.json").read_text())
        assert (metrics["seed"], metrics["n_frames"]) == (seed, 4)
        for name in ("DONE", "config.yaml", "run.json", "results.jsonl", "means.txt", "arrays/000003.npz"):
            assert (folder / name).exists(), name
        found.append(metrics["metrics"][0]["value"])
    assert len(set(found)) == 3
    offset = summary["metrics"][0]
    assert offset["values"] == found
    assert offset["value"] == pytest.approx(sum(found) / 3)
    assert offset["spread"] == pytest.approx(statistics.stdev(found))
    assert json.loads((first.folder / "seeds.json").read_text()) == summary == read_seeds(first.folder)
    # a run of that seed alone is the same run
    [alone] = [bench.job(seed=7).execute().folder]
    for name in ("metrics.json", "results.jsonl", "arrays/000002.npz", "baselines/zero/results.jsonl"):
        assert (alone / name).read_bytes() == (folders[2] / name).read_bytes(), name


def test_methods_that_no_seed_changes_are_stepped_once(bench: Bench) -> None:
    first, summary = bench.run()
    assert len(bench.steps) == 4 * 3 + 4
    assert sum(mode == "zero" for _, mode in bench.steps) == 4
    assert summary["baselines"]["zero"]["metrics"][0]["spread"] == 0.0
    zero, copied = first.folder / "baselines/zero", first.folder / "seeds/7/baselines/zero"
    assert content(copied) == content(zero)
    assert (copied / "timing.jsonl").read_bytes() == (zero / "timing.jsonl").read_bytes()
    assert not (copied / "arrays/000000.npz").samefile(zero / "arrays/000000.npz")


def test_pictures_are_of_the_first_seed(bench: Bench) -> None:
    first, _ = bench.run(2)
    assert len(list((first.folder / "viz").glob("frame_*.png"))) == 4
    assert first.exhibit is not None
    assert not (first.folder / "seeds/6/viz").exists()


# 8 steps of the first seed, every other one its baseline's, then 4 of each other seed
@pytest.mark.parametrize("stop_at", [3, 7, 8, 14])
def test_a_series_stopped_anywhere_ends_with_the_same_bytes(bench: Bench, stop_at: int) -> None:
    whole, summary = bench.run()
    bench.steps, bench.stop_at = [], stop_at
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    bench.stop_at = -1
    killed = Path("runs/latest").resolve()
    said = bench.said.getvalue().splitlines()[-1]
    assert f"--resume {killed.relative_to(Path.cwd()).as_posix()} goes on from there" in said
    assert not (killed / "seeds.json").exists()
    again, found = bench.run(resume=killed)
    assert len(bench.steps) == 16
    assert (again.folder, found) == (killed, summary)
    assert content(killed) == content(whole.folder)


def test_a_complete_series_computes_nothing_and_may_be_made_longer(bench: Bench) -> None:
    first, _ = bench.run(2)
    before = content(first.folder)
    steps = len(bench.steps)
    bench.run(2, resume=first.folder)
    assert (len(bench.steps), content(first.folder)) == (steps, before)
    _, summary = bench.run(3, resume=first.folder)
    assert len(bench.steps) == steps + 4
    assert summary["seeds"] == [5, 6, 7]


def test_a_series_is_resumed_by_the_same_command_only(bench: Bench) -> None:
    first, _ = bench.run(2)
    with pytest.raises(ConfigError, match=r"cannot resume, the command differs: pipeline\.bonus"):
        bench.run(2, resume=first.folder, bonus=1.0)
    with pytest.raises(ConfigError, match=r"runner\.seed: 6 -> 5"):
        bench.run(2, resume=first.folder / "seeds/6")


@pytest.mark.parametrize(("seed", "count"), [(0, 0), (0, 101), (2**32 - 2, 3)])
def test_seeds_that_are_none(bench: Bench, seed: int, count: int) -> None:
    with pytest.raises(ConfigError, match=r"--seeds must be from 1 to 100, and the last seed below 2\^32"):
        bench.run(count, seed=seed)
    assert not Path("runs").exists()


def test_a_seed_killed_before_it_held_anything_is_begun_anew(bench: Bench) -> None:
    first, _ = bench.run(1)
    (first.folder / "seeds/6/checkpoints").mkdir(parents=True)
    (first.folder / "seeds/6/config.yaml").write_text("half")
    _, summary = bench.run(2, resume=first.folder)
    assert summary["n_failed_by_seed"] == [0, 0]
    assert "half" not in (first.folder / "seeds/6/config.yaml").read_text()


def test_damaged_summaries_are_named(tmp_path: Path) -> None:
    assert read_seeds(tmp_path) is None
    for text, problem in (
        ("{", "no valid|not valid JSON"),
        ("[]", "is not the seeds.json"),
        ('{"metrics": []}', "schema"),
    ):
        (tmp_path / "seeds.json").write_text(text)
        with pytest.raises(DataError, match=problem):
            read_seeds(tmp_path)
