# SPDX-License-Identifier: Apache-2.0
"""Identity, differences, and what a pipeline's config may look like."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from vision3d.contracts import DataConfig, PipelineSpec
from vision3d.errors import ConfigError, UserError
from vision3d.run.config import (
    FullConfig,
    RunnerConfig,
    default_config,
    differences,
    dump_yaml,
    identity_hash,
    validate,
)


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        size: of the part, in metres.
    """

    size: float = field(default=1.0, metadata={"min": 0.0, "max": 2.0})


@dataclass(frozen=True)
class Good:
    part: Part = field(default_factory=Part)
    name: str = "x"


@dataclass
class Melted:
    name: str = "x"


@dataclass(frozen=True)
class Clash:
    seed: int = 0


@dataclass(frozen=True)
class Demanding:
    name: str


def spec(config_type: type) -> PipelineSpec:
    return PipelineSpec("p", "", "Frame", config_type, lambda config: config)


def test_the_default_config() -> None:
    assert default_config(spec(Good)) == FullConfig("p", Good(), DataConfig(), RunnerConfig())


@pytest.mark.parametrize(
    ("config_type", "message"),
    [
        (int, "int is no dataclass"),
        (Melted, "Melted must be a frozen dataclass"),
        (Clash, "Clash may not have a field 'seed': the runner has an option of that name"),
        (Demanding, "Demanding needs a default for every field"),
    ],
)
def test_a_config_that_cannot_be_used_names_the_plug_in(config_type: type, message: str) -> None:
    with pytest.raises(UserError, match=f"pipeline 'p' is broken: {message}"):
        default_config(spec(config_type))


def test_identity_leaves_out_what_does_not_change_results() -> None:
    config = default_config(spec(Good))
    same = replace(config, runner=replace(config.runner, runs=Path("elsewhere"), pictures=3, watchdog=9, strict=True))
    assert same.identity() == config.identity()
    for other in (
        replace(config, pipeline=Good(Part(0.5))),
        replace(config, data=DataConfig(select="::2")),
        replace(config, runner=RunnerConfig(seed=1)),
        replace(config, runner=RunnerConfig(threads=1)),
    ):
        assert identity_hash(other.identity()) != identity_hash(config.identity())
        assert len(differences(config.identity(), other.identity())) == 1
    assert differences(config.identity(), replace(config, pipeline=Good(Part(0.5))).identity()) == [
        "pipeline.part.size: 1.0 -> 0.5"
    ]


def test_ranges_are_checked_by_the_option_that_is_typed() -> None:
    config = default_config(spec(Good))
    validate(config)
    with pytest.raises(ConfigError, match=r"--part\.size must be at most 2\.0, got 3"):
        validate(replace(config, pipeline=Good(Part(3.0))))


def test_comments_come_from_docstrings() -> None:
    text = dump_yaml(default_config(spec(Good)), comments=True)
    assert "    # of the part, in metres.\n    size: 1.0\n" in text
    assert "#" not in dump_yaml(default_config(spec(Good)))


@dataclass(frozen=True)
class Special(Part):
    """A part of another kind, whose options are documented where they come from."""

    weight: float = 1.0


def test_comments_come_from_the_parents_docstrings_too() -> None:
    text = dump_yaml(FullConfig("special", Special()), comments=True)
    assert "  # of the part, in metres.\n  size: 1.0\n  weight: 1.0\n" in text
