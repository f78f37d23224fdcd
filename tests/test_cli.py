# SPDX-License-Identifier: Apache-2.0
"""The command line: exit codes, one-line errors, one JSON document, and help that imports nothing heavy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plugin_fixtures import Command, install, numbers, site, toys, vision3d

from vision3d.cli import VERBS, main

__all__ = ["numbers", "site", "toys", "vision3d"]


class Run:
    """``main`` in this process: checks the exit code, returns standard output and standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *args: object, code: int = 0) -> tuple[str, str]:
        found = main([str(a) for a in args])
        out, err = self.capsys.readouterr()
        assert found == code, err
        return out, err

    def json(self, *args: object, code: int = 0) -> Any:
        out, _ = self(*args, "--json", code=code)
        return json.loads(out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], site: Path) -> Run:
    return Run(capsys)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf") / "m"


@pytest.fixture
def model(run: Run, toys: Path, numbers: Callable[..., Path], shelf: Path) -> Path:
    """A model ``m`` of the toy from ``some numbers``, fitted once for all tests."""
    data = numbers(8)
    if not shelf.exists():
        run("fit", "toy", data, "--out", shelf)
    shutil.copytree(shelf, "m")
    return Path("m")


HEAVY = {"torch", "numpy", "tyro", "rich", "cv2", "scipy", "yaml"}
LIGHT_HELP = [["--help"], ["--version"], *[[verb, "--help"] for verb in VERBS]]


@pytest.mark.parametrize("args", LIGHT_HELP, ids=" ".join)
def test_help_imports_nothing_heavy(vision3d: Command, toys: Path, args: list[str]) -> None:
    code = f"import sys; from vision3d.cli import main; print(main({args!r})); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=vision3d.folder, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stderr.split())
    assert "vision3d_toys" not in done.stderr


def test_the_overview_names_verbs_and_plug_ins(run: Run, toys: Path) -> None:
    for args in ((), ("--help",), ("help",)):
        out, _ = run(*args)
        assert all(f"  {verb} " in out for verb in VERBS)
        assert "toy" in out
        assert "numbers" in out
    out, _ = run("eval", "--help")
    assert out.startswith("usage: vision3d eval PIPELINE DATA")


