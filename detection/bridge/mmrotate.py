# SPDX-License-Identifier: Apache-2.0
"""Boxes in the layout that MMRotate's ``DOTADataset`` reads, beside ready configurations of Rotated FCOS.

::

    OUT/train/images/*.png   OUT/train/annfiles/*.txt   (and other splits)
    OUT/rotated_fcos_1x.py   for MMRotate 1.x     OUT/rotated_fcos_0x.py   for MMRotate 0.3.x

What MMRotate writes (``Task1_*.txt``, ``preds/*.json``) is read by :func:`detection.dota.results_files.read_results`.

Its reader differs from DOTA's own files: no header lines, PNG only, every line with its tenth field, and boxes marked
difficult are trained on like others, so boxes that are not to be trusted must be left out here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.bridge.mmrotate_configs import config_0x, config_1x
from detection.problem import Detections, Float, Image, Int
from vision3d.atomic import whole_path
from vision3d.errors import ConfigError, DataError
from vision3d.geometry import rotated
from vision3d.types import BoxTruth

CONFIGS = {"rotated_fcos_1x.py": config_1x, "rotated_fcos_0x.py": config_0x}


@dataclass(frozen=True)
class Annotated:
    """An image and boxes to train on.

    Attributes:
        name: unique in its split, without a suffix.
        image: (H, W, 3) uint8 RGB.
        quads: (N, 4, 2) corners, pixels.
        labels: (N,) classes.
        difficult: (N,) as in DOTA's files.
    """

    name: str
    image: Image
    quads: Float
    labels: Int
    difficult: NDArray[np.uint8]

    @classmethod
    def of_truth(cls, name: str, image: Image, truth: BoxTruth) -> Annotated:
        """With the true boxes, their quadrilaterals as they are."""
        return cls(name, image, truth.quads, truth.labels, truth.difficult)

    @classmethod
    def of_boxes(cls, name: str, image: Image, boxes: Detections, min_score: float = 0.0) -> Annotated:
        """With boxes that a labeller made, without those below a score."""
        kept = boxes[boxes.scores >= min_score]
        return cls(name, image, rotated.corners(kept.boxes), kept.labels, np.zeros(len(kept), np.uint8))


def write_split(folder: Path, split: str, images: Iterable[Annotated], classes: tuple[str, ...]) -> dict[str, int]:
    """Images and annotations of one split; each file is whole or absent.

    Returns:
        How many ``images``, ``boxes``, and ``empty`` images, which MMRotate's training leaves out.

    Raises:
        DataError: a name occurs twice or is no file name.
    """
    names = class_names(classes)
    counts = {"images": 0, "boxes": 0, "empty": 0}
    seen: set[str] = set()
    for item in images:
        if not item.name or item.name.startswith(".") or set(item.name) & set('/\\:\0\n"'):
            raise DataError(repr(item.name), "is no file name: MMRotate names images by their file")
        if item.name in seen:
            raise DataError(item.name, f"occurs twice in split {split}: names of images must differ")
        seen.add(item.name)
        lines = [
            " ".join([*(repr(float(value)) for value in quad), names[label], str(int(difficult))])
            for quad, label, difficult in zip(item.quads.reshape(-1, 8), item.labels, item.difficult, strict=True)
        ]
        with whole_path(folder / split / "images" / f"{item.name}.png") as path:
            path.write_bytes(_png(item.image))
        with whole_path(folder / split / "annfiles" / f"{item.name}.txt") as path:
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        counts["images"] += 1
        counts["boxes"] += len(lines)
        counts["empty"] += not lines
    return counts


def write_configs(folder: Path, classes: tuple[str, ...], size: int, train: str = "train", val: str = "val") -> None:
    """``rotated_fcos_1x.py`` and ``rotated_fcos_0x.py``: Rotated FCOS, ResNet-50, le90, 12 epochs.

    Args:
        folder: where the splits are.
        size: side that images are scaled to: that of the tiles, so that they keep their scale.
        train: split to train on.
        val: split to evaluate on.

    Raises:
        ConfigError: the size is not positive.
    """
    if size < 1:
        raise ConfigError(f"the size of images for MMRotate is {size}: must be positive")
    for file, text in CONFIGS.items():
        with whole_path(folder / file) as path:
            path.write_text(text(str(folder.resolve()), class_names(classes), size, train, val), encoding="utf-8")


def class_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Names without blanks, which divide the fields of a line.

    Raises:
        DataError: two names become the same.
    """
    names = tuple("-".join(name.split()) for name in classes)
    for name in names:
        if not name or names.count(name) > 1:
            raise DataError("classes", f"two of them become '{name}' where blanks are replaced; rename one")
    return names


def _png(image: Image) -> bytes:
    done, data = cv2.imencode(".png", image[:, :, ::-1])
    if not done:
        raise ValueError(f"an image of shape {image.shape} cannot be written as PNG")
    return data.tobytes()
