# SPDX-License-Identifier: Apache-2.0
"""Model folders: whole or absent, continued after a stop, refused when the command differs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError, UserError
from vision3d.run import registry
from vision3d.run.config import default_config
from vision3d.run.console import Console
from vision3d.run.data import open_data
from vision3d.run.fitting import Fit, WorkContext
from vision3d.run.modelfolder import model_config, read_card, require_fitted_by


class Bench:
    """The toy, ready to be fitted in the current folder."""

    def __init__(self, source: Path, **data: Any) -> None:
        self.spec = registry.load(registry.PIPELINES, "toy")
        self.config = replace(default_config(self.spec), data=DataConfig(**data))
        self.source = source
        self.said = io.StringIO()

    def fit(self, out: str = "maps/a", pipeline: Any = None, **changes: Any) -> dict[str, Any]:
        options = {k: changes.pop(k) for k in ("overwrite", "extend") if k in changes}
        config = replace(self.config, pipeline=replace(self.config.pipeline, **changes))
        console = Console(self.said)
        data = open_data(str(self.source), config.data, console, "Number")
        pipeline = pipeline or self.spec.make(config.pipeline)
        return Fit(pipeline, config, data.reader, Path(out), console, reader_name="numbers", **options).execute()


class Stop(Exception):
    """Ends a fit in the middle, as an interrupt does."""


def stopping(bench: Bench, at: int) -> Any:
    """The toy, raising in the given stage."""
    toy = bench.spec.make(bench.config.pipeline)
    stage = toy._stage

    def _stage(train: Any, k: int) -> Any:
        if k == at:
            raise Stop
        return stage(train, k)

    toy._stage = _stage
    return toy


@pytest.fixture
def bench(toys: Path, numbers: Callable[..., Path]) -> Bench:
    return Bench(numbers(6))


def content(model: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in model.iterdir() if p.name not in ("timing.json", "log.txt")}


def test_a_model_folder(bench: Bench) -> None:
    card = bench.fit(labels=("x",))
    model = Path("maps/a")
    assert sorted(p.name for p in model.iterdir()) == [
        "card.json",
        "config.yaml",
        "log.txt",
        "timing.json",
        "toy.safetensors",
    ]
    assert list(Path("maps").iterdir()) == [model]  # nothing else stays
    assert card == read_card(model) == require_fitted_by(model, "toy")
    assert (card["n_samples"], card["n_bad"], card["seed"], card["pipeline"]) == (6, 0, 0, "toy")
    assert card["data"]["dataset"] == "some numbers"
    assert model_config(model, default_config(bench.spec)).pipeline.labels == ("x",)
    assert "numbers: 6 numbers" in (model / "log.txt").read_text()
    timing = json.loads((model / "timing.json").read_text())
    assert list(timing["stages_s"]) == ["stage/0", "stage/1", "stage/2"]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_stopped_fit_goes_on_to_the_same_bytes(bench: Bench, stage: int) -> None:
    bench.fit("maps/whole")
    with pytest.raises(Stop):
        bench.fit("maps/a", stopping(bench, stage))
    assert not Path("maps/a").exists()
    assert len(list(Path("maps/.a.fit/cache").iterdir())) == stage
    bench.said.truncate(0)
    bench.fit("maps/a")
    assert "continuing the unfinished fit of maps/a" in bench.said.getvalue()
    assert bench.said.getvalue().count("from an earlier run") == stage
    assert content(Path("maps/a")) == content(Path("maps/whole"))
    assert not Path("maps/.a.fit").exists()


def test_an_unfinished_fit_of_another_command_is_kept(bench: Bench, numbers: Callable[..., Path]) -> None:
    with pytest.raises(Stop):
        bench.fit("maps/a", stopping(bench, 1))
    with pytest.raises(ConfigError, match=r"\.a\.fit: holds .* of another command \(pipeline\.bonus: None -> 1\.0\)"):
        bench.fit(bonus=1.0)
    numbers(6, row1=["n001", 2.0, 4.5])
    with pytest.raises(ConfigError, match=r"data:truth: 6 \("):
        bench.fit()
    bench.fit(bonus=1.0, overwrite=True)
    assert model_config(Path("maps/a"), bench.config).pipeline.bonus == 1.0


def test_a_fit_killed_before_it_began_is_forgotten(bench: Bench) -> None:
    Path("maps/.a.fit/cache").mkdir(parents=True)
    bench.fit()
    assert not Path("maps/.a.fit").exists()


def test_a_damaged_cache_file_is_made_again(bench: Bench) -> None:
    bench.fit("maps/whole")
    with pytest.raises(Stop):
        bench.fit("maps/a", stopping(bench, 2))
    for path in Path("maps/.a.fit/cache").iterdir():
        path.write_bytes(path.read_bytes()[:-30])
    bench.fit()
    assert content(Path("maps/a")) == content(Path("maps/whole"))


def test_existing_models_are_replaced_only_on_demand(bench: Bench) -> None:
    bench.fit()
    with pytest.raises(UserError, match="maps/a: exists already; --overwrite replaces it"):
        bench.fit()
    bench.fit(overwrite=True, bonus=2.0)
    assert model_config(Path("maps/a"), bench.config).pipeline.bonus == 2.0
    assert [p.name for p in Path("maps").iterdir()] == ["a"]


def test_a_failing_refit_leaves_the_old_model(bench: Bench) -> None:
    bench.fit()
    before = content(Path("maps/a"))
    with pytest.raises(Stop):
        bench.fit("maps/a", stopping(bench, 1), overwrite=True)
    assert content(Path("maps/a")) == before


def test_overwrite_never_touches_what_is_no_model(bench: Bench) -> None:
    Path("home").mkdir()
    Path("home/thesis.tex").write_text("years")
    with pytest.raises(UserError, match="home: is not a model folder, so --overwrite does not touch it"):
        bench.fit("home", overwrite=True)
    Path("file").write_text("x")
    with pytest.raises(UserError, match="file: is not a model folder"):
        bench.fit("file", overwrite=True)
    assert Path("home/thesis.tex").read_text() == "years"
    with pytest.raises(UserError, match="cannot be made"):
        bench.fit("file/model")


def test_bad_samples_are_left_out_and_counted(toys: Path, numbers: Callable[..., Path]) -> None:
    source = numbers(6, row1=["n001", "absent", 4.0], row4=["n004", None, 9.0])
    bench = Bench(source, skip_bad=True)
    card = bench.fit()
    assert (card["n_samples"], card["n_bad"]) == (4, 2)
    assert [item["name"] for item in card["bad"]] == ["n001", "n004"]
    assert "left out n004: " in bench.said.getvalue()
    none = Bench(numbers(2, "none", row0=["a", None, 1.0], row1=["b", None, 1.0]), skip_bad=True)
    with pytest.raises(UserError, match="none: none of the 2 samples is usable"):
        none.fit("maps/b")
    strict = Bench(numbers(3, "strict", row1=["b", None, 1.0]))
    with pytest.raises(DataError, match="b cannot be read"):
        strict.fit("maps/c")


def test_a_model_that_cannot_be_loaded_is_not_published(bench: Bench) -> None:
    toy = bench.spec.make(bench.config.pipeline)
    toy.fit = lambda train, out, context: None
    with pytest.raises(DataError, match="is no model of the toy"):
        bench.fit(pipeline=toy)
    assert not Path("maps/a").exists()


def test_extending(bench: Bench) -> None:
    bench.fit()
    card = bench.fit("maps/b", extend=Path("maps/a"))
    assert card["extends"]
    bench.fit("maps/a", extend=Path("maps/a"), overwrite=True)
    assert read_card(Path("maps/a"))["extends"] == card["extends"]

    class Fixed:
        pass

    with pytest.raises(UserError, match="pipeline 'toy' cannot extend a model"):
        bench.fit("maps/c", Fixed(), extend=Path("maps/a"))


def test_what_is_no_model_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such model folder"):
        read_card(tmp_path / "x")
    with pytest.raises(DataError, match="is no model folder"):
        read_card(tmp_path)
    (tmp_path / "card.json").write_text('{"schema": 9, "pipeline": "toy"}')
    with pytest.raises(DataError, match="has schema 9; this version reads 1"):
        read_card(tmp_path)
    (tmp_path / "card.json").write_text('{"schema": 1, "pipeline": "toy"}')
    with pytest.raises(DataError, match="is a model of pipeline 'toy', not of 'favor'"):
        require_fitted_by(tmp_path, "favor")


def arrays() -> dict[str, Any]:
    return {
        "z/second": np.arange(6, dtype=np.int16).reshape(2, 3).T,
        "file": np.float16(2.5),
        "words": np.array(["a", "bc"]),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3)),
    }


def test_cached_arrays_come_back_in_type_order_and_memory_layout(tmp_path: Path) -> None:
    first = WorkContext(tmp_path, 3, Console()).cached("a stage/with ünusual name", arrays)
    second = WorkContext(tmp_path, 3, Console()).cached("a stage/with ünusual name", lambda: pytest.fail("made again"))
    assert list(first) == list(second) == list(arrays())
    for name, wanted in arrays().items():
        for got in (first[name], second[name]):
            np.testing.assert_array_equal(got, wanted)
            assert (got.dtype, got.shape, got.flags.c_contiguous) == (wanted.dtype, wanted.shape, True)


def test_cache_keys_do_not_collide(tmp_path: Path) -> None:
    context = WorkContext(tmp_path, 0, Console())
    keys = ["a/b", "a-b", "a b", "x" * 300, "x" * 301, "../up"]
    for i, key in enumerate(keys):
        context.cached(key, lambda i=i: {"i": np.array(i)})
    assert len(list(tmp_path.iterdir())) == len(keys)
    with pytest.raises(ValueError, match="cache key 'a/b' is used twice"):
        context.cached("a/b", dict)
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        context.cached("objects", lambda: {"o": np.array([None])})


def test_random_numbers_after_a_stage_do_not_depend_on_the_cache(tmp_path: Path) -> None:
    def draw(folder: Path) -> float:
        WorkContext(folder, 0, Console()).cached("a", lambda: {"a": np.random.rand(5)})  # noqa: NPY002
        return float(np.random.rand())  # noqa: NPY002

    assert draw(tmp_path / "x") == draw(tmp_path / "x") == draw(tmp_path / "y")
