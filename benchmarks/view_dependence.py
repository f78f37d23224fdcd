# SPDX-License-Identifier: Apache-2.0
"""How well do descriptor fields render a view that was held out? Synthetic landmarks with known view dependence.

    python benchmarks/view_dependence.py [--landmarks 8] [--seeds 4] [--paper] [--json FILE]

Two tables of mean cosine to the true descriptor: by angle to the middle of 12 training views (within 30 x 15 degrees),
with the angle beyond which the nearest training view is the better answer; and by number of training views.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

# Threads that wait must sleep: spinning ones make small batched solves 30 times slower on a machine with other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from relocalization.fields import fit_fields
from relocalization.fit_config import FitConfig
from relocalization.synthetic_views import (
    MEDIUM,
    NONE,
    STRONG,
    SyntheticLandmarks,
    directions_of,
    median_and_nearest,
    random_directions,
)

STRENGTHS = {"none": NONE, "medium": MEDIUM, "strong": STRONG}
ANGLES_DEG = np.arange(0.0, 76.0, 5.0)
METHODS = {
    "ridge": FitConfig(axes="world"),
    "polish": FitConfig(method="polish", steps=800),
    "ridge, facing": FitConfig(axes="view"),
    "ridge, sigma 0": FitConfig(density=0.0),
}


def held_out_cosine(
    strength: float,
    seed: int,
    methods: Mapping[str, FitConfig],
    queries: np.ndarray,
    views: int = 12,
    landmarks: int = 8,
    channels: int = 32,
    patch_radius: int = 1,
) -> dict[str, np.ndarray]:
    """Method -> mean cosine (Q,) to the truth from query directions (Q, 3); ``median`` and ``nearest`` among them."""
    truth = SyntheticLandmarks.draw(landmarks, channels, strength, seed)
    seen_from = random_directions(landmarks, views, seed + 1000)
    rays = truth.observe(seen_from, seed + 2000, patch_radius=patch_radius)
    asked = np.broadcast_to(queries, (landmarks, *queries.shape))
    target = truth.descriptors(asked)
    central = rays.descriptors.reshape(landmarks, views, -1, channels)[:, :, 0].astype(np.float64)
    median, nearest = median_and_nearest(seen_from, central, asked)
    answers = {"median": median, "nearest": nearest}
    cameras = truth.cameras(asked)
    for name, config in methods.items():
        grids = fit_fields(rays, truth.points, truth.half_sizes, config, seed).grids
        rendered = [
            grids.render_from(cameras[i, q], torch.tensor([i]), config.marching)[0]
            for i in range(landmarks)
            for q in range(len(queries))
        ]
        answers[name] = torch.stack(rendered).reshape(target.shape).numpy()
    return {name: np.mean(_cosine(a, target), axis=0) for name, a in answers.items()}


def crossover_deg(field: np.ndarray, nearest: np.ndarray) -> float:
    """First angle of ANGLES_DEG from which on the nearest view is better; infinite if it never is."""
    worse = field < nearest
    return float(next((a for i, a in enumerate(ANGLES_DEG) if worse[i:].all()), np.inf))


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, -1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landmarks", type=int, default=8, help="per seed")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--paper", action="store_true", help="the paper's 2000 steps too: slow")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    methods = METHODS | ({"paper": FitConfig(method="paper")} if options.paper else {})
    start = time.perf_counter()
    report: dict[str, object] = {"landmarks": options.landmarks, "seeds": options.seeds}

    print(f"mean cosine to the true descriptor, {options.seeds} seeds x {options.landmarks} landmarks, R = 3, C = 32")
    print("12 views within 30 x 15 degrees, 9 rays per view, noise 0.02; columns: degrees off the middle of the views")
    shown = [0, 25, 40, 55]
    columns = [int(np.flatnonzero(a == ANGLES_DEG)[0]) for a in shown]
    print(f"{'truth':8s}{'method':18s}" + "".join(f"{a:>8d}" for a in shown) + "   nearest view better from")
    queries = directions_of(ANGLES_DEG, np.zeros_like(ANGLES_DEG))
    by_angle: dict[str, dict[str, list[float]]] = {}
    for label, strength in STRENGTHS.items():
        runs = [
            held_out_cosine(strength, s, methods, queries, landmarks=options.landmarks) for s in range(options.seeds)
        ]
        mean = {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}
        by_angle[label] = {name: m.tolist() for name, m in mean.items()}
        for name, m in mean.items():
            cross = "" if name in ("median", "nearest") else f"{crossover_deg(m, mean['nearest']):>10.0f} deg"
            print(f"{label:8s}{name:18s}" + "".join(f"{m[c]:8.3f}" for c in columns) + cross)
    report["angles_deg"], report["by_angle"] = ANGLES_DEG.tolist(), by_angle

    print("\nfew views (medium, one ray per view): mean cosine at 0 and 25 degrees")
    counts = (2, 3, 4, 6, 8, 12)
    quick = {name: config for name, config in methods.items() if config.method == "ridge"}
    print(f"{'method':18s}" + "".join(f"{f'{n} views':>16s}" for n in counts))
    pair = directions_of(np.array([0.0, 25.0]), np.zeros(2))
    few = {
        n: [held_out_cosine(MEDIUM, s, quick, pair, n, options.landmarks, patch_radius=0) for s in range(options.seeds)]
        for n in counts
    }
    by_views = {name: [np.mean([run[name] for run in few[n]], axis=0).tolist() for n in counts] for name in few[2][0]}
    for name, rows in by_views.items():
        print(f"{name:18s}" + "".join(f"{a:8.3f}{b:8.3f}" for a, b in rows))
    report["views"], report["by_views"] = counts, by_views
    print(f"\n{time.perf_counter() - start:.0f} s")
    if options.json:
        partial = options.json.with_suffix(".partial")
        partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, options.json)


if __name__ == "__main__":
    main()
