# SPDX-License-Identifier: Apache-2.0
"""Measures the sparse engine with ``vision3d bench sparse`` and writes the figures of docs/sparse.md.

python benchmarks/sparse_engine.py [--data FOLDER] [--turns N] [--json FILE]

FOLDER holds the real clouds (default: ``shared/data/lidar_frames`` beside the checkout, or under VISION3D_TEST_DATA);
without it only the clouds that the benchmark makes are measured. --json uses what an earlier run wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "bench"
PAGE = ROOT / "docs" / "sparse.md"
MARK = "<!-- figures -->"
CLOUDS = {
    "mmdet3d/scannet/scene0000_00.bin": 0.02,
    "kitti_object/training/velodyne/000000.bin": 0.05,
    "mmdet3d/nuscenes/n015-2018-07-24-11-22-45+0800__LIDAR_TOP__1532402927647951.pcd.bin": 0.05,
    "spconv/benchmark-pc.npz": 0.1,
}
NAMES = {
    "scene0000_00": "ScanNet scene",
    "000000": "KITTI sweep",
    "n015-2018-07-24-11-22-45": "nuScenes sweep",
    "benchmark-pc": "spconv's cloud",
    "lidar": "LiDAR, made",
    "room": "room, made",
    "ball": "filled ball",
}


def measure(data: Path, turns: int) -> Path:
    """Run the command; returns the file it wrote."""
    words = ["bench", "sparse", "--turns", str(turns), "--out", str(OUT)]
    for name, voxel_m in CLOUDS.items():
        if (data / name).exists():
            words += ["--cloud", f"{data / name}:{voxel_m}"]
    subprocess.run([sys.executable, "-m", "vision3d", *words], check=True, cwd=ROOT)
    return OUT / "sparse.json"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def targets(document: dict[str, Any]) -> list[str]:
    """What was to be reached, and what was."""
    rows = []
    for t in document["targets"]:
        measured = "not measured" if t["measured"] is None else f"{t['measured']:.2f}"
        sign = "&ge;" if t["more_is_better"] else "&le;"
        verdict = {True: "yes", False: "**no**", None: "-"}[t["met"]]
        aim = "-" if t["aim"] is None else f"{t['aim']:g}"
        rows.append([f"{t['name']} [{t['unit']}]", measured, f"{sign} {t['must']:.4g}", aim, verdict])
    return table(["quantity", "measured", "must", "aim", "met"], rows)


def side_by_side(rows: list[dict[str, Any]], threads: int) -> list[str]:
    """Submanifold layers, all engines."""
    found = [r for r in rows if r["question"] == "subm3" and r["threads"] == threads]
    engines = list(dict.fromkeys(r["engine"] for r in found))
    lines: dict[tuple[str, int, str], dict[str, str]] = {}
    for r in found:
        key = (NAMES.get(r["cloud"], r["cloud"]), r["channels"], r["action"])
        lines.setdefault(key, {})[r["engine"]] = f"{r['median_ms']:.2f} ms, {100 * r['share']:.0f} %"
    body = [[f"{c}, C = {n}, {a}", *(cells.get(e, "-") for e in engines)] for (c, n, a), cells in lines.items()]
    return table(["cloud, channels, action", *engines], body)


def maps(rows: list[dict[str, Any]]) -> list[str]:
    """Kernel maps, all engines."""
    found = [r for r in rows if r["question"] == "map"]
    engines = list(dict.fromkeys(r["engine"] for r in found))
    lines: dict[tuple[str, str, int], dict[str, str]] = {}
    for r in found:
        key = (NAMES.get(r["cloud"], r["cloud"]), r["action"], r["threads"])
        lines.setdefault(key, {})[r["engine"]] = f"{r['ns_per_voxel']:.0f}"
    body = [[f"{c}, {o}, {t} thread(s)", *(cells.get(e, "-") for e in engines)] for (c, o, t), cells in lines.items()]
    return table(["cloud, rows, threads", *engines], body)


def others(rows: list[dict[str, Any]]) -> list[str]:
    """Everything else that was timed."""
    body = []
    for r in rows:
        if r["question"] in ("subm3", "map") or r.get("median_ms") is None:
            continue
        what = f"{r['question']}, {r['cloud']}, {r['engine']}, {r['action']}, {r['threads']} thread(s)"
        if r["channels"]:
            what += f", C = {r['channels']}"
        if r.get("voxels"):
            what += f", {r['voxels']} voxels"
        share = "-" if r.get("share") is None else f"{100 * r['share']:.0f} %"
        extra = [f"{100 * r[k]:.0f} % {n}" for k, n in EXTRAS.items() if r.get(k) is not None]
        body.append([what, f"{r['median_ms']:.2f}", share, "; ".join(extra) or "-"])
    return table(["what", "median ms", "share", "also"], body)


EXTRAS = {
    "compulsory_share": "of the copy rate, counting each byte once",
    "outside_convolutions": "outside convolutions",
}


def limit_rates(rows: list[dict[str, Any]]) -> str:
    """How unsteady the limit was in the room, and our shares of its fastest median; from times and shares alone."""
    found = [r for r in rows if r["question"] == "subm3" and r["cloud"] == "room" and r["threads"] == 1]
    # Flops, up to a factor that is the cloud's: channels squared, three products in a step.
    speeds = [(r, r["channels"] ** 2 * (3 if r["action"] == "step" else 1) / r["median_ms"]) for r in found]
    limits = [speed / r["share"] for r, speed in speeds]
    ours = [(r, speed) for r, speed in speeds if r["engine"] == "vision3d"]
    fastest = max(limits)
    shares = {
        action: " / ".join(f"{100 * speed / fastest:.0f}" for r, speed in ours if r["action"] == action)
        for action in ("forward", "step")
    }
    channels = " / ".join(str(r["channels"]) for r, _ in ours if r["action"] == "forward")
    return (
        f"Its medians beside the room's one-thread cases differ by up to {100 * (fastest / min(limits) - 1):.0f} %. "
        f"Against the fastest of them our layers reach {shares['forward']} % forward and {shares['step']} % in a "
        f"training step at {channels} channels: the cautious reading of the table."
    )


def page(document: dict[str, Any]) -> list[str]:
    """The section of the page."""
    machine = document["machine"]
    skipped = [f"{name} ({why})" for name, why in document["peers"].items() if why != "measured"]
    rows = document["rows"]
    return [
        "## Figures",
        "",
        f"Written by `python benchmarks/sparse_engine.py`, which runs `vision3d bench sparse`: {machine['processor']}, "
        f"{machine['cpu_count']} processors, {machine['isa']} kernels, torch {machine['versions']['torch']}, float32, "
        f"through the public layers (module call, validation, autograd). The limit is {document['limit']}. "
        f"Clock: {document['clock']}; n = {document['turns']} turns; seed {document['seed']}.",
        "",
        f"Not measured: {'; '.join(skipped) or 'none'}. spconv is its CPU wheel; its forward pass races with more than "
        "one thread, so it is timed with one only, and its backward pass needs a stub for the CUDA stream it asks "
        "for.",
        "",
        "A single run of the limit takes some 20 ms and is unsteady on a shared machine. "
        f"{limit_rates(rows)} More than 100 % says that a layer runs at about the limit's rate, not that it is faster.",
        "",
        "![Forward](images/sparse_forward.png) ![Training step](images/sparse_step.png)",
        "",
        *targets(document),
        "### Submanifold 3x3x3, one thread",
        "",
        *side_by_side(rows, 1),
        "### Submanifold 3x3x3, two threads",
        "",
        *side_by_side(rows, 2),
        "### Kernel maps, nanoseconds per voxel",
        "",
        *maps(rows),
        "### Other layers",
        "",
        "`share` is per cent of torch.mm; for depthwise layers, of what `Tensor.copy_` moves in the same run, counting "
        "every pair's input row and every output row, which caches can serve; the target counts each byte once.",
        "",
        *others(rows),
    ]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("VISION3D_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default) / "lidar_frames")
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    path = options.json or measure(options.data, options.turns)
    document = json.loads(path.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    PAGE.write_text(text + MARK + "\n\n" + "\n".join(page(document)).rstrip() + "\n", encoding="utf-8")
    for action in ("forward", "step"):
        shutil.copyfile(path.with_name(f"sparse_{action}.png"), ROOT / "docs" / "images" / f"sparse_{action}.png")


if __name__ == "__main__":
    main()
