# SPDX-License-Identifier: Apache-2.0
"""Pipelines that bring a model of their own, data of several files, and what `eval` does unless told otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from plugin_fixtures import curves, install, numbers, site, toys

from vision3d.cli import main

__all__ = ["curves", "numbers", "site", "toys"]

# `bonus` decides which model is used: none given, the folder; 2, the file; 3, no model; 4, it cannot be had.
OWN = """
from dataclasses import replace
from pathlib import Path
import vision3d_toys as t
from vision3d.errors import UserError

def default_model(config):
    if config.bonus == 4:
        raise UserError("own needs weights: put them there")
    return {2.0: Path("weights.pt"), 3.0: None}.get(config.bonus, Path("bundled"))

class Own(t.Toy):
    def load(self, model):
        return float(model.read_text()) if model.is_file() else super().load(model)
    def step(self, model, sample, previous=None):
        return super().step(1.0 if model is None else model, sample, previous)
    def baselines(self):
        return {}

OWN = replace(t.TOY, name="own", make=Own, default_model=default_model)
OTHER = replace(OWN, name="other")
"""


class Run:
    """The command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *args: object, code: int = 0) -> tuple[str, str]:
        found = main([str(a) for a in args])
        out, err = self.capsys.readouterr()
        assert found == code, err
        return out, err

    def json(self, *args: object) -> Any:
        return json.loads(self(*args, "--json")[0])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], toys: Path) -> Run:
    return Run(capsys)


@pytest.fixture
def own(run: Run, toys: Path, numbers: Callable[..., Path]) -> Path:
    """The data; the model ``bundled`` was fitted with other options than the defaults."""
    (toys / "own.py").write_text(OWN)
    install(toys, "own", {"vision3d.pipelines": {"own": "own:OWN", "other": "own:OTHER"}})
    data = numbers(4)
    run("fit", "own", data, "--out", "bundled", "--sizes", 9, 3, "--labels", "fitted")
    Path("weights.pt").write_text("10")
    return data


def pipeline_of(found: dict[str, Any]) -> dict[str, Any]:
    section: dict[str, Any] = yaml.safe_load((Path(found["run"]) / "config.yaml").read_text())["pipeline"]
    return section


def test_a_folder_is_used_with_the_options_it_was_fitted_with(run: Run, own: Path) -> None:
    Path("a.yaml").write_text("pipeline: {break_on: n001}\n")
    _, err = run("eval", "own", own)
    assert "model: bundled (of own's own choice; --model uses another)" in err
    found = run.json("eval", "own", own, "--config", "a.yaml", "--sizes", 7, 5)
    section = pipeline_of(found)
    assert (section["labels"], section["sizes"], section["break_on"]) == (["fitted"], [7, 5], "n001")
    given = run.json("eval", "own", own, "--model", "bundled", "--config", "a.yaml", "--sizes", 7, 5)
    assert given["model"] == found["model"] != ""
    assert given["metrics"] == found["metrics"]
    assert (Path(given["run"]) / "run.json").read_bytes() == (Path(found["run"]) / "run.json").read_bytes()


def test_a_file_of_weights_is_used_and_fingerprinted(run: Run, own: Path) -> None:
    found = run.json("run", "own", own, "--bonus", 2)
    values = [float(line.split()[1]) for line in (Path(found["run"]) / "values.txt").read_text().splitlines()]
    assert values == pytest.approx([12, 22, 32, 42], abs=1e-3)
    assert pipeline_of(found)["labels"] == []
    given = run.json("run", "own", own, "--bonus", 2, "--model", "weights.pt")
    assert given["model"] == found["model"]
    Path("weights.pt").write_text("11")
    assert run.json("run", "own", own, "--bonus", 2)["model"] != found["model"]
    Path("weights.pt").unlink()
    assert run("run", "own", own, "--bonus", 2, code=2)[1].startswith("error: weights.pt: no such model")


def test_no_model_where_the_options_need_none(run: Run, own: Path) -> None:
    found = run.json("eval", "own", own, "--bonus", 3)
    assert found["model"] == ""
    assert run("eval", "own", own, "--bonus", 4, code=2)[1] == "error: own needs weights: put them there\n"
    assert "--bonus" in run("eval", "own", "--help")[0]


def test_the_choice_may_be_another_pipelines_model(run: Run, own: Path) -> None:
    found = run.json("eval", "other", own)
    assert pipeline_of(found)["labels"] == []
    assert found["model"]
    # but not what the user names: that is a mistake
    assert "is a model of pipeline 'own', not of 'other'" in run("eval", "other", own, "--model", "bundled", code=2)[1]


def test_a_file_is_no_model_of_a_pipeline_that_has_none_of_its_own(run: Run, own: Path) -> None:
    _, err = run("eval", "toy", own, "--model", "weights.pt", code=2)
    assert err == "error: weights.pt: is a file, not a model folder\n"


PAIRS = """
from pathlib import Path
import vision3d_toys as t
from vision3d.contracts import ReaderSpec

class Pair(t.NumberReader):
    def __init__(self, source, config):
        self.name, self.notes, self.bad, self.path = "pair", (source,), {}, source
        self.rows = [[Path(word).stem, 1.0 + i, 2.0 + 2 * i] for i, word in enumerate(source.split("::"))]

def match(source):
    words = source.split("::")
    return 1.0 if len(words) > 1 and all(Path(w).suffix == ".bin" and Path(w).exists() for w in words) else 0.0

PAIR = ReaderSpec("pair", "", "Number", match, Pair)
"""


