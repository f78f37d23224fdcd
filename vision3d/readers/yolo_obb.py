# SPDX-License-Identifier: Apache-2.0
"""Oriented boxes in the YOLO layout: ``images/train/X.jpg``, ``labels/train/X.txt`` and a YAML file with the names.

A label file holds lines ``class x1 y1 x2 y2 x3 y3 x4 y4``: the class by number, x and y divided by the image's width
and height (as DOTA's own numbers are, without a shift by half a pixel). There is no difficulty. An image without a
label file has no objects: that is how this layout marks background.

The source is the folder or its YAML file (``names``, and where ``train``, ``val`` and ``test`` lie; read safely, code
in it is refused). Without one, ``classes.txt`` or ``?classes=a,b,c`` gives the names of 0, 1, 2. Options after '?':
those of all readers of boxes (``classes``, ``jitter``, ``seed``, ``points``, ``skip_lines``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.readers._boxes_common import OPTIONS, BoxReader, check_boxes, lenient
from vision3d.readers._boxes_objects import Objects
from vision3d.readers._boxes_points import number_or_none, text_lines
from vision3d.readers._boxes_records import BoxRecord, box_records, read_class_file
from vision3d.readers._poses import read_text
from vision3d.readers._source import list_images, one_root, parse_source, score, split_source

SPLITS = ("train", "val", "test")
SUFFIXES = (".yaml", ".yml")


class YoloReader(BoxReader):
    """The images of a split, sorted by name."""

    def __init__(self, source: str, config: DataConfig) -> None:
        path, options = parse_source(source, OPTIONS)
        file = Path(path) if path.lower().endswith(SUFFIXES) and Path(path).is_file() else None
        root = file.parent if file else one_root(source, _accepts, "YOLO data (images/ and labels/)")
        described = _describe(file, root)
        names = described.pop("names", None) or read_class_file(root / "classes.txt") or options.get("classes")
        self.names: tuple[str, ...] = names or ()
        if not self.names:
            raise DataError(root, "has no YAML file with 'names' and no classes.txt: name the classes, ?classes=a,b,c")
        parts = _parts(root, described)
        if config.split not in ("all", *parts):
            known = ", ".join(name for name in parts if name) or "none"
            raise ConfigError(f"{root} has no split '{config.split}'; it has: {known}, and all")
        chosen = parts.values() if config.split == "all" else [parts[config.split]]
        records: list[BoxRecord] = []
        orphans: list[DataError] = []
        # A folder may serve two splits.
        for images in dict.fromkeys(folder for folders in chosen for folder in folders):
            labels = labels_folder(images)
            found, named = box_records(root, images, labels)
            records += found
            files = sorted(labels.glob("*.txt")) if labels.is_dir() else []
            orphans += [DataError(file, "has no image") for file in files if file.stem not in {*named, "classes"}]
        empty = sum(record.labels is not None and not record.labels.is_file() for record in records)
        notes = [f"{empty} images have no label file and so no objects"] if empty else []
        name = root.absolute().name if config.split == "all" else f"{root.absolute().name}-{config.split}"
        super().__init__(name, records, config, options, self.names, notes, orphans)

    def _list(self, record: BoxRecord, size: tuple[int, int]) -> Objects:
        assert record.labels is not None
        found = Objects(record.labels)
        if not record.labels.is_file():
            return found
        for number, line in text_lines(record.labels):
            where, fields = f"line {number}", [] if line is None else line.split()
            values = [number_or_none(field) for field in fields]
            wrong = next((field for field, value in zip(fields, values) if value is None), None)
            if line is None:
                found.problems.append((where, "holds bytes that are not UTF-8"))
            elif not fields:
                continue
            elif len(fields) != 9:
                hint = "; 5 fields are upright boxes" if len(fields) == 5 else ""
                problem = f"has {len(fields)} fields; an object is a class and 8 coordinates{hint}"
                found.problems.append((where, problem))
            elif wrong is not None:
                found.problems.append((where, f"'{wrong}' is no number"))
            elif not fields[0].isdigit() or (values[0] or 0) >= len(self.names):
                problem = f"unknown class {fields[0]}: there are {len(self.names)}, counted from 0"
                found.problems.append((where, problem))
            else:
                quad = [value * size[i % 2] for i, value in enumerate(v for v in values[1:] if v is not None)]
                found.add(where, quad, self.names[int(fields[0])])
        return found


def labels_folder(images: Path) -> Path:
    """The folder of labels of a folder of images: the last ``images`` of its path becomes ``labels``."""
    parts = list(images.parts)
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] == "images":
            return Path(*parts[:place], "labels", *parts[place + 1 :])
    return images.parent / "labels"


def _describe(file: Path | None, root: Path) -> dict[str, Any]:
    """``names`` and the splits' folders from the YAML file, where there is one.

    Raises:
        DataError: the file is no such description.
    """
    if file is None:
        files = [path for path in sorted(root.iterdir()) if path.suffix.lower() in SUFFIXES]
        if len(files) > 1:
            raise DataError(root, f"holds {len(files)} YAML files ({', '.join(f.name for f in files[:3])}): give one")
        if not files:
            return {}
        file = files[0]
    import yaml

    try:
        data = yaml.safe_load(read_text(file))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date in the 13th month is a ValueError
        mark = getattr(error, "problem_mark", None)
        raise DataError(file, f"is not YAML{'' if mark is None else f' (line {mark.line + 1})'}") from None
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or len({str(name) for name in names}) < len(names):
        raise DataError(file, "'names' must list the classes, each once: a list, or 0: first, 1: second, ...")
    found: dict[str, Any] = {"names": tuple(map(str, names))}
    for split in SPLITS:
        if data.get(split):
            entries = data[split] if isinstance(data[split], list) else [data[split]]
            found[split] = [str(entry) for entry in entries]
    return found


def _parts(root: Path, described: dict[str, list[str]]) -> dict[str, list[Path]]:
    """Split -> its folders of images; one named "" where the data set has no splits."""
    listed = {split: [root / entry for entry in entries] for split, entries in described.items()}
    parts = {split: [folder for folder in folders if folder.is_dir()] for split, folders in listed.items()}
    parts = {split: folders for split, folders in parts.items() if folders}
    images = root / "images"
    if parts:
        return parts
    if images.is_dir() and list_images(images):
        return {"": [images]}
    if images.is_dir():
        return {folder.name: [folder] for folder in sorted(images.iterdir()) if folder.is_dir()}
    return {name: [root / name / "images"] for name in SPLITS if (root / name / "images").is_dir()}


def _accepts(folder: Path) -> bool:
    return any(labels_folder(images).is_dir() for parts in _parts(folder, {}).values() for images in parts)


def match(source: str) -> float:
    try:
        path = Path(split_source(source)[0])
        if path.suffix.lower() in SUFFIXES and path.is_file():
            return 0.8 if _accepts(path.parent) and "names:" in read_text(path) else 0.0
    except (OSError, ValueError, DataError):
        return 0.0
    return score(source, _accepts, 0.8)


def check(source: str) -> list[str]:
    return check_boxes(YoloReader, source)


SPEC = ReaderSpec(
    name="yolo-obb",
    summary="images/, labels/ and a YAML of names: oriented boxes in the YOLO layout",
    samples="LabeledImage",
    match=match,
    open=YoloReader,
    check=check,
    lenient=lenient,
)
