# SPDX-License-Identifier: Apache-2.0
"""Images of aerial data sets: found by name, measured without decoding, read at any size."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError
from vision3d.readers._images import PNG_MAGIC, decode
from vision3d.readers._source import list_images


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB; grey becomes three equal channels, transparency is dropped. One copy in memory.

    Raises:
        DataError: the file is missing, no image, truncated, damaged, or larger than the decoder takes (2^30 pixels).
    """
    import cv2

    try:
        image = decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        raise DataError(path, "cannot be decoded: more than 2^30 pixels?") from None
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), dtype=np.uint8)


def header_size(path: Path) -> tuple[int, int]:
    """(width, height) from the header alone, EXIF orientation ignored. No limit on the number of pixels.

    Raises:
        DataError: the file is missing or no image.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(26)
            if head.startswith(PNG_MAGIC) and head[12:16] == b"IHDR":
                width, height = struct.unpack(">II", head[16:24])
                return width, height
            if head.startswith(b"BM") and len(head) == 26 and struct.unpack("<I", head[14:18])[0] >= 40:
                width, height = struct.unpack("<ii", head[18:26])
                return width, abs(height)
        return _pillow_size(path, head)
    except FileNotFoundError:
        raise DataError(path, "no such image") from None
    except OSError as error:
        raise DataError(path, f"is not an image that can be read ({error.strerror or 'unknown format'})") from None


def images_by_name(folders: list[Path]) -> tuple[dict[str, Path], list[DataError]]:
    """Name without suffix -> image, sorted by name, of all folders; and the names that more than one image has."""
    found: dict[str, Path] = {}
    problems = []
    for path in sorted((path for folder in folders for path in list_images(folder)), key=lambda path: path.name):
        if path.stem in found:
            problems.append(DataError(path, f"has the same name as {found[path.stem]}: names must be unique"))
        else:
            found[path.stem] = path
    return dict(sorted(found.items())), problems


def name_problem(path: Path) -> DataError | None:
    """A file name that is not UTF-8 cannot be written into results."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        shown = path.name.encode(errors="surrogateescape").decode(errors="replace")
        return DataError(path.parent / shown, "its name is not UTF-8: rename the file")
    return None


def _pillow_size(path: Path, head: bytes) -> tuple[int, int]:
    """By the formats themselves: ``Image.open`` refuses more than 1.8e8 pixels, even when nothing is decoded."""
    from PIL import BmpImagePlugin, Image, JpegImagePlugin, PpmImagePlugin, TiffImagePlugin, WebPImagePlugin

    formats: list[tuple[bytes, Any]] = [
        (b"\xff\xd8", JpegImagePlugin.JpegImageFile),
        (b"II", TiffImagePlugin.TiffImageFile),
        (b"MM", TiffImagePlugin.TiffImageFile),
        (b"RIFF", WebPImagePlugin.WebPImageFile),
        (b"BM", BmpImagePlugin.BmpImageFile),
        (b"P", PpmImagePlugin.PpmImageFile),
    ]
    for magic, kind in formats:
        if head.startswith(magic):
            try:
                with kind(str(path)) as image:
                    width, height = image.size
                    return width, height
            except (Image.UnidentifiedImageError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
                break
    raise DataError(path, "is not an image that can be read")