def test_pipeline_help_shows_every_option_with_its_documentation(run: Run, toys: Path) -> None:
    out, _ = run("fit", "toy", "--help")
    text = " ".join(out.replace("│", " ").split())
    for option in ("--stage.count", "--delay-s", "--mode {mean,zero}", "--select", "--skip-bad", "--seed", "--out"):
        assert option in text
    assert "seconds that each stage takes." in text
    assert "--pictures" not in text  # no option without an effect
    assert "--pictures" in run("run", "toy", "--help")[0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("fti", "unknown command 'fti'; did you mean 'fit'?"),
        ("zzz", "unknown command 'zzz'; there are: fit, run, eval"),
        ("fit", "fit needs a pipeline first: "),
        ("fit --out x", "fit needs a pipeline first: "),
        ("fit tpy DATA --out x", "unknown pipeline 'tpy'; did you mean 'toy'?"),
        ("fit toy --out x", "missing DATA (see vision3d fit toy --help)"),
        ("fit toy DATA", "missing --out (see vision3d fit toy --help)"),
        ("fit toy DATA more --out x", "more: no such file or folder, and no reader knows it as a URI"),
        ("fit toy DATA m --out x", "some numbers and m: no reader recognises these together"),
        ("fit toy", "missing DATA and --out (see vision3d fit toy --help)"),
        ("fit toy DATA --out x --stage.cuont 3", "unknown option '--stage.cuont'; did you mean '--stage.count'?"),
        ("fit toy DATA --out x --qqqq", "unknown option '--qqqq'; see vision3d fit toy --help"),
        ("fit toy DATA --out x --mode mena", "--mode must be one of mean, zero, got 'mena'; did you mean 'mean'?"),
        ("fit toy DATA --out x --stage.count x", "--stage.count must be int, got 'x'"),
        ("fit toy DATA --out x --delay-s x", "--delay-s must be a number, got 'x'"),
        ("fit toy DATA --out x --bonus x", "--bonus must be {None}|FLOAT, got 'x'"),
        ("fit toy DATA --out x --sizes 3", "--sizes needs 2 values"),
        ("fit toy DATA --out x --sizes 3 x", "--sizes must be INT INT, got '3 x'"),
        ("fit toy DATA --out x --sizes 3 4", "sizes must be wider than high"),
        ("fit toy DATA --out x --stage.count 0", "--stage.count must be at least 1, got 0"),
        ("fit toy DATA --out x --seed -1", "--seed must be at least 0, got -1"),
        ("fit toy DATA --out x --select 9::", "--select '9::' leaves none of the 8 samples of some numbers"),
        ("fit toy DATA --out x --reader no", "unknown reader 'no'; there are: "),
        ("fit toy nowhere --out x", "nowhere: no such file or folder"),
        ("fit toy DATA --out x --config no.yaml", "no.yaml: cannot be read"),
        ("eval toy DATA", "pipeline 'toy' needs --model, a folder that `vision3d fit toy` wrote"),
        ("eval toy DATA --model nowhere", "nowhere: no such model folder"),
        ("eval toy DATA --model DATA", "is no model folder (it holds no card.json)"),
        ("eval toy DATA --model m --resume nowhere", "nowhere: no such run folder"),
        ("compare", "the following arguments are required: RUN (see vision3d compare --help)"),
        ("compare m", "m: holds no metrics.json"),
        ("inspect nowhere", "nowhere: no such model folder"),
        ("list all", "invalid choice: 'all'"),
        ("convert DATA --to x", "convert needs DATA and OUT"),
        ("config dump no", "unknown pipeline 'no'"),
        ("config check no.yaml", "no.yaml: cannot be read"),
        ("datasets check 7scenes", "usage: vision3d datasets check NAME PATH"),
        ("datasets show nothing", "no card 'nothing'; there are: "),
        ("report nowhere", "nowhere: no such run folder"),
        ("export m m", "m: exists already and is not empty"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run: Run, model: Path, args: str, message: str) -> None:
    words = [("some numbers" if word == "DATA" else word) for word in args.split()]
    run.capsys.readouterr()
    _, err = run(*words, code=2)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert err.splitlines()[-1] == errors[0]
    assert "Traceback" not in err
    assert run.json(*words, code=2) == {"error": errors[0].removeprefix("error: ")}
    assert not Path("x").exists()


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_mistakes_are_one_line_on_any_terminal(
    vision3d: Command, toys: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    for args, message in (
        ("--sizes 3 x", "--sizes must be INT INT, got '3 x'"),
        ("--stage.cuont 3", "unknown option '--stage.cuont'; did you mean '--stage.count'?"),
        ("--mode", "--mode needs 1 value"),
    ):
        _, err = vision3d("fit", "toy", "data", "--out", "m", *args.split(), code=2)
        assert err == f"error: {message}\n"


def test_every_verb_prints_one_json_document(run: Run, toys: Path, numbers: Callable[..., Path]) -> None:
    data = numbers(8)
    fitted = run.json("fit", "toy", data, "--out", "m", "--select", "::2")
    assert (fitted["model"], fitted["card"]["n_samples"], fitted["facts"]) == ("m", 4, {"ratio": 2.0})
    ran = run.json("run", "toy", data, "--model", "m")
    assert (ran["n_frames"], ran["metrics"]) == (8, [])
    evaluated = run.json("eval", "toy", data, "--model", "m", "--select", "1::2", "--baselines")
    assert [m["name"] for m in evaluated["metrics"]] == ["median_error", "max_error", "recall"]
    assert set(evaluated["baselines"]) == {"zero"}
    assert Path(evaluated["report"]).read_text().startswith("<!doctype html>")
    assert set(evaluated["timing_ms"]["total"]) == {"median", "p95", "n"}
    compared = run.json("compare", ran["run"], evaluated["run"])
    assert [r["n_frames"] for r in compared["runs"]] == [8, 4]
    assert any(w.startswith("different samples: ") for w in compared["warnings"])
    listed = run.json("list")
    assert [p["name"] for p in listed["pipelines"] if p["package"] == "vision3d-toys"] == ["toy"]
    assert [r["samples"] for r in listed["readers"] if r["name"] == "numbers"] == ["Number"]
    assert run.json("inspect", "m")["facts"] == {"ratio": 2.0}
    assert run.json("export", "m", "public")["files"] == ["public/ratio.txt"]
    assert run.json("report", "latest")["report"].endswith("report.html")
    dumped = run.json("config", "dump", "toy")
    assert dumped["pipeline"]["type"] == "toy"
    assert dumped["pipeline"]["stage"] == {"count": 3, "delay_s": 0.0}
    assert any(d["name"] == "7scenes" for d in run.json("datasets", "list")["datasets"])
    assert run.json("datasets", "show", "7scenes")["reader"] == "7scenes"
    assert run.json("doctor")["versions"]["numpy"]
    assert run.json("--version")["version"]


def test_tables_for_people(run: Run, model: Path) -> None:
    out, err = run("eval", "toy", "some numbers", "--model", "m", "--baselines", "--seed", 7)
    assert "toy on some numbers (select ::, truth of the data set), n = 8, failed = 0, skipped = 0, seed = 7" in out
    row = next(line.split() for line in out.splitlines() if "max_error [m]" in line)
    assert row == ["max_error", "[m]", "0.002*", "16.000", "8"]
    assert "run: runs/toy/some-numbers/" in out
    assert "reader: numbers (guessed, score 0.90)" in err
    first, _ = run("compare", "runs/latest", "--baselines")
    assert "[1] toy" in first
    assert "[1] zero" in first
    _, err = run("run", "toy", "some numbers", "--model", "m")
    out, err = run("inspect", "m")
    assert "made from: 8 samples of some numbers (numbers), 0 left out" in out


def test_order_of_options_is_defaults_model_yaml_command_line(
    run: Run, toys: Path, numbers: Callable[..., Path]
) -> None:
    data = numbers(4)
    run("fit", "toy", data, "--out", "m", "--bonus", 1.0, "--sizes", 9, 3, "--labels", "a", "b", "--seed", 3)
    Path("a.yaml").write_text(
        "pipeline: {bonus: 2, break_on: n001}\nrunner: {pictures: 0, seed: 5}\ndata: {select: ':3'}\n"
    )
    Path("b.yaml").write_text("pipeline: {bonus: 4.0}\n")
    found = run.json(
        "eval", "toy", data, "--model", "m", "--config", "a.yaml", "--config", "b.yaml", "--break-on", "n002"
    )
    import yaml

    config = yaml.safe_load((Path(found["run"]) / "config.yaml").read_text())
    assert config["pipeline"]["sizes"] == [9, 3]  # of the model
    assert config["pipeline"]["labels"] == ["a", "b"]
    assert config["pipeline"]["bonus"] == 4.0  # of the second file
    assert config["pipeline"]["break_on"] == "n002"  # of the command line
    assert config["runner"]["seed"] == 5  # of the first file: a model decides nothing about the runner
    assert found["n_frames"] == 3
    assert found["failures"][0]["name"] == "n002"


def test_a_dumped_config_is_a_config(run: Run, model: Path) -> None:
    text, _ = run("config", "dump", "toy")
    Path("toy.yaml").write_text(text)
    assert run("config", "check", "toy.yaml")[0] == "toy.yaml: a valid config of toy\n"
    run("fit", "toy", "some numbers", "--config", "toy.yaml", "--out", "m2")
    assert Path("m2/toy.safetensors").read_bytes() == Path("m/toy.safetensors").read_bytes()
    Path("toy.yaml").write_text(text.replace("count: 3", "cuont: 3"))
    for command in (
        ("config", "check", "toy.yaml"),
        ("fit", "toy", "some numbers", "--config", "toy.yaml", "--out", "x"),
    ):
        _, err = run(*command, code=2)
        assert err == "error: toy.yaml:7: unknown key 'pipeline.stage.cuont'; did you mean 'count'?\n"


def test_select_takes_negative_numbers(run: Run, model: Path) -> None:
    assert run.json("run", "toy", "some numbers", "--model", "m", "--select", "-3::")["n_frames"] == 3


def test_a_model_of_another_pipeline_is_refused(run: Run, model: Path, toys: Path) -> None:
    (toys / "other.py").write_text(
        "from dataclasses import replace\nfrom vision3d_toys import TOY\nOTHER = replace(TOY, name='other')\n"
    )
    install(toys, "others", {"vision3d.pipelines": {"other": "other:OTHER"}})
    _, err = run("eval", "other", "some numbers", "--model", "m", code=2)
    assert err == "error: m: is a model of pipeline 'toy', not of 'other'\n"


def test_a_pipeline_without_fit(run: Run, toys: Path, numbers: Callable[..., Path]) -> None:
    (toys / "plain.py").write_text(
        "from dataclasses import replace\nimport vision3d_toys as t\n"
        "class Plain(t.Toy):\n"
        "    def step(self, model, sample, previous=None):\n"
        "        assert model is None\n"
        "        return t.Guess(sample.name, 2 * sample.value)\n"
        "PLAIN = replace(t.TOY, name='plain', has_fit=False, make=Plain)\n"
    )
    install(toys, "plains", {"vision3d.pipelines": {"plain": "plain:PLAIN"}})
    data = numbers(3)
    assert run.json("eval", "plain", data)["metrics"][1]["value"] == 0.0
    _, err = run("fit", "plain", data, "--out", "x", code=2)
    assert "has nothing to fit; use `vision3d run plain DATA`" in err


def test_broken_plug_ins_stop_nothing(run: Run, toys: Path, numbers: Callable[..., Path]) -> None:
    install(
        toys, "bad-pack", {"vision3d.readers": {"bad": "no_such_module:X"}, "vision3d.pipelines": {"bad": "json:no"}}
    )
    out, _ = run("list")
    assert "broken: ModuleNotFoundError: No module named 'no_such_module'" in out
    assert "broken: AttributeError" in out
    _, err = run("fit", "toy", numbers(3), "--out", "m")
    assert "warning: reader 'bad' could not be asked: reader 'bad' of package bad-pack is broken" in err
    _, err = run("fit", "bad", "x", code=2)
    assert err.startswith("error: pipeline 'bad' of package bad-pack is broken: AttributeError")
    found = run.json("doctor", code=1)
    assert [item["plugin"] for item in found["broken"] if item["package"] == "bad-pack"] == ["bad", "bad"]


def test_a_bug_shows_its_traceback_and_exit_code_1(vision3d: Command, toys: Path, numbers: Callable[..., Path]) -> None:
    (toys / "vision3d_toys.py").write_text(
        (toys / "vision3d_toys.py").read_text() + "\nToy.load = lambda self, m: 1 / 0\n"
    )
    out, err = vision3d("fit", "toy", numbers(3), "--out", "m", "--json", code=1)
    assert out == ""
    assert "Traceback" in err
    assert "ZeroDivisionError" in err


def test_checking_a_data_set(run: Run, tmp_path: Path) -> None:
    found = run.json("datasets", "check", "7scenes", tmp_path / "nowhere", code=1)
    assert not found["ok"]
    assert len(found["problems"]) >= 1
