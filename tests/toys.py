# SPDX-License-Identifier: Apache-2.0
"""A small reader and pipeline of an own sample type, installed as a third-party package by the `toys` fixture.

A sample is a number with a name, its truth the number's double. The pipeline learns the mean of the ratios in
stages that can be made slow, so that a test can kill it between two of them.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load_file, save_file

from vision3d.contracts import DataConfig, PipelineSpec, ReaderSpec, WriterSpec
from vision3d.errors import DataError
from vision3d.types import Chart, CloudLayer, CloudView, Exhibit, Metric


@dataclass(frozen=True)
class Number:
    """One sample."""

    name: str
    value: float


@dataclass(frozen=True)
class Guess:
    """One result."""

    name: str
    value: float | None
    status: Literal["ok", "failed", "bad_input"] = "ok"
    reason: str = ""
    draw: float = 0.0
    timing_ms: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "status": self.status,
            "reason": self.reason,
            "draw": self.draw,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Guess:
        return cls(data["name"], data["value"], data["status"], data["reason"], data["draw"])


@dataclass(frozen=True)
class Stage:
    """How fitting is cut up.

    Attributes:
        count: stages, at least 1.
        delay_s: seconds that each stage takes.
    """

    count: int = field(default=3, metadata={"min": 1, "max": 100})
    delay_s: float = field(default=0.0, metadata={"min": 0.0})


@dataclass(frozen=True)
class ToyConfig:
    """Options of the toy.

    Attributes:
        stage: the fit's stages.
        delay_s: seconds that each sample takes.
        mode: how a guess is made.
        sizes: width and height of a picture.
        bonus: added to every guess, or none.
        break_on: name of a sample on which step raises.
        labels: words.
    """

    stage: Stage = field(default_factory=Stage)
    delay_s: float = 0.0
    mode: Literal["mean", "zero"] = "mean"
    sizes: tuple[int, int] = (8, 6)
    bonus: float | None = None
    break_on: str = ""
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sizes[0] < self.sizes[1]:
            raise ValueError("sizes must be wider than high")


class Toy:
    samples = Number
    result_type = Guess

    def __init__(self, config: ToyConfig) -> None:
        self.config = config

    def fit(self, train: Any, out: Path, context: Any) -> None:
        total = np.zeros(1)
        for k in context.progress(range(self.config.stage.count), self.config.stage.count, "stages"):
            total = total + context.cached(f"stage/{k}", lambda k=k: self._stage(train, k))["ratio"]
        save_file({"ratio": total / self.config.stage.count, "noise": np.random.rand(3)}, out / "toy.safetensors")  # noqa: NPY002

    def _stage(self, train: Any, k: int) -> dict[str, Any]:
        time.sleep(self.config.stage.delay_s)
        ratios = [train.truth(i) / train[i].value for i in range(len(train))]
        return {"ratio": np.array([np.mean(ratios) + 1e-3 * random.random()])}

    def extend(self, model: Path, train: Any, out: Path, context: Any) -> None:
        old = load_file(model / "toy.safetensors")
        self.fit(train, out, context)
        new = load_file(out / "toy.safetensors")
        save_file({"ratio": (old["ratio"] + new["ratio"]) / 2, "noise": new["noise"]}, out / "toy.safetensors")

    def load(self, model: Path) -> float:
        try:
            return float(load_file(model / "toy.safetensors")["ratio"][0])
        except OSError as error:
            raise DataError(model, f"is no model of the toy ({error})") from None

    def step(self, model: float, sample: Number, previous: Guess | None = None) -> Guess:
        start_s = time.perf_counter()
        time.sleep(self.config.delay_s)
        if sample.name == self.config.break_on:
            raise ZeroDivisionError("no way\nat all")
        value = sample.value * model if self.config.mode == "mean" else 0.0
        value += 1e-6 * (previous.value or 0.0) if previous is not None else 0.0
        value += self.config.bonus or 0.0
        draw = random.random() + float(np.random.rand())  # noqa: NPY002
        return Guess(sample.name, value, draw=draw, timing_ms={"sleep": (time.perf_counter() - start_s) * 1e3})

    def failure(self, name: str, reason: str) -> Guess:
        return Guess(name, None, "failed", reason)

    def score(self, results: Sequence[Guess], truths: Sequence[float]) -> list[Metric]:
        errors = [abs(r.value - t) if r.value is not None else float("inf") for r, t in zip(results, truths)]
        n = len(errors)
        return [
            Metric("median_error", float(np.median(errors)), "m", "lower", n),
            Metric("max_error", float(np.max(errors)), "m", "lower", n),
            Metric("recall", float(np.mean(np.array(errors) < 0.1)), "", "higher", n),
        ]

    def draw(self, model: float, sample: Number, result: Guess, truth: float | None = None) -> Any:
        width, height = self.config.sizes
        return np.full((height, width, 3), (255, 0, 0) if result.status == "ok" else (0, 0, 255), np.uint8)

    def baselines(self) -> Mapping[str, Any]:
        return {"zero": Toy(replace(self.config, mode="zero"))}

    def export(self, results: Sequence[Guess], folder: Path) -> None:
        (folder / "values.txt").write_text("".join(f"{r.name} {r.value}\n" for r in results))

    def export_model(self, model: float, folder: Path) -> list[Path]:
        (folder / "ratio.txt").write_text(f"{model}\n")
        return [folder / "ratio.txt"]

    def exhibit(self, model: float, results: Sequence[Guess], truths: Sequence[float]) -> Exhibit:
        x = np.arange(len(results), dtype=float)
        y = np.array([r.value or 0.0 for r in results])
        return Exhibit(charts=(Chart("values", "Values", "sample", "value", {"toy": (x, y)}),))

    def describe(self, model: float) -> Mapping[str, Any]:
        return {"ratio": round(model, 3)}


@dataclass(frozen=True)
class Curve:
    """A result with arrays."""

    name: str
    status: Literal["ok", "failed", "bad_input"] = "ok"
    reason: str = ""
    points: Any = None
    count: Any = None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "status": self.status, "reason": self.reason}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Curve:
        return cls(data["name"], data["status"], data["reason"])

    def arrays(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("points", "count") if getattr(self, k) is not None}

    def with_arrays(self, arrays: Mapping[str, Any]) -> Curve:
        return replace(self, **arrays)


class Curves(Toy):
    """Random points around a number (its baseline: no seed changes them), with pictures that show the truth."""

    result_type = Curve  # type: ignore[assignment]

    @property
    def deterministic(self) -> bool:
        return self.config.mode == "zero"

    def load(self, model: Path) -> float:
        return 1.0

    def step(self, model: float, sample: Number, previous: Curve | None = None) -> Curve:  # type: ignore[override]
        time.sleep(self.config.delay_s)
        if sample.name == self.config.break_on:
            raise ZeroDivisionError("no way")
        points = np.full((5, 3), sample.value, np.float32)
        if self.config.mode == "mean":
            points += np.random.rand(5, 3).astype(np.float32)  # noqa: NPY002
        if previous is not None and previous.points is not None:
            points += np.float32(1e-3) * previous.points
        return Curve(sample.name, points=points, count=np.array(5))

    def failure(self, name: str, reason: str) -> Curve:  # type: ignore[override]
        return Curve(name, "failed", reason)

    def score(self, results: Sequence[Curve], truths: Sequence[float]) -> list[Metric]:  # type: ignore[override]
        found = [(r.points, t) for r, t in zip(results, truths) if r.points is not None]
        errors = [abs(float(points.mean()) - t / 2) for points, t in found]
        return [
            Metric("offset", float(np.mean(errors)), "m", "lower", len(results)),
            Metric("n_points", float(sum(len(points) for points, _ in found)), "", "higher", len(results)),
        ]

    def draw(self, model: float, sample: Number, result: Curve, truth: float | None = None) -> Any:  # type: ignore[override]
        return np.full((4, 4, 3), 0 if truth is None else int(truth), np.uint8)

    def cloud_view(self, model: float, sample: Number, result: Curve, truth: float | None = None) -> Any:
        if result.points is None:
            return None
        layer = CloudLayer("curve", result.points, np.array([255, 0, 0], np.uint8))
        return CloudView(f"{sample.name}: {truth}", (layer,), np.array([0.0, 0.0, 1.0]))

    def baselines(self) -> Mapping[str, Any]:
        return {"zero": Curves(replace(self.config, mode="zero"))}

    def export(self, results: Sequence[Curve], folder: Path) -> None:  # type: ignore[override]
        means = ((r.name, 0.0 if r.points is None else float(r.points.mean())) for r in results)
        (folder / "means.txt").write_text("".join(f"{name} {mean}\n" for name, mean in means))

    def exhibit(self, model: float, results: Any, truths: Any) -> Exhibit:
        return Exhibit()


class NumberReader:
    """``numbers.json``: [[name, value, truth], ...]; value null cannot be read, truth null is unknown."""

    samples = Number

    def __init__(self, source: str, config: DataConfig) -> None:
        self.path = Path(source) / "numbers.json"
        try:
            self.rows = json.loads(self.path.read_text())
        except (OSError, ValueError) as error:
            raise DataError(self.path, f"cannot be read ({error})") from None
        self.name = Path(source).name
        self.notes = (f"{len(self.rows)} numbers",)
        self.bad = {i: f"{self.path}: {row[0]} has no entry" for i, row in enumerate(self.rows) if row[1] == "absent"}

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, index: int) -> str:
        return self.rows[index][0]

    def __getitem__(self, index: int) -> Number:
        name, value, _ = self.rows[index]
        if not isinstance(value, (int, float)):
            raise DataError(self.path, f"{name} cannot be read")
        return Number(name, float(value))

    def truth(self, index: int) -> float | None:
        return self.rows[index][2]


def match(source: str) -> float:
    return 0.9 if (Path(source) / "numbers.json").is_file() else 0.0


def write(name: str, sample: Number, truth: float | None, folder: Path) -> list[Path]:
    """A line per value: the sample's, and the truth where it is known."""
    path = folder / f"{name}.txt"
    path.write_text("".join(f"{value}\n" for value in (sample.value, truth) if value is not None))
    return [path]


def write_index(folder: Path, names: Sequence[str]) -> list[Path]:
    (folder / "index.txt").write_text("".join(f"{name}\n" for name in names))
    return [folder / "index.txt"]


TOY = PipelineSpec("toy", "doubles numbers", "Number", ToyConfig, Toy)
NUMBERS = ReaderSpec("numbers", "numbers in a JSON file", "Number", match, NumberReader)
# Not announced by the `toys` fixture: tests that need them install them.
CURVES = PipelineSpec(
    "curves", "random points", "Number", ToyConfig, Curves, has_fit=False, eval_seeds=3, eval_baselines=True
)
LINES = WriterSpec("lines", "a text file per number", "Number", write, write_index)
