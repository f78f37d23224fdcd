# SPDX-License-Identifier: Apache-2.0
"""Feather tables as arrays, with one-line errors: columns that are missing, files that are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError, MissingExtraError
from vision3d.geometry.se3 import quat_to_rotation

QUATERNION = ("qw", "qx", "qy", "qz")
TRANSLATION = ("tx_m", "ty_m", "tz_m")


def read_feather(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Column name -> array, all of one length; those of ``optional`` only where the file has them.

    Raises:
        DataError: the file is missing or damaged, or lacks one of ``columns``.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow.feather
    except ImportError:
        raise MissingExtraError("Feather files need the package pyarrow: pip install 'vision3d[av2]'") from None
    try:
        table = pyarrow.feather.read_table(path, memory_map=False)
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(path, f"is not a Feather file that can be read: {str(error).splitlines()[0]}") from None
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise DataError(path, f"has no column {missing[0]}; it has {', '.join(table.column_names) or 'none'}")
    wanted = [*columns, *(name for name in optional if name in table.column_names)]
    return {name: table[name].to_numpy() for name in wanted}


def read_points(path: Path) -> NDArray[np.float32]:
    """(N, 3) float32 of the columns x, y, z; Argoverse 2 stores them as half precision."""
    table = read_feather(path, ("x", "y", "z"))
    return np.stack([table[name].astype(np.float32) for name in "xyz"], axis=1)


def poses_of(table: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """(N, 4, 4) of the columns qw, qx, qy, qz, tx_m, ty_m, tz_m."""
    T = np.tile(np.eye(4), (len(table["qw"]), 1, 1))
    if len(T):
        T[:, :3, :3] = quat_to_rotation(np.stack([table[name] for name in QUATERNION], axis=1))
        T[:, :3, 3] = np.stack([table[name] for name in TRANSLATION], axis=1)
    return T
