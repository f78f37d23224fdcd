# SPDX-License-Identifier: Apache-2.0
"""Flow as a Feather table (pandas, polars, R): a row per point, in the columns that Argoverse 2 uses for flow.

Columns ``x, y, z, flow_tx_m, flow_ty_m, flow_tz_m`` float32; ``confidence``, ``is_dynamic``, ``is_ground``,
``is_sampled`` where known. What frame and time they are in is JSON under the key ``vision3d`` of the table's metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scene_flow.export.flow_record import MASKS, FlowRecord
from vision3d.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow

FLOW_COLUMNS = ("flow_tx_m", "flow_ty_m", "flow_tz_m")
_KEY = b"vision3d"


def arrow() -> Any:
    """The package pyarrow with its Feather part.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow.feather
    except ImportError:
        raise MissingExtraError("Feather files need the package pyarrow: pip install 'vision3d[av2]'") from None
    return pyarrow


def table_bytes(table: pyarrow.Table) -> bytes:
    """An Arrow table as the bytes of a Feather file; the same for the same table."""
    pa = arrow()
    sink = pa.BufferOutputStream()
    pa.feather.write_feather(table, sink, compression="lz4")
    return bytes(sink.getvalue())


def feather_bytes(record: FlowRecord) -> bytes:
    """The file's bytes; ``record.source`` must be there.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    assert record.source is not None
    columns: dict[str, Any] = dict(zip("xyz", record.source.T, strict=True))
    columns |= dict(zip(FLOW_COLUMNS, record.flow.T, strict=True))
    if record.confidence is not None:
        columns["confidence"] = record.confidence
    columns |= {f"is_{name}": getattr(record, name) for name in MASKS if getattr(record, name) is not None}
    table = arrow().table({name: np.ascontiguousarray(column) for name, column in columns.items()})
    return table_bytes(table.replace_schema_metadata({_KEY: json.dumps(record.facts()).encode()}))


def read_feather(path: Path) -> FlowRecord:
    """The record that :func:`feather_bytes` wrote.

    Raises:
        DataError: the file is damaged or lacks a column.
        MissingExtraError: pyarrow is not installed.
    """
    pa = arrow()
    try:
        table = pa.feather.read_table(path, memory_map=False)
        facts = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(path, f"is not a Feather file that can be read: {str(error).partition(chr(10))[0]}") from None
    missing = [name for name in (*"xyz", *FLOW_COLUMNS) if name not in table.column_names]
    if missing:
        raise DataError(path, f"has no column {', '.join(missing)}")

    def column(name: str) -> Any:
        return table[name].to_numpy() if name in table.column_names else None

    T = facts.get("T_target_source")
    return FlowRecord(
        name=str(facts.get("name", path.stem)),
        method=str(facts.get("method", "")),
        flow=np.stack([column(name) for name in FLOW_COLUMNS], axis=1).astype(np.float32),
        source=np.stack([column(name) for name in "xyz"], axis=1).astype(np.float32),
        confidence=column("confidence"),
        **{name: column(f"is_{name}") for name in MASKS},
        T_target_source=None if T is None else np.array(T, dtype=np.float64),
        axes=facts.get("axes", "lidar"),
        dt_s=facts.get("dt_s"),
    )
