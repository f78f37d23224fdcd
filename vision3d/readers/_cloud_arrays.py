# SPDX-License-Identifier: Apache-2.0
"""A pair of clouds, and its truth, in the arrays of one ``.npz`` file: our own and the names that others use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError
from vision3d.geometry.cameras import Camera
from vision3d.geometry.se3 import pose_problem
from vision3d.readers._cloud_files import CloudFormat, cleaned
from vision3d.readers._flow_pairs import finite_rows
from vision3d.types.clouds import Axes, CloudPair, FlowTruth

# Names of the first and the second cloud.
PAIR_NAMES = (("source", "target"), ("pc1", "pc2"), ("points1", "points2"), ("pos1", "pos2"))
FLOW_NAMES = ("flow", "gt", "gt_flow")
VALID_NAMES = ("valid", "valid_mask1", "mask")


def pair_names(names: list[str]) -> tuple[str, str] | None:
    """The two clouds' names among the arrays of a file, or None when it holds no pair."""
    return next(((first, second) for first, second in PAIR_NAMES if first in names and second in names), None)


def pair_from_arrays(
    arrays: Mapping[str, NDArray[Any]], path: Path, name: str, form: CloudFormat, axes: Axes | None, dt_s: float | None
) -> tuple[CloudPair, FlowTruth | None]:
    """The pair and its truth, None without a flow.

    Args:
        axes, dt_s: what the user says, which comes before what the file says; the default is lidar, 0.1 s.

    Raises:
        DataError: arrays of the wrong shape or type, naming file and array.
    """
    clouds = pair_names(list(arrays))
    if clouds is None:
        known = ", ".join(f"{first} and {second}" for first, second in PAIR_NAMES)
        raise DataError(path, f"holds no pair ({known}); it has {', '.join(arrays) or 'no arrays'}")
    source, kept = cleaned(arrays[clouds[0]], path, form, clouds[0])
    target, kept_target = cleaned(arrays[clouds[1]], path, form, clouds[1])
    axes = axes or _axes(arrays, path)
    dt_s = dt_s or float(_scalar(arrays, "dt_s", path, 0.1))
    if not 1e-6 <= dt_s <= 1e4:
        raise DataError(path, f"dt_s must be seconds between the clouds, found {dt_s:g}")
    pair = CloudPair(
        name=name,
        source=source,
        target=target,
        axes=axes,
        dt_s=dt_s,
        T_target_source=_motion(arrays, "T_target_source", path),
        source_ground=_mask(arrays, "source_ground", kept, path),
        target_ground=_mask(arrays, "target_ground", kept_target, path),
        camera=_camera(arrays, path),
        stamp_ns=int(_scalar(arrays, "stamp_ns", path, 0)),
    )
    return pair, truth_from_arrays(arrays, path, pair, kept, form.scale)


def truth_from_arrays(
    arrays: Mapping[str, NDArray[Any]], path: Path, pair: CloudPair, kept: NDArray[np.bool_], scale: float = 1.0
) -> FlowTruth | None:
    """The truth of ``pair`` in arrays with a row per point of the file, or None where they hold no flow.

    Args:
        kept: (N,) rows of the file that are points of ``pair.source``.
        scale: metres per unit of the flow.

    Raises:
        DataError: arrays of the wrong shape or type, naming file and array.
    """
    flow_name = next((key for key in FLOW_NAMES if key in arrays), None)
    if flow_name is None:
        return None
    flow = arrays[flow_name]
    if flow.shape != (len(kept), 3) or flow.dtype.kind not in "fiu":
        raise DataError(path, f"{flow_name} must be numbers of shape ({len(kept)}, 3), found {flow.dtype} {flow.shape}")
    flow = flow[kept].astype(np.float32) * np.float32(scale)
    known = finite_rows(flow)
    valid_name = next((key for key in VALID_NAMES if key in arrays), None)
    given = None if valid_name is None else _mask(arrays, valid_name, kept, path)
    classes = arrays.get("classes")
    if classes is not None and (classes.shape != (len(kept),) or classes.dtype != np.uint8):
        raise DataError(path, f"classes must be uint8 of shape ({len(kept)},), found {classes.dtype} {classes.shape}")
    return FlowTruth(
        flow=np.where(np.isfinite(flow), flow, np.float32(0)),
        valid=known if given is None else known & given,
        points=pair.source,
        axes=pair.axes,
        dt_s=pair.dt_s,
        camera=pair.camera,
        dynamic=_mask(arrays, "dynamic", kept, path),
        ground=_mask(arrays, "ground", kept, path),
        classes=None if classes is None else classes[kept],
        T_target_source=_motion(arrays, "true_T_target_source", path),
    )


def _scalar(arrays: Mapping[str, NDArray[Any]], key: str, path: Path, default: float) -> Any:
    if key not in arrays:
        return default
    if arrays[key].size != 1 or arrays[key].dtype.kind not in "fiu":
        raise DataError(path, f"{key} must be one number, found {arrays[key].dtype} {arrays[key].shape}")
    return arrays[key].reshape(-1)[0]


def _axes(arrays: Mapping[str, NDArray[Any]], path: Path) -> Axes:
    text = str(arrays["axes"].reshape(-1)[0]) if "axes" in arrays and arrays["axes"].size == 1 else "lidar"
    if text not in ("lidar", "camera"):
        raise DataError(path, f"axes must be lidar or camera, found '{text}'")
    return "camera" if text == "camera" else "lidar"


def _mask(
    arrays: Mapping[str, NDArray[Any]], key: str, kept: NDArray[np.bool_], path: Path
) -> NDArray[np.bool_] | None:
    if key not in arrays:
        return None
    values = arrays[key]
    if values.size != len(kept) or values.dtype.kind not in "bfiu":
        raise DataError(path, f"{key} must have a value for each of {len(kept)} points, found shape {values.shape}")
    mask: NDArray[np.bool_] = values.reshape(-1)[kept] > 0
    return mask


def _motion(arrays: Mapping[str, NDArray[Any]], key: str, path: Path) -> NDArray[np.float64] | None:
    if key not in arrays:
        return None
    T = arrays[key]
    problem = pose_problem(T.astype(np.float64)) if T.dtype.kind in "fiu" else "it is not numbers"
    if problem:
        raise DataError(path, f"{key}: {problem}")
    return T.astype(np.float64)


def _camera(arrays: Mapping[str, NDArray[Any]], path: Path) -> Camera | None:
    """``camera``: width, height, fx, fy, cx, cy of a pinhole."""
    if "camera" not in arrays:
        return None
    values = arrays["camera"]
    if values.shape != (6,) or values.dtype.kind not in "fiu":
        raise DataError(path, f"camera must be width, height, fx, fy, cx, cy, found shape {values.shape}")
    width, height, *params = (float(value) for value in values)
    try:
        return Camera("PINHOLE", int(width), int(height), tuple(params))
    except ValueError as error:
        raise DataError(path, f"camera: {error}") from None
