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

from vision3d.contracts import DataConfig, PipelineSpec, ReaderSpec
from vision3d.errors import DataError
from vision3d.types import Chart, Exhibit, Metric


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

    def draw(self, model: float, sample: Number, result: Guess) -> Any:
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


TOY = PipelineSpec("toy", "doubles numbers", "Number", ToyConfig, Toy)
NUMBERS = ReaderSpec("numbers", "numbers in a JSON file", "Number", match, NumberReader)
