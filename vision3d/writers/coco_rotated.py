# SPDX-License-Identifier: Apache-2.0
"""COCO's JSON with oriented boxes: ``images/NAME.png`` and ``annotations/instances.json``.

An annotation has ``bbox`` ``[cx, cy, w, h, angle]`` as Detectron2 takes it (degrees counter-clockwise), its four
corners as ``segmentation``, ``area`` (of the quadrilateral), ``difficult`` and ``iscrowd`` 0. Ids count from 1. Points
and headings are not kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.contracts import WriterSpec
from vision3d.types.images import BoxTruth, LabeledImage
from vision3d.writers._box_files import read_classes, require_truth, stem_of, write_classes, write_image, write_text

PARTS = ".coco-parts"  # an image's annotations, until all images are there


def write(name: str, sample: LabeledImage, truth: BoxTruth | None, folder: Path) -> list[Path]:
    """The image, and its annotations for :func:`finish`; raises DataError when there are no true boxes."""
    from vision3d.geometry import rotated

    truth, stem = require_truth(sample, truth), stem_of(name)
    image = write_image(folder / "images", stem, sample)
    bboxes = rotated.convert(truth.boxes, "le90", "detectron2") if len(truth.boxes) else truth.boxes
    x, y = truth.quads[..., 0], truth.quads[..., 1]
    areas = 0.5 * np.abs((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1))
    annotations = [
        {
            "category_id": int(label) + 1,
            "bbox": bbox,
            "segmentation": [quad],
            "area": area,
            "iscrowd": 0,
            "difficult": int(difficult),
        }
        for label, bbox, quad, area, difficult in zip(
            truth.labels, bboxes.tolist(), truth.quads.reshape(-1, 8).tolist(), areas.tolist(), truth.difficult
        )
    ]
    entry = {"file_name": image.name, "width": truth.size[0], "height": truth.size[1]}
    part = {"image": entry, "annotations": annotations}
    write_text(folder / PARTS / f"{stem}.json", [json.dumps(part, allow_nan=False)])
    return [image, write_classes(folder, sample.classes)]


def finish(folder: Path, names: Sequence[str]) -> list[Path]:
    """``annotations/instances.json`` from the parts, which go."""

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    parts = [folder / PARTS / f"{stem_of(name)}.json" for name in names]
    for number, path in enumerate(parts, start=1):
        part = json.loads(path.read_text(encoding="utf-8"))
        images.append({"id": number, **part["image"]})
        for item in part["annotations"]:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **item})
    classes = read_classes(folder)
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    path = write_text(folder / "annotations" / "instances.json", [json.dumps(document, allow_nan=False)])
    for part_path in parts:
        part_path.unlink()
    (folder / PARTS).rmdir()
    return [path]


SPEC = WriterSpec(
    name="coco-rotated",
    summary="images/*.png and COCO JSON: bbox cx, cy, w, h, degrees (Detectron2), and four corners",
    samples="LabeledImage",
    write=write,
    finish=finish,
)
