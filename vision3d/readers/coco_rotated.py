# SPDX-License-Identifier: Apache-2.0
"""Oriented boxes in COCO's JSON: a ``bbox`` of five numbers, or a ``segmentation`` of four corners.

The source is the JSON file, or a folder with ``annotations/*.json`` (or one ``*.json``) and the images in ``images/``,
in a folder named like the split, or directly in it. An annotation's ``segmentation`` of eight numbers is taken first,
because it can be read in one way only; else its ``bbox`` ``[cx, cy, w, h, angle]``. ``difficult`` (0, 1, 2) is read
where it is there; ``iscrowd`` and ``ignore`` count as difficult. Classes are the ``categories`` in order of their ids.

The splits of a folder are its files: ``instances_train.json`` or ``train.json`` is ``train``. ``all`` takes every file;
their categories must agree. Options after '?':

- ``angle=detectron2``: whose convention the fifth number follows (default: degrees counter-clockwise); ``le90`` and
  ``opencv``, say, are radians and degrees clockwise on screen;
- and those of all readers of boxes: ``classes``, ``jitter``, ``seed``, ``points``, ``skip_lines``.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.readers._boxes_common import OPTIONS as COMMON
from vision3d.readers._boxes_common import BoxReader, check_boxes, lenient
from vision3d.readers._boxes_objects import Objects
from vision3d.readers._boxes_records import BoxRecord
from vision3d.readers._poses import read_text
from vision3d.readers._source import one_root, parse_source, score, split_source

PEEK = 1 << 16
FARTHEST_PX = 1e9  # the corners of any box within it are finite


def _angle(text: str) -> float:
    """Radians clockwise on screen per unit of a bbox's fifth number."""
    from vision3d.geometry import rotated

    if text not in rotated.CONVENTIONS:
        raise ValueError(f"known: {', '.join(rotated.CONVENTIONS)}")
    convention = rotated.CONVENTIONS[text]
    return (1 if convention.clockwise else -1) * (math.pi / 180 if convention.degrees else 1.0)


OPTIONS = {**COMMON, "angle": _angle}


@dataclass
class Listed:
    """One image of a JSON file: its entry, and the annotations that point to it."""

    entry: dict[str, Any]
    annotations: list[dict[str, Any]] = field(default_factory=list)


class CocoReader(BoxReader):
    """The images of one file or of all, in order of their names."""

    def __init__(self, source: str, config: DataConfig) -> None:
        path, options = parse_source(source, OPTIONS)
        file = Path(path) if Path(path).is_file() else None
        root = file.parent if file else one_root(source, _accepts, "COCO annotations (annotations/*.json) with images")
        if root.name == "annotations":
            root = root.parent
        files = {_split(file): file} if file else {_split(path): path for path in _json_files(root)}
        if config.split not in ("all", *files):
            raise ConfigError(f"{root} has no split '{config.split}'; it has: {', '.join(files)}, and all")
        chosen = files if config.split == "all" else {config.split: files[config.split]}
        self._turn: float = options.get("angle", _angle("detectron2"))
        classes: tuple[str, ...] | None = None
        records: list[BoxRecord] = []
        for split, json_path in chosen.items():
            images, named = _load(json_path)
            if classes is not None and tuple(named.values()) != classes:
                raise DataError(json_path, "has other categories than the files before it: name one split")
            classes = tuple(named.values())
            self._named = named
            records += _records(root, split, json_path, images)
        records.sort(key=lambda record: record.name)
        title = root.absolute().name
        super().__init__(
            title if config.split == "all" else f"{title}-{config.split}", records, config, options, classes
        )

    def _list(self, record: BoxRecord, size: tuple[int, int]) -> Objects:
        assert record.labels is not None
        listed: Listed = record.place
        stated = listed.entry.get("width"), listed.entry.get("height")
        if None not in stated and stated != size:
            raise DataError(record.image, f"is {size[0]}x{size[1]} pixels, {record.labels.name} says {stated}")
        found = Objects(record.labels)
        for item in listed.annotations:
            where, category = f"annotation {item.get('id')}", item.get("category_id")
            quad = corners_of(item, self._turn)
            difficult = item.get("difficult", int(bool(item.get("iscrowd")) or bool(item.get("ignore"))))
            if isinstance(quad, str):
                found.problems.append((where, quad))
            elif difficult not in (0, 1, 2):
                found.problems.append((where, f"difficult is {difficult!r}: must be 0, 1 or 2"))
            elif not isinstance(category, int | str) or category not in self._named:
                found.problems.append((where, f"unknown class: no category has the id {category!r}"))
            else:
                found.add(where, quad, self._named[category], int(difficult))
        return found


