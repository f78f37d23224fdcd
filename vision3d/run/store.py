# SPDX-License-Identifier: Apache-2.0
"""Results on disk, a line per sample, appended as they come, its arrays beside it; a torn last line is cut off."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from vision3d.contracts import Reader
from vision3d.errors import DataError
from vision3d.run.arrays import check_arrays, read_arrays, write_arrays
from vision3d.run.files import json_line, write_bytes
from vision3d.run.lazy import Lazy

ANEW = "delete the run folder and start anew"


class LineFile:
    """A file of JSON lines that survives a kill in the middle of a line.

    Args:
        path: made when it is absent; what it already holds is in ``records``.

    Raises:
        DataError: a line other than the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                record = json.loads(line)
            except ValueError:
                raise DataError(path, f"line {number} is damaged; {ANEW}") from None
            self.records.append(record)
        if whole < len(data):
            os.truncate(path, whole)
        self._file: TextIO | None = None  # opened by the first append

    def append(self, record: Any) -> dict[str, Any]:
        """Write one record; returns it as it will be read back."""
        line = json_line(record)
        if self._file is None:
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._file.write(line + "\n")
        self._file.flush()
        stored: dict[str, Any] = json.loads(line)
        self.records.append(stored)
        return stored

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class ResultStore:
    """The results of one method on the samples of ``reader``, in order.

    What it gives back was read from the files, never the live objects: so a run that was killed and resumed cannot
    differ from one that was not. A result type with ``arrays()`` and ``with_arrays()`` has its arrays in
    ``arrays/000123.npz``, whole before the line is there; they are in memory only while somebody looks at them.

    Attributes:
        timing: the lines of timing.jsonl.

    Raises:
        DataError: a file is damaged, missing, or belongs to other samples.
    """

    def __init__(self, folder: Path, result_type: Any, reader: Reader) -> None:
        self.folder = folder
        self.reader = reader
        self.result_type = result_type
        self._has_arrays = hasattr(result_type, "arrays") and hasattr(result_type, "with_arrays")
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = LineFile(folder / "results.jsonl")
        self.timing = LineFile(folder / "timing.jsonl")
        self._previous: Any | None = None
        for index, record in enumerate(self._lines.records):
            expected = reader.key(index) if index < len(reader) else None
            if record.get("name") != expected:
                raise DataError(
                    self._lines.path,
                    f"line {index + 1} is of sample {record.get('name')}, but the data has {expected} there",
                )
            if self._has_arrays:
                self._check(index)
        if self._has_arrays:
            (folder / "arrays").mkdir(exist_ok=True)

    def __len__(self) -> int:
        return len(self._lines.records)

    @property
    def results(self) -> Lazy[Any]:
        """All results so far, each read when it is looked at."""
        return Lazy(len(self), self._read)

    @property
    def heads(self) -> Lazy[Any]:
        """The results without their arrays: what name, status and reason can be asked of without reading a file."""
        return Lazy(len(self), self._head)

    @property
    def previous(self) -> Any | None:
        """The latest result, None before the first."""
        if self._previous is None and len(self):
            self._previous = self._read(len(self) - 1)
        return self._previous

    def append(self, result: Any, timing_ms: Mapping[str, float], peak_mb: float | None = None) -> Any:
        """Store the next sample's result; returns the result as read back.

        Raises:
            TypeError, ValueError: the pipeline returned something that is not this sample's result.
        """
        index = len(self)
        name = self.reader.key(index)
        if not isinstance(result, self.result_type):
            raise TypeError(f"step returned {type(result).__name__} for {name}, not {self.result_type.__name__}")
        if result.name != name:
            raise ValueError(f"step returned the result of '{result.name}' for sample '{name}'")
        # Copies: whoever made the arrays may use them again.
        arrays = {key: np.array(array, order="C") for key, array in result.arrays().items()} if self._has_arrays else {}
        if self._has_arrays:
            write_arrays(self._path(index), arrays)
        stored = self.result_type.from_json(self._lines.append(result.to_json()))
        self._previous = stored.with_arrays(arrays) if self._has_arrays else stored
        spent = {"name": name, **{stage: round(ms, 4) for stage, ms in timing_ms.items()}}
        self.timing.append(spent if peak_mb is None else {**spent, "peak_mb": round(peak_mb, 3)})
        return self._previous

    def close(self) -> None:
        self._lines.close()
        self.timing.close()

    def _path(self, index: int) -> Path:
        return self.folder / "arrays" / f"{index:06d}.npz"

    def _head(self, index: int) -> Any:
        return self.result_type.from_json(self._lines.records[index])

    def _read(self, index: int) -> Any:
        head = self._head(index)
        return head.with_arrays(read_arrays(self._path(index))) if self._has_arrays else head

    def _check(self, index: int) -> None:
        try:
            check_arrays(self._path(index))
        except DataError as error:
            raise DataError(
                error.path, f"{error.problem}; line {index + 1} of results.jsonl needs it: {ANEW}"
            ) from None


def copy_results(source: Path, target: Path) -> None:
    """The complete results and times of one method, copied to a folder that has none.

    The lines of results come last, and a folder without any is copied anew: a kill leaves nothing half copied.
    """
    if (target / "results.jsonl").exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    if (source / "arrays").is_dir():
        shutil.copytree(source / "arrays", target / "arrays", dirs_exist_ok=True)
    for name in ("timing.jsonl", "results.jsonl"):
        write_bytes(target / name, (source / name).read_bytes())


def failed(result: Any) -> bool:
    """Whether a result stands for a failure; results without a status never do."""
    return getattr(result, "status", "ok") != "ok"
