# SPDX-License-Identifier: Apache-2.0
"""How long does it take to fit and to render descriptor fields?

    python benchmarks/voxel_rendering.py [--landmarks 1500] [--channels 128] [--threads 0] [--json FILE]

Rendering: one ray through every landmark from one camera, as a query does; median and 95th percentile of 30 runs,
beside a Python loop over landmarks on a sample of them. Fitting: closed form, milliseconds per landmark.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

# Threads that wait must sleep: spinning ones make small batched solves 30 times slower on a machine with other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from relocalization.fields import fit_fields
from relocalization.fit_config import FitConfig
from relocalization.synthetic_views import MEDIUM, SyntheticLandmarks, random_directions
from vision3d.voxels.grids import VoxelGrids


def milliseconds(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and 95th percentile of ``repeats`` runs after two to warm up."""
    run()
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times)), float(np.percentile(times, 95))


def random_grids(count: int, resolution: int, channels: int, dtype: torch.dtype) -> VoxelGrids:
    """Boxes 4 to 8 m in front of a camera at the origin, values of no meaning."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(count, 3, generator=generator, dtype=torch.float64) + torch.tensor([0.0, 0.0, 6.0])
    cube = (resolution, resolution, resolution)
    return VoxelGrids(
        centers,
        torch.full((count,), 0.05, dtype=torch.float64),
        torch.full((1, *cube), 10.0, dtype=dtype),
        torch.randn(count, *cube, channels, generator=generator).to(dtype),
    )


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landmarks", type=int, default=1500)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its default")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    count, channels = options.landmarks, options.channels
    report: dict[str, object] = {"landmarks": count, "channels": channels, "threads": torch.get_num_threads()}
    print(f"{count} landmarks, {channels} channels, {torch.get_num_threads()} threads")

    camera = torch.zeros(3, dtype=torch.float64)
    print(f"{'render':24s}{'median ms':>12s}{'p95 ms':>10s}{'kB / landmark':>16s}")
    for resolution in (1, 3, 5):
        for dtype, label in ((torch.float32, "float32"), (torch.float16, "float16")):
            grids = random_grids(count, resolution, channels, dtype)
            median, p95 = milliseconds(lambda g=grids: g.render_from(camera), 30)  # type: ignore[misc]
            size = grids.values[0].numel() * grids.values.element_size() / 1e3
            print(f"{f'R = {resolution}, {label}':24s}{median:12.1f}{p95:10.1f}{size:16.2f}")
            report[f"render_r{resolution}_{label}_ms"] = {"median": median, "p95": p95}
    grids, sample = random_grids(count, 3, channels, torch.float32), min(100, count)

    def one_by_one() -> None:
        for i in range(sample):
            grids.render_from(camera, torch.tensor([i]))

    loop = milliseconds(one_by_one, 3)[0] * count / sample
    print(f"{'R = 3, one by one':24s}{loop:12.1f}")
    report["render_one_by_one_ms"] = loop

    truth = SyntheticLandmarks.draw(count, channels, MEDIUM, 0)
    rays = truth.observe(random_directions(count, options.views, 1), 2, patch_radius=0)
    print(f"{f'fit, {options.views} views each':24s}{'ms / landmark':>16s}")
    configs = {"R = 1": FitConfig(resolution=1), "R = 3": FitConfig(), "R = 5": FitConfig(resolution=5)}
    for label, config in configs.items():
        each = milliseconds(lambda c=config: fit_fields(rays, truth.points, truth.half_sizes, c), 3)[0] / count  # type: ignore[misc]
        print(f"{f'ridge, {label}':24s}{each:16.2f}")
        report[f"fit_ridge_{label.replace(' ', '')}_ms_per_landmark"] = each
    if options.json:
        partial = options.json.with_suffix(".partial")
        partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, options.json)


if __name__ == "__main__":
    main()
