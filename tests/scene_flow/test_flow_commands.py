# SPDX-License-Identifier: Apache-2.0
"""Scene flow as a user types it: two files in, a flow file and a picture out; one clear line for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from scene_flow.export.flow_files import read_flow
from vision3d.cli import main


def scan(seed: int, shift: float = 0.0) -> np.ndarray:
    """(2000, 4) float32 of walls, ground and a box that moves by ``shift`` along x; x forward, z up, metres."""
    rng = np.random.default_rng(seed)
    ground = rng.uniform([-20, -8, -1.72], [20, 8, -1.68], (800, 3))
    walls = np.concatenate([rng.uniform([-20, y, -1.7], [20, y + 0.1, 2], (450, 3)) for y in (-9, 9)])
    car = rng.uniform([4, -2, -1.3], [8, 0, 0], (300, 3)) + [shift, 0, 0]
    points = np.concatenate([ground, walls, car]).astype(np.float32)
    return np.concatenate([points, np.zeros((len(points), 1), np.float32)], axis=1)


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.chdir(tmp_path)
    scan(0).tofile("a.bin")
    scan(1, 1.0).tofile("b.bin")
    return "a.bin", "b.bin"


@pytest.mark.parametrize("options", [["nearest"], ["sctn"], ["sctn", "--method", "cluster-icp"], ["auto"]])
def test_two_files_in_flow_and_picture_out(
    scans: tuple[str, str], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, *rest = options
    code = main(["run", pipeline, *scans, *rest, "--threads", "1", "--write", "npz", "ply", "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    run = Path(json.loads(out)["run"])
    (npz,) = (run / "flow").glob("*.npz")
    record = read_flow(npz)
    assert record.flow.shape == (2000, 3)
    assert np.isfinite(record.flow).all()
    assert np.array_equal(record.source, scan(0)[:, :3])
    assert len(list((run / "flow").glob("*.ply"))) == 1
    picture = cv2.imread(str(next((run / "viz").glob("frame_*.png"))))
    assert picture.std() > 10
    page = (run / "report.html").read_text()
    assert 'class="orbit"' in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/", "")


def test_the_same_seed_gives_the_same_bytes(scans: tuple[str, str]) -> None:
    runs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "vision3d", "run", "sctn", *scans, "--network.points", "500", "--json"],
            capture_output=True,
            check=True,
        )
        runs.append(Path(json.loads(done.stdout)["run"]))
    first, second = ((run / "arrays/000000.npz").read_bytes() for run in runs)
    assert first == second


def test_data_without_truth_cannot_be_evaluated(scans: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "nearest", *scans]) == 2
    assert "no truth" in capsys.readouterr().err


def bad(name: str) -> np.ndarray:
    points = scan(1)
    if name == "nan":
        points[3, 1] = np.nan
    elif name == "empty":
        points = points[:0]
    elif name == "few":
        points = points[:20]
    elif name == "millimetres":
        points[:, :3] *= 1000
    elif name == "frame":
        points[:, :3] = points[:, [1, 2, 0]]
    return points


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan", "NaN"),
        ("empty", "empty"),
        ("few", "20 points"),
        ("millimetres", "as large as the other"),
        ("frame", "different frames"),
    ],
)
def test_a_bad_scan_is_one_line_and_exit_code_2(
    scans: tuple[str, str], name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad(name).astype(np.float32).tofile("bad.bin")
    assert main(["run", "sctn", "a.bin", "bad.bin"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    (line,) = [line for line in lines if line.startswith("error")]
    assert words in line
    assert "bad" in line
    assert not any("Traceback" in line for line in lines)


def test_both_scans_in_millimetres_are_recognised(scans: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for file in scans:
        points = np.fromfile(file, np.float32).reshape(-1, 4)
        points[:, :3] *= 1000
        points.tofile(file)
    assert main(["run", "nearest", *scans]) == 2
    assert "millimetres" in capsys.readouterr().err
    assert main(["run", "nearest", f"{scans[0]}::{scans[1]}?scale=0.001"]) == 0


def test_convert_and_back(scans: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    source = "bodies:boxes?scenes=2&points=400"
    assert main(["convert", source, "out", "--to", "npz"]) == 0
    assert main(["eval", "zero-flow", "out", "--no-baselines", "--json"]) == 0
    capsys.readouterr()
    assert main(["eval", "zero-flow", source, "--no-baselines", "--json"]) == 0
    direct = json.loads(capsys.readouterr().out)
    assert main(["eval", "zero-flow", "out", "--no-baselines", "--json"]) == 0
    back = json.loads(capsys.readouterr().out)
    names = ("epe3d", "acc3ds", "acc3dr", "outliers", "epe3d_dynamic", "epe3d_static")
    values = [{m["name"]: m["value"] for m in document["metrics"]} for document in (direct, back)]
    assert {name: values[0][name] for name in names} == pytest.approx({name: values[1][name] for name in names})


def test_one_scan_is_told_to_come_in_pairs(scans: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nearest", scans[0]]) == 2
    assert "a.bin: is one cloud; give two" in capsys.readouterr().err
