# SPDX-License-Identifier: Apache-2.0
"""Flow as a binary .ply: points in the flow's colours, the vectors as properties (scalar fields in CloudCompare).

Colours are those of the pictures: hue by direction in the horizontal plane, white for no motion, against the static
world where the sensor's motion is known. Frame, axes and time stand in the header's comments.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scene_flow.drawing.colors import flow_colors, full_strength
from scene_flow.drawing.panels import upright
from scene_flow.export.flow_record import MASKS, FlowRecord
from vision3d.errors import DataError

_TYPES = {"float": "<f4", "uchar": "u1"}
_NAMES = {"<f4": "float", "|u1": "uchar"}
# Longer header lines than this are cut off by a widespread reader (rply, in CloudCompare).
_LONGEST_LINE = 1000


def ply_bytes(record: FlowRecord) -> bytes:
    """The file's bytes; ``record.source`` must be there."""
    assert record.source is not None
    residual = record.residual()
    motion = record.flow if residual is None else residual
    # What is no number is drawn as standing still.
    horizontal = np.nan_to_num(upright(motion, record.axes)[:, :2], posinf=0.0, neginf=0.0)
    colors = flow_colors(horizontal, full_strength(horizontal)) if len(motion) else np.zeros((0, 3), np.uint8)
    columns: dict[str, NDArray[np.generic]] = {}
    columns |= dict(zip("xyz", record.source.T, strict=True))
    columns |= dict(zip(("red", "green", "blue"), colors.T, strict=True))
    columns |= dict(zip(("flow_x", "flow_y", "flow_z"), record.flow.T, strict=True))
    if record.confidence is not None:
        columns["confidence"] = record.confidence
    for name in MASKS:
        mask = getattr(record, name)
        if mask is not None:
            columns[name] = mask.astype(np.uint8)
    rows = np.empty(len(record.flow), dtype=[(name, _little(column)) for name, column in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    lines = ["ply", "format binary_little_endian 1.0"]
    # The transform on one line of its own; JSON in ASCII keeps any name on one line.
    facts = {**record.facts(), "T_target_source": None}
    lines += [f"comment {key} {json.dumps(value)}"[:_LONGEST_LINE] for key, value in facts.items() if value is not None]
    if record.T_target_source is not None:
        lines.append(f"comment T_target_source {json.dumps(record.T_target_source.tolist())}")
    lines.append(f"element vertex {len(rows)}")
    lines += [f"property {_NAMES[np.dtype(rows.dtype[name]).str]} {name}" for name in columns]
    return "\n".join([*lines, "end_header", ""]).encode("ascii") + rows.tobytes()


def read_ply(path: Path) -> FlowRecord:
    """The record that :func:`ply_bytes` wrote.

    Raises:
        DataError: the file is no such .ply, or is cut off.
    """
    data = path.read_bytes()
    head, mark, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", errors="replace").splitlines()
    if not mark or lines[:2] != ["ply", "format binary_little_endian 1.0"]:
        raise DataError(path, "is not a binary little-endian .ply")
    facts, fields, count = {}, [], -1
    for words in (line.split(" ", 2) for line in lines[2:]):
        try:
            if words[0] == "comment" and len(words) == 3:
                facts[words[1]] = json.loads(words[2])
            elif words[:2] == ["element", "vertex"]:
                count = int(words[2])
            elif words[0] == "property":
                fields.append((words[2], _TYPES[words[1]]))
        except (ValueError, KeyError, IndexError):
            # Other programs' comments and property types are their business until a column of ours is missing.
            continue
    dtype = np.dtype(fields)
    missing = [name for name in ("x", "y", "z", "flow_x", "flow_y", "flow_z") if name not in (dtype.names or ())]
    if missing:
        raise DataError(path, f"has no property {', '.join(missing)}: it holds no flow")
    if count < 0 or len(body) != count * dtype.itemsize:
        raise DataError(path, f"holds {len(body)} bytes of points, {count} points need {count * dtype.itemsize}")
    rows = np.frombuffer(body, dtype=dtype)
    names = dtype.names or ()
    T = facts.get("T_target_source")
    return FlowRecord(
        name=str(facts.get("name", path.stem)),
        method=str(facts.get("method", "")),
        flow=np.stack([rows[name] for name in ("flow_x", "flow_y", "flow_z")], axis=1),
        source=np.stack([rows[name] for name in "xyz"], axis=1),
        confidence=rows["confidence"].copy() if "confidence" in names else None,
        **{name: rows[name].astype(bool) for name in MASKS if name in names},
        T_target_source=None if T is None else np.array(T, dtype=np.float64),
        axes=facts.get("axes", "lidar"),
        dt_s=facts.get("dt_s"),
    )


def _little(column: NDArray[np.generic]) -> str:
    return "u1" if column.dtype == np.uint8 else "<f4"
