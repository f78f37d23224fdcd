# SPDX-License-Identifier: Apache-2.0
"""Point Cloud Library's PCD files: ascii, binary and binary_compressed, of which only x, y and z are read.

Format: https://pointclouds.org/documentation/tutorials/pcd_file_format.html. Compressed data are LZF, field by field.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError

TYPES = {
    ("F", 4): "<f4",
    ("F", 8): "<f8",
    ("U", 1): "u1",
    ("U", 2): "<u2",
    ("U", 4): "<u4",
    ("U", 8): "<u8",
    ("I", 1): "i1",
    ("I", 2): "<i2",
    ("I", 4): "<i4",
    ("I", 8): "<i8",
}


def read_pcd(path: Path, data: bytes) -> NDArray[Any]:
    """(N, 3) coordinates in the file's order, NaN for points that the sensor did not see.

    Raises:
        DataError: no PCD file, fewer points than it says, or no x, y, z in it.
    """
    header, body = _header(path, data)
    names, dtype = _fields(path, header)
    count = _number(path, header, "POINTS") if "POINTS" in header else _number(path, header, "WIDTH")
    kind = header["DATA"][0].lower() if header["DATA"] else ""
    columns = [names.index(axis) for axis in "xyz"]
    if kind == "ascii":
        rows = body.decode("ascii", errors="replace").split("\n")
        try:
            # Fields of several numbers take several columns.
            widths = [int(np.prod(dtype[i].shape, dtype=int)) for i in range(len(names))]
            starts = np.concatenate([[0], np.cumsum(widths)])
            points = np.loadtxt(rows, usecols=[int(starts[c]) for c in columns], ndmin=2) if body.strip() else None
        except ValueError as error:
            raise DataError(path, f"holds a row that is not numbers: {error}") from None
        points = np.zeros((0, 3)) if points is None else points
        if len(points) != count:
            raise DataError(path, f"holds {len(points)} of {count} points: the file is cut off or damaged")
        return points
    if kind == "binary":
        if len(body) < count * dtype.itemsize:
            raise DataError(path, f"holds {len(body) // dtype.itemsize} of {count} points: the file is cut off")
        table = np.frombuffer(body, dtype=dtype, count=count)
        return np.stack([table[axis] for axis in "xyz"], axis=1)
    if kind == "binary_compressed":
        return _compressed(path, body, names, dtype, count)
    raise DataError(path, f"DATA {kind or '(nothing)'} is not ascii, binary or binary_compressed")


def _header(path: Path, data: bytes) -> tuple[dict[str, list[str]], bytes]:
    """Keyword -> words, and what follows the line DATA."""
    header: dict[str, list[str]] = {}
    at = 0
    while (end := data.find(b"\n", at)) >= 0 and end - at < 4096:
        words = data[at:end].decode("ascii", errors="replace").split()
        at = end + 1
        if not words or words[0].startswith("#"):
            continue
        header[words[0].upper()] = words[1:]
        if words[0].upper() == "DATA":
            break
    missing = [key for key in ("FIELDS", "SIZE", "TYPE", "WIDTH", "DATA") if key not in header]
    if missing:
        raise DataError(path, f"is not a PCD file: its header has no line {missing[0]}")
    return header, data[at:]


def _fields(path: Path, header: dict[str, list[str]]) -> tuple[list[str], np.dtype[Any]]:
    names, sizes, kinds = header["FIELDS"], header["SIZE"], header["TYPE"]
    counts = header.get("COUNT", ["1"] * len(names))
    if not len(names) == len(sizes) == len(kinds) == len(counts):
        raise DataError(path, "FIELDS, SIZE, TYPE and COUNT of its header differ in length")
    fields: list[Any] = []
    for i, (name, size, kind, count) in enumerate(zip(names, sizes, kinds, counts)):
        code = TYPES.get((kind, int(size) if size.isdigit() else 0))
        if code is None or not count.isdigit() or int(count) < 1:
            raise DataError(path, f"field {name} has TYPE {kind}, SIZE {size}, COUNT {count}, which is not known")
        # Padding is called '_', any number of times.
        unique = name if name != "_" and name not in names[:i] else f"{name}:{i}"
        fields.append((unique, code) if count == "1" else (unique, code, (int(count),)))
    lacking = [axis for axis in "xyz" if axis not in names]
    if lacking:
        raise DataError(path, f"has no field {lacking[0]}; it has {', '.join(names)}")
    dtype = np.dtype(fields)
    if any(dtype[axis].shape for axis in "xyz"):
        raise DataError(path, "its x, y and z must be one number each")
    return names, dtype


def _number(path: Path, header: dict[str, list[str]], key: str) -> int:
    words = header[key]
    if len(words) != 1 or not words[0].isdigit():
        raise DataError(path, f"{key} of its header must be one number, found '{' '.join(words)}'")
    return int(words[0])


def _compressed(path: Path, body: bytes, names: list[str], dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    packed, unpacked = struct.unpack("<II", body[:8]) if len(body) >= 8 else (0, 0)
    if unpacked != count * dtype.itemsize or len(body) < 8 + packed:
        raise DataError(path, f"its compressed data do not hold {count} points: the file is cut off or damaged")
    raw = unpack_lzf(body[8 : 8 + packed], unpacked)
    if raw is None:
        raise DataError(path, "its compressed data are damaged")
    columns, at = {}, 0
    for i, name in enumerate(names):
        field = dtype[i]
        if name in ("x", "y", "z"):
            columns[name] = np.frombuffer(raw, dtype=field.base, count=count, offset=at)
        at += field.itemsize * count
    return np.stack([columns[axis] for axis in "xyz"], axis=1)


def unpack_lzf(data: bytes, size: int) -> bytes | None:
    """What LZF packed, ``size`` bytes; None when ``data`` does not unpack to that.

    A control byte below 32 starts a run of that many bytes and one; any other repeats what was written before.
    """
    out = bytearray()
    at, end = 0, len(data)
    while at < end:
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7 and at < end:
            length += data[at]
            at += 1
        if at >= end:
            return None
        start = len(out) - ((control & 31) << 8) - data[at] - 1
        at += 1
        length += 2
        if start < 0 or len(out) + length > size:
            return None
        if start + length <= len(out):
            out += out[start : start + length]
        else:  # the copy reads what it writes: a pattern
            pattern = bytes(out[start:])
            out += (pattern * (length // len(pattern) + 1))[:length]
    return bytes(out) if len(out) == size else None
