# SPDX-License-Identifier: Apache-2.0
"""Poses in text files: 4x4 matrices, and lists of image name, quaternion and translation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision3d.errors import DataError
from vision3d.geometry.se3 import from_rt, invert, quat_to_rotation
from vision3d.types import Float

# Text files carry five to seven digits; a wrong column order misses by far more.
QUATERNION_TOLERANCE = 1e-2


@dataclass(frozen=True)
class ListedPose:
    """One line of a pose list: ``T_world_cam`` (4, 4), ``focal`` in pixels or None, or the line's problem."""

    name: str
    T_world_cam: Float | None
    focal: float | None = None
    problem: DataError | None = None


def read_matrix(path: Path, shape: tuple[int, int] = (4, 4)) -> Float:
    """A matrix of ``shape``, one row per line.

    Raises:
        DataError: the file is missing, or does not hold exactly these numbers.
    """
    wanted = shape[0] * shape[1]
    words = read_text(path).split()
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise DataError(path, f"is not a matrix of numbers: {error}") from None
    if len(numbers) != wanted:
        raise DataError(path, f"must hold {shape[0]}x{shape[1]} numbers, found {len(numbers)}")
    return np.array(numbers).reshape(shape)


def read_pose_list(path: Path) -> list[ListedPose]:
    """Lines ``name qw qx qy qz tx ty tz [f]``, world-to-camera, as in the 7-Scenes SfM pseudo ground truth.

    The poses are inverted here, once. A line whose numbers are no pose keeps its name and carries a problem.

    Raises:
        DataError: the file is missing or empty, a line has another number of fields, or a name occurs twice.
    """
    poses: dict[str, ListedPose] = {}
    for number, fields in numbered_fields(path):
        if len(fields) not in (8, 9):
            raise DataError(
                path, f"line {number}: expected 'name qw qx qy qz tx ty tz [f]', found {len(fields)} fields"
            )
        name = fields[0]
        if name in poses:
            raise DataError(path, f"line {number}: image {name} occurs twice")
        values = numbers_of(fields[1:], path, number)
        T_cam_world, problem = pose_from_quaternion(values[:4], values[4:7], path, number)
        T = None if T_cam_world is None else invert(T_cam_world)
        poses[name] = ListedPose(name, T, values[7] if len(values) == 8 else None, problem)
    if not poses:
        raise DataError(path, "holds no poses")
    return list(poses.values())


def pose_from_quaternion(
    wxyz: list[float], translation: list[float], path: Path, line: int
) -> tuple[Float | None, DataError | None]:
    """(4, 4) from (w, x, y, z) and a translation, or the problem with them: not finite, or no unit quaternion."""
    if not np.isfinite([*wxyz, *translation]).all():
        return None, DataError(path, f"line {line}: pose holds NaN or infinite numbers")
    norm = float(np.linalg.norm(wxyz))
    if abs(norm - 1.0) > QUATERNION_TOLERANCE:
        hint = "are the columns in another order (translation first)?"
        return None, DataError(path, f"line {line}: quaternion has length {norm:.4f}, must be 1; {hint}")
    return from_rt(quat_to_rotation(wxyz), translation), None


def numbered_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number from 1, fields) of the lines that are neither empty nor comments (#)."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.split()


def numbers_of(fields: list[str], path: Path, line: int) -> list[float]:
    """The fields as numbers; raises DataError naming the line."""
    try:
        return [float(field) for field in fields]
    except ValueError as error:
        raise DataError(path, f"line {line}: {error}") from None


def read_text(path: Path) -> str:
    """The text of a file; raises DataError when it is missing or not text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except UnicodeDecodeError:
        raise DataError(path, "is not a text file") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
