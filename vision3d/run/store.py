# SPDX-License-Identifier: Apache-2.0
"""Results on disk, one line per sample, appended as they come; a torn last line is cut off."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TextIO

from vision3d.contracts import Reader
from vision3d.errors import DataError
from vision3d.run.files import json_line


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
                raise DataError(path, f"line {number} is damaged; delete the run folder and start anew") from None
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

    ``results`` holds what was read back from the file, never the live objects: so a run that was killed and
    resumed cannot differ from one that was not.

    Raises:
        DataError: the file is damaged or belongs to other samples.
    """

    def __init__(self, folder: Path, result_type: Any, reader: Reader) -> None:
        self.folder = folder
        self.reader = reader
        self.result_type = result_type
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = LineFile(folder / "results.jsonl")
        self.timing = LineFile(folder / "timing.jsonl")
        self.results: list[Any] = []
        for index, record in enumerate(self._lines.records):
            expected = reader.key(index) if index < len(reader) else None
            if record.get("name") != expected:
                raise DataError(
                    self._lines.path,
                    f"line {index + 1} is of sample {record.get('name')}, but the data has {expected} there",
                )
            self.results.append(result_type.from_json(record))

    def __len__(self) -> int:
        return len(self.results)

    def append(self, result: Any, timing_ms: dict[str, float]) -> Any:
        """Store the next sample's result; returns the result as read back.

        Raises:
            TypeError, ValueError: the pipeline returned something that is not this sample's result.
        """
        name = self.reader.key(len(self.results))
        if not isinstance(result, self.result_type):
            raise TypeError(f"step returned {type(result).__name__} for {name}, not {self.result_type.__name__}")
        if result.name != name:
            raise ValueError(f"step returned the result of '{result.name}' for sample '{name}'")
        stored = self.result_type.from_json(self._lines.append(result.to_json()))
        self.timing.append({"name": name, **{stage: round(ms, 4) for stage, ms in timing_ms.items()}})
        self.results.append(stored)
        return stored

    def close(self) -> None:
        self._lines.close()
        self.timing.close()


def failed(result: Any) -> bool:
    """Whether a result stands for a failure; results without a status never do."""
    return getattr(result, "status", "ok") != "ok"
