# SPDX-License-Identifier: Apache-2.0
"""XML files of objects and lists of images per split, as DIOR and HRSC2016 have them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vision3d.errors import ConfigError, DataError
from vision3d.readers._boxes_points import text_lines

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

LIMIT_BYTES = 64 << 20


def read_xml(path: Path, root: str) -> Element:
    """The tree of a file whose outermost element is ``root``.

    Raises:
        DataError: the file is missing, no XML, something else, or declares entities, which can grow without bound.
    """
    from xml.etree import ElementTree

    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise DataError(path, "is too large for a list of objects")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(path, "no such label file") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    if b"<!ENTITY" in data or b"<!\x00E\x00N\x00T\x00I\x00T\x00Y" in data:
        raise DataError(path, "declares XML entities, which are not read")
    try:
        tree = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise DataError(path, f"line {error.position[0]}: is not XML ({error})") from None
    except (ValueError, LookupError) as error:  # an unknown encoding
        raise DataError(path, f"is not XML ({error})") from None
    if tree.tag != root:
        raise DataError(path, f"must hold <{root}>, found <{tree.tag}>")
    return tree


def text_of(element: Element, name: str) -> str:
    """The stripped text of a child, empty when it is missing."""
    return (element.findtext(name) or "").strip()


def numbers_of(element: Element, names: tuple[str, ...]) -> list[float] | str:
    """The numbers of the children with these names, or what is wrong with the first that is none."""
    values = []
    for name in names:
        text = text_of(element, name)
        try:
            values.append(float(text))
        except ValueError:
            return f"<{name}> is '{text}': must be a number" if text else f"has no <{name}>"
    return values


def difficult_of(element: Element) -> int | str:
    """0, 1 or 2 of ``<difficult>``, 0 where it is missing, or what is wrong with it."""
    text = text_of(element, "difficult") or "0"
    return int(text) if text in ("0", "1", "2") else f"<difficult> is '{text}': must be 0, 1 or 2"


def split_names(folder: Path, split: str) -> list[str] | None:
    """Names in ``<split>.txt`` of the folder; None for ``all``.

    Raises:
        ConfigError: there is no such list.
        DataError: the list is damaged.
    """
    if split == "all":
        return None
    path = folder / f"{split}.txt"
    if path.is_file():
        return _read_list(path)
    if split == "trainval" and (folder / "train.txt").is_file() and (folder / "val.txt").is_file():
        return _read_list(folder / "train.txt") + _read_list(folder / "val.txt")
    known = ", ".join(sorted(p.stem for p in folder.glob("*.txt"))) if folder.is_dir() else ""
    raise ConfigError(f"{folder} has no list '{split}.txt'; it has: {known or 'none'}, and all")


def _read_list(path: Path) -> list[str]:
    """Names of images, one a line, as ``ImageSets`` holds them.

    Raises:
        DataError: the file is not text, or a line is no plain name.
    """
    names = []
    for number, line in text_lines(path):
        words = [] if line is None else line.split()
        if line is None or any(part in words[:1] for part in (".", "..")) or "/" in "".join(words[:1]):
            raise DataError(path, f"line {number}: is not the name of an image")
        names += words[:1]
    return names
