# SPDX-License-Identifier: Apache-2.0
"""Files of camera poses: the line format of the ICCV 2021 estimates, TUM trajectories, KITTI poses.

====== ================================================== ===============
kind   one line                                           direction
====== ================================================== ===============
list   ``name qw qx qy qz tx ty tz [f | e_R e_t]``        world to camera
tum    ``stamp_s tx ty tz qx qy qz qw``                   camera to world
kitti  ``r11 r12 r13 tx r21 r22 r23 ty r31 r32 r33 tz``   camera to world
====== ================================================== ===============

Metres; what is read is always ``T_world_cam``. The ``list`` files of DSAC* carry their own errors in two
further columns (degrees, metres); they are kept apart as ``own_errors`` and never used as a result.
TUM trajectories are written by :func:`vision3d.geometry.trajectory.write_tum_trajectory`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.errors import DataError
from vision3d.geometry.se3 import from_rt, invert, pose_problem, quat_to_rotation, rotation_to_quat
from vision3d.geometry.trajectory import stamp_to_ns

Float = NDArray[np.float64]
Kind = Literal["list", "tum", "kitti"]

_COLUMNS = {"list": (8, 9, 10), "tum": (8,), "kitti": (12,)}


@dataclass(frozen=True)
class PoseFile:
    """The poses of one file.

    Attributes:
        names: image names (list), stamps as written (tum) or positions ``0, 1, ...`` (kitti).
        T_world_cam: (N, 4, 4), metres.
        focal_px: (N,), or None where the file has no focal length.
        own_errors: (N, 2) degrees and metres as the file states them, or None.
    """

    path: Path
    kind: Kind
    names: tuple[str, ...]
    T_world_cam: Float
    focal_px: Float | None = None
    own_errors: Float | None = None

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """(N,) nanoseconds; only of a TUM trajectory."""
        return np.array([stamp_to_ns(name) for name in self.names], dtype=np.int64)

    def by_name(self) -> dict[str, Float]:
        """Name -> (4, 4) ``T_world_cam``."""
        return dict(zip(self.names, self.T_world_cam, strict=True))


def read_poses(path: str | Path, kind: Kind | None = None) -> PoseFile:
    """Read a pose file of any of the three kinds; empty lines and lines that start with ``#`` are skipped.

    Args:
        kind: None guesses from the first line: 12 numbers are kitti, 8 numbers tum, a name first is list.

    Raises:
        DataError: with the line number, on a wrong number of columns, a number that is none, a quaternion
            that is not of unit length, a rotation that is none, or a name that occurs twice.
    """
    path = Path(path)
    rows = _rows(path)
    if not rows:
        raise DataError(path, "holds no pose")
    kind = kind or _guess(path, *rows[0])
    width = len(rows[0][1])
    poses, extra, seen = [], [], dict[str, int]()
    for i, (line, cells) in enumerate(rows):
        if len(cells) not in _COLUMNS[kind] or len(cells) != width:
            expected = " or ".join(map(str, _COLUMNS[kind])) if i == 0 else f"{width} as in the lines before"
            raise DataError(path, f"line {line} has {len(cells)} columns, expected {expected} ({kind} format)")
        name = str(i) if kind == "kitti" else cells[0]
        if name in seen:
            raise DataError(path, f"line {line} repeats '{name}' of line {seen[name]}")
        seen[name] = line
        numbers = _numbers(path, line, cells[1:] if kind == "list" else cells)
        T = _pose(kind, numbers)
        if isinstance(T, str):
            raise DataError(path, f"line {line}: {T}")
        poses.append(T)
        extra.append(numbers[7:] if kind == "list" else ())
    columns = np.array(extra, dtype=np.float64).reshape(len(rows), -1)
    return PoseFile(
        path,
        kind,
        tuple(seen),
        np.array(poses),
        focal_px=columns[:, 0] if columns.shape[1] == 1 else None,
        own_errors=columns if columns.shape[1] == 2 else None,
    )


def write_pose_list(
    path: str | Path, names: Sequence[str], T_world_cam: ArrayLike, focal_px: float | None = None
) -> None:
    """Write ``name qw qx qy qz tx ty tz [f]`` lines (world to camera), the format of the ICCV 2021 estimates.

    Leave failed queries out: an evaluator counts every name that is missing as a failure.

    Raises:
        ValueError: a name that is empty or holds white space or ``#`` first, which the format cannot express.
    """
    T = np.asarray(T_world_cam, dtype=np.float64).reshape(-1, 4, 4)
    tail = "" if focal_px is None else f" {focal_px:.6f}"
    lines = []
    for name, T_cam_world in zip(names, invert(T), strict=True):
        if not name or name.startswith("#") or len(name.split()) != 1:
            raise ValueError(f"name '{name}' cannot be written into a pose list")
        numbers = (*rotation_to_quat(T_cam_world[:3, :3]), *T_cam_world[:3, 3])
        lines.append(f"{name} {_join(numbers)}{tail}")
    _write(path, lines)


def write_kitti(path: str | Path, T_world_cam: ArrayLike) -> None:
    """Write KITTI poses (camera to world): the first three rows of each matrix on one line."""
    T = np.asarray(T_world_cam, dtype=np.float64).reshape(-1, 4, 4)
    _write(path, [_join(pose[:3].ravel()) for pose in T])


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(path, "is no text file") from error
    lines = ((i, line.strip()) for i, line in enumerate(text.splitlines(), 1))
    return [(i, line.split()) for i, line in lines if line and not line.startswith("#")]


def _guess(path: Path, line: int, cells: list[str]) -> Kind:
    n, first_is_number = len(cells), _is_number(cells[0])
    if n == 12 and first_is_number:
        return "kitti"
    if n == 8 and first_is_number:
        return "tum"
    if n in _COLUMNS["list"]:
        return "list"
    raise DataError(
        path,
        f"line {line} has {n} columns; known are 'name qw qx qy qz tx ty tz [f]', "
        "TUM (8 numbers) and KITTI (12 numbers)",
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, line: int, cells: list[str]) -> list[float]:
    for cell in cells:
        if not _is_number(cell) or not np.isfinite(float(cell)):
            raise DataError(path, f"line {line}: '{cell}' is not a finite number")
    return [float(cell) for cell in cells]


def _pose(kind: Kind, numbers: list[float]) -> Float | str:
    """(4, 4) ``T_world_cam``, or what is wrong."""
    if kind == "kitti":
        T = np.vstack([np.reshape(numbers, (3, 4)), [0.0, 0.0, 0.0, 1.0]])
        return pose_problem(T) or T
    quat = numbers[:4] if kind == "list" else [numbers[7], *numbers[4:7]]
    length = float(np.linalg.norm(quat))
    if abs(length - 1.0) > 1e-3:
        order = "qw qx qy qz" if kind == "list" else "qx qy qz qw"
        return f"quaternion has length {length:.4f}, must be 1 (columns in the order {order})"
    if kind == "list":
        return invert(from_rt(quat_to_rotation(quat), numbers[4:7]))
    return from_rt(quat_to_rotation(quat), numbers[1:4])


def _join(numbers: Sequence[float] | Float) -> str:
    return " ".join(f"{x:.9f}" for x in numbers)


def _write(path: str | Path, lines: list[str]) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    os.replace(part, path)
