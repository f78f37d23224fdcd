# SPDX-License-Identifier: Apache-2.0
"""kill -9 and Ctrl-C in the middle of `fit` and `eval`, in real processes; then resume to identical bytes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from plugin_fixtures import Command

FIT = ("--stage.count", 6, "--stage.delay-s", 0.25)
EVAL = ("--delay-s", 0.1, "--break-on", "n004", "--baselines", "--pictures", 2)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end_s = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.01)


def end(process: subprocess.Popen[str], with_signal: int) -> tuple[int, str]:
    process.send_signal(with_signal)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def content(folder: Path, *without: str) -> dict[str, bytes]:
    volatile = {"timing.json", "timing.jsonl", "log.txt", "command.txt", "report.html", *without}
    files = (p for p in folder.rglob("*") if p.is_file() and p.name not in volatile)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def test_fit_and_eval_survive_a_kill(vision3d: Command, toys: Path, numbers: Callable[..., Path]) -> None:
    data, here = numbers(10), vision3d.folder
    vision3d("fit", "toy", data, "--out", "maps/whole", *FIT)
    for number, stages in ((signal.SIGKILL, 2), (signal.SIGTERM, 4)):
        process = vision3d.start("fit", "toy", data, "--out", "maps/killed", *FIT)
        cache = here / "maps/.killed.fit/cache"
        wait_for(lambda: cache.is_dir() and len(list(cache.glob("*.npz"))) == stages, process)  # noqa: B023
        code, err = end(process, number)
        assert not (here / "maps/killed").exists()
    # the last one, SIGTERM, ended in good order
    assert code == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    _, err = vision3d("fit", "toy", data, "--out", "maps/killed", *FIT)
    assert err.count("from an earlier run") >= 2
    assert content(here / "maps/killed") == content(here / "maps/whole")
    assert sorted(p.name for p in (here / "maps").iterdir()) == ["killed", "whole"]

    command = ("eval", "toy", data, "--model", "maps/whole", *EVAL)
    vision3d(*command)
    whole = (here / "runs/latest").resolve()
    process = vision3d.start(*command)

    def half_way() -> bool:
        folder = (here / "runs/latest").resolve()
        results = folder / "results.jsonl"
        return folder != whole and results.exists() and results.read_bytes().count(b"\n") >= 5

    wait_for(half_way, process)
    end(process, signal.SIGKILL)
    killed = (here / "runs/latest").resolve()
    assert not (killed / "metrics.json").exists()
    # a kill may tear the last line; make sure that one is torn here
    with open(killed / "results.jsonl", "ab") as file:
        file.write(b'{"name": "n0')
    (killed / "checkpoints/.state.json.1.tmp").write_text("{")  # and a file half written
    process = vision3d.start(*command, "--resume", "latest")
    wait_for(lambda: (killed / "results.jsonl").read_bytes().count(b"\n") >= 7, process)
    code, err = end(process, signal.SIGINT)
    assert code == 130
    assert f"--resume {killed.relative_to(here.resolve())} goes on from there" in err
    assert "Traceback" not in err
    assert (killed / "FAILED").read_text().startswith("interrupted")
    vision3d(*command, "--resume", "latest")
    assert content(killed) == content(whole)


def test_an_evaluation_over_seeds_survives_kills_in_any_seed(
    vision3d: Command, curves: Path, numbers: Callable[..., Path]
) -> None:
    """Results with arrays, three seeds, a baseline that no seed changes; killed in the second and in the third."""
    data, here = numbers(6), vision3d.folder
    command = ("eval", "curves", data, "--seeds", 3, "--delay-s", 0.1, "--break-on", "n002")
    vision3d(*command)
    whole = (here / "runs/latest").resolve()
    process = vision3d.start(*command)
    wait_for(lambda: (here / "runs/latest").resolve() != whole, process)
    killed = (here / "runs/latest").resolve()
    for seed, results in ((1, 2), (2, 4)):
        wait_for(lambda: _lines(killed / f"seeds/{seed}/results.jsonl") >= results, process)  # noqa: B023
        end(process, signal.SIGKILL)
        assert not (killed / "seeds.json").exists()
        process = vision3d.start(*command, "--resume", "latest")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert content(killed) == content(whole)
    assert (killed / "seeds/2/arrays/000005.npz").exists()


@pytest.mark.slow
def test_favor_survives_kills_in_every_stage(vision3d: Command) -> None:
    """The same on the real pipeline: fit killed in each of its stages, eval killed twice."""
    here = vision3d.folder
    room = "synthetic:room?frames=40&noise=1&width=320&height=240"
    options = ("--features.name", "sift", "--landmarks.max-landmarks", 400)
    fit = ("fit", "favor", room, "--select", ":12:2", "--threads", 1, *options)
    vision3d(*fit, "--out", "maps/whole")
    stages = len(json.loads((here / "maps/whole/timing.json").read_text())["stages_s"])
    for stage in range(1, stages):
        process = vision3d.start(*fit, "--out", "maps/killed")
        wait_for(lambda: len(list((here / "maps/.killed.fit/cache").glob("*.npz"))) >= stage, process)  # noqa: B023
        end(process, signal.SIGKILL)
        assert not (here / "maps/killed").exists()
    vision3d(*fit, "--out", "maps/killed")
    assert content(here / "maps/killed") == content(here / "maps/whole")

    command = ("eval", "favor", room, "--select", "1:12:2", "--model", "maps/whole", "--baselines", "--threads", 1)
    vision3d(*command)
    whole = (here / "runs/latest").resolve()
    process = vision3d.start(*command)
    wait_for(lambda: (here / "runs/latest").resolve() != whole, process)
    killed = (here / "runs/latest").resolve()
    for results in (2, 4):
        wait_for(lambda: _lines(killed / "results.jsonl") >= results, process)  # noqa: B023
        end(process, signal.SIGKILL)
        process = vision3d.start(*command, "--resume", "latest")
    assert process.wait(timeout=120) == 0
    process.communicate()
    assert content(killed) == content(whole)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
