# SPDX-License-Identifier: Apache-2.0
"""Every scene flow method on the three real pairs, by the commands that a user would type; prints Markdown.

    python benchmarks/scene_flow.py [DATA]

DATA is the folder of ``kitti_scene_flow`` and ``av2_sensor_val`` (default: ``shared/data`` beside the checkout, or
VISION3D_TEST_DATA). FLOT's published weights are looked for in VISION3D_WEIGHTS; without them its rows are left out.
Three seeds where the seed matters; the spread is their standard deviation. Nothing was chosen on these pairs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAIRS = {
    "KITTI 000002": ("kitti_scene_flow", ["--select", "0:1"]),
    "KITTI 000003": ("kitti_scene_flow", ["--select", "1:2"]),
    "Argoverse 2": ("av2_sensor_val", []),
}
METHODS: dict[str, list[str]] = {
    "zero-flow": ["zero-flow"],
    "nearest": ["nearest"],
    "icp": ["icp"],
    "cluster-icp": ["cluster-icp"],
    "nsfp": ["nsfp"],
    "nsfp, fast": ["nsfp", "--nsfp.variant", "fast"],
    "flot, published, 2048 points": ["flot"],
    "flot, published, 8192 points": ["flot", "--network.points", "8192"],
    "sctn, small, ours": ["sctn"],
    "auto": ["auto"],
}
COLUMNS = ("epe3d", "acc3ds", "acc3dr", "outliers", "epe3d_static", "epe3d_dynamic")


def evaluate(words: list[str], data: Path, options: list[str], folder: str) -> dict[str, Any] | None:
    """The JSON document of one ``vision3d eval``; None where weights are missing."""
    command = [sys.executable, "-m", "vision3d", "eval", *words, str(data), *options]
    command += ["--no-baselines", "--pictures", "0", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode == 2 and "published weights" in done.stderr:
        return None
    if done.returncode:
        sys.exit(done.stderr)
    document: dict[str, Any] = json.loads(done.stdout)
    timing = json.loads((Path(folder) / document["run"] / "timing.json").read_text())
    document["seconds"] = timing["timing_ms"]["total"]["median"] / 1e3
    document["peak_mb"] = (timing.get("peak_mb") or {}).get("max")
    return document


def cell(metric: dict[str, Any] | None) -> str:
    """Value and, over several seeds, its spread."""
    if metric is None or metric["value"] is None:
        return "-" if metric is None else "inf"
    spread = metric.get("spread")
    return f"{metric['value']:.3f}" + (f" ± {spread:.3f}" if spread else "")


def table(name: str, data: Path, options: list[str]) -> list[str]:
    """One pair, a row per method."""
    head = ["method", "EPE3D m", "Acc3DS", "Acc3DR", "Outliers", "EPE static m", "EPE dynamic m", "s", "peak MB"]
    lines = [f"### {name}", "", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for label, words in METHODS.items():
        with tempfile.TemporaryDirectory() as folder:
            document = evaluate(words, data, options, folder)
        if document is None:
            continue
        found = {metric["name"]: metric for metric in document["metrics"]}
        cells = [label, *(cell(found.get(column)) for column in COLUMNS), f"{document['seconds']:.1f}"]
        peak = document["peak_mb"]
        lines.append(f"| {' | '.join([*cells, '-' if peak is None else f'{peak:.0f}'])} |")
        print(f"{name}: {label}", file=sys.stderr, flush=True)
    return [*lines, ""]


def main() -> None:
    """Print the tables."""
    default = os.environ.get("VISION3D_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    data = Path(sys.argv[1] if len(sys.argv) > 1 else default).resolve()
    if not data.is_dir():
        sys.exit(f"error: {data}: no such folder; name the folder of real data")
    for name, (folder, options) in PAIRS.items():
        print("\n".join(table(name, data / folder, options)), flush=True)


if __name__ == "__main__":
    main()
