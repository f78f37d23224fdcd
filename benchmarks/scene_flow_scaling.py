# SPDX-License-Identifier: Apache-2.0
"""What a pair of scans costs SCTN (full size, fresh weights) by the number of points: seconds and peak memory.

python benchmarks/scene_flow_scaling.py [--data FOLDER] [--sizes 10000 20000 40000 80000] [--repeats 2] [--out FILE]

Scans are the Argoverse 2 pair of the real data (``shared/data`` beside the checkout, or VISION3D_TEST_DATA), else
made: 64 beams in a street of boxes. Points are drawn from them, ground included. Every case is a process of its own;
its peak is what the system says that the whole process held at most, torch and the data included. Then the two claims:
8192 points compared densely, and 90,000 by candidates. Seconds are those on the wall, the best of the repeats; seconds
of the processors stand beside, as other work on the machine changes them less.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Cloud = NDArray[np.float32]
ROOT = Path(__file__).resolve().parents[1]
# name -> (points, local mode, seconds at most, megabytes at most)
CLAIMS = {"dense": (8192, "off", 6.0, 3000.0), "lidar": (90_000, "auto", 60.0, 6000.0)}
WARM_UP = 2000


def scans(data: Path, points: int, seed: int = 0) -> tuple[str, Cloud, Cloud]:
    """Where the scans are from, and (points, 3) of each, camera axes; every point occurs once."""
    files = sorted(data.glob("av2_sensor_val/val/*/sensors/lidar/*.feather"))
    if len(files) >= 2:
        import pyarrow.feather

        tables = [pyarrow.feather.read_table(file) for file in files[:2]]
        pair = [np.stack([table[axis].to_numpy() for axis in "yzx"], 1).astype(np.float32) for table in tables]
        name = "Argoverse 2, one pair of sweeps"
    else:
        name, pair = "made, 64 beams in a street of boxes", [street_scan(offset_m) for offset_m in (0.0, 1.0)]
    rng = np.random.default_rng(seed)
    first, second = (cloud[np.sort(rng.choice(len(cloud), points, replace=False))] for cloud in pair)
    return name, first, second


def street_scan(offset_m: float, beams: int = 64, turns: int = 1800) -> Cloud:
    """(n, 3) camera axes: what a turning LiDAR sees of 60 boxes and a road, from ``offset_m`` down the road."""
    rng = np.random.default_rng(0)
    half = rng.uniform([0.8, 0.8, 0.8], [6, 3, 10], (60, 3))
    centre = rng.uniform([-40, -1.5, -80], [40, 1, 80], (60, 3))
    centre[:, 0] += np.sign(centre[:, 0]) * 8  # the road is free
    centre[:, 2] -= offset_m
    elevation, azimuth = np.meshgrid(np.radians(np.linspace(-25, 10, beams)), np.linspace(0, 2 * np.pi, turns, False))
    ray = np.stack(
        [np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)], -1
    ).reshape(-1, 3)
    ray += rng.normal(scale=1e-4, size=ray.shape)
    road = np.where(ray[:, 1] < -1e-3, -1.7 / np.minimum(ray[:, 1], -1e-3), np.inf)
    nearest = np.where(road < 120, road, np.inf)
    for low, high in zip(centre - half, centre + half):
        ends = np.stack([low / ray, high / ray])
        enter, leave = ends.min(0).max(1), ends.max(0).min(1)
        nearest = np.where((enter > 0) & (enter < leave) & (enter < nearest), enter, nearest)
    seen = np.isfinite(nearest)
    return (ray[seen] * nearest[seen, None] + rng.normal(scale=0.01, size=(int(seen.sum()), 3))).astype(np.float32)


def measure(points: int, local: str, data: Path, repeats: int) -> dict[str, Any]:
    """One case, in this process."""
    import torch

    from scene_flow.networks.config import NetworkConfig
    from scene_flow.networks.sctn import Sctn

    torch.manual_seed(0)
    net = Sctn(NetworkConfig(local=local)).eval()  # type: ignore[arg-type]
    name, *pair = scans(data, points)
    source, target = (torch.from_numpy(cloud)[None] for cloud in pair)
    seconds, processor = [], []
    with torch.no_grad():
        net(source[:, :: max(1, points // WARM_UP)], target[:, :: max(1, points // WARM_UP)])
        for _ in range(repeats):
            began, worked = time.perf_counter(), time.process_time()
            flow = net(source, target).flow
            seconds.append(time.perf_counter() - began)
            processor.append(time.process_time() - worked)
    assert bool(flow.isfinite().all())
    return {
        "points": points,
        "local": local,
        "scans": name,
        "seconds": seconds,
        "processor_s": processor,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def in_a_process(points: int, local: str, data: Path, repeats: int) -> dict[str, Any]:
    """One case, in a process of its own, so that its peak is its own."""
    words = ["--case", str(points), local, "--data", str(data), "--repeats", str(repeats)]
    done = subprocess.run(
        [sys.executable, __file__, *words],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"},
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    print(f"  {points} points, local {local}: {best(answer):.1f} s, {answer['peak_mb']:.0f} MB", file=sys.stderr)
    return answer


def best(case: dict[str, Any]) -> float:
    """The fastest of the repeats, seconds: other work on the machine only adds."""
    return float(min(case["seconds"]))


def table(cases: list[dict[str, Any]]) -> str:
    """Markdown: time and memory by size, and how the processors' time grows beside N log N."""
    lines = [
        "| points per cloud | s per pair | processor s | us per point | processor s grow | N log N grows | peak MB |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for before, case in zip([None, *cases], cases):
        n, growth, wanted = case["points"], "", ""
        if before is not None:
            m = before["points"]
            growth = f"{min(case['processor_s']) / min(before['processor_s']):.2f}"
            wanted = f"{n * math.log(n) / (m * math.log(m)):.2f}"
        per_point = 1e6 * min(case["processor_s"]) / n
        cells = [f"{n}", f"{best(case):.2f}", f"{min(case['processor_s']):.1f}", f"{per_point:.0f}", growth, wanted]
        lines.append(f"| {' | '.join(cells)} | {case['peak_mb']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure everything, print the tables, write the JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("VISION3D_TEST_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 20_000, 40_000, 80_000])
    parser.add_argument("--claims", nargs="*", default=list(CLAIMS), choices=list(CLAIMS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "scene_flow_scaling.json")
    parser.add_argument("--case", nargs=2, metavar=("POINTS", "LOCAL"), help="one case, in this process, as JSON")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(int(args.case[0]), args.case[1], args.data, args.repeats)))
        return
    cases = [in_a_process(points, "on", args.data, args.repeats) for points in args.sizes]
    claims = {}
    for name in args.claims:
        points, local, most_s, most_mb = CLAIMS[name]
        case = in_a_process(points, local, args.data, args.repeats)
        met = best(case) <= most_s and case["peak_mb"] <= most_mb
        claims[name] = {**case, "most_s": most_s, "most_mb": most_mb, "met": met}
    first = [*cases, *claims.values()][0]
    head = f"{first['scans']}; {platform.processor() or platform.machine()}, {first['threads']} threads"
    print(f"SCTN, full size, compared by candidates. {head}, torch {first['torch']}. Best of {args.repeats}.\n")
    print(table(cases))
    for name, case in claims.items():
        seconds = f"{best(case):.1f} s (at most {case['most_s']:g}; {min(case['processor_s']):.1f} s of the processors)"
        memory = f"{case['peak_mb']:.0f} MB (at most {case['most_mb']:g})"
        print(f"\n{name}: 2 x {case['points']} points in {seconds}, {memory}: {'met' if case['met'] else 'NOT met'}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"local": cases, "claims": claims}, indent=2) + "\n")
    print(f"written: {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
