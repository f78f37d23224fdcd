# SPDX-License-Identifier: Apache-2.0
"""Named arrays in one file: an .npz without pickles, with the same bytes each time, whole or absent."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.atomic import whole_file
from vision3d.errors import DataError

Arrays = dict[str, NDArray[Any]]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of any shape (0-d too) and of any type but Python objects, as a :func:`whole_file`.

    Raises:
        ValueError: an array holds Python objects.
    """
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = _comment(len(arrays))
        for index, (name, array) in enumerate(arrays.items()):
            # The number in front of a name keeps the order. The date is zipfile's own, always the same.
            info = zipfile.ZipInfo(f"{index:06d}/{name}.npy")
            with archive.open(info, "w", force_zip64=True) as part:
                np.lib.format.write_array(part, np.asarray(array, order="C"), allow_pickle=False)


def read_arrays(path: Path) -> Arrays:
    """The arrays, in the order they were given.

    Raises:
        DataError: the file is missing or damaged.
    """
    arrays: Arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info, name in _entries(archive):
                _require_size(archive, info)
                with archive.open(info) as part:
                    arrays[name] = np.lib.format.read_array(part, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(path, "is missing") from None
    # A damaged archive makes its parsers raise almost anything: struct, zlib, syntax and memory errors among them.
    except Exception as error:
        raise DataError(path, f"is damaged ({type(error).__name__}: {' '.join(str(error).split())})") from None
    return arrays


def check_arrays(path: Path) -> None:
    """Read the file through and compare its checksums, holding nothing.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _entries(archive)
            damaged = archive.testzip()
    except FileNotFoundError:
        raise DataError(path, "is missing") from None
    except Exception as error:
        raise DataError(path, f"is damaged ({type(error).__name__}: {' '.join(str(error).split())})") from None
    if damaged is not None:
        raise DataError(path, f"is damaged (checksum of {damaged})")


def _comment(count: int) -> bytes:
    """zipfile does not notice when a flipped bit in the directory hides the entries after it: they are counted."""
    return f"{count} arrays".encode()


def _entries(archive: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, str]]:
    """Each entry and the name of its array, all of them and in order."""
    infos = archive.infolist()
    if archive.comment != _comment(len(infos)):
        raise ValueError(f"it holds {len(infos)} arrays and says: {archive.comment[:40].decode('ascii', 'replace')}")
    names = [info.filename[7:-4] for info in infos]
    for index, (info, name) in enumerate(zip(infos, names)):
        if info.filename != f"{index:06d}/{name}.npy":
            raise ValueError(f"unexpected entry {info.filename}")
    if len(set(names)) < len(names):
        raise ValueError("two arrays have one name")
    return list(zip(infos, names))


def _require_size(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Refuse a header that promises more than the entry holds, before memory is asked for it."""
    with archive.open(info) as part:
        version = np.lib.format.read_magic(part)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(part)
        if math.prod(shape) * dtype.itemsize != info.file_size - part.tell():
            raise ValueError(f"{info.filename} is not as long as its header says")
