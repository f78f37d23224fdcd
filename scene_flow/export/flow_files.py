# SPDX-License-Identifier: Apache-2.0
"""Flow in files: .npz (all there is), .ply (to look at), .feather (tables), .npy (the bare vectors).

Keys of an .npz, documented for other programs:

=================  ==================  ========================================================================
flow               (N, 3) float32      metres from the first scan to the second, the sensor's motion included
source             (N, 3) float32      metres, the first scan's points: row i of every array is source point i
residual           (N, 3) float32      flow minus the sensor's motion; only where ``T_target_source`` is known
confidence         (N,) float32        0 (no counterpart found) to 1; where the method has one
dynamic            (N,) bool           moves against the static world; where the method says so
ground             (N,) bool           ground: its flow is the sensor's motion; where ground was taken away
sampled            (N,) bool           answered by the method itself, others interpolated; where points were drawn
T_target_source    (4, 4) float64      the sensor's motion: static points of the source frame to the target frame
axes               text                ``lidar`` (x forward, y left, z up) or ``camera`` (x left, y up, z forward)
dt_s               float64             seconds between the scans; NaN when not known
name, method       text                the pair, and what found the flow
frame              text                what the numbers mean, in a sentence
=================  ==================  ========================================================================
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scene_flow.export.flow_record import AXES, MASKS, FlowRecord
from vision3d.atomic import whole_file
from vision3d.errors import ConfigError, DataError
from vision3d.types import CloudPair, FlowResult

Format = Literal["npz", "ply", "feather", "npy"]
FORMATS: tuple[Format, ...] = get_args(Format)


def write_flow(
    path: str | Path,
    result: FlowResult,
    points: CloudPair | NDArray[Any] | None = None,
    method: str = "",
    dt_s: float | None = None,
) -> Path:
    """Write the flow of one pair in the format that ``path`` ends in; atomic, the same bytes for the same flow.

    Args:
        points: the pair, or its (N, 3) source points, where the result does not hold them. Only .npy does without.
        method, dt_s: where neither the result nor the pair says.

    Raises:
        ConfigError: an unknown ending.
        ValueError: the result has no flow, or the points are missing or of another number.
        MissingExtraError: .feather without pyarrow.
    """
    path = Path(path)
    kind = _format(path)
    record = FlowRecord.of(result, points, method, dt_s)
    if record.source is None and kind != "npy":
        raise ValueError(f"{record.name}: a .{kind} file needs the source points beside the flow")
    if kind == "ply":
        from scene_flow.export.flow_ply import ply_bytes

        data = ply_bytes(record)
    elif kind == "feather":
        from scene_flow.export.flow_feather import feather_bytes

        data = feather_bytes(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        if kind == "npz":
            np.savez(file, **_npz_arrays(record))  # type: ignore[arg-type]  # the arrays' names are ours
        elif kind == "npy":
            np.save(file, record.flow)
        else:
            file.write(data)
    return path


def read_flow(path: str | Path) -> FlowRecord:
    """The flow that :func:`write_flow` wrote; a bare .npy may come from anywhere.

    Raises:
        ConfigError: an unknown ending.
        DataError: the file is missing, damaged or of another kind.
        MissingExtraError: .feather without pyarrow.
    """
    path = Path(path)
    kind = _format(path)
    if not path.is_file():
        raise DataError(path, "no such file")
    if kind == "ply":
        from scene_flow.export.flow_ply import read_ply

        return checked(path, read_ply(path))
    if kind == "feather":
        from scene_flow.export.flow_feather import read_feather

        return checked(path, read_feather(path))
    try:
        # Opened here: NumPy leaves a damaged file open.
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return checked(path, FlowRecord(path.stem, "", np.asarray(loaded, dtype=np.float32)))
            return checked(path, _of_npz({key: loaded[key] for key in loaded.files}, path.stem))
    except KeyError as error:
        raise DataError(path, f"holds no array {error.args[0]}") from None
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(path, f"is not a flow file that can be read: {str(error).partition(chr(10))[0]}") from None


def checked(path: Path, record: FlowRecord) -> FlowRecord:
    """The record, if its arrays belong together.

    Raises:
        DataError: a wrong shape or unknown axes.
    """
    if record.flow.ndim != 2 or record.flow.shape[1] != 3:
        raise DataError(path, f"flow has shape {record.flow.shape}, not (N, 3)")
    if record.source is not None and record.source.shape != record.flow.shape:
        raise DataError(path, f"source has shape {record.source.shape}, flow {record.flow.shape}")
    for name in ("confidence", *MASKS):
        array = getattr(record, name)
        if array is not None and array.shape != record.flow.shape[:1]:
            raise DataError(path, f"{name} has shape {array.shape}, not ({len(record.flow)},)")
    if record.axes not in AXES:
        raise DataError(path, f"axes '{record.axes}' are not one of {', '.join(AXES)}")
    if record.T_target_source is not None and record.T_target_source.shape != (4, 4):
        raise DataError(path, f"T_target_source has shape {record.T_target_source.shape}, not (4, 4)")
    return record


def _format(path: Path) -> Format:
    for kind in FORMATS:
        if path.suffix.lower() == f".{kind}":
            return kind
    raise ConfigError(f"{path}: flow files end in .{', .'.join(FORMATS)}")


def _npz_arrays(record: FlowRecord) -> dict[str, NDArray[Any]]:
    named = {"flow": record.flow, "source": record.source, "residual": record.residual()}
    named |= {name: getattr(record, name) for name in ("confidence", *MASKS, "T_target_source")}
    arrays = {name: np.asarray(array) for name, array in named.items() if array is not None}
    texts = {name: np.array(str(record.facts()[name])) for name in ("axes", "name", "method", "frame")}
    return {**arrays, "dt_s": np.array(np.nan if record.dt_s is None else record.dt_s), **texts}


def _of_npz(arrays: dict[str, NDArray[Any]], name: str) -> FlowRecord:
    dt_s = float(arrays.get("dt_s", np.array(np.nan)))
    confidence, T = arrays.get("confidence"), arrays.get("T_target_source")
    return FlowRecord(
        name=str(arrays.get("name", name)),
        method=str(arrays.get("method", "")),
        flow=arrays["flow"].astype(np.float32),
        source=None if "source" not in arrays else arrays["source"].astype(np.float32),
        confidence=None if confidence is None else confidence.astype(np.float32),
        **{mask: arrays[mask].astype(bool) for mask in MASKS if mask in arrays},
        T_target_source=None if T is None else T.astype(np.float64),
        axes=str(arrays.get("axes", "lidar")),  # type: ignore[arg-type]  # checked() refuses other words
        dt_s=None if np.isnan(dt_s) else dt_s,
    )
