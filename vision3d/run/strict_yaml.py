# SPDX-License-Identifier: Apache-2.0
"""YAML onto frozen dataclasses, strictly: whatever is wrong is said in one line with file, line and path.

Scalars follow YAML 1.2's core schema rather than PyYAML's 1.1: ``1e-3`` is a number, ``1:10`` and ``yes`` are text.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import yaml

from vision3d.errors import ConfigError
from vision3d.run.config import SCHEMA, FullConfig, field_types, range_problem, union_members

INT = re.compile(r"[-+]?[0-9]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NAMED = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}
PLAIN_TAGS = ("str", "int", "float", "bool", "null", "map", "seq", "timestamp", "value", "merge")
KNOWN_TAGS = {f"tag:yaml.org,2002:{tag}" for tag in PLAIN_TAGS}


class _Problem(Exception):
    """What is wrong at a node; turned into a ConfigError with file and line."""

    def __init__(self, node: yaml.Node, message: str) -> None:
        self.node = node
        super().__init__(message)


def load_config(path: Path, base: FullConfig) -> FullConfig:
    """``base`` with the values that the file gives.

    Raises:
        ConfigError: one line ``file:line: problem``, for a file that cannot be read, an unknown or doubled key,
            a wrong type, a value out of range, a foreign schema or another pipeline's config.
    """
    root = _root(path)
    try:
        items = _items(root, "", ("schema", *base.sections()))
        if "schema" in items:
            found = _convert(items["schema"][1], int, "schema")
            if found != SCHEMA:
                raise _Problem(items["schema"][1], f"schema {found} is not supported; this version reads {SCHEMA}")
        changes: dict[str, Any] = {}
        for name, section in base.sections().items():
            if name not in items:
                continue
            key, node = items[name]
            extra = ("type",) if name == "pipeline" else ()
            if extra and isinstance(node, yaml.MappingNode):
                _require_pipeline(node, base.pipeline_name)
            changes[name] = _build(node, section, name, key, extra)
        return dataclasses.replace(base, **changes)
    except _Problem as problem:
        raise ConfigError(f"{path}:{problem.node.start_mark.line + 1}: {problem}") from None


def pipeline_name(path: Path) -> str:
    """``pipeline.type`` of a config file.

    Raises:
        ConfigError: the file cannot be read or names no pipeline.
    """
    root = _root(path)
    try:
        for key, value in _entries(root, ""):
            if key.value == "pipeline":
                for inner, name in _entries(value, "pipeline"):
                    if inner.value == "type":
                        return str(_convert(name, str, "pipeline.type"))
    except _Problem as problem:
        raise ConfigError(f"{path}:{problem.node.start_mark.line + 1}: {problem}") from None
    raise ConfigError(f"{path}:1: names no pipeline; begin with 'pipeline:' and below it 'type: NAME'")


def _root(path: Path) -> yaml.Node:
    try:
        root = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}:1: is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise ConfigError(f"{path}:{line}: is not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}:1: is not valid YAML: {' '.join(str(error).split())}") from None
    if root is None:
        raise ConfigError(f"{path}:1: is empty; `vision3d config dump PIPELINE` writes a complete one")
    return root


def _require_pipeline(node: yaml.MappingNode, name: str) -> None:
    for key, value in _entries(node, "pipeline"):
        if key.value == "type":
            found = _convert(value, str, "pipeline.type")
            if found != name:
                raise _Problem(value, f"is a config of pipeline '{found}', not of '{name}'")


def _entries(node: yaml.Node, path: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _Problem(node, f"{path or 'the file'} must be a mapping of options, got {_shown(node)}")
    _require_known_tag(node, path)
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Problem(key, f"a key of {path or 'the file'} must be a word, got {_shown(key)}")
        if key.value in seen:
            raise _Problem(key, f"key '{_join(path, key.value)}' is given twice")
        seen.add(key.value)
    return list(node.value)


def _items(node: yaml.Node, path: str, known: Sequence[str]) -> dict[str, tuple[yaml.ScalarNode, yaml.Node]]:
    items = {}
    for key, value in _entries(node, path):
        if key.value not in known:
            near = difflib.get_close_matches(key.value, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known) or 'none'}"
            raise _Problem(key, f"unknown key '{_join(path, key.value)}'; {hint}")
        items[key.value] = (key, value)
    return items


def _build(node: yaml.Node, base: Any, path: str, where: yaml.Node, extra: tuple[str, ...] = ()) -> Any:
    """``base`` with the node's values; ``where`` is the key that a rule over several fields is blamed on."""
    kinds = field_types(type(base))
    fields = {f.name: f for f in dataclasses.fields(base)}
    if isinstance(node, yaml.ScalarNode) and _plain(node) is None:
        return base  # an empty section changes nothing
    changes: dict[str, Any] = {}
    keys: dict[str, yaml.Node] = {}
    for name, (key, value) in _items(node, path, (*extra, *kinds)).items():
        if name in extra:
            continue
        inner = _join(path, name)
        current = getattr(base, name)
        if dataclasses.is_dataclass(current) and _is_dataclass(kinds[name]):
            changes[name] = _build(value, current, inner, key)
        else:
            changes[name] = _convert(value, kinds[name], inner)
            problem = range_problem(fields[name], changes[name])
            if problem:
                raise _Problem(key, f"{inner} {problem}")
        keys[name] = key
    try:
        return dataclasses.replace(base, **changes)
    except (ValueError, ConfigError) as error:
        blamed = [name for name in changes if len(changes) == 1 or not _accepts(base, {name: changes[name]})]
        at, label = (keys[blamed[0]], _join(path, blamed[0])) if len(blamed) == 1 else (where, path)
        said = _one_line(error)
        raise _Problem(at, said if label.rpartition(".")[2] in said else f"{label}: {said}") from None


