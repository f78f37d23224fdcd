# SPDX-License-Identifier: Apache-2.0
"""Points to boxes on real DOTA images: what a labeller makes of the very images it learned from, by class.

    python benchmarks/oriented_dota.py DATA [--steps 1000] [--seed-steps 60] [--out FOLDER]

``layout`` is trained on crops of 256 px, ``seed`` (PointOBB as published) on crops of 1024 px as its authors do, so
that its bags have their published sizes. The true boxes are used for nothing but this table. The published method gets
few steps here, since each takes long without a GPU: its row shows the floor of its sizes, not its accuracy.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from oriented_boxes import Commands

from vision3d.contracts import DataConfig
from vision3d.readers.dota import SPEC
from vision3d.run.arrays import read_arrays

ROOT = Path(__file__).resolve().parents[1]


def sizes(run: Path, data: str) -> dict[str, dict[str, float]]:
    """Class -> number, and 5 % and median of sqrt(w h) in pixels of true boxes and of the run's."""
    reader = SPEC.open(data, DataConfig())
    true: dict[str, list[float]] = {}
    made: dict[str, list[float]] = {}
    for index in range(len(reader)):
        truth = reader.truth(index)
        assert truth is not None
        found = read_arrays(run / "arrays" / f"{index:06d}.npz")["boxes"]
        for boxes, table in ((truth.boxes, true), (found, made)):
            for side, label in zip(np.sqrt(boxes[:, 2] * boxes[:, 3]), truth.labels):
                table.setdefault(truth.classes[label], []).append(float(side))
    return {
        name: {
            "n": len(values),
            "true_5": float(np.percentile(values, 5)),
            "true_50": float(np.median(values)),
            "made_5": float(np.percentile(made[name], 5)),
            "made_50": float(np.median(made[name])),
        }
        for name, values in true.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of DOTA images with labelTxt")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed-steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "oriented_dota")
    options = parser.parse_args()
    vision3d, data = Commands(options.out.resolve()), str(options.data.resolve())
    quick = ["--threads", str(options.threads)]
    of_seed = ["--labeller.method", "seed", "--labeller.train.crop", "1024", "--labeller.train.batch", "1"]
    of_seed += ["--labeller.train.lr", "5e-4", "--labeller.train.checkpoint-every", "10"]
    methods = {
        "watershed": None,
        "seed": [*of_seed, "--labeller.train.steps", str(options.seed_steps)],
        "layout": ["--labeller.train.steps", str(options.steps)],
    }
    document: dict[str, Any] = {"options": {k: str(v) for k, v in vars(options).items()}, "rows": {}}
    print("| method | class | n | IoU | sqrt(wh) px, 5 % and median: true | made |\n|---|---|---|---|---|---|")
    for method, words in methods.items():
        model = ["--labeller.method", method]
        if words is not None:
            vision3d("fit", "pseudo-boxes", data, "--out", f"models/{method}", "--overwrite", *quick, *words)
            model = ["--model", f"models/{method}"]
        answer = vision3d("eval", "pseudo-boxes", data, *model, *quick)
        found = {metric["name"]: metric["value"] for metric in answer["metrics"]}
        table = sizes(vision3d.out / answer["run"], data)
        for name, row in table.items():
            row["mean_iou"] = found[f"mean_iou/{name}"]
            print(
                f"| {method} | {name} | {row['n']} | {row['mean_iou']:.2f} | {row['true_5']:.0f}, {row['true_50']:.0f} "
                f"| {row['made_5']:.0f}, {row['made_50']:.0f} |"
            )
        print(f"| {method} | all | {answer['n_frames']} images | {found['mean_iou']:.2f} | | |", flush=True)
        document["rows"][method] = {"all": found, "classes": table, "run": answer["run"]}
    (options.out / "oriented_dota.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