@pytest.fixture
def pairs(own: Path, toys: Path) -> None:
    (toys / "pairs.py").write_text(PAIRS)
    install(toys, "pairs", {"vision3d.readers": {"pair": "pairs:PAIR"}})
    for name in ("a.bin", "b.bin", "a.none", "b.none"):
        Path(name).touch()


@pytest.mark.parametrize("verb", ["run", "eval"])
def test_several_words_of_data_are_one_source(run: Run, pairs: None, verb: str) -> None:
    for words in (
        ("a.bin", "b.bin"),
        ("a.bin", "--model", "bundled", "b.bin"),
        ("--reader", "pair", "a.bin", "b.bin"),
        ("a.bin::b.bin",),
        ("pair:a.bin::b.bin",),
    ):
        _, err = run(verb, "own", *words)
        assert "pair: a.bin::b.bin\n" in err


def test_fitting_to_several_words(run: Run, pairs: None) -> None:
    found = run.json("fit", "toy", "a.bin", "b.bin", "--out", "m")
    assert found["card"]["n_samples"] == 2
    # together they are too long for the name of a file, and some reader may look for one
    words = [f"{'x' * 60}{i}.bin" for i in range(9)]
    for name in words:
        Path(name).touch()
    _, err = run("fit", "toy", *words, "--out", "n")
    assert "reader 'numbers' could not be asked" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a.none gone.bin", "gone.bin: no such file or folder, and no reader knows it as a URI"),
        ("a.none b.none", "a.none and b.none: no reader recognises these together; name one with --reader ("),
        ("a.none", "a.none: no reader recognises this; name one with --reader ("),
        ("gone.bin", "gone.bin: no such file or folder"),
    ],
)
def test_words_that_no_reader_takes(run: Run, pairs: None, words: str, message: str) -> None:
    _, err = run("fit", "toy", *words.split(), "--out", "x", code=2)
    assert err.splitlines()[-1].startswith(f"error: {message}")


def test_baselines_and_seeds_are_the_pipelines_choice(run: Run, curves: Path, numbers: Callable[..., Path]) -> None:
    data = numbers(3)
    found = run.json("eval", "curves", data)
    assert (found["seeds"], len(found["runs"]), set(found["baselines"])) == ([0, 1, 2], 3, {"zero"})
    assert found["runs"][0] == found["run"]
    assert all((Path(folder) / "DONE").exists() for folder in found["runs"])
    offset = found["metrics"][0]
    assert offset["value"] == pytest.approx(sum(offset["values"]) / 3)
    assert offset["spread"] > 0
    assert set(found["timing"]["baselines"]["zero"]) == {"timing_ms", "peak_mb"}
    assert found["timing_ms"] == found["timing"]["timing_ms"]
    told = run.json("eval", "curves", data, "--no-baselines", "--seeds", 2, "--seed", 4)
    assert (told["seeds"], "baselines" in told) == ([4, 5], False)
    single = run.json("eval", "curves", data, "--seeds", 1)
    assert ("seeds" in single, single["runs"], "spread" in single["metrics"][0]) == (False, [single["run"]], False)
    # nothing in it hangs on the seed
    fixed = run.json("eval", "curves", data, "--mode", "zero")
    assert "seeds" not in fixed
    assert run.json("eval", "curves", data, "--mode", "zero", "--seeds", 2)["seeds"] == [0, 1]
    for count in ("-1", "101"):
        _, err = run("eval", "curves", data, "--seeds", count, code=2)
        assert err == f"error: --seeds must be from 0 to 100, got {count}\n"
    compared = run.json("compare", found["run"], single["run"])
    assert compared["runs"][0]["metrics"] == found["metrics"]
    assert [r["seeds"] for r in compared["runs"]] == [[0, 1, 2], None]


def test_the_printed_spread(run: Run, curves: Path, numbers: Callable[..., Path]) -> None:
    out, err = run("eval", "curves", numbers(3))
    assert "seeds = 0, 1, 2 (mean ±standard deviation; failed: of the worst)" in out
    row = next(line for line in out.splitlines() if "offset [m]" in line).split()
    assert (len(row[2]), row[3][0], len(row[3])) == (5, "±", 6)  # 0.523 ±0.014
    # a thousandth of the one before, 1 and 2, is added to two of three numbers
    assert row[4:] == ["0.001", "±0.000*", "3"]
    assert next(line for line in out.splitlines() if "n_points" in line).split() == ["n_points", "15", "15", "3"]
    costs = out[out.index("cost per sample") :].splitlines()
    assert costs[0].split() == ["cost", "per", "sample", "median", "ms", "p95", "ms", "peak", "MB"]
    assert [line.split()[0] for line in costs[2:4]] == ["curves", "zero"]
    assert "seed 1 (2 of 3)" in err
    out, _ = run("compare", "runs/latest", "--baselines")
    assert "±" in next(line for line in out.splitlines() if "offset [m]" in line)
