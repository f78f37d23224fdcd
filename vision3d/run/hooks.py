# SPDX-License-Identifier: Apache-2.0
"""What happens besides the loop itself, in fixed order at each result: pictures, checkpoint, watchdog, progress."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision3d.contracts import Pipeline
from vision3d.errors import UserError
from vision3d.run.cloud_files import write_cloud_view
from vision3d.run.console import Console
from vision3d.run.files import write_bytes, write_json
from vision3d.run.store import failed


@dataclass(frozen=True)
class Event:
    """One result.

    Attributes:
        index: of the sample; ``total`` is the number of samples.
        method: empty for the pipeline itself, else the baseline's name.
        sample: None when it could not be read.
        result: as the pipeline returned it, with what is never stored.
        truth: reads the sample's truth; None in a ``run``.
    """

    index: int
    total: int
    name: str
    method: str
    pipeline: Pipeline
    model: Any
    sample: Any | None
    result: Any
    truth: Callable[[], Any | None]


class Hook:
    """Does nothing; a hook overrides what it needs."""

    def before(self, event: Event) -> None:
        """Called with each result before it is stored: what is written here is there if the result is."""

    def after(self, event: Event) -> None:
        """Called once per stored result."""

    def sample_done(self) -> None:
        """Called once per sample, when every method has its result."""

    def close(self) -> None:
        """Called once, also after an error."""


class Checkpoint(Hook):
    """``checkpoints/state.json`` names the last complete sample of each method, for people and monitors.

    What is complete is decided by the result files alone, so this one may lag by a second.

    Args:
        state: method -> what is complete already, of a run that is resumed.
    """

    PERIOD_S = 1.0

    def __init__(self, folder: Path, state: Mapping[str, Any]) -> None:
        self.path = folder / "checkpoints" / "state.json"
        self.state = dict(state)
        self.written_s = -self.PERIOD_S
        self.path.parent.mkdir(exist_ok=True)

    def after(self, event: Event) -> None:
        self.state[event.method] = self.entry(event.index + 1, event.total, event.name)
        if time.monotonic() - self.written_s >= self.PERIOD_S:
            self._write()

    @staticmethod
    def entry(complete: int, total: int, last: str) -> dict[str, Any]:
        """What is said of one method."""
        return {"complete": complete, "of": total, "last": last}

    def close(self) -> None:
        if self.state:
            self._write()

    def _write(self) -> None:
        self.written_s = time.monotonic()
        methods = {name or "pipeline": self.state[name] for name in sorted(self.state)}
        write_json(self.path, {"schema": 1, **methods})


class Watchdog(Hook):
    """Ends a run of which nothing but failures comes. Baselines do not count."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_a_row = 0

    def after(self, event: Event) -> None:
        if event.method:
            return
        self.in_a_row = self.in_a_row + 1 if failed(event.result) else 0
        if self.limit and self.in_a_row >= self.limit:
            reason = getattr(event.result, "reason", "")
            raise UserError(
                f"watchdog: {self.in_a_row} failures in a row, stopped at sample {event.index + 1} of {event.total} "
                f"({event.name}: {reason})"
            )


class Pictures(Hook):
    """``viz/frame_000123.png`` of some results spread over the run, and of as many failures.

    The first few samples that are drawn get a ``viz/cloud_000123.npz`` too, where the pipeline has a ``cloud_view``.
    All of it is an extra: an exception while drawing is reported once and ends the drawing, not the run.

    Args:
        done: results from before the run was resumed; their pictures are there.
    """

    CLOUDS = 3

    def __init__(self, folder: Path, count: int, total: int, console: Console, done: int = 0) -> None:
        self.folder = folder / "viz"
        self.console = console
        number = min(count, total)
        self.wanted = {round(k * (total - 1) / max(number - 1, 1)) for k in range(number)}
        drawn = [i for i in self._there("frame_*.png") if i < done and i not in self.wanted]
        self.failures_left = max(count - len(drawn), 0)
        self.clouds_left = max(self.CLOUDS - sum(i < done for i in self._there("cloud_*.npz")), 0)
        self.enabled = count > 0

    def before(self, event: Event) -> None:
        if not self.enabled or event.method or event.sample is None:
            return
        draws, turns = (hasattr(event.pipeline, name) for name in ("draw", "cloud_view"))
        if not (draws or turns):
            return
        if event.index not in self.wanted:
            if not failed(event.result) or self.failures_left < 1:
                return
            self.failures_left -= 1
        try:
            truth = event.truth()
            if draws:
                data = png_bytes(event.pipeline.draw(event.model, event.sample, event.result, truth))
                self.folder.mkdir(exist_ok=True)
                write_bytes(self.folder / f"frame_{event.index:06d}.png", data)
            if turns and self.clouds_left:
                self._cloud(event, truth)
        except Exception as error:
            self.enabled = False
            self.console.warn(f"no more pictures: drawing {event.name} failed ({type(error).__name__}: {error})")

    def _cloud(self, event: Event, truth: Any | None) -> None:
        pipeline: Any = event.pipeline  # an optional method of the protocol
        view = pipeline.cloud_view(event.model, event.sample, event.result, truth)
        if view is not None:
            self.folder.mkdir(exist_ok=True)
            write_cloud_view(self.folder / f"cloud_{event.index:06d}.npz", view)
            self.clouds_left -= 1

    def _there(self, pattern: str) -> list[int]:
        """Positions of the samples of which there is a file."""
        found = (re.search(r"_(\d{6,})$", path.stem) for path in self.folder.glob(pattern))
        return [int(match[1]) for match in found if match]


class Progress(Hook):
    """Counts samples on a terminal's bar, or in a line now and then."""

    def __init__(self, advance: Callable[[], None]) -> None:
        self.advance = advance

    def sample_done(self) -> None:
        self.advance()


def png_bytes(image: Any) -> bytes:
    """(H, W, 3) uint8 RGB -> PNG file content.

    Raises:
        ValueError: the array is no such image.
    """
    import cv2
    import numpy as np

    if getattr(image, "dtype", None) != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError("draw must return an (H, W, 3) uint8 RGB image")
    ok, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    if not ok:
        raise ValueError("the image cannot be written as PNG")
    return bytes(data.tobytes())
