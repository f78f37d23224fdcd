# SPDX-License-Identifier: Apache-2.0
"""The folder of one run: made, found again, resumed only by the command that began it, marked when it ends."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vision3d.errors import ConfigError, DataError
from vision3d.run.config import FullConfig, differences, dump_yaml, identity_hash
from vision3d.run.environment import environment
from vision3d.run.files import read_json, write_json, write_text

MAX_DIFFERENCES = 5


class RunFolder:
    """``<out>/<pipeline>/<dataset>/<UTC>-<hash6>/``.

    Args:
        path: an existing folder; make one with :meth:`create` or :meth:`resume`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls,
        config: FullConfig,
        verb: str,
        dataset: str,
        identity: Mapping[str, Any],
        command: str,
        inside: Path | None = None,
    ) -> RunFolder:
        """A new folder with all that is known before the first sample; ``latest`` points to it.

        Args:
            inside: the folder to make, a part of another run's, to which ``latest`` points already.
        """
        out = config.runner.runs
        if inside is None:
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            base = out / slug(config.pipeline_name) / slug(dataset) / f"{stamp}-{identity_hash(identity)[:6]}"
            path = _make_unique(base)
        else:
            path = inside
            shutil.rmtree(path, ignore_errors=True)  # killed before it held anything
            path.mkdir(parents=True)
        write_text(path / "config.yaml", dump_yaml(config))
        write_text(path / "command.txt", command + "\n")
        write_json(path / "environment.json", environment(config.runner.threads))
        (path / "checkpoints").mkdir()
        # Last, since a folder without it was killed before it held anything and cannot be resumed.
        write_json(path / "run.json", {"schema": 1, "verb": verb, "dataset": dataset, "identity": dict(identity)})
        if inside is None:
            point_latest(out, path)
        return cls(path)

    @classmethod
    def resume(cls, path: Path, identity: Mapping[str, Any]) -> RunFolder:
        """The folder of an earlier run of the same command.

        Raises:
            ConfigError: the run depended on other values; names them.
            DataError: there is no such run.
        """
        found = read_run(path)["identity"]
        changed = differences(found, dict(identity))
        if changed:
            raise ConfigError(f"{path}: cannot resume, the command differs: {shortened(changed)}")
        (path / "FAILED").unlink(missing_ok=True)
        for half_written in path.rglob(".*.tmp"):  # a kill in the middle of files.whole_file
            half_written.unlink()
        return cls(path)

    @property
    def complete(self) -> bool:
        return (self.path / "DONE").exists()

    def done(self) -> None:
        """Mark the run as complete."""
        write_text(self.path / "DONE", "")

    def failed(self, reason: str) -> None:
        """Mark the run as ended early; nothing that it stored is lost."""
        with contextlib.suppress(OSError):
            write_text(self.path / "FAILED", reason + "\n")


def read_run(path: Path) -> dict[str, Any]:
    """``run.json`` of a run folder.

    Raises:
        DataError: the folder is none of ours.
    """
    if not path.is_dir():
        raise DataError(path, "no such run folder")
    if not (path / "run.json").exists():
        raise DataError(path, "is no run folder (it holds no run.json)")
    content: dict[str, Any] = read_json(path / "run.json")
    return content


def find_run(text: str, out: Path) -> Path:
    """A run folder as typed; ``latest`` is the newest one under ``out``.

    Raises:
        DataError: there is none.
    """
    if text == "latest" and not Path(text).is_dir():
        link = out / "latest"
        if link.is_file():
            return out / link.read_text("utf-8").strip()
        if not link.is_dir():
            raise DataError(link, "there is no latest run yet")
        return out / os.readlink(link) if link.is_symlink() else link
    return Path(text)


def point_latest(out: Path, path: Path) -> None:
    """Let ``out/latest`` lead to ``path``: a link, or a text file where links cannot be made."""
    target = os.path.relpath(path, out)
    temp = out / f".latest.{os.getpid()}"
    temp.unlink(missing_ok=True)
    try:
        os.symlink(target, temp, target_is_directory=True)
        os.replace(temp, out / "latest")
    except OSError:
        temp.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            write_text(out / "latest", target + "\n")


def shortened(changed: list[str]) -> str:
    """A few differences in one line."""
    more = len(changed) - MAX_DIFFERENCES
    return "; ".join(changed[:MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def slug(text: str) -> str:
    """A file name from any text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "data"


def _make_unique(base: Path) -> Path:
    for attempt in range(1, 1000):
        path = base if attempt == 1 else base.with_name(f"{base.name}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise DataError(path, "is in the way of the run folder") from None
        except OSError as error:
            raise DataError(path, f"cannot be made ({error.strerror or error})") from None
        else:
            return path
    raise DataError(base, "a thousand runs began in this second")
