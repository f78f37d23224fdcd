# SPDX-License-Identifier: Apache-2.0
"""How long rendering and matching the landmarks of one query take on this machine (favor card, check 16).

python benchmarks/query_speed.py [--landmarks 1500] [--keypoints 2000] [--channels 128] [--threads 1] [--json FILE]

Landmarks stand on a wall four metres away, the camera moves from call to call; descriptors are random, with a key
point for every second landmark. `lookup` renders boxes of one density (what `fit.method=ridge` makes), `march` boxes
with a density of their own. The second pass searches 10 px around the projections only.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from relocalization.matching import guided_nn, mutual_nn
from vision3d.voxels.grids import VoxelGrids
from vision3d.voxels.marching import Marching

HALF_SIDE_M = 0.05
EXTENT_PX = (640, 480)


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows scaled to unit norm."""
    return torch.nn.functional.normalize(rows, dim=-1)


def measure(call: Callable[[int], object], repeats: int) -> dict[str, float]:
    """Median and 95th percentile of the wall time of ``call(k)``, milliseconds; the first calls do not count."""
    times = []
    for k in range(repeats + 3):
        start = time.perf_counter()
        call(k)
        times.append(1e3 * (time.perf_counter() - start))
    median, p95 = np.percentile(times[3:], [50, 95])
    return {"median_ms": round(float(median), 3), "p95_ms": round(float(p95), 3)}


def run(landmarks: int, keypoints: int, channels: int, repeats: int) -> dict[str, dict[str, float]]:
    """Stage -> median and 95th percentile, milliseconds."""
    generator = torch.Generator().manual_seed(0)
    wall = torch.rand(landmarks, 3, generator=generator, dtype=torch.float64)
    centers = wall * torch.tensor([6.0, 4.0, 0.5], dtype=torch.float64) + torch.tensor([-3.0, -2.0, 4.0])
    sizes = torch.full((landmarks,), HALF_SIDE_M, dtype=torch.float64)
    values = unit(torch.randn(landmarks, 3, 3, 3, channels, generator=generator)).half()
    density = torch.full((1, 3, 3, 3), 10.0)
    shared = VoxelGrids(centers, sizes, density, values)
    own = VoxelGrids(centers, sizes, density.repeat(landmarks, 1, 1, 1), values)
    cameras = 0.5 * torch.randn(repeats + 3, 3, generator=generator, dtype=torch.float64)
    marching = Marching()

    rendered = shared.render_from(cameras[0], marching=marching)
    known = min(landmarks, keypoints) // 2
    query = unit(torch.randn(keypoints, channels, generator=generator))
    query[:known] = unit(unit(rendered[:known]) + 0.05 * torch.randn(known, channels, generator=generator))
    rng = np.random.default_rng(0)
    uv_query = rng.uniform(0, EXTENT_PX, (keypoints, 2))
    uv_landmark = rng.uniform(0, EXTENT_PX, (landmarks, 2))
    uv_landmark[:known] = uv_query[:known] + rng.normal(0, 2, (known, 2))
    features = query.numpy()

    def whole(k: int) -> None:
        mutual_nn(shared.render_from(cameras[k], marching=marching), features, 0.7)

    return {
        "render, lookup": measure(lambda k: shared.render_from(cameras[k], marching=marching), repeats),
        "render, march": measure(lambda k: own.render_from(cameras[k], marching=marching), max(3, repeats // 5)),
        "match, everywhere": measure(lambda k: mutual_nn(rendered, features, 0.7), repeats),
        "match, within 10 px": measure(
            lambda k: guided_nn(rendered, uv_landmark, features, uv_query, 10.0, 0.7), repeats
        ),
        "render and match": measure(whole, repeats),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landmarks", type=int, default=1500, help="visible landmarks")
    parser.add_argument("--keypoints", type=int, default=2000, help="key points of the query")
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="more than idle cores make it many times slower")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    stages = run(options.landmarks, options.keypoints, options.channels, options.repeats)
    print(
        f"{options.landmarks} landmarks, {options.keypoints} key points, {options.channels} channels, "
        f"{options.threads} threads, {options.repeats} repeats; milliseconds"
    )
    print(f"{'':22s}{'median':>10s}{'p95':>10s}")
    for name, row in stages.items():
        print(f"{name:22s}{row['median_ms']:10.2f}{row['p95_ms']:10.2f}")
    if options.json:
        report = {k: getattr(options, k) for k in ("landmarks", "keypoints", "channels", "threads", "repeats")}
        partial = options.json.with_suffix(".partial")
        partial.write_text(json.dumps(report | {"stages": stages}, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, options.json)


if __name__ == "__main__":
    main()
