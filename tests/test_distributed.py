# SPDX-License-Identifier: Apache-2.0
"""Several processes of one training: who speaks, who publishes, and that all of them take part."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from plugin_fixtures import Command, install, numbers, site, toys, vision3d

from vision3d import distributed
from vision3d.errors import UserError

__all__ = ["numbers", "site", "toys", "vision3d"]


@pytest.mark.parametrize(
    ("environment", "rank", "size"),
    [
        ({}, 0, 1),
        ({"RANK": "", "WORLD_SIZE": ""}, 0, 1),
        ({"RANK": "3"}, 0, 1),  # not of ours
        ({"WORLD_SIZE": "1", "RANK": "0"}, 0, 1),
        ({"WORLD_SIZE": "4", "RANK": "0"}, 0, 4),
        ({"WORLD_SIZE": "4", "RANK": "3"}, 3, 4),
    ],
)
def test_the_environment_says_who_this_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], rank: int, size: int
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (rank, size, rank == 0)


@pytest.mark.parametrize(
    ("rank", "size", "problem"),
    [
        ("2", "2", "RANK=2 of WORLD_SIZE=2; unset both, or use torchrun"),
        ("x", "2", "RANK=x, which is no number"),
        ("0", "-2", "WORLD_SIZE=-2, which is no number"),
        ("0", "0", "WORLD_SIZE=0; unset it"),
    ],
)
def test_an_environment_that_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch, rank: str, size: str, problem: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(UserError, match=problem):
        distributed.rank()


# Every process says that it is there and waits for the other: alone, none of them would end.
MEETING = """
import time
from dataclasses import replace
from pathlib import Path
from vision3d import distributed
from vision3d_toys import TOY, Toy

class Shared(Toy):
    def fit(self, train, out, context):
        Path(f"here-{distributed.rank()}").touch()
        end_s = time.monotonic() + 60
        while not Path(f"here-{1 - distributed.rank()}").exists():
            assert time.monotonic() < end_s
            time.sleep(0.01)
        super().fit(train, out, context)

SHARED = replace(TOY, name="shared", make=Shared)
"""


@pytest.fixture
def shared(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (toys / "meeting.py").write_text(MEETING)
    install(toys, "meeting", {"vision3d.pipelines": {"shared": "meeting:SHARED"}})
    (tmp_path / "temp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temp"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    return toys


def test_all_take_part_and_the_first_publishes(
    vision3d: Command, shared: Path, numbers: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, here = numbers(4), vision3d.folder
    processes = []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        processes.append(vision3d.start("fit", "shared", data, "--out", "m"))
    (out, err), (quiet, silent) = (process.communicate(timeout=120) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], err + silent
    assert out.startswith("m: shared from 4 samples, seed 0")
    assert "numbers: 4 numbers" in err
    assert (quiet, silent) == ("", "")
    assert (here / "m/toy.safetensors").exists()
    assert not list((here / "temp").iterdir())
    assert not list(here.glob(".m*"))
    # the same model as one process makes
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    vision3d("fit", "toy", data, "--out", "alone")
    assert (here / "alone/toy.safetensors").read_bytes() == (here / "m/toy.safetensors").read_bytes()


def test_a_mistake_is_told_by_the_first_and_signed_by_the_others(
    vision3d: Command, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    out, err = vision3d("fit", "shared", "nowhere", "--out", "m", "--json", code=2)
    assert (out, err) == ("", "error: process 1: nowhere: no such file or folder, and no reader knows it as a URI\n")
    monkeypatch.setenv("RANK", "0")
    out, err = vision3d("fit", "shared", "nowhere", "--out", "m", "--json", code=2)
    assert out.startswith('{"error": "nowhere: ')


def test_only_fit_is_shared(
    vision3d: Command, shared: Path, numbers: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = numbers(3)
    monkeypatch.setenv("WORLD_SIZE", "1")
    vision3d("fit", "toy", data, "--out", "m")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    out, err = vision3d("eval", "toy", data, "--model", "m")
    assert (out, err) == ("", "process 1 has nothing to do: only fit is shared by several\n")
    assert not (vision3d.folder / "runs").exists()


@pytest.mark.slow
def test_torchrun_starts_it(shared: Path, numbers: Callable[..., Path], tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    command = [*torchrun, "-m", "vision3d", "fit", "shared", str(numbers(4)), "--out", "m", "--json"]
    start_s = time.monotonic()
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"model": "m"') == 1, time.monotonic() - start_s
    assert (tmp_path / "m/card.json").exists()
