# SPDX-License-Identifier: Apache-2.0
"""Detections from JSON: our run folders, rotated COCO, MMDetection's predictions."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from detection.problem import Detections
from vision3d.errors import DataError
from vision3d.geometry import rotated

Results = tuple[dict[str, Detections], tuple[str, ...]]
BROKEN = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)


def read_run(path: Path, classes: Sequence[str] = ()) -> Results:
    """The results of a run of vision3d; failures are images without detections.

    Raises:
        DataError: a file is damaged, or the run's results are no oriented boxes of ``classes``.
    """
    found: dict[str, Detections] = {}
    names: tuple[str, ...] = tuple(classes)
    lines = path / "results.jsonl"
    try:
        text = lines.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise DataError(lines, f"cannot be read ({_said(error)})") from None
    for index, line in enumerate(text.splitlines()):
        try:
            record = json.loads(line)
            image, own = str(record["name"]), tuple(map(str, record["classes"]))
            fine = record["status"] == "ok"
        except BROKEN as error:
            raise DataError(lines, f"line {index + 1}: is no result with boxes ({_said(error)})") from None
        if not fine:
            found[image] = Detections.none()
            continue
        names = names or own
        there = _read_arrays(path / "arrays" / f"{index:06d}.npz", len(own))
        unknown = sorted({own[label] for label in there.labels if own[label] not in names})
        if unknown:
            raise DataError(lines, f"line {index + 1}: has boxes of '{unknown[0]}', which is none of the classes")
        places = np.array([names.index(name) if name in names else -1 for name in own], np.int64)
        found[image] = Detections(there.boxes, there.scores, places[there.labels], there.ids)
    return found, names


def _read_arrays(path: Path, classes: int) -> Detections:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {PurePosixPath(name).name: stored[name] for name in stored.files}
        found = _checked(arrays["boxes"], arrays["scores"], arrays["labels"], arrays.get("ids"))
        if len(found) and found.labels.max() >= classes:
            raise ValueError(f"label {found.labels.max()} of {classes} classes")
        return found
    except (OSError, zipfile.BadZipFile, EOFError, *BROKEN) as error:
        raise DataError(path, f"is missing or damaged ({_said(error)})") from None


def read_coco(path: Path, classes: Sequence[str] = ()) -> Results:
    """COCO's layout with ``score`` and ``bbox`` (cx, cy, w, h, theta in radians) in each annotation, or corners.

    Raises:
        DataError: the file is damaged, without scores, or a bare list, which only numbers images and classes.
    """
    data = _json(path)
    if isinstance(data, list):
        raise DataError(path, "only numbers its images and classes; let the program write Task1 files instead")
    try:
        images = {image["id"]: PurePosixPath(image["file_name"]) for image in data["images"]}
        categories = {category["id"]: str(category["name"]) for category in data["categories"]}
        annotations = list(data.get("annotations", []))
    except BROKEN as error:
        raise DataError(path, f"is no COCO file ({_said(error)})") from None
    names = tuple(classes) or tuple(categories.values())
    rows: dict[str, list[tuple[list[float], float, int]]] = {_stem(file): [] for file in images.values()}
    for number, annotation in enumerate(annotations, 1):
        try:
            name = categories[annotation["category_id"]]
            if name not in names:
                raise ValueError(f"class '{name}' is none of {', '.join(names)}")
            label = names.index(name)
            box = _coco_box(annotation)
            rows[_stem(images[annotation["image_id"]])].append((box, float(annotation["score"]), label))
        except BROKEN as error:
            raise DataError(path, f"annotation {number} cannot be used as a detection ({_said(error)})") from None
    return {image: _from_rows(path, there) for image, there in rows.items()}, names


def _coco_box(annotation: Any) -> list[float]:
    if len(annotation["bbox"]) == 5:
        return [float(number) for number in annotation["bbox"]]
    (outline,) = annotation["segmentation"]
    box: list[float] = rotated.from_corners(np.array(outline, np.float64).reshape(1, 4, 2))[0].tolist()
    return box


def _stem(file: PurePosixPath) -> str:
    """An image's name: its file without the suffix of an image."""
    known = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
    return str(file.with_suffix("")) if file.suffix.lower() in known else str(file)


def read_predictions(folder: Path, classes: Sequence[str]) -> Results:
    """``<image>.json`` with ``labels``, ``scores`` and ``bboxes``, as MMDetection's inferencer writes them.

    Raises:
        DataError: a file is damaged; or the names of the classes, which it only numbers, are not given.
    """
    if not classes:
        raise DataError(folder, "its files only number their classes, and nothing says what they are called")
    found = {}
    for path in sorted(folder.glob("*.json")):
        data = _json(path)
        try:
            rows = list(zip(data["bboxes"], data["scores"], data["labels"], strict=True))
        except BROKEN as error:
            raise DataError(path, f"holds no bboxes, scores and labels ({_said(error)})") from None
        found[path.stem] = _from_rows(path, rows)
        if len(found[path.stem]) and found[path.stem].labels.max() >= len(classes):
            raise DataError(path, f"has label {found[path.stem].labels.max()}, but there are {len(classes)} classes")
    return found, tuple(classes)


def _from_rows(path: Path, rows: Sequence[tuple[Any, Any, Any]]) -> Detections:
    if not rows:
        return Detections.none()
    boxes, scores, labels = zip(*rows)
    try:
        return _checked(np.array(boxes, np.float64), np.array(scores, np.float64), np.array(labels), None)
    except BROKEN as error:
        raise DataError(path, f"has a detection that cannot be used ({_said(error)})") from None


def _checked(boxes: Any, scores: Any, labels: Any, ids: Any) -> Detections:
    """Detections of arrays; raises ValueError or TypeError on anything odd."""
    boxes = rotated.canonical(np.asarray(boxes, np.float64).reshape(-1, 5))
    scores = np.asarray(scores, np.float64)
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or scores.shape != (len(boxes),) or labels.shape != scores.shape:
        raise ValueError(f"{len(boxes)} boxes, scores {scores.shape}, labels {labels.shape} {labels.dtype}")
    if not ((scores >= 0) & (scores <= 1)).all() or (len(labels) and labels.min() < 0):
        raise ValueError("a score is not between 0 and 1, or a label is negative")
    return Detections(boxes, scores, labels.astype(np.int64), ids)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not valid JSON: {error}") from None


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
