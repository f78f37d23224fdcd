# SPDX-License-Identifier: Apache-2.0
"""The configuration of one command: the pipeline's own dataclass, the data options and the runner's."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from vision3d.contracts import DataConfig, PipelineSpec
from vision3d.errors import ConfigError, UserError

SCHEMA = 1


@dataclass(frozen=True)
class RunnerConfig:
    """How a run is carried out; the same for every pipeline.

    Attributes:
        seed: of every random number; equal seeds and inputs give equal bytes.
        threads: of numeric libraries; 0 leaves them as they are.
        runs: folder that run folders are made in.
        watchdog: stop after this many failures in a row; 0 never stops.
        strict: let an exception of the pipeline end the run, instead of counting it as a failure.
        pictures: frames to draw, spread over the run; as many failures are drawn besides.
    """

    seed: int = field(default=0, metadata={"min": 0, "max": 2**32 - 1})
    threads: int = field(default=0, metadata={"min": 0, "max": 1024})
    runs: Path = field(default=Path("runs"), metadata={"identity": False})
    watchdog: int = field(default=0, metadata={"min": 0, "identity": False})
    strict: bool = field(default=False, metadata={"identity": False})
    pictures: int = field(default=12, metadata={"min": 0, "identity": False})


@dataclass(frozen=True)
class FullConfig:
    """Everything that decides what a command computes, but for the data and the model."""

    pipeline_name: str
    pipeline: Any
    data: DataConfig = field(default_factory=DataConfig)
    runner: RunnerConfig = field(default_factory=RunnerConfig)

    def sections(self) -> dict[str, Any]:
        """Section name -> dataclass."""
        return {"pipeline": self.pipeline, "data": self.data, "runner": self.runner}

    def plain(self) -> dict[str, Any]:
        """As YAML and JSON hold it; ``pipeline.type`` is the pipeline's name."""
        return {
            "schema": SCHEMA,
            "pipeline": {"type": self.pipeline_name, **to_plain(self.pipeline)},
            "data": to_plain(self.data),
            "runner": to_plain(self.runner),
        }

    def identity(self) -> dict[str, Any]:
        """Dotted path -> value of everything that the results depend on."""
        skipped = {
            f"{name}.{f.name}"
            for name, section in self.sections().items()
            for f in dataclasses.fields(section)
            if not f.metadata.get("identity", True)
        }
        return {key: value for key, value in flatten(self.plain()).items() if key not in skipped}


def default_config(spec: PipelineSpec) -> FullConfig:
    """The class defaults of a pipeline.

    Raises:
        UserError: the plug-in's config is no frozen dataclass with defaults, or takes a name of the runner.
    """
    where = f"pipeline '{spec.name}' is broken: {getattr(spec.config_type, '__name__', spec.config_type)}"
    if not (isinstance(spec.config_type, type) and dataclasses.is_dataclass(spec.config_type)):
        raise UserError(f"{where} is no dataclass")
    if not spec.config_type.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise UserError(f"{where} must be a frozen dataclass")
    taken = {f.name for cls in (DataConfig, RunnerConfig) for f in dataclasses.fields(cls)} | RESERVED
    clash = [f.name for f in dataclasses.fields(spec.config_type) if f.name in taken]
    if clash:
        raise UserError(f"{where} may not have a field '{clash[0]}': the runner has an option of that name")
    try:
        return FullConfig(spec.name, spec.config_type())
    except TypeError as error:
        raise UserError(f"{where} needs a default for every field ({error})") from None


# Options of the verbs themselves, which no pipeline section may hide.
RESERVED = {"source", "more", "out", "model", "config", "resume", "overwrite", "extend", "baselines", "seeds"} | {
    "json",
    "help",
    "type",
}


def validate(config: FullConfig) -> None:
    """Ranges given as ``metadata={"min": ..., "max": ...}`` of fields.

    Raises:
        ConfigError: names the option as it is typed on the command line.
    """
    for section in config.sections().values():
        for path, f, value in _leaves(section):
            problem = range_problem(f, value)
            if problem:
                raise ConfigError(f"--{path.replace('_', '-')} {problem}")


