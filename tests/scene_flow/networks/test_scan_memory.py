# SPDX-License-Identifier: Apache-2.0
"""Memory of a pair of scans, measured in a process of its own by the benchmark that the documentation quotes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


def measured(points: int, local: str) -> dict[str, Any]:
    """The benchmark's answer for one case on made scans."""
    words = ["--case", str(points), local, "--data", "nowhere", "--repeats", "1"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "scene_flow_scaling.py"), *words],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("points", "local", "most_mb"),
    [(400, "on", 1000), (8192, "off", 1500), (20_000, "auto", 2000), (20_000, "on", 2000), (90_000, "auto", 6000)],
)
def test_a_pair_of_scans_fits(points: int, local: str, most_mb: float) -> None:
    found = measured(points, local)
    assert found["points"] == points and found["scans"].startswith("made") and found["seconds"][0] > 0
    assert 50 < found["peak_mb"] < most_mb
