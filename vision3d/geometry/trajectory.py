# SPDX-License-Identifier: Apache-2.0
"""Trajectories as text in TUM format, ``stamp tx ty tz qx qy qz qw``, and pairing of clocks.

Stamps are seconds in the file and integer nanoseconds here: a float64 cannot hold today's date to a microsecond.
"""

from __future__ import annotations

import os
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry.se3 import from_rt, quat_to_rotation, rotation_to_quat

Float = NDArray[np.float64]


def read_tum_trajectory(path: str | Path) -> tuple[NDArray[np.int64], Float]:
    """Stamps (N,) in nanoseconds and ``T_world_cam`` (N, 4, 4), in the file's order.

    Raises:
        ValueError: a line is not 'stamp tx ty tz qx qy qz qw', or its quaternion is not of length 1; names the line.
        OSError: the file cannot be read.
    """
    stamps, poses = [], []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.replace(",", " ").split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != 8:
            raise ValueError(f"line {number}: {len(fields)} fields, not 'stamp tx ty tz qx qy qz qw'")
        try:
            stamps.append(stamp_to_ns(fields[0]))
            values = np.array([float(field) for field in fields[1:]])
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        norm = float(np.linalg.norm(values[3:]))
        if not np.isfinite(values).all():
            raise ValueError(f"line {number}: pose holds NaN or infinite numbers")
        if abs(norm - 1.0) > 1e-2:
            raise ValueError(f"line {number}: quaternion has length {norm:.4f}, must be 1 (columns tx ty tz first?)")
        x, y, z, w = values[3:]
        poses.append(from_rt(quat_to_rotation([w, x, y, z]), values[:3]))
    return np.array(stamps, dtype=np.int64), np.array(poses).reshape(-1, 4, 4)


def write_tum_trajectory(path: str | Path, stamps_ns: ArrayLike, T_world_cam: ArrayLike) -> None:
    """Write stamps (N,) in nanoseconds and poses (N, 4, 4) as TUM text, atomically.

    Numbers carry enough digits to be read back to 1e-9.
    """
    stamps, poses = np.asarray(stamps_ns, dtype=np.int64), np.asarray(T_world_cam, dtype=np.float64).reshape(-1, 4, 4)
    if len(stamps) != len(poses):
        raise ValueError(f"{len(stamps)} stamps for {len(poses)} poses")
    lines = ["# stamp_s tx ty tz qx qy qz qw (camera to world, metres)"]
    for stamp, T in zip(stamps.tolist(), poses):
        w, x, y, z = rotation_to_quat(T[:3, :3])
        seconds = Decimal(stamp).scaleb(-9)
        lines.append(f"{seconds:.9f} " + " ".join(f"{value:.10f}" for value in (*T[:3, 3], x, y, z, w)))
    target = Path(path)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(temporary, target)


def stamp_to_ns(text: str) -> int:
    """Seconds as decimal text -> nanoseconds, without passing through a float."""
    try:
        return int((Decimal(text) * 1_000_000_000).to_integral_value())
    except (InvalidOperation, OverflowError):
        raise ValueError(f"'{text}' is not a time in seconds") from None


def nearest_stamps(stamps_ns: ArrayLike, reference_ns: ArrayLike, max_gap_ns: int) -> NDArray[np.intp]:
    """For each of ``stamps_ns`` (N,) the index of the nearest in sorted ``reference_ns`` (M,).

    -1 where it lies further away than ``max_gap_ns``. Of two equally near ones the earlier is taken.
    """
    stamps, reference = np.asarray(stamps_ns, dtype=np.int64), np.asarray(reference_ns, dtype=np.int64)
    if not len(reference):
        return np.full(len(stamps), -1, dtype=np.intp)
    right = np.clip(np.searchsorted(reference, stamps), 1, max(len(reference) - 1, 1)).clip(max=len(reference) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(reference[right] - stamps) < np.abs(reference[left] - stamps), right, left)
    return np.where(np.abs(reference[nearest] - stamps) <= max_gap_ns, nearest, -1)
