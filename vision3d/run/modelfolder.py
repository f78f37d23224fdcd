# SPDX-License-Identifier: Apache-2.0
"""The folder of a model: what the runner adds to it, and what it is recognised by."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from vision3d.errors import DataError, UserError
from vision3d.run.config import FullConfig
from vision3d.run.files import read_json

SCHEMA = 1
# Differ between two fits that made the same model.
VOLATILE = frozenset({"timing.json", "log.txt"})


def read_card(model: Path) -> dict[str, Any]:
    """``card.json`` of a model folder.

    Raises:
        DataError: the folder is missing or no model.
    """
    if model.is_file():
        raise DataError(model, "is a file, not a model folder")
    if not model.is_dir():
        raise DataError(model, "no such model folder")
    if not (model / "card.json").exists():
        raise DataError(model, "is no model folder (it holds no card.json)")
    card = read_json(model / "card.json")
    if not isinstance(card, dict) or "pipeline" not in card:
        raise DataError(model / "card.json", "is not the card of a model")
    if card.get("schema") != SCHEMA:
        raise DataError(model / "card.json", f"has schema {card.get('schema')}; this version reads {SCHEMA}")
    return card


def require_fitted_by(model: Path, pipeline: str) -> dict[str, Any]:
    """The card of a model that ``pipeline`` is to use.

    Raises:
        DataError: another pipeline fitted it.
    """
    card = read_card(model)
    if card["pipeline"] != pipeline:
        raise DataError(model, f"is a model of pipeline '{card['pipeline']}', not of '{pipeline}'")
    return card


def model_config(model: Path, base: FullConfig) -> FullConfig:
    """``base`` with the pipeline section that the model was fitted with."""
    from dataclasses import replace

    from vision3d.run.strict_yaml import load_config

    path = model / "config.yaml"
    if not path.exists():
        raise DataError(model, "holds no config.yaml; the model is incomplete")
    return replace(base, pipeline=load_config(path, base).pipeline)


def publish(ready: Path, out: Path) -> None:
    """Put the folder ``ready`` in the place of ``out``, which may be an older model.

    Raises:
        UserError: something that is no model is in the way; it is never removed.
    """
    if out.exists() or out.is_symlink():
        require_replaceable(out)
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        ready.rename(out)
        shutil.rmtree(old)
    else:
        ready.rename(out)


def require_replaceable(out: Path) -> None:
    """Raises:
    UserError: ``out`` is not a model folder and must not be deleted.
    """
    if out.is_symlink() or not out.is_dir() or not (out / "card.json").is_file():
        raise UserError(f"{out}: is not a model folder, so --overwrite does not touch it; choose another --out")
