# SPDX-License-Identifier: Apache-2.0
"""DOTA, and everything in its layout: ``images/P0706.png`` and ``labelTxt/P0706.txt``.

A label file holds up to two header lines (``imagesource:...``, ``gsd:<metres per pixel or null>``), then lines
``x1 y1 x2 y2 x3 y3 x4 y4 class difficult``: pixels, whole or not, inside the image or not; ``difficult`` is 0, 1 or 2
and may be missing. An image without objects has an empty file. MMRotate's ``annfiles/`` is the same.

A data set is one such pair of folders, or one per split: ``train/images``, ``train/labelTxt`` and so on, also
``images/train``, ``labelTxt/train``. A split without labels (``test``) gives plain images.

Classes are those of ``classes.txt`` in the data set's folder, else the 18 of DOTA-v2.0 in the order of all tables.
Options after '?':

- ``version=1.0|1.5|2.0``: its 15, 16 or 18 classes and, where there are several, its label folder (``labelTxt_v1.5``);
- ``labels=NAME``: the label folder's name;
- and those of all readers of boxes: ``classes``, ``jitter``, ``seed``, ``points``, ``skip_lines``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.readers._boxes_common import OPTIONS as COMMON
from vision3d.readers._boxes_common import BoxReader, check_boxes, lenient
from vision3d.readers._boxes_objects import Objects
from vision3d.readers._boxes_points import number_or_none, text_lines
from vision3d.readers._boxes_records import BoxRecord, box_records, read_class_file
from vision3d.readers._source import list_images, one_root, parse_source, score

CLASSES = (
    "plane",
    "baseball-diamond",
    "bridge",
    "ground-track-field",
    "small-vehicle",
    "large-vehicle",
    "ship",
    "tennis-court",
    "basketball-court",
    "storage-tank",
    "soccer-ball-field",
    "roundabout",
    "harbor",
    "swimming-pool",
    "helicopter",
    "container-crane",
    "airport",
    "helipad",
)
VERSIONS = {"1.0": 15, "1.5": 16, "2.0": 18}
LABEL_FOLDERS = ("labelTxt", "annfiles", "labelTxt-v1.0", "labelTxt_v1.0")
LABELS_SEEN = (*LABEL_FOLDERS, *(f"labelTxt{dash}v{version}" for version in ("1.5", "2.0") for dash in "_-"))


def _version(text: str) -> str:
    if text.removeprefix("v") not in VERSIONS:
        raise ValueError(f"say {', '.join(VERSIONS)}")
    return text.removeprefix("v")


OPTIONS: dict[str, Callable[[str], Any]] = {**COMMON, "version": _version, "labels": str}


class DotaReader(BoxReader):
    """The images of a split, sorted by name."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, OPTIONS)
        version: str | None = options.get("version")
        folders: tuple[str, ...] = LABEL_FOLDERS
        if "labels" in options:
            folders = (options["labels"],)
        elif version is not None:
            folders = (f"labelTxt_v{version}", f"labelTxt-v{version}", *(LABEL_FOLDERS if version == "1.0" else ()))
            folders += () if version == "1.0" else LABEL_FOLDERS[:2]
        wanted = "DOTA data (images/ with labelTxt/, or train/images/ with train/labelTxt/)"
        root = one_root(source, lambda folder: _accepts(folder, (*LABELS_SEEN, *folders)), wanted)
        parts = _parts(root, folders)
        if config.split not in ("all", *parts):
            known = ", ".join(name for name in parts if name) or "none"
            raise ConfigError(f"{root} has no split '{config.split}'; it has: {known}, and all")
        chosen = parts if config.split == "all" else {config.split: parts[config.split]}
        if "labels" in options and not any(labels for _, labels in chosen.values()):
            raise DataError(root, f"holds no folder '{options['labels']}'")
        records: list[BoxRecord] = []
        orphans: list[DataError] = []
        for images, labels in chosen.values():
            found, named = box_records(images.parent if images.name == "images" else root, images, labels)
            records += found
            orphans += [] if labels is None else _orphans(labels, named)
        name = root.absolute().name if config.split == "all" else f"{root.absolute().name}-{config.split}"
        classes = CLASSES[: VERSIONS[version]] if version else read_class_file(root / "classes.txt") or CLASSES
        super().__init__(name, records, config, options, classes, orphans=orphans)

    def _list(self, record: BoxRecord, size: tuple[int, int]) -> Objects:
        return read_label_file(record.labels) if record.labels else Objects(record.image, listed=False)


def read_label_file(path: Path) -> Objects:
    """What a label file says, line by line.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    found = Objects(path)
    if not path.is_file():
        raise DataError(path, "no such label file (an image without objects has an empty one)")
    for number, line in text_lines(path):
        where = f"line {number}"
        if line is None:
            found.problems.append((where, "holds bytes that are not UTF-8"))
            continue
        key, _, value = line.partition(":")
        if key.strip().lower() in ("imagesource", "gsd") and not found.where:
            gsd = number_or_none(value) if key.strip().lower() == "gsd" else None
            found.gsd_m = gsd if gsd is not None and 0 < gsd < 1e6 else found.gsd_m
            continue
        fields = line.split()
        if not fields:
            continue
        if len(fields) not in (9, 10):
            problem = f"has {len(fields)} fields; an object has 8 coordinates, a class and 0, 1 or 2"
            found.problems.append((where, problem))
            continue
        try:
            quad = [float(field) for field in fields[:8]]
        except ValueError:
            wrong = next(field for field in fields if number_or_none(field) is None)
            found.problems.append((where, f"'{wrong}' is no coordinate"))
            continue
        if len(fields) == 10 and fields[9] not in ("0", "1", "2"):
            found.problems.append((where, f"difficult is '{fields[9]}': must be 0, 1 or 2"))
        else:
            found.add(where, quad, fields[8], int(fields[9]) if len(fields) == 10 else 0)
    return found


def _parts(root: Path, names: tuple[str, ...]) -> dict[str, tuple[Path, Path | None]]:
    """Split -> its folders of images and labels; one split named "" where the data set has none."""

    def labels_of(folder: Path, below: str = "") -> Path | None:
        candidates = (folder / name / below for name in names)
        return next((path for path in candidates if path.is_dir()), None)

    images = root / "images"
    if images.is_dir() and list_images(images):
        return {"": (images, labels_of(root))}
    parts: dict[str, tuple[Path, Path | None]] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name != "images" and (folder / "images").is_dir():
            parts[folder.name] = folder / "images", labels_of(folder)
    if images.is_dir():
        for folder in sorted(path for path in images.iterdir() if path.is_dir()):
            parts.setdefault(folder.name, (folder, labels_of(root, folder.name)))
    return parts


def _orphans(labels: Path, images: dict[str, Path]) -> list[DataError]:
    files = sorted(path for path in labels.glob("*.txt") if not path.name.startswith("."))
    return [DataError(path, "has no image") for path in files if path.stem not in images and path.stem != "classes"]


def _accepts(folder: Path, names: tuple[str, ...] = LABELS_SEEN) -> bool:
    """Images, and labels in at least one split."""
    return any(labels is not None for _, labels in _parts(folder, names).values())


def match(source: str) -> float:
    return score(source, _accepts, 0.9)


def check(source: str) -> list[str]:
    return check_boxes(DotaReader, source)


SPEC = ReaderSpec(
    name="dota",
    summary="images/ and labelTxt/ of DOTA (also per split): quadrilaterals with class and difficulty; oriented boxes",
    samples="LabeledImage",
    match=match,
    open=DotaReader,
    card="dota",
    check=check,
    lenient=lenient,
)
