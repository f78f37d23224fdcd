# SPDX-License-Identifier: Apache-2.0
"""What writers of cloud pairs share: names for files, and axes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError
from vision3d.types.clouds import Axes, CloudPair, FlowTruth

# (x, y, z) camera = (y, z, x) lidar, as a matrix.
CAMERA_LIDAR = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


def file_name(name: str) -> str:
    """A pair's name as a file name: parts of a path are joined by ``_``.

    Raises:
        DataError: nothing is left of the name.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts:
        raise DataError(name or "(empty)", "cannot be a file's name")
    return "_".join(parts)


def in_axes(pair: CloudPair, truth: FlowTruth | None, axes: Axes) -> tuple[CloudPair, FlowTruth | None]:
    """The same pair and truth with x, y and z as ``axes`` has them; numbers are moved, never rounded."""
    if pair.axes == axes:
        return pair, truth
    order = [1, 2, 0] if axes == "camera" else [2, 0, 1]
    turned = replace(
        pair,
        source=_columns(pair.source, order),
        target=_columns(pair.target, order),
        axes=axes,
        T_target_source=_motion(pair.T_target_source, axes),
    )
    if truth is None:
        return turned, None
    return turned, replace(
        truth,
        flow=_columns(truth.flow, order),
        points=_columns(truth.points, order),
        axes=axes,
        T_target_source=_motion(truth.T_target_source, axes),
    )


def require_rows(pair: CloudPair, truth: FlowTruth | None) -> None:
    """Raises:
    DataError: the truth has not a row per source point.
    """
    if truth is not None and truth.flow.shape != pair.source.shape:
        raise DataError(pair.name, f"its truth has {len(truth.flow)} rows for {len(pair.source)} source points")


def _columns(points: NDArray[np.float32], order: list[int]) -> NDArray[np.float32]:
    return np.ascontiguousarray(points[:, order])


def _motion(T: NDArray[np.float64] | None, axes: Axes) -> NDArray[np.float64] | None:
    if T is None:
        return None
    change = np.eye(4)
    change[:3, :3] = CAMERA_LIDAR if axes == "camera" else CAMERA_LIDAR.T
    return change @ T @ change.T
