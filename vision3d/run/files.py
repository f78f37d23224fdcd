# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, strict JSON, and fingerprints of what a run depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.atomic import whole_file
from vision3d.errors import DataError
from vision3d.run.lazy import Lazy


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` as a :func:`whole_file`."""
    with whole_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def jsonable(value: Any) -> Any:
    """``value`` as what strict JSON can hold: numpy becomes lists and numbers, NaN and infinity become null."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(jsonable(item) for item in value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return value.as_posix()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def json_line(value: Any) -> str:
    """One line of strict JSON, floats in full precision."""
    return json.dumps(jsonable(value), allow_nan=False, ensure_ascii=False)


def json_text(value: Any) -> str:
    """Strict JSON for people to read."""
    return json.dumps(jsonable(value), allow_nan=False, ensure_ascii=False, indent=2) + "\n"


def write_json(path: Path, value: Any) -> None:
    """:func:`json_text`, written atomically."""
    write_text(path, json_text(value))


def read_json(path: Path) -> Any:
    """The document in ``path``.

    Raises:
        DataError: the file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise DataError(path, f"is not valid JSON: {error}") from None


def digest(value: Any) -> str:
    """SHA-256 (hexadecimal) of a nested value; arrays count with type, shape and bytes, a Lazy sequence as a list."""
    sha = hashlib.sha256()

    def feed(item: Any) -> None:
        if isinstance(item, np.ndarray):
            sha.update(f"array {item.dtype.str} {item.shape}".encode())
            sha.update(np.ascontiguousarray(item).tobytes())
        elif isinstance(item, Mapping):
            sha.update(f"map {len(item)}".encode())
            for key in item:
                feed(key)
                feed(item[key])
        elif isinstance(item, (list, tuple, Lazy)):
            sha.update(f"list {len(item)}".encode())
            for part in item:
                feed(part)
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            sha.update(type(item).__name__.encode())
            for field in dataclasses.fields(item):
                feed(getattr(item, field.name))
        else:
            sha.update(f"{type(item).__name__} {item!r};".encode())

    feed(value)
    return sha.hexdigest()


def folder_digest(folder: Path, without: frozenset[str] = frozenset()) -> str:
    """SHA-256 over the names and contents of all files below ``folder``, except those named ``without``.

    Where ``folder`` is itself a file (of weights, say), its content alone counts.
    """
    sha = hashlib.sha256()
    single = folder.is_file()
    paths = [folder] if single else [p for p in folder.rglob("*") if p.is_file() and p.name not in without]
    for path in sorted(paths):
        name = "" if single else path.relative_to(folder).as_posix()
        sha.update(f"{name} {path.stat().st_size};".encode())
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()
