# SPDX-License-Identifier: Apache-2.0
"""How wrong a prior may be: share of queries that still end within 5 cm and 5 deg, by error of the prior.

python benchmarks/prior_basin.py [--frames 40] [--features sift] [--queries 10]

Map and queries come from the synthetic room, whose poses are exact. Every query starts from its true pose moved by a
fixed distance in a random direction and turned by a fixed angle about a random axis; nothing is retrieved.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relocalization.build import MapBuilder
from relocalization.config import FavorConfig, LocalizeConfig
from relocalization.evaluate import errors
from relocalization.features.base import make_extractor
from relocalization.features.config import FeatureConfig
from relocalization.landmark_map import LandmarkMap
from relocalization.localize import Localizer
from vision3d.contracts import DataConfig
from vision3d.geometry import se3
from vision3d.readers.synthetic import SPEC

OFFSETS_M = (0.0, 0.1, 0.3, 0.5, 1.0)
ANGLES_DEG = (0.0, 10.0, 20.0, 30.0, 40.0)


class Quiet:
    """A fit context without cache and output."""

    seed = 0

    def cached(self, key: str, make: Any) -> Any:
        """The arrays, made now."""
        return make()

    def progress(self, items: Any, total: int, label: str) -> Any:
        """The items."""
        return iter(items)

    def log(self, message: str) -> None:
        """Nothing."""


def unit(rng: np.random.Generator) -> np.ndarray:
    """A random direction (3,)."""
    v = rng.normal(size=3)
    return v / np.linalg.norm(v)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--features", default="sift")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    source = f"synthetic:room?frames={arguments.frames}&seed={arguments.seed}"
    config = FavorConfig(features=FeatureConfig(name=arguments.features))
    extractor = make_extractor(config.features)
    with tempfile.TemporaryDirectory() as folder:
        MapBuilder(config, extractor, Quiet()).build(SPEC.open(source, DataConfig(split="train"))).save(Path(folder))
        landmarks = LandmarkMap.load(Path(folder))
    test = SPEC.open(source, DataConfig(split="test"))
    rows = np.linspace(0, len(test) - 1, arguments.queries).round().astype(int)
    frames = [test[int(i)] for i in rows]
    features = [extractor(f.image) for f in frames]
    truths = [test.truth(int(i)).T_world_cam for i in rows]
    localizer = Localizer(landmarks, extractor, LocalizeConfig(prior="given"))
    print(f"Share within 5 cm and 5 deg, n = {len(rows)} queries per cell, {extractor.name}, seed {arguments.seed}.\n")
    print("| moved by | " + " | ".join(f"turned by {a:.0f} deg" for a in ANGLES_DEG) + " |")
    print("|---|" + "---:|" * len(ANGLES_DEG))
    for offset in OFFSETS_M:
        cells = []
        for angle in ANGLES_DEG:
            rng = np.random.default_rng([arguments.seed, int(offset * 100), int(angle)])
            found = []
            for frame, seen, truth in zip(frames, features, truths):
                prior = truth.copy()
                prior[:3, :3] = truth[:3, :3] @ se3.rotvec_to_rotation(np.radians(angle) * unit(rng))
                prior[:3, 3] += offset * unit(rng)
                found.append(localizer.localize(replace(frame, prior_T_world_cam=prior), seen).T_world_cam)
            e_t, e_R = errors(found, truths)
            cells.append(f"{np.mean((e_t < 0.05) & (e_R < 5)):.2f}")
        print(f"| {offset:.1f} m | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
