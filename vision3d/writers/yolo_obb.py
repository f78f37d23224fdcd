# SPDX-License-Identifier: Apache-2.0
"""The YOLO layout of oriented boxes: ``images/NAME.png``, ``labels/NAME.txt``, ``data.yaml`` and ``classes.txt``.

Lines are ``class x1 y1 x2 y2 x3 y3 x4 y4``, x and y divided by the image's width and height, with every digit.
Difficulty, points and headings are not kept. ``data.yaml`` gives the same images for training and validation: split
them, or name other folders there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vision3d.contracts import WriterSpec
from vision3d.types.images import BoxTruth, LabeledImage
from vision3d.writers._box_files import (
    exact,
    read_classes,
    require_truth,
    stem_of,
    write_classes,
    write_image,
    write_text,
)


def write(name: str, sample: LabeledImage, truth: BoxTruth | None, folder: Path) -> list[Path]:
    """Image, labels and the list of classes; raises DataError when there are no true boxes."""
    truth, stem = require_truth(sample, truth), stem_of(name)
    shares = (truth.quads / np.array(truth.size)).reshape(-1, 8)
    lines = [" ".join([str(int(label)), *map(exact, quad)]) for label, quad in zip(truth.labels, shares)]
    return [
        write_image(folder / "images", stem, sample),
        write_text(folder / "labels" / f"{stem}.txt", lines),
        write_classes(folder, sample.classes),
    ]


def finish(folder: Path, names: Sequence[str]) -> list[Path]:
    """``data.yaml``, from ``classes.txt``."""
    classes = read_classes(folder)
    lines = ["train: images", "val: images", "names:"]
    # A JSON string is a YAML string, whatever is in it.
    lines += [f"  {number}: {json.dumps(name)}" for number, name in enumerate(classes)]
    return [write_text(folder / "data.yaml", lines)]


SPEC = WriterSpec(
    name="yolo-obb",
    summary="images/*.png, labels/*.txt (class and four corners, relative) and data.yaml; difficult is lost",
    samples="LabeledImage",
    write=write,
    finish=finish,
)
