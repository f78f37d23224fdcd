# SPDX-License-Identifier: Apache-2.0
"""The .h5 logs of OpenSceneFlow: sweeps by their time, and their arrays, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError, MissingExtraError

ARRAYS = ("lidar", "pose", "ground_mask", "flow", "flow_is_valid", "flow_category_indices", "ego_motion")


def nanoseconds(stamp: int) -> int:
    """The stamp in nanoseconds: sweeps are named by nano-, micro- or milliseconds of today's date, told by length."""
    if 10**11 <= stamp < 10**14:
        return stamp * 1_000_000
    return stamp * 1000 if 10**14 <= stamp < 10**17 else stamp


def seconds_between(first: int, second: int) -> float:
    """Seconds between two stamps; 0.1 where they are counters or the gap makes no sense."""
    seconds = (nanoseconds(second) - nanoseconds(first)) * 1e-9
    return seconds if 1e-3 <= seconds <= 10 else 0.1


def opened(path: Path) -> Any:
    """The open h5py file; raises DataError when it is none, MissingExtraError without h5py."""
    try:
        import h5py
    except ImportError:
        raise MissingExtraError(".h5 logs need the package h5py: pip install 'vision3d[h5]'") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(path, f"is not an .h5 file that can be read: {str(error).splitlines()[0]}") from None


def sweep_stamps(path: Path) -> list[str]:
    """Names of the groups that are sweeps, in order of time."""
    with opened(path) as file:
        return sorted((name for name in file if name.isdigit()), key=int)


def read_sweep(file: Any, stamp: str, path: Path) -> dict[str, NDArray[Any]]:
    """The named arrays of one sweep; what else lies in the group (results of other methods) is left alone."""
    try:
        group = file[stamp]
        arrays = {name: np.asarray(group[name][()]) for name in ARRAYS if name in group}
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(path, f"sweep {stamp} cannot be read: {str(error).splitlines()[0]}") from None
    if "lidar" not in arrays:
        raise DataError(path, f"sweep {stamp} has no array lidar")
    return arrays


def rows_of(
    group: dict[str, NDArray[Any]], name: str, count: int, path: Path, stamp: str, shape: tuple[int, ...] = ()
) -> NDArray[Any] | None:
    """An array with a row per point, or None where the group has none of that name; masks become bool."""
    if name not in group:
        return None
    values = group[name]
    if values.shape != (count, *shape):
        raise DataError(path, f"sweep {stamp}: {name} has shape {values.shape} for {count} points")
    return values.astype(bool) if name in ("ground_mask", "flow_is_valid") else values
