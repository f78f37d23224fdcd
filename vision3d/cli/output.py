# SPDX-License-Identifier: Apache-2.0
"""Where the command line writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from typing import Any


class Output:
    """One command's output. With ``json_mode``, standard output holds exactly one JSON document."""

    def __init__(self, json_mode: bool) -> None:
        self.json_mode = json_mode

    def result(self, document: Any, human: str) -> None:
        """The command's outcome, for machines or for people."""
        if self.json_mode:
            from vision3d.run.files import json_text

            self.text(json_text(document))
        else:
            self.text(human)

    def text(self, text: str) -> None:
        """Text to standard output."""
        sys.stdout.write(text if text.endswith("\n") or not text else text + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A line to standard error."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def fail(self, message: str) -> int:
        """``error: ...`` in one line; returns the exit code of a user's mistake."""
        line = " ".join(message.split())
        if self.json_mode:
            import json

            self.text(json.dumps({"error": line}, ensure_ascii=False))
        self.note(f"error: {line}")
        return 2


def table(header: list[str], rows: list[list[str]], title: str = "", right: bool = True) -> str:
    """A table for people, as wide as it needs to be; all columns but the first are aligned ``right``."""
    from io import StringIO

    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=SIMPLE, pad_edge=False)
    for column, name in enumerate(header):
        grid.add_column(Text(name), justify="right" if right and column else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*[Text(cell) for cell in row])
    buffer = StringIO()
    Console(file=buffer, width=1000, color_system=None).print(grid)
    body = "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()).strip("\n") + "\n"
    return f"{title}\n\n{body}" if title else body
