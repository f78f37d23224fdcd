# SPDX-License-Identifier: Apache-2.0
"""Notes and progress: on a terminal, in a file, and in the log."""

from __future__ import annotations

import io
import re
from pathlib import Path

from vision3d.run.console import Console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_notes_go_to_the_stream_and_with_their_time_to_the_log(tmp_path: Path) -> None:
    said = io.StringIO()
    console = Console(said)
    console.note("before")
    console.log_to(tmp_path / "log.txt")
    console.warn("odd")
    console.log_to(None)
    console.note("after")
    assert said.getvalue() == "before\nwarning: odd\nafter\n"
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", "", line) for line in lines] == ["before", "warning: odd"]


def test_progress_in_lines_where_there_is_no_terminal() -> None:
    said = io.StringIO()
    assert list(Console(said, period_s=0.0).track("abc", 3, "work")) == ["a", "b", "c"]
    assert said.getvalue() == "work: 1/3\nwork: 2/3\n"
    said = io.StringIO()
    list(Console(said, period_s=60.0).track("abc", 3, "work"))
    assert said.getvalue() == ""


def test_a_bar_on_a_terminal_and_notes_beside_it() -> None:
    said = Terminal()
    console = Console(said)
    with console.progress(2, "work") as advance:
        advance()
        console.note("a [bold]note[/bold] that is longer than the terminal is wide " + "x" * 200)
        assert list(console.track("ab", 2, "inner")) == ["a", "b"]
        advance()
    text = said.getvalue()
    assert "2/2" in text
    assert "work" in text
    assert "inner" not in text
    assert "[bold]note[/bold]" in text
    assert "x" * 200 in text


def test_silence() -> None:
    console = Console()
    console.note("nothing")
    assert list(console.track("ab", 2, "work")) == ["a", "b"]
