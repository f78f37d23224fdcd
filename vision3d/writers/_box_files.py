# SPDX-License-Identifier: Apache-2.0
"""What writers of labelled images share: the image file, the list of classes, the truth that must be there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vision3d.atomic import whole_path
from vision3d.errors import DataError
from vision3d.types.images import BoxTruth, LabeledImage
from vision3d.writers._files import file_name


def stem_of(name: str) -> str:
    """A sample's name as a file name without a suffix; raises DataError when nothing is left of it."""
    return file_name(name)


def write_image(folder: Path, stem: str, sample: LabeledImage) -> Path:
    """``<folder>/<stem>.png``, lossless.

    Raises:
        DataError: the image is no (H, W, 3) uint8 array.
    """
    import cv2

    image = sample.image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(sample.name, f"an image is (H, W, 3) uint8, not {image.shape} {image.dtype}")
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise DataError(sample.name, "its image cannot be written as PNG")
    path = folder / f"{stem}.png"
    with whole_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
    return path


def write_text(path: Path, lines: list[str]) -> Path:
    """A text file of these lines; empty when there are none."""
    with whole_path(path) as temporary:
        temporary.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def write_classes(folder: Path, classes: tuple[str, ...]) -> Path:
    """``classes.txt``, a name per line.

    Raises:
        DataError: the folder lists other classes already: one data set has one list.
    """
    path, text = folder / "classes.txt", "".join(f"{name}\n" for name in classes)
    if path.is_file():
        if path.read_text(encoding="utf-8") != text:
            raise DataError(path, "lists other classes than this sample has: one data set, one list")
        return path
    return write_text(path, list(classes))


def read_classes(folder: Path) -> list[str]:
    """What :func:`write_classes` wrote."""
    return (folder / "classes.txt").read_text(encoding="utf-8").splitlines()


def require_truth(sample: LabeledImage, truth: BoxTruth | None) -> BoxTruth:
    """The sample's truth.

    Raises:
        DataError: there is none, or it belongs to an image of another size.
    """
    if truth is None:
        raise DataError(sample.name, "has no true boxes; points alone are written with --to points")
    height, width = sample.image.shape[:2]
    if truth.size != (width, height):
        raise DataError(sample.name, f"its boxes are of an image of {truth.size}, not {(width, height)} pixels")
    return truth


def without_blanks(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Class names for formats that divide at blanks: ``storage tank`` becomes ``storage-tank``.

    Raises:
        DataError: two names become one.
    """
    names = tuple("-".join(name.split()) for name in classes)
    if len(set(names)) < len(names):
        raise DataError("classes", f"two of {', '.join(classes)} are one when blanks become dashes")
    return names


def exact(value: float) -> str:
    """The shortest text that reads back as the same float64."""
    return repr(float(value))
