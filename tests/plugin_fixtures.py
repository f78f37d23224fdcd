# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the toy plug-in as an installed package, data for it, and the command line in a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent


def install(site: Path, package: str, entries: dict[str, dict[str, str]]) -> None:
    """Metadata of a package in ``site``: entry-point group -> name -> object."""
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    groups = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in found.items()) for group, found in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(groups))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path, here and in subprocesses; the current folder is ``tmp_path``."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    inherited = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), str(ROOT), inherited])))
    monkeypatch.chdir(tmp_path)
    yield folder
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def toys(site: Path) -> Path:
    """The toy pipeline and reader, installed as the package ``vision3d-toys``."""
    (site / "vision3d_toys.py").write_text((HERE / "toys.py").read_text())
    entries = {
        "vision3d.pipelines": {"toy": "vision3d_toys:TOY"},
        "vision3d.readers": {"numbers": "vision3d_toys:NUMBERS"},
    }
    install(site, "vision3d-toys", entries)
    return site


@pytest.fixture
def curves(toys: Path) -> Path:
    """The pipeline with arrays in its results, and the writer, installed as ``vision3d-curves``."""
    entries = {
        "vision3d.pipelines": {"curves": "vision3d_toys:CURVES"},
        "vision3d.writers": {"lines": "vision3d_toys:LINES"},
    }
    install(toys, "vision3d-curves", entries)
    return toys


@pytest.fixture
def numbers(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set of ``count`` numbers; keywords replace single rows by index."""

    def write(count: int = 12, name: str = "some numbers", **rows: list[object]) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        table: list[list[object]] = [[f"n{i:03d}", 1.0 + i, 2.0 + 2 * i] for i in range(count)]
        for key, row in rows.items():
            table[int(key.removeprefix("row"))] = row
        (folder / "numbers.json").write_text(json.dumps(table))
        return folder

    return write


class Command:
    """``python -m vision3d`` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "vision3d", *map(str, args)]
        # A job in the background of a shell ignores Ctrl-C, and so would its children.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ.copy(),
            )
        finally:
            signal.signal(signal.SIGINT, before)

    def __call__(self, *args: object, code: int = 0) -> tuple[str, str]:
        process = self.start(*args)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, err or out
        return out, err


@pytest.fixture
def vision3d(site: Path, tmp_path: Path) -> Command:
    return Command(tmp_path)
