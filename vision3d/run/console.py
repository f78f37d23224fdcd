# SPDX-License-Identifier: Apache-2.0
"""What a long command says while it works: notes and progress, to a stream and a log file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")


class Console:
    """Notes and progress for people; machine output never goes here.

    Args:
        stream: usually standard error; None keeps silent.
        period_s: seconds between progress lines where the stream is no terminal.
    """

    def __init__(self, stream: IO[str] | None = None, period_s: float = 10.0) -> None:
        self.stream = stream
        self.period_s = period_s
        self._log: Path | None = None
        self._early: list[str] = []  # notes from before there was a log file
        self._bar: Any = None

    def log_to(self, path: Path | None) -> None:
        """Copy notes to ``path`` from now on, each with its time; those said before come first. None ends it."""
        self._log = path
        if path is not None:
            self._write_log(self._early)
        self._early = []

    def note(self, message: str) -> None:
        """One line to the user and to the log file."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if self._log is not None:
            self._write_log([f"{stamp} {message}"])
        else:
            self._early.append(f"{stamp} {message}")
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)
        elif self.stream is not None:
            self.stream.write(message + "\n")
            self.stream.flush()

    def _write_log(self, lines: list[str]) -> None:
        assert self._log is not None
        # A full disk shall end the work where results are written, not where it is talked about.
        with contextlib.suppress(OSError), open(self._log, "a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)

    def warn(self, message: str) -> None:
        """A note that something is not as it should be."""
        self.note(f"warning: {message}")

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """The items, with a bar on a terminal and a line now and then elsewhere."""
        with self.progress(total, label) as advance:
            for item in items:
                yield item
                advance()

    @contextlib.contextmanager
    def progress(self, total: int, label: str) -> Iterator[Any]:
        """Yields a function that counts one more of ``total`` as done; nested progress stays quiet."""
        if self.stream is None or self._bar is not None:
            yield lambda: None
        elif self.stream.isatty():
            with self._rich_bar() as bar:
                task = bar.add_task(label, total=total)
                self._bar = bar
                try:
                    yield lambda: bar.advance(task)
                finally:
                    self._bar = None
        else:
            yield _Lines(self, total, label)

    def _rich_bar(self) -> Any:
        from rich import progress
        from rich.console import Console as RichConsole

        return progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=RichConsole(file=self.stream),
            redirect_stdout=False,
            redirect_stderr=False,
        )


class _Lines:
    """Progress as one line per period."""

    def __init__(self, console: Console, total: int, label: str) -> None:
        self.console, self.total, self.label = console, total, label
        self.done = 0
        self.last_s = time.monotonic()

    def __call__(self) -> None:
        self.done += 1
        now_s = time.monotonic()
        if now_s - self.last_s >= self.console.period_s and self.done < self.total:
            self.last_s = now_s
            assert self.console.stream is not None
            self.console.stream.write(f"{self.label}: {self.done}/{self.total}\n")
            self.console.stream.flush()