def _accepts(base: Any, changes: Mapping[str, Any]) -> bool:
    try:
        dataclasses.replace(base, **changes)
    except (ValueError, ConfigError):
        return False
    return True


def _convert(node: yaml.Node, kind: Any, path: str) -> Any:
    """The node as a value of type ``kind``."""
    _require_known_tag(node, path)
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is Literal:
        return _choice(node, typing.get_args(kind), path)
    members = union_members(kind)
    if len(members) > 1:
        return _union(node, members, path)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind[_choice(node, tuple(kind.__members__), path)]
    if _is_dataclass(kind):
        return _build(node, kind(), path, node)
    origin = typing.get_origin(kind) or kind
    if origin in (tuple, list, Sequence):
        return _sequence(node, kind, origin, path)
    if origin in (dict, Mapping):
        arguments = typing.get_args(kind) or (str, Any)
        return {key.value: _convert(v, arguments[1], _join(path, key.value)) for key, v in _entries(node, path)}
    if kind is Any:
        return _anything(node, path)
    if not isinstance(node, yaml.ScalarNode):
        raise _Problem(node, f"{path} must be {_kind_name(kind)}, got {_shown(node)}")
    value = _plain(node)
    if kind is type(None) and value is None:
        return None
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind in (bool, int) and type(value) is kind:
        return value
    if kind in (str, Path) and isinstance(value, str):
        return kind(value)
    raise _Problem(node, f"{path} must be {_kind_name(kind)}, got {_shown(node)}")


def _choice(node: yaml.Node, choices: tuple[Any, ...], path: str) -> Any:
    value = _plain(node) if isinstance(node, yaml.ScalarNode) else node
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise _Problem(node, f"{path} must be one of {', '.join(map(str, choices))}, got {_shown(node)}{hint}")


def _union(node: yaml.Node, members: tuple[Any, ...], path: str) -> Any:
    for member in members:
        try:
            return _convert(node, member, path)
        except _Problem:
            continue
    real = [m for m in members if m is not type(None)]
    if len(real) == 1:
        _convert(node, real[0], path)  # its own message is the most precise
    names = " or ".join(_kind_name(member) for member in members)
    raise _Problem(node, f"{path} must be {names}, got {_shown(node)}")


def _sequence(node: yaml.Node, kind: Any, origin: Any, path: str) -> Any:
    arguments = typing.get_args(kind) or (Any, ...)
    if not isinstance(node, yaml.SequenceNode):
        raise _Problem(node, f"{path} must be {_kind_name(kind)}, got {_shown(node)}")
    if origin is not tuple or arguments[-1] is Ellipsis:
        kinds = [arguments[0]] * len(node.value)
    else:
        kinds = list(arguments)
        if len(kinds) != len(node.value):
            raise _Problem(node, f"{path} must have {len(kinds)} values, got {len(node.value)}")
    values = [_convert(item, inner, f"{path}[{i}]") for i, (item, inner) in enumerate(zip(node.value, kinds))]
    return values if origin is list else tuple(values)


def _anything(node: yaml.Node, path: str) -> Any:
    _require_known_tag(node, path)
    if isinstance(node, yaml.ScalarNode):
        return _plain(node)
    if isinstance(node, yaml.SequenceNode):
        return [_anything(item, path) for item in node.value]
    return {key.value: _anything(value, _join(path, key.value)) for key, value in _entries(node, path)}


def _plain(node: yaml.ScalarNode) -> Any:
    """A scalar by YAML 1.2's core schema; quoted text is text."""
    text = node.value
    if node.style is not None:
        return text
    if text.lower() in ("", "~", "null"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if INT.fullmatch(text):
        return int(text)
    if FLOAT.fullmatch(text):
        return float(text)
    return NAMED.get(text.lower(), text)


def _require_known_tag(node: yaml.Node, path: str) -> None:
    if node.tag not in KNOWN_TAGS:
        raise _Problem(node, f"{path or 'the file'} carries the tag '{node.tag}'; tags are not allowed")


def _is_dataclass(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _kind_name(kind: Any) -> str:
    names = {int: "int", float: "a number", bool: "true or false", str: "text", Path: "a path", type(None): "null"}
    if kind in names:
        return names[kind]
    if (typing.get_origin(kind) or kind) in (tuple, list, Sequence):
        return "a list"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    return "a mapping" if (typing.get_origin(kind) or kind) in (dict, Mapping) or _is_dataclass(kind) else str(kind)


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    assert isinstance(node, yaml.ScalarNode)
    text = node.value if len(node.value) <= 40 else node.value[:37] + "..."
    return "nothing" if node.style is None and text == "" else f"'{text}'"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
