# SPDX-License-Identifier: Apache-2.0
"""Large images in windows: are all objects found once, how long does it take, and how much memory beside the image?

    python benchmarks/tiling.py [--sides 4000 8000 16000] [--objects 2000] [--out FILE]

The detector knows the true boxes and answers each window with those that it holds by 0.7 or more, so that all time and
memory are those of cutting, turning back and merging. Objects stand in dense rows, at 4000 x 4000 pixels 1 to 3 px
apart, and none is longer than the overlap. Every case is a process of its own; its peak is what the system says that
the whole process held at most. Last, tiles are written as files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 180.0  # pixels: an object longer than the overlap may be whole in no window
MOST_MB = 2000.0  # the claim, for 4000 x 4000 pixels
CLAIMED = 4000
VIEWS = ("plain", "flip-x", "turn-90")
CASES = {"plain": {}, "views": {"views": VIEWS}, "rates": {"rates": (0.5, 1.0, 1.5)}, "margin": {"margin": 60}}


def rows(side: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(N, 5) le90 boxes in dense rows over a square image, (N,) classes of 15."""
    from vision3d.geometry import rotated

    rng = np.random.default_rng(0)
    columns = round(np.sqrt(count))
    cell = np.array([side / columns, side / -(-count // columns)])
    at = np.stack([np.arange(count) % columns, np.arange(count) // columns], 1)
    sides = np.minimum(cell - rng.uniform(1, 3, (count, 1)), LONGEST)
    upright = rng.random(count) < 0.5
    long = np.where(upright, sides[:, 1], sides[:, 0])
    short = np.minimum(long, sides.min(1)) * rng.uniform(0.3, 1, count)
    boxes = np.column_stack([(at + 0.5) * cell - 0.5, long, short, np.where(upright, -np.pi / 2, 0)])
    return rotated.canonical(boxes), rng.integers(0, 15, count)


class InOrder:
    """A detector that knows the boxes and, as windows come in order, where it is."""

    classes = tuple(f"class-{i}" for i in range(15))

    def __init__(self, boxes: NDArray[np.float64], labels: NDArray[np.int64], side: int, config: Any) -> None:
        from detection.dota.windows import grid, share_out
        from vision3d.geometry import rotated

        self.boxes, self.labels, self.config = boxes, labels, config
        self.windows = [window for window in grid(side, side, config) for _ in config.views]
        plain = grid(side, side, config)
        shares = share_out(rotated.corners(boxes), plain, (side, side), 0.7)
        self.rows = [share.rows[~share.forced] for share in shares for _ in config.views]
        self.seen = 0

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Any]:
        return [self._next(image) for image in images]

    def _next(self, image: NDArray[np.uint8]) -> Any:
        from detection.problem import Detections
        from vision3d.geometry import rotated

        window, found = self.windows[self.seen], self.rows[self.seen]
        view = self.config.views[self.seen % len(self.config.views)]
        self.seen += 1
        scale = self.config.window / window.size
        boxes = rotated.shifted(self.boxes[found], (-window.x, -window.y))
        boxes = rotated.scaled(boxes, scale)
        size = image.shape[1], image.shape[0]
        if view == "flip-x":
            boxes = rotated.flipped(boxes, size)
        elif view == "turn-90":
            boxes = rotated.turned(boxes, size, -1)
        return Detections(boxes, np.full(len(found), 0.9), self.labels[found])


def measure(side: int, case: str, objects: int) -> dict[str, Any]:
    """One case, in this process."""
    from detection.dota.config import TileConfig
    from detection.dota.inference import tiled_detect
    from vision3d.geometry import rotated

    config = TileConfig(**CASES[case])  # type: ignore[arg-type]
    boxes, labels = rows(side, objects)
    rotated.nms(boxes[:1], [1.0], 0.1)  # loads the native module, and torch with it
    image = np.full((side, side, 3), 90, np.uint8)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    detector = InOrder(boxes, labels, side, config)
    began_s = time.perf_counter()
    found = tiled_detect(detector, image, config)
    seconds = time.perf_counter() - began_s
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    same = rotated.iou_matrix(boxes, found.boxes) > 0.999
    same &= labels[:, None] == found.labels
    return {
        "side": side,
        "case": case,
        "objects": objects,
        "windows": detector.seen,
        "lost": int((same.sum(1) == 0).sum()),
        "doubled": int((same.sum(1) > 1).sum()),
        "other": int((same.sum(0) == 0).sum()),
        "seconds": seconds,
        "before_mb": before_mb,
        "peak_mb": peak_mb,
    }


def in_a_process(side: int, case: str, objects: int) -> dict[str, Any]:
    words = ["--case", str(side), case, "--objects", str(objects)]
    done = subprocess.run(
        [sys.executable, __file__, *words],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"},
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure_split(side: int, objects: int) -> dict[str, Any]:
    """Seconds and bytes of writing the tiles of one image: noise over patches, which compresses as photos do."""
    from detection.dota.config import SplitConfig
    from detection.dota.split import default_threads, split
    from vision3d.geometry import rotated
    from vision3d.types.images import BoxTruth, LabeledImage

    boxes, labels = rows(side, objects)
    classes = InOrder.classes
    rng = np.random.default_rng(0)
    coarse = rng.uniform(60, 190, (side // 50 + 1, side // 50 + 1, 3)).repeat(50, 0).repeat(50, 1)[:side, :side]
    image = (coarse + rng.normal(scale=4, size=coarse.shape)).astype(np.uint8)
    truth = BoxTruth(boxes, labels, np.zeros(objects, np.uint8), rotated.corners(boxes), classes, (side, side))

    class One:
        name, samples = "one", LabeledImage
        bad: dict[int, str] = {}  # noqa: RUF012 - a reader of one image

        def __len__(self) -> int:
            return 1

        def key(self, index: int) -> str:
            return "P0000"

        def __getitem__(self, index: int) -> LabeledImage:
            return LabeledImage("P0000", image, classes)

        def truth(self, index: int) -> BoxTruth:
            return truth

    with tempfile.TemporaryDirectory() as temp:
        began_s = time.perf_counter()
        outcome = split(One(), Path(temp) / "tiles", SplitConfig(), {}, threads=default_threads())
        seconds = time.perf_counter() - began_s
        size = sum(path.stat().st_size for path in Path(temp).rglob("*.png"))
    return {
        "side": side,
        "tiles": outcome.tiles,
        "labels": outcome.objects,
        "seconds": seconds,
        "tiles_per_s": outcome.tiles / seconds,
        "megabytes": size / 1e6,
        "threads": default_threads(),
    }


def main() -> None:
    """Measure everything, print the tables, write the JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="*", default=[4000, 8000, 16000])
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "tiling.json")
    parser.add_argument("--case", nargs=2, metavar=("SIDE", "CASE"), help="one case, in this process, as JSON")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(int(args.case[0]), args.case[1], args.objects)))
        return
    runs = [(side, "plain") for side in args.sides] + [(args.sides[0], case) for case in CASES if case != "plain"]
    cases = [in_a_process(side, case, args.objects) for side, case in runs]
    print(
        f"{args.objects} objects, windows of 1024 that overlap by 200. {platform.processor() or platform.machine()}\n"
    )
    print("| image | case | windows | lost | doubled | s | peak MB | of it after the image was there |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for c in cases:
        added = c["peak_mb"] - c["before_mb"]
        numbers = (
            f"{c['windows']} | {c['lost']} | {c['doubled']} | {c['seconds']:.2f} | {c['peak_mb']:.0f} | {added:.0f}"
        )
        print(f"| {c['side']} x {c['side']} | {c['case']} | {numbers} |")
    claim = next((c for c in cases if c["side"] == CLAIMED and c["case"] == "plain"), None)
    if claim is not None:
        met = claim["peak_mb"] < MOST_MB and not (claim["lost"] or claim["doubled"] or claim["other"])
        wanted = f"none lost, none doubled, less than {MOST_MB:g} MB at {CLAIMED} x {CLAIMED}"
        print(f"\n{wanted}: {'met' if met else 'NOT met'}")
    files = measure_split(args.sides[0], args.objects)
    print(
        f"\nsplit {files['side']} x {files['side']}: {files['tiles']} tiles, {files['labels']} labels in "
        f"{files['seconds']:.1f} s ({files['tiles_per_s']:.1f} tiles/s, {files['megabytes']:.0f} MB of PNG, "
        f"{files['threads']} threads)"
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"detect": cases, "split": files}, indent=2) + "\n")
    print(f"written: {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
