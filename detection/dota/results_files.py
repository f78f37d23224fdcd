# SPDX-License-Identifier: Apache-2.0
"""Detections from the files of other programs, and from our own runs.

- a zip or folder of ``Task1_<class>.txt`` (or ``Task2_``): DOTA's submissions, and what MMRotate writes with
  ``format_only``, per image or per tile;
- a run folder of vision3d (``results.jsonl`` and ``arrays/``);
- a rotated COCO file with scores, and a folder of MMDetection's ``preds/<image>.json``.

Pickles are never read: they can run code.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.typing import NDArray

from detection.dota.results_json import read_coco, read_predictions, read_run
from detection.problem import Detections
from vision3d.errors import DataError
from vision3d.geometry import rotated

_FILE = re.compile(r"(Task[12])_(.+)\.txt")
LARGEST = 8 << 30  # bytes of text in an archive; all of DOTA-v2.0 is far below
FARTHEST_PX = 1e9  # no image is that large, and areas stay finite
FIELDS = {"Task1": 10, "Task2": 6}
KNOWN = "a zip or folder of Task1_<class>.txt files, a run folder, a rotated COCO file with scores, or preds/*.json"


def read_results(path: Path, classes: Sequence[str] = ()) -> tuple[dict[str, Detections], tuple[str, ...]]:
    """Detections per image (or tile, where the names are those of tiles), and the classes that labels index.

    Args:
        classes: wanted order of classes. Files of other classes are then refused; without it, classes come in the
            order of the alphabet. Formats that only number their classes need it.

    Raises:
        DataError: nothing that can be read is there, or a line is wrong; names the file and the line.
    """
    if path.is_dir():
        return _read_folder(path, classes)
    if not path.is_file():
        raise DataError(path, f"no such file or folder; results are {KNOWN}")
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise DataError(path, "is a pickle, which can run code when it is read; let MMRotate write Task1 files instead")
    if path.suffix.lower() == ".json":
        return read_coco(path, classes)
    if not zipfile.is_zipfile(path):
        raise DataError(path, f"is no zip; results are {KNOWN}")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(path, archive)
            return _read_tasks(((str(path / e.filename), e.filename, archive.open(e)) for e in entries), path, classes)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise DataError(path, f"is damaged or of an unknown kind of zip ({error})") from None


def _read_folder(path: Path, classes: Sequence[str]) -> tuple[dict[str, Detections], tuple[str, ...]]:
    if (path / "results.jsonl").is_file():
        return read_run(path, classes)
    files = [file for file in sorted(path.iterdir()) if file.is_file()]
    if any(_FILE.fullmatch(file.name) for file in files):
        return _read_tasks(((str(file), file.name, open(file, "rb")) for file in files), path, classes)
    archives = [file for file in files if re.fullmatch(r"Task[12]\.zip", file.name)]
    archives = archives or [file for file in files if file.suffix == ".zip"]
    if archives:
        return read_results(archives[0], classes)
    predictions = path / "preds" if (path / "preds").is_dir() else path
    if any(predictions.glob("*.json")):
        return read_predictions(predictions, classes)
    raise DataError(path, f"holds no results; they are {KNOWN}")


def _entries(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The entries that are results.

    Nothing is ever unpacked to disk; an archive whose names lead elsewhere is refused all the same, as nobody makes
    such a one by accident.
    """
    total = 0
    for entry in archive.infolist():
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in next(iter(name.parts), ""):
            raise DataError(path, f"holds '{entry.filename}', which leads out of the archive")
        if entry.flag_bits & 1:
            raise DataError(path, f"holds '{entry.filename}', which is encrypted")
        total += entry.file_size
    if total > LARGEST:
        raise DataError(path, f"holds {total} bytes, more than any results ({LARGEST})")
    return [entry for entry in archive.infolist() if not entry.is_dir()]


def _read_tasks(
    parts: Iterator[tuple[str, str, IO[bytes]]], path: Path, classes: Sequence[str]
) -> tuple[dict[str, Detections], tuple[str, ...]]:
    """Files named by class; where both tasks are there, the oriented boxes count."""
    found: dict[str, dict[str, tuple[list[str], NDArray[np.float64]]]] = {"Task1": {}, "Task2": {}}
    for where, name, stream in parts:
        with stream:
            match = _FILE.fullmatch(PurePosixPath(name).name)
            if match is None:
                continue
            task, label = match.groups()
            if label in found[task]:
                raise DataError(path, f"holds two files of the class '{label}'")
            found[task][label] = _read_lines(where, stream, FIELDS[task])
    by_class = found["Task1"] or found["Task2"]
    if not by_class:
        raise DataError(path, f"holds no file Task1_<class>.txt; results are {KNOWN}")
    unknown = [label for label in sorted(by_class) if classes and label not in classes]
    if unknown:
        raise DataError(path, f"has results of the class '{unknown[0]}', which is none of {', '.join(classes)}")
    order = tuple(classes) or tuple(sorted(by_class))
    images: list[str] = []
    boxes, scores, labels = [], [], []
    for label, name in enumerate(order):
        names, numbers = by_class.get(name, ([], np.zeros((0, 9))))
        images += names
        scores.append(numbers[:, 0])
        labels.append(np.full(len(names), label, np.int64))
        boxes.append(_boxes(numbers[:, 1:]))
    together = Detections(np.concatenate(boxes), np.concatenate(scores), np.concatenate(labels))
    return _by_image(images, together), order


def _read_lines(where: str, stream: IO[bytes], fields: int) -> tuple[list[str], NDArray[np.float64]]:
    """The image of each line, and score and coordinates (N, fields - 1)."""
    images: list[str] = []
    rows: list[list[float]] = []
    for number, raw in enumerate(stream, 1):
        words = raw.split()
        if not words:
            continue
        if len(words) != fields:
            raise DataError(where, f"line {number}: has {len(words)} fields, not {fields} (image score coordinates)")
        try:
            image, row = words[0].decode(), [float(word) for word in words[1:]]
        except UnicodeDecodeError:
            raise DataError(where, f"line {number}: its image's name is not UTF-8") from None
        except ValueError:
            raise DataError(where, f"line {number}: holds something that is no number") from None
        if not np.isfinite(row).all():
            raise DataError(where, f"line {number}: holds a number that is not finite")
        if max(map(abs, row)) > FARTHEST_PX:
            raise DataError(where, f"line {number}: holds a coordinate beyond all images")
        if not 0 <= row[0] <= 1:
            raise DataError(where, f"line {number}: its score is {row[0]:g}, not between 0 and 1")
        images.append(image)
        rows.append(row)
    return images, np.array(rows, np.float64).reshape(-1, fields - 1)


def _boxes(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 8) corners, or (N, 4) x from, y from, x to, y to -> (N, 5) le90."""
    if not len(numbers):
        return np.zeros((0, 5))
    if numbers.shape[1] == 4:
        numbers = numbers[:, [0, 1, 2, 1, 2, 3, 0, 3]]
    return rotated.from_corners(numbers.reshape(-1, 4, 2))


def _by_image(images: Sequence[str], found: Detections) -> dict[str, Detections]:
    """Images in the order of their names."""
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        rows.setdefault(image, []).append(row)
    return {image: found[np.array(rows[image], np.int64)] for image in sorted(rows)}
