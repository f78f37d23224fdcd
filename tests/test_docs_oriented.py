# SPDX-License-Identifier: Apache-2.0
"""The page on oriented detection: its example runs, and it names every pipeline, method, reader and writer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from detection.config import METHODS
from vision3d.run import registry

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "oriented-detection.md").read_text()


def test_the_example_runs_and_finds_the_box(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/oriented-detection.md", "exec"), {})
    overlap = float(capsys.readouterr().out.rpartition("[[")[2].partition("]")[0])
    assert overlap > 0.9


def test_every_pipeline_method_reader_and_writer_is_named() -> None:
    names = [
        item.name
        for group in (registry.PIPELINES, registry.READERS, registry.WRITERS)
        for item in registry.listing(group)
        if item.samples == "LabeledImage" and item.package == "vision3d"
    ]
    assert len(names) > 14
    assert [name for name in (*METHODS, *names) if f"`{name}`" not in PAGE and f"|{name}" not in PAGE] == []


def test_nothing_was_left_to_be_filled_in() -> None:
    assert not re.search(r"^[A-Z_]{8,}$|<!-- measured -->", PAGE, re.MULTILINE)
