# SPDX-License-Identifier: Apache-2.0
"""The results of a run as files beside its records: labels to train on, submissions, rotated COCO."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from detection.config import Format
from detection.problem import Detections
from vision3d.atomic import whole_file
from vision3d.errors import UserError
from vision3d.geometry import rotated
from vision3d.types import BoxResult

DIFFICULT_BELOW = 0.05  # PointOBB marks pseudo boxes of lower scores as difficult
SMALLEST = 2.0  # and leaves out those with a shorter side, in pixels


def write_results(results: Sequence[BoxResult], folder: Path, formats: Sequence[Format]) -> list[Path]:
    """Write every format that is asked for.

    - ``dota``: ``labelTxt/<name>.txt`` and ``classes.txt``
    - ``task1``, ``task2``: ``Task1.zip`` and ``Task2.zip`` for DOTA's server
    - ``coco``: ``rotated_coco.json``

    Args:
        results: may be read lazily; failures have no boxes.

    Raises:
        UserError: an image's name cannot be a file's.
    """
    names = [result.name for result in results]
    found = [detections_of(result) for result in results]
    classes = next((result.classes for result in results if result.status == "ok"), ())
    written: list[Path] = []
    for kind in formats:
        if kind == "dota":
            written += write_label_files(names, found, classes, folder, DIFFICULT_BELOW)
        elif kind == "task1" or kind == "task2":
            from detection.dota.submission import write_submission

            written.append(write_submission(folder / f"{kind.title()}.zip", dict(zip(names, found)), classes, kind))
        elif kind == "coco":
            written.append(_write_coco(folder / "rotated_coco.json", results, found, classes))
    return written


def detections_of(result: BoxResult) -> Detections:
    """The boxes of a result; none for a failure."""
    if result.boxes is None or result.scores is None or result.labels is None:
        return Detections.none()
    return Detections(result.boxes, result.scores, result.labels, result.ids)


def write_label_files(
    names: Sequence[str], found: Sequence[Detections], classes: Sequence[str], folder: Path, difficult_below: float
) -> list[Path]:
    """``labelTxt/<name>.txt`` in DOTA's format and ``classes.txt``, which the reader ``dota`` takes as labels.

    Coordinates have six decimals; boxes with lower scores than ``difficult_below`` are marked difficult. Boxes with a
    side below 2 px are left out: no reader takes them as labels.

    Raises:
        UserError: an image's name cannot be a file's.
    """
    labels = folder / "labelTxt"
    labels.mkdir(parents=True, exist_ok=True)
    written = []
    for name, boxes in zip(names, found):
        lines = []
        boxes = boxes[boxes.boxes[:, 2:4].min(axis=1, initial=np.inf) >= SMALLEST]
        for corners, score, label in zip(rotated.corners(boxes.boxes), boxes.scores, boxes.labels):
            numbers = " ".join(f"{value:.6f}" for value in corners.ravel())
            lines.append(f"{numbers} {classes[label]} {int(score < difficult_below)}\n")
        path = place(labels, name, ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, "".join(lines))
        written.append(path)
    path = folder / "classes.txt"
    _write(path, "".join(f"{name}\n" for name in classes))
    return [*written, path]


def place(folder: Path, name: str, suffix: str) -> Path:
    """The file of an image; names with a slash lie in folders.

    Raises:
        UserError: the name is no relative path.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise UserError(f"image '{name}' cannot name a file")
    return folder.joinpath(*parts[:-1], f"{parts[-1]}{suffix}")


def _write_coco(path: Path, results: Sequence[BoxResult], found: Sequence[Detections], classes: Sequence[str]) -> Path:
    """COCO's layout with ``bbox`` of five numbers (cx, cy, w, h, theta in radians) and the corners as segmentation."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (result, boxes) in enumerate(zip(results, found), 1):
        width, height = result.size
        images.append({"id": number, "file_name": result.name, "width": width, "height": height})
        for box, corners, score, label in zip(boxes.boxes, rotated.corners(boxes.boxes), boxes.scores, boxes.labels):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": box.tolist(),
                    "segmentation": [corners.ravel().tolist()],
                    "area": float(box[2] * box[3]),
                    "iscrowd": 0,
                    "score": float(score),
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    _write(path, json.dumps({"images": images, "categories": categories, "annotations": annotations}) + "\n")
    return path


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())
