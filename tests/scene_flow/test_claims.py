# SPDX-License-Identifier: Apache-2.0
"""What small trainings on generated scenes must show (card, check 10). It takes forty minutes of one core."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_sctn_halves_zero_flow_and_beats_flot_of_the_same_budget(tmp_path: Path) -> None:
    """Held-out scenes, three seeds, the same pairs, steps, points and batch for both."""
    answer = tmp_path / "core.json"
    command = [sys.executable, "benchmarks/scene_flow_training.py", "--only", "core", "--steps", "400"]
    subprocess.run([*command, "--json", str(answer)], cwd=ROOT, check=True)
    measured = {
        name: [run["measured"] for run in runs] for name, runs in json.loads(answer.read_text())["core"].items()
    }
    assert [len(runs) for runs in measured.values()] == [3, 3]
    for sctn, flot in zip(measured["sctn"], measured["flot"], strict=True):
        assert sctn["epe"] < 0.5 * sctn["zero_epe"]
        assert sctn["epe"] < flot["epe"]