def range_problem(f: dataclasses.Field[Any], value: Any) -> str:
    """What is wrong with a number's range, empty if nothing; sequences count element by element."""
    if isinstance(value, (list, tuple)):
        return next((problem for item in value if (problem := range_problem(f, item))), "")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    if isinstance(value, float) and value != value and ("min" in f.metadata or "max" in f.metadata):
        return "must be a number, got nan"
    if "min" in f.metadata and value < f.metadata["min"]:
        return f"must be at least {f.metadata['min']}, got {value}"
    if "max" in f.metadata and value > f.metadata["max"]:
        return f"must be at most {f.metadata['max']}, got {value}"
    return ""


def _leaves(section: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    for f in dataclasses.fields(section):
        value = getattr(section, f.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f, value


def to_plain(value: Any) -> Any:
    """A config dataclass as dicts, lists and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return value.as_posix()
    return value


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts -> dotted path -> value."""
    out: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping) and value:
            out.update(flatten(value, f"{prefix}{key}."))
        else:
            out[prefix + key] = value
    return out


def identity_hash(identity: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of an identity; its first digits name run folders."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``path: old -> new`` for every value that differs."""
    absent = "(absent)"
    return [
        f"{key}: {_short(old.get(key, absent))} -> {_short(new.get(key, absent))}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key, absent) != new.get(key, absent)
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:12] + "..."


def dump_yaml(config: FullConfig, comments: bool = False) -> str:
    """The config as YAML that :func:`vision3d.run.strict_yaml.load_config` reads back unchanged.

    With ``comments``, each option carries its documentation from the dataclass' docstring.
    """
    lines = [f"schema: {SCHEMA}"]
    for name, section in config.sections().items():
        lines.append(f"{name}:")
        if name == "pipeline":
            lines.append(f"  type: {_scalar(config.pipeline_name)}")
        lines += _dump_section(section, "  ", comments)
    return "\n".join(lines) + "\n"


def _dump_section(section: Any, indent: str, comments: bool) -> list[str]:
    docs = field_docs(type(section)) if comments else {}
    lines = []
    for f in dataclasses.fields(section):
        value = getattr(section, f.name)
        if comments and docs.get(f.name):
            lines.append(f"{indent}# {docs[f.name]}")
        if dataclasses.is_dataclass(value):
            nested = _dump_section(value, indent + "  ", comments)
            lines += [f"{indent}{f.name}:", *nested] if nested else [f"{indent}{f.name}: {{}}"]
        else:
            lines.append(f"{indent}{f.name}: {_scalar(to_plain(value))}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        # Not PyYAML's form, which loses the exponent's sign for some numbers and is not the shortest.
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_scalar(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        plain = value and value.replace("-", "").replace("_", "").isalnum() and value[0].isalpha()
        words = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
        return value if plain and value.isascii() and value.lower() not in words else _quoted(value)
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).split("\n")[0]


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar on one line. JSON's escapes would not do: YAML joins no surrogate pairs."""
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable() and char != "\ufeff":
            out.append(char)
        else:
            out.append(f"\\U{ord(char):08X}")
    return '"' + "".join(out) + '"'


def field_docs(cls: type) -> dict[str, str]:
    """Field -> one line of documentation, from the ``Attributes:`` of the class' docstring and its parents'."""
    import docstring_parser

    parents = [parent for parent in reversed(cls.__mro__) if parent is not object]
    params = [p for parent in parents for p in docstring_parser.parse(vars(parent).get("__doc__") or "").params]
    return {p.arg_name: " ".join((p.description or "").replace("``", "'").split()) for p in params}


def field_types(cls: type) -> dict[str, Any]:
    """Field -> resolved type, with ``Annotated`` stripped."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def union_members(kind: Any) -> tuple[Any, ...]:
    """The members of ``A | B``; (kind,) for anything else."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)