def corners_of(item: dict[str, Any], turn: float) -> list[float] | str:
    """The eight coordinates of an annotation, or what is wrong with it.

    Args:
        turn: radians clockwise on screen per unit of a bbox's fifth number.
    """
    from vision3d.geometry import rotated

    rings = item.get("segmentation")
    if isinstance(rings, list) and len(rings) == 1 and _numbers(rings[0], 8):
        return [float(value) for value in rings[0]]
    box = item.get("bbox")
    if _numbers(box, 5):
        cx, cy, w, h, angle = map(float, box)  # type: ignore[arg-type]
        if w < 0 or h < 0 or not all(map(math.isfinite, (cx, cy, w, h, angle))):
            return "its bbox holds NaN, infinite or negative numbers"
        if max(map(abs, (cx, cy, w, h))) > FARTHEST_PX:
            return "its bbox lies beyond all images"
        corners: list[float] = rotated.corners([(cx, cy, w, h, angle * turn)])[0].ravel().tolist()
        return corners
    return "has neither a bbox of 5 numbers (cx, cy, w, h, angle) nor one segmentation of 8"


def _numbers(value: Any, count: int) -> bool:
    """Whether a value is a list of so many numbers that fit into a float."""
    if not isinstance(value, list) or len(value) != count:
        return False
    return all(type(item) is float or (type(item) is int and abs(item) < 1e18) for item in value)


def _load(path: Path) -> tuple[list[Listed], dict[Any, str]]:
    """Images with their annotations, and category id -> name, in order of ids.

    Raises:
        DataError: the file is no COCO JSON, or refers to an image that it does not list.
    """
    try:
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(path, f"line {error.lineno}: is not JSON ({error.msg})") from None
    except (ValueError, RecursionError):
        raise DataError(path, "is not COCO: nested too deeply, or a number of thousands of digits") from None
    parts = [data.get(key) if isinstance(data, dict) else None for key in ("images", "annotations", "categories")]
    if not all(isinstance(part, list) and all(isinstance(item, dict) for item in part) for part in parts):
        raise DataError(path, "must hold lists 'images', 'annotations' and 'categories'")
    images, annotations, categories = parts
    try:
        named = {item["id"]: str(item["name"]) for item in sorted(categories or [], key=lambda item: item["id"])}
        listed = {item["id"]: Listed(item) for item in images or [] if isinstance(item["file_name"], str)}
        for item in annotations or []:
            listed[item["image_id"]].annotations.append(item)
    except (KeyError, TypeError) as error:
        raise DataError(path, f"an entry lacks a field or refers to an image that is not listed: {error}") from None
    if len(set(named.values())) < len(categories or []) or len(listed) < len(images or []):
        raise DataError(path, "a category's id or name, an image's id or a file_name is there twice or missing")
    return list(listed.values()), named


def _records(root: Path, split: str, path: Path, images: list[Listed]) -> list[BoxRecord]:
    """A record per image. Its name is the file's, with folders where that alone is not unique."""
    stems = Counter(PurePosixPath(item.entry["file_name"]).stem for item in images)
    folders = (root / "images", root / split, root / "images" / split, root, path.parent)
    records = []
    for item in images:
        relative = PurePosixPath(item.entry["file_name"])
        if relative.is_absolute() or ".." in relative.parts or not relative.name or not str(relative).isprintable():
            raise DataError(path, f"file_name {str(relative)!r} is no path inside of the data set's folder")
        name = relative.stem if stems[relative.stem] == 1 else relative.with_suffix("").as_posix()
        try:
            image = next((folder / relative for folder in folders if (folder / relative).is_file()), None)
        except OSError:  # longer than a name may be
            image = None
        records.append(BoxRecord(name, image or folders[0] / relative, root, path, item))
    return records


def _split(path: Path) -> str:
    """``instances_train2017`` -> ``train2017``: what follows the last ``_`` or ``-`` of the name."""
    return re.split(r"[_-]", path.stem)[-1]


def _json_files(root: Path) -> list[Path]:
    folder = root / "annotations" if (root / "annotations").is_dir() else root
    return [path for path in sorted(folder.glob("*.json")) if not path.name.startswith(".") and _is_coco(path)]


def _is_coco(path: Path) -> bool:
    """Whether two of the three lists show at the file's ends; the whole is not read."""
    with open(path, "rb") as file:
        text = file.read(PEEK)
        file.seek(max(path.stat().st_size - PEEK, 0))
        text += file.read(PEEK)
    return sum(key in text for key in (b'"images"', b'"annotations"', b'"categories"', b'"bbox"')) >= 2


def _accepts(folder: Path) -> bool:
    return bool(_json_files(folder))


def match(source: str) -> float:
    try:
        path = Path(split_source(source)[0])
        if path.suffix.lower() == ".json" and path.is_file():
            return 0.8 if _is_coco(path) else 0.0
    except (OSError, ValueError):
        return 0.0
    return score(source, _accepts, 0.75)


def check(source: str) -> list[str]:
    return check_boxes(CocoReader, source)


SPEC = ReaderSpec(
    name="coco-rotated",
    summary="COCO JSON with a bbox of five numbers or four corners per annotation; oriented boxes",
    samples="LabeledImage",
    match=match,
    open=CocoReader,
    check=check,
    lenient=lenient,
)
