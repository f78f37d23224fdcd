# SPDX-License-Identifier: Apache-2.0
"""The example in docs/plugins.md does what the page says, word for word."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
from plugin_fixtures import install, site

from vision3d.cli import main
from vision3d.contracts import DataConfig
from vision3d.readers.synthetic import SPEC as ROOM

__all__ = ["site"]
PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_the_example_runs(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "thumb.py").write_text(block("python"))
    install(site, "thumb", tomllib.loads(block("toml"))["project"]["entry-points"])
    room = ROOM.open("synthetic:room?frames=40&width=64&height=48&noise=1", DataConfig())
    Path("walk").mkdir()
    rows = []
    for i in range(8):
        frame, T = room[i], room.truth(i).T_world_cam
        np.save(f"walk/{frame.name}.npy", frame.image)
        rows.append(",".join([frame.name, str(frame.camera.focal), *map(repr, T.ravel().tolist())]))
    Path("walk/poses.csv").write_text("\n".join(rows) + "\n")
    outputs = []
    for line in block("console").splitlines():
        words = shlex.split(line)
        assert words[0] == "vision3d"
        assert main([*words[1:], "--json"]) == 0, capsys.readouterr().err
        outputs.append(json.loads(capsys.readouterr().out))
    assert "thumb" in [p["name"] for p in outputs[0]["pipelines"]]
    assert outputs[1]["card"]["n_samples"] == 4
    # a test frame lies midway between two map frames, which is as close as the nearest pose can be
    T = np.stack([room.truth(i).T_world_cam[:3, 3] for i in range(8)])
    step_m = float(np.median(np.linalg.norm(np.diff(T, axis=0), axis=1)))
    [metric] = outputs[2]["metrics"]
    assert metric["n"] == 4
    assert 0.5 * step_m < metric["value"] < 1.6 * step_m
    assert outputs[3]["n_frames"] == 8


def test_the_page_is_one_page_and_the_pipeline_about_thirty_lines() -> None:
    code = block("python")
    pipeline = code[code.index("class Thumb") : code.index("class PosesCsv")]
    assert len([line for line in pipeline.splitlines() if line.strip()]) <= 35
    assert len(PAGE.read_text().splitlines()) < 150
