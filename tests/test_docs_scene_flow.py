# SPDX-License-Identifier: Apache-2.0
"""The page on scene flow: its example runs, and it names every method, reader and writer of pairs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scene_flow.config import METHODS
from vision3d.run import registry

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "scene-flow.md").read_text()


def test_the_example_runs_and_finds_the_motion(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/scene-flow.md", "exec"), {})
    shown = capsys.readouterr().out
    assert shown.startswith("(3000, 3)")
    assert "0.5" in shown


def test_every_method_reader_and_writer_is_named() -> None:
    pairs = [
        item.name
        for group in (registry.READERS, registry.WRITERS)
        for item in registry.listing(group)
        if item.samples == "CloudPair" and item.package == "vision3d"
    ]
    assert len(pairs) > 8
    assert [name for name in (*METHODS, *pairs) if f"`{name}`" not in PAGE and f"|{name}" not in PAGE] == []


def test_nothing_was_left_to_be_filled_in() -> None:
    assert not re.search(r"^[A-Z_]{5,}$", PAGE, re.MULTILINE)
