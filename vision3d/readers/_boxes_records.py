# SPDX-License-Identifier: Apache-2.0
"""What is known of an image of oriented boxes before it is decoded: its files, its objects, its points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.errors import DataError
from vision3d.readers._boxes_images import images_by_name
from vision3d.readers._boxes_points import text_lines
from vision3d.readers._images import fitted_size
from vision3d.types.images import BoxTruth, Float, Int

DRAWN = Path("drawn")  # value of the option ``points`` that passes over clicked ones


@dataclass(frozen=True)
class BoxRecord:
    """One image of a data set before anything is read.

    Attributes:
        name: unique in the data set, without a suffix.
        image: its file.
        root: folder that a ``points/`` folder may lie in.
        labels: the file that lists its objects, or None.
        place: what else the format needs to find them.
        problem: why the image cannot be used, known before reading it.
    """

    name: str
    image: Path
    root: Path
    labels: Path | None = None
    place: Any = None
    problem: DataError | None = None


@dataclass(frozen=True)
class Entry:
    """All about an image but its pixels, at its stored size."""

    size: tuple[int, int]
    truth: BoxTruth | None
    points: Float | None = None
    labels: Int | None = None
    ids: Int | None = None
    gsd_m: float | None = None


def clicks_file(record: BoxRecord, given: Path | None) -> Path | None:
    """The file of an image's clicked points, there or not; None where points are to be drawn.

    Args:
        given: value of the option ``points``.
    """
    if given is None:
        folder = record.root / "points"
        return folder / f"{record.name}.txt" if folder.is_dir() else None
    if given == DRAWN:
        return None
    return (given / "points" if (given / "points").is_dir() else given) / f"{record.name}.txt"


def box_records(root: Path, images: Path, labels: Path | None) -> tuple[list[BoxRecord], dict[str, Path]]:
    """A record per image of a folder, in order of names, and the images by name.

    Args:
        labels: the folder that lists the objects of image ``X`` in ``X.txt``; None where nobody labelled them.
    """
    found, twice = images_by_name([images])
    records = [BoxRecord(name, path, root, labels and labels / f"{name}.txt") for name, path in found.items()]
    records += [BoxRecord(Path(error.path).name, Path(error.path), root, problem=error) for error in twice]
    return records, found


def read_class_file(path: Path) -> tuple[str, ...] | None:
    """``classes.txt``: a name per line. None where there is no such file.

    Raises:
        DataError: the file is empty, not UTF-8, or has a name twice.
    """
    if not path.is_file():
        return None
    names: list[str] = []
    for number, line in text_lines(path):
        if line is None:
            raise DataError(path, f"line {number}: holds bytes that are not UTF-8")
        if line.strip() in names:
            raise DataError(path, f"line {number}: the class '{line.strip()}' is there twice")
        if line.strip():
            names.append(line.strip())
    if not names:
        raise DataError(path, "names no class")
    return tuple(names)


def fitted(entry: Entry, longest: int) -> Entry:
    """The entry of the image shrunk to ``longest`` pixels; pixel areas are scaled, as images are."""
    size = fitted_size(*entry.size, longest)
    if size == entry.size:
        return entry
    from vision3d.geometry import rotated

    scale = np.array(size) / np.array(entry.size)
    points = None if entry.points is None else (entry.points + 0.5) * scale - 0.5
    gsd_m = None if entry.gsd_m is None else entry.gsd_m / float(np.sqrt(scale.prod()))
    truth = entry.truth
    if truth is not None:
        quads = (truth.quads + 0.5) * scale - 0.5
        heading = truth.heading
        if heading is not None:
            heading = np.arctan2(np.sin(heading) * scale[1], np.cos(heading) * scale[0])
        truth = replace(truth, boxes=rotated.from_corners(quads), quads=quads, size=size, heading=heading)
    return replace(entry, size=size, truth=truth, points=points, gsd_m=gsd_m)


def require_unique(name: str, records: Sequence[BoxRecord]) -> None:
    names = Counter(record.name for record in records)
    for record in records:
        if names[record.name] > 1:
            raise DataError(
                record.image, f"the name {record.name} occurs {names[record.name]} times in {name}: name a split"
            )
