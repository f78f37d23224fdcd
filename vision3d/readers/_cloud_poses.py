# SPDX-License-Identifier: Apache-2.0
"""Where the sensor stood at each scan, from a text file, and how it moved from one scan to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError
from vision3d.geometry.se3 import from_rt, invert, nearest_rotation, pose_problem
from vision3d.readers._poses import numbered_fields, numbers_of, pose_from_quaternion

Float = NDArray[np.float64]


def read_scan_poses(path: Path, scans: int) -> Float:
    """(scans, 4, 4) ``T_world_sensor``, one line per scan in the scans' order.

    A line is 12 numbers (rows of a 3x4 matrix, KITTI), 16 (4x4) or 8 (TUM: stamp tx ty tz qx qy qz qw). Four lines of
    four numbers each are a matrix, too, where the file holds nothing else.

    Raises:
        DataError: other lines, another number of poses, or numbers that are no rigid motion; names the line.
    """
    rows = [(number, numbers_of(fields, path, number)) for number, fields in numbered_fields(path)]
    if rows and all(len(values) == 4 for _, values in rows) and len(rows) % 4 == 0:
        rows = [(rows[i][0], [v for _, values in rows[i : i + 4] for v in values]) for i in range(0, len(rows), 4)]
    poses = []
    for number, values in rows:
        if len(values) == 8:
            x, y, z, w = values[4:]
            T, problem = pose_from_quaternion([w, x, y, z], values[1:4], path, number)
            if T is None:
                raise problem or DataError(path, f"line {number}: is no pose")
        elif len(values) in (12, 16):
            T = np.eye(4)
            T[: len(values) // 4] = np.reshape(values, (-1, 4))
            wrong = pose_problem(T)
            if wrong:
                raise DataError(path, f"line {number}: {wrong}")
            T = from_rt(nearest_rotation(T[:3, :3]), T[:3, 3])
        else:
            raise DataError(path, f"line {number}: {len(values)} numbers; a pose has 12 (3x4), 16 (4x4) or 8 (TUM)")
        poses.append(T)
    if len(poses) != scans:
        raise DataError(path, f"holds {len(poses)} poses for {scans} scans; one line per scan is needed")
    return np.array(poses)


def read_velodyne_calibration(path: Path) -> Float:
    """(4, 4) ``T_camera_lidar`` of KITTI odometry's ``calib.txt``, line ``Tr:``."""
    for number, fields in numbered_fields(path):
        if fields[0] == "Tr:":
            values = numbers_of(fields[1:], path, number)
            if len(values) == 12:
                T = np.eye(4)
                T[:3] = np.reshape(values, (3, 4))
                problem = pose_problem(T)
                if not problem:
                    return from_rt(nearest_rotation(T[:3, :3]), T[:3, 3])
            raise DataError(path, f"line {number}: Tr must be 12 numbers of a rigid motion")
    raise DataError(path, "has no line Tr: (the LiDAR's place, as in KITTI odometry's calib.txt)")


def motion_between(T_world_source: Float, T_world_target: Float) -> Float:
    """(4, 4) ``T_target_source``: what stands still, from the source's frame to the target's."""
    return invert(T_world_target) @ T_world_source
