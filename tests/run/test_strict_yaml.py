# SPDX-License-Identifier: Apache-2.0
"""Bad YAML gives one line with file, line and path; good YAML comes back as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError
from vision3d.run.config import FullConfig, RunnerConfig, dump_yaml
from vision3d.run.strict_yaml import load_config, pipeline_name


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Features:
    """Attributes:
    name: which.
    count: how many.
    """

    name: Literal["sift", "alike-n"] = "sift"
    count: int = field(default=100, metadata={"min": 1, "max": 5000})
    bands: tuple[float, float] = field(default=(0.5, 1.0), metadata={"min": 0.0})


@dataclass(frozen=True)
class Options:
    """Everything the loader must know."""

    features: Features = field(default_factory=Features)
    voxel: float = 0.1
    on: bool = True
    text: str = "a"
    file: Path | None = None
    limit: int | None = None
    weights: tuple[float, ...] = ()
    words: tuple[str, ...] = ("x",)
    colour: Colour = Colour.RED
    table: Mapping[str, int] = field(default_factory=dict)
    low: int = 0
    high: int = 10

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.voxel == 0:
            raise ConfigError("voxel must not be zero")


BASE = FullConfig("probe", Options())

# (file content, the message after the file's name)
BAD = [
    ("pipeline:\n  features:\n    nmae: sift\n", ":3: unknown key 'pipeline.features.nmae'; did you mean 'name'?"),
    ("pipline: {}\n", ":1: unknown key 'pipline'; did you mean 'pipeline'?"),
    (
        "data:\n  qqqqq: 1\n",
        ":2: unknown key 'data.qqqqq'; there are: reader, split, truth, select, size, skip_bad",
    ),
    ("runner:\n  seed: abc\n", ":2: runner.seed must be int, got 'abc'"),
    ("runner:\n  seed: 1.5\n", ":2: runner.seed must be int, got '1.5'"),
    ("runner:\n  seed: '1'\n", ":2: runner.seed must be int, got '1'"),
    ("runner:\n  seed: true\n", ":2: runner.seed must be int, got 'true'"),
    ("runner:\n  seed: [1]\n", ":2: runner.seed must be int, got a list"),
    ("runner:\n  seed:\n", ":2: runner.seed must be int, got nothing"),
    ("runner:\n  seed: -1\n", ":2: runner.seed must be at least 0, got -1"),
    ("pipeline:\n  features: {count: 6000}\n", ":2: pipeline.features.count must be at most 5000, got 6000"),
    ("pipeline:\n  features: {bands: [1, -1]}\n", ":2: pipeline.features.bands must be at least 0.0, got -1.0"),
    ("pipeline:\n  features: {bands: [1, .nan]}\n", ":2: pipeline.features.bands must be a number, got nan"),
    ("pipeline:\n  features: {bands: [1]}\n", ":2: pipeline.features.bands must have 2 values, got 1"),
    ("pipeline:\n  features: {bands: 1}\n", ":2: pipeline.features.bands must be a list, got '1'"),
    ("pipeline:\n  features: sift\n", ":2: pipeline.features must be a mapping of options, got 'sift'"),
    (
        "pipeline:\n  features:\n    name: alike\n",
        ":3: pipeline.features.name must be one of sift, alike-n, got 'alike'; did you mean 'alike-n'?",
    ),
    ("pipeline:\n  on: yes\n", ":2: pipeline.on must be true or false, got 'yes'"),
    ("pipeline:\n  on: 1\n", ":2: pipeline.on must be true or false, got '1'"),
    ("pipeline:\n  text: 7\n", ":2: pipeline.text must be text, got '7'"),
    ("pipeline:\n  file: 3\n", ":2: pipeline.file must be a path, got '3'"),
    ("pipeline:\n  limit: few\n", ":2: pipeline.limit must be int, got 'few'"),
    ("pipeline:\n  voxel: '0.1'\n", ":2: pipeline.voxel must be a number, got '0.1'"),
    ("pipeline:\n  weights:\n  - 1\n  - x\n", ":4: pipeline.weights[1] must be a number, got 'x'"),
    ("pipeline:\n  colour: GREEN\n", ":2: pipeline.colour must be one of RED, BLUE, got 'GREEN'"),
    ("pipeline:\n  table: {a: b}\n", ":2: pipeline.table.a must be int, got 'b'"),
    ("pipeline:\n  text: a\n  low: 11\n", ":3: low 11 is above high 10"),
    ("pipeline:\n  low: 30\n  high: 20\n", ":2: low 30 is above high 20"),
    ("pipeline:\n  low: 9\n  high: 8\n", ":1: pipeline: low 9 is above high 8"),
    ("pipeline:\n  text: a\n  voxel: 0\n", ":3: voxel must not be zero"),
    ("pipeline:\n  on: true\n  on: false\n", ":3: key 'pipeline.on' is given twice"),
    ("pipeline:\n  type: favor\n", ":2: is a config of pipeline 'favor', not of 'probe'"),
    ("schema: 2\n", ":1: schema 2 is not supported; this version reads 1"),
    ("- a\n", ":1: the file must be a mapping of options, got a list"),
    ("pipeline:\n  [a]: 1\n", ":2: a key of pipeline must be a word, got a list"),
    ("pipeline:\n  text: !!python/name:os.system x\n", ":2: pipeline.text carries the tag"),
    ("pipeline:\n  text: 'open\n", ":3: is not valid YAML: found unexpected end of stream"),
    ("pipeline:\n\ttext: a\n", ":2: is not valid YAML: found character '\\t' that cannot start any token"),
    ("a: &x\nb: *y\n", ":2: is not valid YAML: found undefined alias 'y'"),
    ("", ":1: is empty; `vision3d config dump PIPELINE` writes a complete one"),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=range(len(BAD)))
def test_bad_files_are_explained_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path, BASE)
    text = str(caught.value)
    assert text.startswith(f"{path}{message}")
    assert "\n" not in text


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read \(No such file"):
        load_config(tmp_path / "nowhere.yaml", BASE)
    (tmp_path / "latin.yaml").write_bytes(b"pipeline:\n  text: \xff\n")
    with pytest.raises(ConfigError, match=r"latin.yaml:1: is not UTF-8"):
        load_config(tmp_path / "latin.yaml", BASE)


def test_scalars_follow_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "pipeline:\n  voxel: 1e-3\n  text: 1:10\n  limit: ~\n  weights: [1, .5, -2E+1, .inf]\n  words: [no, 'true']\n"
        "  colour: BLUE\n  table: {a: 010}\n  features:\ndata:\n  select: 1::2\n  truth: a b.txt\n"
    )
    config = load_config(path, BASE)
    assert config.pipeline == Options(
        voxel=0.001,
        text="1:10",
        weights=(1.0, 0.5, -20.0, float("inf")),
        words=("no", "true"),
        colour=Colour.BLUE,
        table={"a": 10},
    )
    assert config.data == DataConfig(select="1::2", truth=Path("a b.txt"))
    assert config.runner == RunnerConfig()


def test_later_files_win_and_keep_what_they_do_not_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("pipeline: {voxel: 2, features: {count: 5, name: alike-n}}\n")
    (tmp_path / "b.yaml").write_text("pipeline: {features: {count: 7}}\n")
    config = load_config(tmp_path / "b.yaml", load_config(tmp_path / "a.yaml", BASE))
    assert config.pipeline == Options(voxel=2.0, features=Features("alike-n", 7))


def test_the_pipeline_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(dump_yaml(BASE))
    assert pipeline_name(path) == "probe"
    path.write_text("data: {}\n")
    with pytest.raises(ConfigError, match=r"a.yaml:1: names no pipeline"):
        pipeline_name(path)


words = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.floats(allow_nan=False)


@settings(deadline=None)
@given(
    voxel=numbers.filter(bool),
    on=st.booleans(),
    text=words,
    limit=st.none() | st.integers(),
    weights=st.lists(numbers).map(tuple),
    labels=st.lists(words).map(tuple),
    table=st.dictionaries(words, st.integers()),
    count=st.integers(1, 5000),
    comments=st.booleans(),
)
def test_what_is_dumped_is_read_back(
    tmp_path_factory: Any,
    voxel: float,
    on: bool,
    text: str,
    limit: int | None,
    weights: tuple[float, ...],
    labels: tuple[str, ...],
    table: dict[str, int],
    count: int,
    comments: bool,
) -> None:
    options = Options(Features(count=count), voxel, on, text, limit=limit, weights=weights, words=labels, table=table)
    config = FullConfig("probe", options, DataConfig(select=text), RunnerConfig(seed=count))
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_bytes(dump_yaml(config, comments).encode())
    assert load_config(path, BASE) == config
