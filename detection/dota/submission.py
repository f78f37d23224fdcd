# SPDX-License-Identifier: Apache-2.0
"""Results as DOTA's evaluation server takes them: a file per class, every class there, every digit of the scores.

Task 1, oriented boxes: ``Task1_<class>.txt`` with lines ``image score x1 y1 x2 y2 x3 y3 x4 y4``. Task 2, upright boxes:
``Task2_<class>.txt`` with lines ``image score xmin ymin xmax ymax``. Rounded scores, which others write, make ties, and
ties make the average precision depend on the order of lines.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from detection.problem import Detections
from vision3d.atomic import whole_file
from vision3d.errors import DataError
from vision3d.geometry import rotated

Task = Literal["task1", "task2"]
DECIMALS = 6  # of a score at least


def write_submission(path: Path, found: Mapping[str, Detections], classes: Sequence[str], task: Task = "task1") -> Path:
    """Write a zip, or where ``path`` does not end in .zip a folder of the same files. Same results, same bytes.

    Args:
        found: image -> its detections; lines keep this order, and within an image go by falling score.
        classes: each gets a file, with or without detections.

    Raises:
        DataError: the name of an image or of a class cannot stand there.
        ValueError: a label without a class, or a number that is not finite.
    """
    texts = {f"{task.title()}_{name}.txt": text for name, text in submission_texts(found, classes, task).items()}
    if path.suffix.lower() != ".zip":
        path.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with whole_file(path / name) as file:
                file.write(text.encode())
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            entry = zipfile.ZipInfo(name)  # its date is always the same
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text.encode())
    return path


def submission_texts(found: Mapping[str, Detections], classes: Sequence[str], task: Task = "task1") -> dict[str, str]:
    """Class -> the lines of its file; raises as :func:`write_submission`."""
    for name in classes:
        if not name or any(sign in name for sign in "/\\\n\r\0"):
            raise DataError(name or "(empty)", "cannot name the file of a class")
    lines: dict[int, list[str]] = {label: [] for label in range(len(classes))}
    for image, there in found.items():
        if not image or image.split() != [image]:
            raise DataError(image or "(empty)", "the name of an image must be one word: blanks divide the fields")
        if not (np.isfinite(there.boxes).all() and np.isfinite(there.scores).all()):
            raise ValueError(f"{image}: a box or a score is not finite")
        if len(there) and not 0 <= there.labels.min() <= there.labels.max() < len(classes):
            raise ValueError(f"{image}: has labels that none of the {len(classes)} classes has")
        order = np.argsort(-there.scores, kind="stable")
        boxes = there.boxes[order]
        numbers = rotated.corners(boxes).reshape(-1, 8) if task == "task1" else rotated.hulls(boxes)
        for label, score, row in zip(there.labels[order].tolist(), there.scores[order].tolist(), numbers.tolist()):
            lines[label].append(f"{image} {score_text(score)} {' '.join(map(number_text, row))}\n")
    return {name: "".join(lines[label]) for label, name in enumerate(classes)}


def score_text(score: float) -> str:
    """A score that reads back the same, with six decimals or more: ``0.900000``."""
    short = f"{score:.{DECIMALS}f}"
    return short if float(short) == score else number_text(score)


def number_text(value: float) -> str:
    """The shortest decimal number that reads back the same; never with an exponent."""
    text = repr(float(value))
    return np.format_float_positional(value, unique=True, trim="-") if "e" in text else text
