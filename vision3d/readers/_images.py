# SPDX-License-Identifier: Apache-2.0
"""Image files to arrays, strictly: a damaged file is an error that names it, never a half-grey picture."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB. EXIF orientation is ignored: calibration belongs to the stored pixel grid.

    Raises:
        DataError: the file is missing, no image, truncated or damaged.
    """
    import cv2

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return np.asarray(cv2.cvtColor(decode(path, flags), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def read_depth_m(path: Path, units_per_m: float) -> NDArray[np.float32]:
    """(H, W) float32 metres from a 16-bit PNG; 0 and 65535 mean unknown and become 0."""
    import cv2

    raw = decode(path, cv2.IMREAD_UNCHANGED)
    if raw.ndim != 2 or raw.dtype != np.uint16:
        raise DataError(path, f"depth must be one 16-bit channel, found {raw.dtype} of shape {raw.shape}")
    return np.where(raw == 65535, 0, raw).astype(np.float32) / np.float32(units_per_m)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) from the file's header alone, EXIF orientation ignored."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            width, height = image.size
    except FileNotFoundError:
        raise DataError(path, "no such image") from None
    except (UnidentifiedImageError, OSError):
        raise DataError(path, "is not an image that can be read") from None
    return width, height


def fitted_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """(width, height) shrunk so that the longer side is at most ``longest``; 0 keeps the size."""
    if longest <= 0 or max(width, height) <= longest:
        return width, height
    scale = longest / max(width, height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def resize_image(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Area-averaged shrinking; pixel areas are scaled, as :meth:`Camera.resized` does."""
    import cv2

    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def resize_depth(depth_m: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """The depth at the pixel under each new pixel's centre: never a mean across an edge."""
    rows = ((np.arange(height) + 0.5) * depth_m.shape[0] / height).astype(np.intp)
    cols = ((np.arange(width) + 0.5) * depth_m.shape[1] / width).astype(np.intp)
    return np.ascontiguousarray(depth_m[rows][:, cols])


def decode(path: Path, flags: int) -> NDArray[Any]:
    import cv2

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(path, "no such image") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    if not data:
        raise DataError(path, "is an empty file")
    problem = _damage(data)
    if problem:
        raise DataError(path, problem)
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    if image is None:
        raise DataError(path, "is not an image that can be read")
    return image


def _damage(data: bytes) -> str:
    """What is wrong with PNG or JPEG bytes. Decoders fill the missing part of such files silently."""
    if data.startswith(PNG_MAGIC):
        at = len(PNG_MAGIC)
        while at + 12 <= len(data):
            length, kind = struct.unpack(">I4s", data[at : at + 8])
            end = at + 12 + length
            if end > len(data):
                break
            if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack(">I", data[end - 4 : end])[0]:
                return f"damaged PNG: checksum of chunk {kind.decode('latin-1')} at byte {at} is wrong"
            if kind == b"IEND":
                return ""
            at = end
        return "truncated PNG: the end of the file is missing"
    # Inside JPEG scan data the end marker cannot occur, so one must follow the last start of scan.
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        return "truncated JPEG: the end of the file is missing"
    return ""
