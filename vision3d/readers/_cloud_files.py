# SPDX-License-Identifier: Apache-2.0
"""One point cloud from one file, in the file's order: KITTI and nuScenes ``.bin``, PCD, PLY, NumPy, text, Feather."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError
from vision3d.readers._cloud_pcd import read_pcd
from vision3d.readers._feather import read_feather
from vision3d.readers._flow_pairs import finite_rows, load_arrays

TEXT = (".xyz", ".txt", ".csv")
SCANS = (".bin", ".pcd", ".ply", ".npy", ".npz", ".feather", ".xyz")
KNOWN = (*SCANS, ".txt", ".csv")
ONE_CLOUD = ("points", "pc", "xyz", "pos", "cloud", "lidar")
# A coordinate beyond this is no metre: the file has another number of columns or another type.
LARGEST_M = 1e5


@dataclass(frozen=True)
class CloudFormat:
    """How files are read.

    Attributes:
        columns: float32 numbers per point of a ``.bin`` file; 0 takes 5 for ``.pcd.bin`` (nuScenes) and else 4 (KITTI).
        scale: metres per unit of the file.
        drop_nan: leave out points that are not finite, instead of refusing the file.
    """

    columns: int = 0
    scale: float = 1.0
    drop_nan: bool = False


def read_cloud(path: Path, form: CloudFormat) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Points (K, 3) float32 in metres, and which of the file's (N,) rows they are: all, unless ``drop_nan``.

    Raises:
        DataError: missing, empty, damaged, of an unknown format, or with coordinates that are not finite.
    """
    return cleaned(read_columns(path, form)["xyz"], path, form)


def cleaned(
    points: NDArray[Any], path: Path, form: CloudFormat, what: str = "points"
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What :func:`read_cloud` does with coordinates once they are read."""
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        hint = "; is it transposed?" if points.ndim == 2 and points.shape[0] == 3 else ""
        raise DataError(path, f"{what} must be numbers of shape (N, 3), found {points.dtype} {points.shape}{hint}")
    if not len(points):
        raise DataError(path, f"holds no {what}")
    with np.errstate(over="ignore"):
        cloud = (points[:, :3].astype(np.float64) * form.scale).astype(np.float32)
    finite = finite_rows(cloud)
    lost = int((~finite).sum())
    if lost == len(cloud):
        raise DataError(path, f"none of its {lost} {what} is finite")
    if lost and not form.drop_nan:
        raise DataError(path, f"{lost} of {len(cloud)} {what} hold NaN or infinity; ?drop_nan=1 leaves them out")
    return np.ascontiguousarray(cloud[finite]), finite


def read_columns(path: Path, form: CloudFormat) -> dict[str, NDArray[Any]]:
    """``xyz`` (N, 3) and, of a PLY file, its other vertex properties by name, each (N,).

    Raises:
        DataError: see :func:`read_cloud`.
    """
    suffix = path.suffix.lower()
    if suffix not in KNOWN:
        raise DataError(path, f"'{suffix or path.name}' is not a format of clouds; known: {', '.join(KNOWN)}")
    if suffix == ".feather":
        table = read_feather(path, ("x", "y", "z"))
        return {"xyz": np.stack([table[axis] for axis in "xyz"], axis=1)}
    data = _bytes(path)
    if suffix == ".bin":
        return {"xyz": _bin(path, data, form)}
    if suffix == ".pcd":
        return {"xyz": read_pcd(path, data)}
    if suffix == ".ply":
        return _ply(path)
    if suffix in TEXT:
        return {"xyz": _text(path, data)}
    arrays = load_arrays(path)
    if "" in arrays:
        return {"xyz": arrays[""]}
    named = [name for name in ONE_CLOUD if name in arrays] or list(arrays)[: 1 if len(arrays) == 1 else 0]
    if not named:
        raise DataError(path, f"has no array {', '.join(ONE_CLOUD)}; it has {', '.join(arrays) or 'none'}")
    return {"xyz": arrays[named[0]]}


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    if not data:
        raise DataError(path, "is an empty file")
    return data


def _bin(path: Path, data: bytes, form: CloudFormat) -> NDArray[np.float32]:
    head = data[:1024]
    if len(head) >= 32 and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        raise DataError(path, "holds text, not float32 numbers: rename it to .txt")
    wanted = form.columns or (5 if path.name.lower().endswith(".pcd.bin") else 4)
    if len(data) % (4 * wanted):
        fits = [n for n in (3, 4, 5, 6) if len(data) % (4 * n) == 0]
        hint = f"; ?columns={fits[0]} would fit" if fits else "; it is cut off or not float32"
        raise DataError(path, f"its {len(data)} bytes are no whole number of points of {wanted} float32{hint}")
    points = np.frombuffer(data, dtype="<f4").reshape(-1, wanted)[:, :3]
    with np.errstate(invalid="ignore"):
        far = int((np.abs(points) * form.scale > LARGEST_M).any(axis=1).sum())
    if far:
        raise DataError(path, f"{far} of {len(points)} points lie 100 km away: not {wanted} float32 each (?columns=N)?")
    return points


def _ply(path: Path) -> dict[str, NDArray[Any]]:
    import trimesh

    try:
        # The raw vertices: no merging, so that order and number are the file's.
        loaded = trimesh.load(path, process=False)
        vertex = loaded.metadata["_ply_raw"]["vertex"]
        table, count = vertex["data"], int(vertex["length"])
        names = list(table.dtype.names) if isinstance(table, np.ndarray) else list(table)
        columns = {name: np.asarray(table[name]).reshape(-1) for name in names}
    except Exception as error:  # the parser meets damage with whatever it stumbles over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(path, f"is not a PLY file that can be read: {reason}") from None
    lacking = [axis for axis in "xyz" if axis not in columns]
    if lacking:
        raise DataError(path, f"its vertices have no property {lacking[0]}; they have {', '.join(names) or 'none'}")
    if len(columns["x"]) != count:
        raise DataError(path, f"holds {len(columns['x'])} of {count} points: the file is cut off")
    xyz = np.stack([columns.pop(axis) for axis in "xyz"], axis=1)
    return {"xyz": xyz, **columns}


def _text(path: Path, data: bytes) -> NDArray[np.float64]:
    """The first three columns, or those that a first line calls x, y and z; '#' starts a comment."""
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(path, "is not a text file") from None
    rows = [(number, line) for number, line in enumerate(lines, start=1) if line.split("#")[0].split("//")[0].strip()]
    if not rows:
        raise DataError(path, "holds no points")
    separator = next((mark for mark in ",;" if mark in rows[0][1]), None)
    first = [word.strip().strip('"').lower() for word in rows[0][1].split(separator)]
    columns = [0, 1, 2]
    if not _is_number(first[0]):
        columns = [first.index(axis) for axis in "xyz"] if set("xyz") <= set(first) else columns
        rows = rows[1:]
    try:
        cleaned_rows = (line.replace("//", "#") for _, line in rows)
        return np.loadtxt(cleaned_rows, delimiter=separator, usecols=columns, ndmin=2) if rows else np.zeros((0, 3))
    except ValueError:
        for number, line in rows:
            words = line.split("#")[0].split("//")[0].split(separator)
            if len(words) <= max(columns) or not all(_is_number(words[c]) for c in columns):
                raise DataError(path, f"line {number} does not hold x, y and z: '{line.strip()[:60]}'") from None
        raise DataError(path, "is not a table of numbers") from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
