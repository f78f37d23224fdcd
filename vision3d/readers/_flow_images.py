# SPDX-License-Identifier: Apache-2.0
"""Images of real numbers: PFM (disparity and its change) and Middlebury's .flo (optical flow)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError

FLO_MAGIC = b"PIEH"


def read_pfm(path: Path) -> NDArray[np.float32]:
    """(H, W) or (H, W, 3) float32, first row on top; the file has it at the bottom.

    Raises:
        DataError: missing, no PFM file, or fewer numbers than it says.
    """
    data = _bytes(path)
    header = re.match(rb"(P[Ff])\s+(\d{1,6})\s+(\d{1,6})\s+([-+]?[0-9.eE+-]+)\s", data)
    if header is None:
        raise DataError(path, "is not a PFM file")
    try:
        scale = float(header[4])
    except ValueError:
        raise DataError(path, "its scale is not a number") from None
    width, height = int(header[2]), int(header[3])
    shape = (height, width, 3) if header[1] == b"PF" else (height, width)
    count = int(np.prod(shape))
    if not count or len(data) - header.end() < 4 * count:
        raise DataError(path, f"does not hold its {width}x{height} pixels: the file is cut off")
    # The scale's sign says the byte order: negative is little endian.
    values = np.frombuffer(data, dtype="<f4" if scale < 0 else ">f4", count=count, offset=header.end())
    return np.ascontiguousarray(values.reshape(shape)[::-1], dtype=np.float32)


def read_flo(path: Path) -> NDArray[np.float32]:
    """(H, W, 2) float32 pixels, to the right and down.

    Raises:
        DataError: missing, no .flo file, or fewer numbers than it says.
    """
    data = _bytes(path)
    if data[:4] != FLO_MAGIC or len(data) < 12:
        raise DataError(path, "is not a .flo file")
    width, height = (int(value) for value in np.frombuffer(data, dtype="<i4", count=2, offset=4))
    if width < 1 or height < 1 or len(data) < 12 + 8 * width * height:
        raise DataError(path, f"does not hold its {width}x{height} pixels: the file is cut off")
    return np.frombuffer(data, dtype="<f4", count=2 * width * height, offset=12).reshape(height, width, 2).copy()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
