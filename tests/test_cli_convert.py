# SPDX-License-Identifier: Apache-2.0
"""`vision3d convert`: a folder that is whole or absent, bad samples counted, mistakes in one line."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plugin_fixtures import Command, curves, install, numbers, site, toys, vision3d

from vision3d.cli import main

__all__ = ["curves", "numbers", "site", "toys", "vision3d"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], curves: Path) -> Callable[..., tuple[str, str]]:
    def call(*args: object, code: int = 0) -> tuple[str, str]:
        found = main(["convert", *map(str, args)])
        out, err = capsys.readouterr()
        assert found == code, err
        return out, err

    return call


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_samples_and_their_truth_are_written(run: Any, numbers: Callable[..., Path]) -> None:
    data = numbers(3, row1=["n001", 2.0, None])
    out, err = run(data, "deep/out", "--to", "lines")
    assert out == "deep/out: 3 samples of some numbers as lines (4 files)\n"
    assert "reader: numbers (guessed" in err
    assert content(Path("deep/out")) == {
        "n000.txt": "1.0\n2.0\n",
        "n001.txt": "2.0\n",
        "n002.txt": "3.0\n6.0\n",
        "index.txt": "n000\nn001\nn002\n",
    }
    assert [p.name for p in Path("deep").iterdir()] == ["out"]


def test_options_choose_samples_and_bad_ones_are_counted(run: Any, numbers: Callable[..., Path]) -> None:
    data = numbers(6, row1=["n001", None, 4.0], row4=["n004", "absent", 10.0])
    _, err = run(data, "out", "--to", "lines", code=2)
    assert "n004 has no entry; --skip-bad leaves out and counts what is bad" in err
    _, err = run(data, "out", "--to", "lines", "--select", ":3", code=2)
    assert err.splitlines()[-1].endswith("n001 cannot be read; --skip-bad leaves such samples out and counts them")
    assert not list(Path().glob("*out*"))
    Path("out").mkdir()  # an empty one will do
    out, _ = run(data, "out", "--to", "lines", "--skip-bad", "--select", "-5::", "--json")
    found = json.loads(out)
    assert (found["n_samples"], found["n_bad"], found["n_files"], found["reader"]) == (3, 2, 4, "numbers")
    assert [item["name"] for item in found["bad"]] == ["n001", "n004"]
    assert sorted(content(Path("out"))) == ["index.txt", "n002.txt", "n003.txt", "n005.txt"]
    assert not list(Path().glob(".out*"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("DATA out", "the following arguments are required: --to (see vision3d convert --help)"),
        ("DATA --to lines", "convert needs DATA and OUT (see vision3d convert --help)"),
        ("DATA out --to line", "unknown writer 'line'; did you mean 'lines'?"),
        ("nowhere out --to lines", "nowhere: no such file or folder, and no reader knows it as a URI"),
        ("DATA nowhere out --to lines", "nowhere: no such file or folder"),
        ("DATA DATA out --to lines", "some numbers and some numbers: no reader recognises these together"),
        ("DATA DATA --to lines", "some numbers: exists already and is not an empty folder; choose another one"),
        ("DATA site/vision3d_toys.py --to lines", "vision3d_toys.py: exists already and is not an empty folder"),
        ("DATA out --to lines --reader no", "unknown reader 'no'"),
        ("DATA out --to lines --select 9::", "--select '9::' leaves none of the 3 samples"),
        ("DATA out --to frames", "some numbers: no reader recognises this as samples of type Frame ('numbers' reads"),
        (
            "DATA out --to frames --reader numbers",
            "reader 'numbers' gives samples of type Number, the writer 'frames' takes Frame",
        ),
        ("DATA out --to needy", "writer 'needy' needs the package no_such_bags: pip install 'vision3d[live]'"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    run: Any, numbers: Callable[..., Path], toys: Path, args: str, message: str
) -> None:
    numbers(3)
    (toys / "frames.py").write_text(
        "from dataclasses import replace\nfrom vision3d_toys import LINES\n"
        "FRAMES = replace(LINES, name='frames', samples='Frame')\n"
        "NEEDY = replace(LINES, name='needy', extras=('live:no_such_bags',))\n"
    )
    install(toys, "frames", {"vision3d.writers": {"frames": "frames:FRAMES", "needy": "frames:NEEDY"}})
    before = sorted(Path().rglob("*"))
    _, err = run(*("some numbers" if word == "DATA" else word for word in args.split()), code=2)
    assert message in err.splitlines()[-1]
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
    assert [p for p in sorted(Path().rglob("*")) if "__pycache__" not in p.parts] == [
        p for p in before if "__pycache__" not in p.parts
    ]


def test_a_writer_that_fails_leaves_nothing(run: Any, numbers: Callable[..., Path], toys: Path) -> None:
    (toys / "broken_writer.py").write_text(
        "from dataclasses import replace\nfrom vision3d.errors import DataError\n"
        "from vision3d_toys import LINES, write\n"
        "def half(name, sample, truth, folder):\n"
        "    if name == 'n002':\n"
        "        raise DataError(name, 'has no colour, which this format needs')\n"
        "    return write(name, sample, truth, folder)\n"
        "HALF = replace(LINES, name='half', write=half)\n"
    )
    install(toys, "halves", {"vision3d.writers": {"half": "broken_writer:HALF"}})
    _, err = run(numbers(4), "out", "--to", "half", code=2)
    assert err.splitlines()[-1] == "error: n002: has no colour, which this format needs"
    assert not list(Path().glob("*out*"))


def test_a_kill_leaves_nothing_half_done_and_the_next_try_cleans_up(
    vision3d: Command, curves: Path, numbers: Callable[..., Path]
) -> None:
    (curves / "slow.py").write_text(
        "import time\nfrom dataclasses import replace\nfrom vision3d_toys import LINES, write\n"
        "def slowly(*args):\n    time.sleep(0.2)\n    return write(*args)\n"
        "SLOW = replace(LINES, name='slow', write=slowly)\n"
    )
    install(curves, "slows", {"vision3d.writers": {"slow": "slow:SLOW"}})
    data, here = numbers(12), vision3d.folder
    temp = here / ".out.convert"
    for number, leaves in ((signal.SIGTERM, False), (signal.SIGKILL, True)):
        process = vision3d.start("convert", data, "out", "--to", "slow")
        end_s = time.monotonic() + 60
        while not (temp / "n001.txt").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end_s
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert not (here / "out").exists()
        assert temp.exists() == leaves
    vision3d("convert", data, "out", "--to", "lines")
    assert len(list((here / "out").iterdir())) == 13
    assert not temp.exists()


def test_writers_are_listed(curves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "writers", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == ["writers"]
    assert [w["samples"] for w in listed["writers"] if w["name"] == "lines"] == ["Number"]
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "  convert " in out
    assert "lines" in next(line for line in out.splitlines() if line.startswith("writers:"))
