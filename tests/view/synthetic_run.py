# SPDX-License-Identifier: Apache-2.0
"""A run folder as the runner leaves it, with invented numbers: what the tests of the report look at."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from vision3d.geometry.se3 import from_rt, rotvec_to_rotation
from vision3d.types import Chart, Exhibit, Scene

N = 40
FAILED = (7, 23)


def name_of(i: int) -> str:
    """A frame name with every character that HTML gives a meaning."""
    return f"seq-01/frame-{i:06d}<b>&\"'.png" if i in FAILED else f"seq-01/frame-{i:06d}.color.png"


def write_run(folder: Path, n_pictures: int = N) -> Path:
    """Write config, metrics, timing, results, command, environment and pictures into ``folder``."""
    rng = np.random.default_rng(0)
    (folder / "viz").mkdir(parents=True)
    (folder / "config.yaml").write_text("schema: 1\npipeline:\n  type: favor\n  seed: 7\n")
    (folder / "command.txt").write_text("vision3d eval favor redkitchen --select 1::2 --baselines\n")
    _dump(folder / "environment.json", {"python": "3.11", "cpu_count": 2, "packages": {"numpy": "2.4"}})
    own = _metrics(rng, 0.4)
    _dump(
        folder / "metrics.json",
        {
            "schema": 1,
            "status": "done",
            "pipeline": "favor",
            "dataset": "7scenes-redkitchen",
            "n_frames": N,
            "n_failed": len(FAILED),
            "n_skipped": 1,
            "skipped": [{"name": "seq-01/frame-000099.color.png", "reason": "no truth is known"}],
            "truth": "pgt_sfm.txt",
            "seed": 3,
            "metrics": own,
            "baselines": {
                "median descriptor": {"metrics": _metrics(rng, 0.9)},
                "nearest view": {"metrics": [m | {"value": None} for m in _metrics(rng, 0.7)[:2]] + own[2:]},
            },
            "failures": [{"name": name_of(i), "status": "failed", "reason": "4 inliers < 12"} for i in FAILED],
            "per_sequence": {"seq-01": {"metrics": own}, "seq-02": {"metrics": own}},
        },
    )
    stages = {"features": 118.2, "retrieval": 4.1, "render": 9.7, "match": 31.5, "pose": 12.0, "total": 176.0}
    timing = {k: {"median": v, "p95": 1.4 * v, "n": N} for k, v in stages.items()}
    other = {"total": {"median": 91.25, "p95": 99.0, "n": N}}
    _dump(folder / "timing.json", {"schema": 1, "timing_ms": timing, "baselines": {"nearest view": {**other}}})
    spent = [{"name": name_of(i), "features": 100.0, "total": 160.0 + i} for i in range(N)]
    (folder / "timing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in spent))
    (folder / "results.jsonl").write_text("".join(json.dumps(_result(rng, i)) + "\n" for i in range(N)))
    noise = cv2.resize(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
    for i in range(n_pictures):
        image = cv2.putText(noise.copy(), f"{i}", (40, 400), cv2.FONT_HERSHEY_SIMPLEX, 9, (255, 255, 255), 24)
        cv2.imwrite(str(folder / "viz" / f"frame_{i:06d}.png"), image)
    return folder


def exhibit() -> Exhibit:
    """Two charts and a scene of a room with a walk through it."""
    rng = np.random.default_rng(1)
    t = np.geomspace(0.1, 100, 60)
    curves = {m: (t, 1 / (1 + (s / t) ** 3)) for m, s in (("favor", 0.5), ("median descriptor", 1.2), ("nearest", 0.8))}
    errors = rng.gamma(2.0, 0.2, N)
    errors[list(FAILED)] = np.inf
    walls = rng.uniform([-3, -1.3, -2], [3, 1.3, 2], (6000, 3))
    side = rng.integers(0, 2, len(walls))
    walls[side == 0, 2] = 2.0
    walls[side == 1, 0] = np.sign(walls[side == 1, 0]) * 3.0
    colors = np.clip(128 + 40 * walls, 0, 255).astype(np.uint8)
    angles = np.linspace(0, 1.5, N)
    true = np.array([from_rt(rotvec_to_rotation([0, 0.6 * a, 0]), [2 * np.sin(a) - 1, 0.1, a - 1.5]) for a in angles])
    estimated = true.copy()
    estimated[:, :3, 3] += rng.normal(0, 0.01, (N, 3))
    return Exhibit(
        charts=(
            Chart(
                "recall", "Queries localized within t cm and t deg", "t (cm and deg)", "share of queries", curves, True
            ),
            Chart("error", "Error along the run", "query", "translation (cm)", {"favor": (np.arange(N * 1.0), errors)}),
        ),
        scenes=(
            Scene(
                "map",
                "Map and queries",
                walls,
                colors,
                {"estimated": estimated, "true": true},
                np.array([0.0, -1.0, 0.0]),
            ),
        ),
        per_sample={name_of(i): {"translation_cm": float(e), "rotation_deg": 0.1} for i, e in enumerate(errors)},
    )


def _metrics(rng: np.random.Generator, scale: float) -> list[dict[str, object]]:
    recall = {"recall_5cm_5deg": 0.95, "recall_2cm_2deg": 0.9, "recall_1cm_1deg": 0.7 - 0.3 * scale}
    rows = [("median_translation_cm", scale, "cm", "lower"), ("median_rotation_deg", scale / 3, "deg", "lower")]
    rows += [(k, v, "", "higher") for k, v in recall.items()] + [("n_localized", float(N - len(FAILED)), "", "higher")]
    return [{"name": k, "value": v, "unit": u, "better": b, "n": N} for k, v, u, b in rows]


def _result(rng: np.random.Generator, i: int) -> dict[str, object]:
    ok = i not in FAILED
    pose = from_rt(np.eye(3), rng.normal(0, 1, 3)).tolist()
    return {
        "name": name_of(i),
        "status": "ok" if ok else "failed",
        "reason": "" if ok else "4 inliers < 12",
        "n_inliers": int(rng.integers(60, 400)) if ok else 4,
        "n_matches": 402,
        "T_world_cam": pose if ok else None,
        "covariance": None,
        "stamp_ns": 1_700_000_000_000_000_000 + i,
        "camera": None,
        "extra": {"prior_rank": i % 3, "inliers_per_iteration": [10, 20, 30]},
    }


def _dump(path: Path, document: object) -> None:
    path.write_text(json.dumps(document))
