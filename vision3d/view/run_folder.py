# SPDX-License-Identifier: Apache-2.0
"""What lies in a run folder, as far as it is there: a report is written for half a run, too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_FRAME = re.compile(r"frame_(\d+)\.png$")


@dataclass
class RunFolder:
    """The files of one run.

    Attributes:
        metrics, timing, environment: documents of metrics.json, timing.json, environment.json; empty if absent.
        results: the lines of results.jsonl.
        spent_ms: sample name -> milliseconds it took in all, from timing.jsonl.
        command, config: text of command.txt and config.yaml.
        frames: position in the run -> picture of that result.
        problems: files that are there but cannot be read, one line each.
    """

    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    spent_ms: dict[str, float] = field(default_factory=dict)
    command: str = ""
    config: str = ""
    frames: dict[int, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether the runner marked the run as failed."""
        return (self.path / "FAILED").exists()

    @property
    def seed(self) -> Any | None:
        """The seed of metrics.json, else the first one of the configuration, outermost first."""
        if "seed" in self.metrics:
            return self.metrics["seed"]
        try:
            level = [yaml.safe_load(self.config)]
        except yaml.YAMLError:
            return None
        while level:
            maps = [item for item in level if isinstance(item, Mapping)]
            for item in maps:
                if "seed" in item:
                    return item["seed"]
            level = [value for item in maps for value in item.values()]
        return None

    def failures(self) -> list[dict[str, Any]]:
        """Name, status and reason of every result that is none; from metrics.json, else from the results."""
        listed = self.metrics.get("failures")
        if isinstance(listed, list):
            return [f if isinstance(f, dict) else {"name": str(f)} for f in listed]
        return [r for r in self.results if r.get("status", "ok") != "ok"]


def read_run(path: str | Path) -> RunFolder:
    """Read everything a report shows. What is missing stays empty; what is damaged is named in ``problems``."""
    run = RunFolder(Path(path))
    run.metrics = _document(run, "metrics.json")
    run.timing = _document(run, "timing.json")
    run.environment = _document(run, "environment.json")
    run.command, run.config = _text(run, "command.txt"), _text(run, "config.yaml")
    run.results = _lines(run, "results.jsonl")
    spent = ((row.get("name"), row.get("total")) for row in _lines(run, "timing.jsonl"))
    run.spent_ms = {str(name): float(ms) for name, ms in spent if isinstance(ms, (int, float))}
    for file in sorted((run.path / "viz").glob("frame_*.png")):
        match = _FRAME.search(file.name)
        if match and inside(file, run.path):
            run.frames[int(match[1])] = file
        elif match:
            run.problems.append(f"viz/{file.name}: lies outside the run folder and was left out")
    return run


def inside(file: Path, folder: Path) -> bool:
    """Whether ``file``, links followed, is a regular file below ``folder``: only these go into a report."""
    real = file.resolve()
    return real.is_file() and real.is_relative_to(folder.resolve())


def _text(run: RunFolder, name: str) -> str:
    file = run.path / name
    if not file.exists():
        return ""
    if not inside(file, run.path):
        run.problems.append(f"{name}: lies outside the run folder and was left out")
        return ""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        run.problems.append(f"{name}: cannot be read ({type(error).__name__})")
        return ""


def _lines(run: RunFolder, name: str) -> list[dict[str, Any]]:
    rows = []
    for i, line in enumerate(_text(run, name).splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif line.strip():
            run.problems.append(f"{name}: line {i} is damaged")
    return rows


def _document(run: RunFolder, name: str) -> dict[str, Any]:
    text = _text(run, name)
    if not text:
        return {}
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        run.problems.append(f"{name}: is damaged")
        return {}
    return document
