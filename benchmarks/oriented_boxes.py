# SPDX-License-Identifier: Apache-2.0
"""From points to a detector on generated aerial scenes: the published method, ours, and no training, over seeds.

    python benchmarks/oriented_boxes.py [--seeds 3] [--methods untrained seed layout ...] [--jobs 2] [--out FOLDER]

For each seed: a labeller learns from the points of the training scenes, its boxes for the points of held-out scenes
are measured (mean IoU), its boxes for the training scenes teach a detector, and that is measured on the held-out
scenes, which it sees without points (AP50). Every step is a command that a user would type; its answer is kept below
--out, so an interrupted run goes on. ``untrained`` is the network of ``seed`` with random weights, ``watershed`` uses
no network for labelling; the detector is trained in the same way for all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("untrained", "watershed", "seed", "bags", "layout", "class-map")
# The small ones are reported apart: the size floor of the published bags lies above them.
SMALL = "small-vehicle"
# What the methods' own notes recommend for short trainings; nothing was chosen on the held-out scenes.
OPTIONS = {
    "seed": ["--labeller.train.lr", "5e-4", "--labeller.train.drops", "0.85"],
    "bags": ["--labeller.train.lr", "5e-4", "--labeller.train.drops", "0.85"],
}


class Commands:
    """``vision3d`` as a user types it, with its answers remembered."""

    def __init__(self, out: Path) -> None:
        self.out = out
        (out / "answers").mkdir(parents=True, exist_ok=True)

    def __call__(self, *words: str) -> dict[str, Any]:
        """The JSON document of ``vision3d WORDS --json``, with ``wall_s``."""
        key = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
        memory = self.out / "answers" / f"{key}.json"
        if memory.exists():
            answer: dict[str, Any] = json.loads(memory.read_text())
            return answer
        print("$ vision3d", *words, file=sys.stderr, flush=True)
        started_s = time.perf_counter()
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(
            [sys.executable, "-m", "vision3d", *words, "--json"],
            cwd=self.out,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"vision3d {' '.join(words)} failed:\n{done.stderr[-2000:]}")
        answer = {**json.loads(done.stdout), "wall_s": round(time.perf_counter() - started_s, 1)}
        memory.write_text(json.dumps(answer))
        return answer


def one(vision3d: Commands, method: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """One method with one seed: seconds, and what was measured."""
    data = f"{options.data}{'&' if '?' in options.data else '?'}scenes={options.scenes}&seed={seed}"
    held_out = f"{options.data}{'&' if '?' in options.data else '?'}scenes={options.held_out}&seed={seed}"
    common = ["--seed", str(seed), "--threads", str(options.threads)]
    steps = {"untrained": 0, "watershed": 0}.get(method, options.label_steps)
    labeller = ["--labeller.method", "seed" if method == "untrained" else method]
    labeller += ["--labeller.train.steps", str(steps), *OPTIONS.get(method, [])]
    about = [data, held_out, options.label_steps, options.detector_steps, options.threads]
    name = f"{method}-{seed}-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:6]}"
    labels, detector = f"models/labels-{name}", f"models/detector-{name}"
    quiet = ["--pictures", "0", "--threads", str(options.threads)]
    fitted = vision3d("fit", "pseudo-boxes", data, "--split", "train", "--out", labels, *common, *labeller)
    boxes = vision3d("eval", "pseudo-boxes", held_out, "--split", "test", "--model", labels, *quiet)
    chain = [*labeller, "--labeller-model", labels, "--detector.train.steps", str(options.detector_steps)]
    taught = vision3d("fit", "pointobb", data, "--split", "train", "--out", detector, *common, *chain)
    found = vision3d("eval", "pointobb", held_out, "--split", "test", "--model", detector, *quiet)
    values = {f"labels/{m['name']}": m["value"] for m in boxes["metrics"]}
    values |= {f"detector/{m['name']}": m["value"] for m in found["metrics"]}
    values |= {"label_s": fitted["wall_s"], "detector_s": taught["wall_s"], "n_images": found["n_frames"]}
    values["n_objects"] = next(m["n"] for m in found["metrics"] if m["name"] == "mean_iou")
    return values


def spread(values: list[float], digits: int = 2) -> str:
    """``mean +- standard deviation`` over the seeds."""
    mean = statistics.mean(values)
    return f"{mean:.{digits}f} +- {statistics.stdev(values) if len(values) > 1 else 0.0:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["untrained", "seed", "layout"], choices=METHODS)
    parser.add_argument("--data", default="aerial:mixed", help="generated scenes, without their number and seed")
    parser.add_argument("--scenes", type=int, default=96, help="training scenes")
    parser.add_argument("--held-out", type=int, default=48, help="scenes that nothing was trained on")
    parser.add_argument("--label-steps", type=int, default=600)
    parser.add_argument("--detector-steps", type=int, default=1200)
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "oriented_boxes")
    options = parser.parse_args()
    options.out = options.out.resolve()
    vision3d = Commands(options.out)
    began_s = time.perf_counter()
    jobs = [(method, seed) for seed in range(options.seeds) for method in options.methods]
    with ThreadPoolExecutor(options.jobs) as pool:
        found = list(pool.map(lambda job: one(vision3d, *job, options), jobs))
    table: dict[str, list[dict[str, float]]] = {method: [] for method in options.methods}
    for (method, _), values in zip(jobs, found):
        table[method].append(values)
    columns = [
        ("mean IoU of labels", "labels/mean_iou"),
        ("of small ones", f"labels/mean_iou/{SMALL}"),
        ("AP50 of detector", "detector/ap50"),
        ("of small ones", f"detector/ap50/{SMALL}"),
        ("AP50:95", "detector/ap50_95"),
    ]
    first = found[0]
    print(
        f"{options.data}, {options.seeds} seeds, {first['n_images']} held-out scenes with {first['n_objects']} objects"
    )
    print("| method | " + " | ".join(title for title, _ in columns) + " | labeller s | detector s |")
    print("|---" * (len(columns) + 3) + "|")
    for method, rows in table.items():
        cells = [spread([row[key] for row in rows]) if key in rows[0] else "-" for _, key in columns]
        seconds = [f"{statistics.mean(row[key] for row in rows):.0f}" for key in ("label_s", "detector_s")]
        print(f"| {method} | " + " | ".join([*cells, *seconds]) + " |")
    wall_s = time.perf_counter() - began_s
    document = {"options": {k: str(v) for k, v in vars(options).items()}, "rows": table, "wall_s": round(wall_s, 1)}
    (options.out / "oriented_boxes.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
