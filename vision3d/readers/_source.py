# SPDX-License-Identifier: Apache-2.0
"""What a user typed as data: a path or URI with a query, and the data set's folder found from it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from vision3d.errors import ConfigError, DataError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def split_source(source: str) -> tuple[str, dict[str, str]]:
    """``path?key=value&...`` -> path and raw options. A '?' that belongs to an existing file name stays."""
    if "?" not in source or Path(source).exists():
        return source, {}
    path, _, query = source.partition("?")
    return path, dict(parse_qsl(query, keep_blank_values=True))


def parse_source(source: str, schema: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """Path and typed options. ``schema`` maps each known option to the function that reads its value.

    Raises:
        DataError: an option is unknown or its value cannot be read.
    """
    path, query = split_source(source)
    options: dict[str, Any] = {}
    for key, text in query.items():
        if key not in schema:
            near = difflib.get_close_matches(key, schema, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(schema) or 'none'}"
            raise DataError(source, f"unknown option '{key}' after '?'; {hint}")
        try:
            options[key] = schema[key](text)
        except ValueError as error:
            raise DataError(source, f"option '{key}' cannot be '{text}': {error}") from None
    return path, options


def flag(text: str) -> bool:
    """``1``/``true``/empty -> True, ``0``/``false`` -> False."""
    lowered = text.lower()
    if lowered in ("", "1", "true", "yes"):
        return True
    if lowered in ("0", "false", "no"):
        return False
    raise ValueError("say true or false")


def bounded(kind: Callable[[str], Any], low: float, high: float) -> Callable[[str], Any]:
    """A reader of numbers between ``low`` and ``high``, both allowed."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError(f"must lie between {low:g} and {high:g}")
        return value

    return parse


def selected(count: int, select: str, what: str) -> range:
    """``START:STOP:STEP`` of the positions 0 .. ``count`` - 1.

    Args:
        what: is counted, for the message: ``scenes``, ``images of NAME``.

    Raises:
        ConfigError: the text is no slice, or it selects nothing.
    """
    try:
        parts = [int(part) if part.strip() else None for part in select.split(":")]
        if not 2 <= len(parts) <= 3:
            raise ValueError
        chosen = range(count)[slice(*parts)]
    except ValueError:
        raise ConfigError(f"select '{select}' is not START:STOP:STEP, e.g. '::2' or '1::2' or ':100'") from None
    if not chosen:
        raise ConfigError(f"select '{select}' leaves none of the {count} {what}")
    return chosen


def between(most: int) -> Callable[[str], tuple[int, int]]:
    """A reader of ``N`` or ``LOW-HIGH``, whole numbers from 1 to ``most``."""

    def parse(text: str) -> tuple[int, int]:
        low, _, high = text.partition("-")
        limits = int(low), int(high or low)
        if not 1 <= limits[0] <= limits[1] <= most:
            raise ValueError(f"must be a number or LOW-HIGH within 1 and {most}")
        return limits

    return parse


def find_roots(source: str, accepts: Callable[[Path], bool], levels: int = 2) -> list[Path]:
    """Folders of a data set: the given one, or those of the nearest level below that has any.

    Never raises: a path that cannot be looked at holds nothing.
    """
    try:
        level = [Path(split_source(source)[0])]
        for _ in range(levels + 1):
            found = [folder for folder in level if folder.is_dir() and accepts(folder)]
            if found:
                return found
            level = [c for folder in level if folder.is_dir() for c in sorted(folder.iterdir()) if c.is_dir()][:64]
    except OSError:
        pass
    return []


def one_root(source: str, accepts: Callable[[Path], bool], wanted: str) -> Path:
    """The data set's folder at or below ``source``.

    Raises:
        DataError: there is no such path, nothing in it is ``wanted``, or more than one folder below is.
    """
    path = Path(split_source(source)[0])
    if not path.exists():
        raise DataError(path, "no such file or folder")
    roots = find_roots(source, accepts)
    if not roots:
        raise DataError(path, f"holds no {wanted}")
    if len(roots) > 1:
        names = ", ".join(r.relative_to(path).as_posix() for r in roots[:5])
        raise DataError(path, f"holds {len(roots)} data sets ({names}{', ...' if len(roots) > 5 else ''}); name one")
    return roots[0]


def score(source: str, accepts: Callable[[Path], bool], value: float) -> float:
    """``value`` when exactly one data set lies at or below ``source``, a little less per level down, else 0."""
    roots = find_roots(source, accepts)
    if len(roots) != 1:
        return 0.0
    depth = len(roots[0].parts) - len(Path(split_source(source)[0]).parts)
    return max(value - 0.01 * depth, 0.0)


def list_images(folder: Path) -> list[Path]:
    """Image files directly in ``folder``, sorted by name; hidden files are left out."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
