# SPDX-License-Identifier: Apache-2.0
"""Tiny data sets of oriented boxes in the layouts of others: all of one set of drawn images, whose boxes are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vision3d.geometry import rotated

IMAGES, SIDE = 8, 160
# Names that DIOR and, without the dash, others know: one list serves all layouts.
CLASSES = ("ship", "storagetank", "vehicle")
DOTA_CLASSES = ("ship", "storage-tank", "small-vehicle")
# Class -> (w, h) in pixels and colour, RGB.
SHAPES = {0: ((44.0, 15.0), (230, 230, 235)), 1: ((22.0, 22.0), (200, 60, 50)), 2: ((20.0, 10.0), (250, 210, 60))}
LAST = IMAGES - 1  # this image holds no object


@dataclass(frozen=True)
class Drawn:
    """An image (H, W, 3) uint8 RGB, its boxes (N, 5), classes (N,) and difficulties (N,)."""

    name: str
    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    difficult: NDArray[np.int64]

    @property
    def quads(self) -> NDArray[np.float64]:
        return rotated.corners(self.boxes)


@cache
def drawn(number: int) -> Drawn:
    """Image ``number``: five objects that do not touch, on noise; none in the last image."""
    rng = np.random.default_rng([11, number])
    image = rng.integers(60, 110, (SIDE, SIDE, 3)).astype(np.uint8)
    places = [(x, y) for y in (40, 115) for x in (30, 80, 130)]
    rows = []
    for place in rng.permutation(len(places))[: 0 if number == LAST else 5]:
        label = (number + int(place)) % len(CLASSES)
        (w, h), colour = SHAPES[label]
        x, y = np.round(places[place] + rng.uniform(-3, 3, 2), 1)
        theta = 0.0 if label == 1 else round(float(rng.uniform(-math.pi / 2, math.pi / 2)), 3)
        rows.append((x, y, w, h, theta, label))
        cv2.fillConvexPoly(image, np.round(rotated.corners([rows[-1][:5]])[0]).astype(np.int32), colour)
    table = np.array(rows).reshape(-1, 6)
    difficult = np.arange(len(rows)) % 5 // 4
    return Drawn(f"{number:05d}", image, table[:, :5], table[:, 5].astype(np.int64), difficult)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def dota_lines(item: Drawn) -> str:
    lines = ["imagesource:drawn", "gsd:0.25"]
    for quad, label, difficult in zip(item.quads.reshape(-1, 8).tolist(), item.labels, item.difficult):
        lines.append(" ".join([*map(repr, quad), DOTA_CLASSES[label], str(difficult)]))
    return "\n".join([*lines, ""])


def dota(root: Path) -> str:
    for item in map(drawn, range(IMAGES)):
        write_image(root / "images" / f"{item.name}.png", item.image)
        write_text(root / "labelTxt" / f"{item.name}.txt", dota_lines(item))
    write_text(root / "classes.txt", "\n".join([*DOTA_CLASSES, ""]))
    return str(root)


def dior(root: Path) -> str:
    corners = ("left_top", "right_top", "right_bottom", "left_bottom")
    for item in map(drawn, range(IMAGES)):
        objects = []
        for quad, label, difficult in zip(item.quads.tolist(), item.labels, item.difficult):
            points = "".join(f"<x_{c}>{x!r}</x_{c}><y_{c}>{y!r}</y_{c}>" for c, (x, y) in zip(corners, quad))
            name = CLASSES[label].capitalize()
            objects.append(
                f"<object><name>{name}</name><difficult>{difficult}</difficult><robndbox>{points}</robndbox></object>"
            )
        part = "trainval" if int(item.name) < IMAGES // 2 else "test"
        write_image(root / f"JPEGImages-{part}" / f"{item.name}.jpg", item.image)
        xml = f"<annotation><filename>{item.name}.jpg</filename>{''.join(objects)}</annotation>"
        write_text(root / "Annotations" / "Oriented Bounding Boxes" / f"{item.name}.xml", xml)
    for split, numbers in {"train": range(2), "val": range(2, 4), "test": range(4, IMAGES)}.items():
        write_text(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{n:05d}\n" for n in numbers))
    return str(root)


def hrsc(root: Path) -> str:
    """The ships of the images alone, each with its bow at the right end of the box."""
    for item in map(drawn, range(IMAGES)):
        objects = []
        for (cx, cy, w, h, theta), label in zip(item.boxes.tolist(), item.labels):
            if label == 0:
                fields = {"mbox_cx": cx, "mbox_cy": cy, "mbox_w": w, "mbox_h": h, "mbox_ang": theta}
                fields |= {"header_x": cx + w / 2 * math.cos(theta), "header_y": cy + w / 2 * math.sin(theta)}
                text = "".join(f"<{key}>{value!r}</{key}>" for key, value in fields.items())
                objects.append(
                    f"<HRSC_Object><Class_ID>100000013</Class_ID><difficult>0</difficult>{text}</HRSC_Object>"
                )
        write_image(root / "FullDataSet" / "AllImages" / f"{item.name}.bmp", item.image)
        ships = f"<HRSC_Objects>{''.join(objects)}</HRSC_Objects>"
        xml = f"<HRSC_Image><Img_Resolution>1.07</Img_Resolution>{ships}</HRSC_Image>"
        write_text(root / "FullDataSet" / "Annotations" / f"{item.name}.xml", xml)
    for split, numbers in {"train": range(3), "val": range(3, 5), "test": range(5, IMAGES)}.items():
        write_text(root / "ImageSets" / f"{split}.txt", "".join(f"{n:05d}\n" for n in numbers))
    return str(root)


def yolo_obb(root: Path) -> str:
    for item in map(drawn, range(IMAGES)):
        split = "train" if int(item.name) < 6 else "val"
        lines = [
            " ".join([str(label), *map(repr, quad)])
            for label, quad in zip(item.labels.tolist(), (item.quads / SIDE).reshape(-1, 8).tolist())
        ]
        write_image(root / "images" / split / f"{item.name}.png", item.image)
        if lines:
            write_text(root / "labels" / split / f"{item.name}.txt", "\n".join([*lines, ""]))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    write_text(root / "data.yaml", f"train: images/train\nval: images/val\nnames:\n{names}")
    return str(root)


def coco_rotated(root: Path) -> str:
    """Boxes of five numbers in image 0, 2, ..., four corners in the others."""
    images, annotations = [], []
    for item in map(drawn, range(IMAGES)):
        number = int(item.name) + 10
        write_image(root / "images" / f"{item.name}.png", item.image)
        images.append({"id": number, "file_name": f"{item.name}.png", "width": SIDE, "height": SIDE})
        for box, quad, label, difficult in zip(item.boxes, item.quads, item.labels, item.difficult):
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": int(label) + 1}
            if number % 2:
                entry["segmentation"] = [quad.ravel().tolist()]
            else:
                entry["bbox"] = [*box[:4].tolist(), -math.degrees(box[4])]
            annotations.append(entry | {"iscrowd": int(difficult)})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    write_text(root / "annotations" / "instances.json", json.dumps(document))
    return str(root)


def points(root: Path) -> str:
    """Clicks at the centres; no boxes."""
    for item in map(drawn, range(IMAGES)):
        lines = [f"{x!r} {y!r} {CLASSES[label]}\n" for (x, y), label in zip(item.boxes[:, :2].tolist(), item.labels)]
        write_image(root / "images" / f"{item.name}.png", item.image)
        write_text(root / "points" / f"{item.name}.txt", "".join(lines))
    write_text(root / "classes.txt", "\n".join([*CLASSES, ""]))
    return str(root)


# reader -> writes a data set of IMAGES images below a folder and returns what a user would type
BOX_DATA: dict[str, Callable[[Path], str]] = {
    "dota": dota,
    "dior": dior,
    "hrsc": hrsc,
    "yolo-obb": yolo_obb,
    "coco-rotated": coco_rotated,
    "points": points,
}
