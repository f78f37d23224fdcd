# SPDX-License-Identifier: Apache-2.0
"""Data set cards: one YAML file each, saying what a data set is, under which licence, where from and how laid out."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision3d.contracts import ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.readers._poses import read_text
from vision3d.readers._source import split_source

REQUIRED = ("name", "what", "licence", "home", "reader", "layout", "splits", "protocol")
OPTIONAL = ("related", "checksums")


def cards_dir() -> Path:
    """The folder of cards: inside an installed package, or ``datasets/`` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "datasets", package.parent / "datasets"):
        if next(folder.glob("*.yaml"), None) is not None:
            return folder
    raise DataError(package / "datasets", "data set cards are missing: reinstall vision3d")


def load_cards() -> dict[str, dict[str, Any]]:
    """Card name -> its fields, sorted by name; raises DataError naming file and field."""
    return {path.stem: read_card(path) for path in sorted(cards_dir().glob("*.yaml"))}


def read_card(path: Path) -> dict[str, Any]:
    """One card, checked: all required fields, no unknown one, a name equal to the file's."""
    import yaml

    try:
        data = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise DataError(path, f"is not YAML{'' if mark is None else f' (line {mark.line + 1})'}") from None
    if not isinstance(data, dict):
        raise DataError(path, f"must hold fields, found {type(data).__name__}")
    for field in REQUIRED:
        if not data.get(field):
            raise DataError(path, f"field '{field}' is missing or empty")
    for field, value in data.items():
        if field not in REQUIRED + OPTIONAL:
            raise DataError(path, f"unknown field '{field}'; known: {', '.join(REQUIRED + OPTIONAL)}")
        kind: type = {"splits": dict, "checksums": dict, "related": list}.get(field, str)
        if not isinstance(value, kind):
            raise DataError(path, f"field '{field}' must be of type {kind.__name__}, found {type(value).__name__}")
    if data["name"] != path.stem:
        raise DataError(path, f"field 'name' is '{data['name']}' but the file is called {path.stem}")
    return data


def check(card_or_reader: str, source: str, specs: Mapping[str, ReaderSpec] | None = None) -> list[str]:
    """Problems of the data at ``source``, one line each: the reader's own check, then the card's checksums.

    Args:
        specs: the readers to choose from; by default all that are installed.

    Raises:
        ConfigError: there is neither a card nor a reader of that name.
    """
    cards = load_cards()
    specs = reader_specs() if specs is None else specs
    card = cards.get(card_or_reader, {})
    reader = card.get("reader", card_or_reader)
    if reader not in specs:
        known = ", ".join(sorted({*cards, *specs}))
        raise ConfigError(f"'{card_or_reader}' is neither a data set card nor a reader; known: {known}")
    card = card or cards.get(specs[reader].card, {})
    check_reader = specs[reader].check
    problems = [] if check_reader is None else check_reader(source)
    return problems + _checksum_problems(Path(split_source(source)[0]), card.get("checksums", {}))


def reader_specs() -> dict[str, ReaderSpec]:
    """Reader name -> spec, of every installed reader that loads: a broken plug-in must not hide the others."""
    specs = {}
    for entry in sorted(importlib.metadata.entry_points(group="vision3d.readers"), key=lambda entry: entry.name):
        try:
            specs[entry.name] = entry.load()
        except Exception:  # whatever a foreign module raises; `vision3d list` names it and says why
            continue
    return specs


def _checksum_problems(root: Path, checksums: Mapping[str, str]) -> list[str]:
    """Files below ``root`` that differ from the published ones; absent files are not this check's business."""
    problems = []
    for relative, wanted in checksums.items():
        path = root / relative
        if path.is_file():
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found != wanted:
                problems.append(f"{path}: sha256 is {found[:12]}..., the published file has {wanted[:12]}...")
    return problems
