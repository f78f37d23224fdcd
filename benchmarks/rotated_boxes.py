# SPDX-License-Identifier: Apache-2.0
"""Overlap matrix and suppression of rotated boxes against Shapely and OpenCV, in one run.

python benchmarks/rotated_boxes.py [--boxes 2000] [--candidates 20000] [--side 1000 4000] [--threads 1] [--json FILE]

Boxes are 12 to 120 px long, up to 5:1, strewn over a square image of each side. `matrix` is every pair of two lists:
`shapely` intersects whole arrays of polygons in one call, `opencv` loops over rotatedRectangleIntersection and the area
of the hull of its corners; `near` does so for pairs alone whose hulls meet, as Shapely's STRtree finds them. What would
take minutes is timed on some of the rows and scaled by their number; the table marks it with a tilde. For suppression
Shapely and OpenCV run the same greedy loop on an index of hulls, so only the overlaps differ. The values of the three
are compared on the rows that were timed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from vision3d.geometry import rotated

Float = NDArray[np.float64]

IOU = 0.3
SECONDS = 3.0  # about what one slow measurement may take


def scene(count: int, side: int, rng: np.random.Generator) -> Float:
    """Boxes (N, 5) of all directions on a square image."""
    length = np.exp(rng.uniform(np.log(12), np.log(120), count))
    place, theta = rng.uniform(0, side, (count, 2)), rng.uniform(-np.pi / 2, np.pi / 2, count)
    return np.column_stack([place, length, length / rng.uniform(1, 5, count), theta])


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """The shortest wall time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


class ByShapely:
    """Overlap of polygons made beforehand."""

    def __init__(self, a: Float, b: Float) -> None:
        self.a, self.b = shapely.polygons(rotated.corners(a)), shapely.polygons(rotated.corners(b))
        self.area_a, self.area_b = shapely.area(self.a), shapely.area(self.b)

    def row(self, i: int, columns: NDArray[np.int64] | slice = slice(None)) -> Float:
        """Overlap of box i of a with boxes of b."""
        shared = shapely.area(shapely.intersection(self.a[i], self.b[columns]))
        values: Float = shared / (self.area_a[i] + self.area_b[columns] - shared)
        return values

    def near(self, i: int) -> NDArray[np.int64]:
        """Boxes of b whose hull meets that of box i of a."""
        found: NDArray[np.int64] = self.tree.query(self.a[i])
        return found

    @property
    def tree(self) -> shapely.STRtree:
        """The index of b, made at its first use."""
        if not hasattr(self, "_tree"):
            self._tree = shapely.STRtree(self.b)
        return self._tree


class ByOpenCV:
    """Overlap of rectangles by a loop, as OpenCV offers it."""

    def __init__(self, a: Float, b: Float) -> None:
        self.a, self.b = self.rectangles(a), self.rectangles(b)
        self.area_a, self.area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]

    @staticmethod
    def rectangles(boxes: Float) -> list[tuple[tuple[float, float], tuple[float, float], float]]:
        """Centre, size and degrees."""
        return [((x, y), (w, h), float(np.rad2deg(t))) for x, y, w, h, t in boxes.tolist()]

    def row(self, i: int, columns: NDArray[np.int64] | None = None) -> Float:
        """Overlap of box i of a with boxes of b."""
        chosen = range(len(self.b)) if columns is None else columns.tolist()
        values = np.zeros(len(chosen))
        for k, j in enumerate(chosen):
            kind, points = cv2.rotatedRectangleIntersection(self.a[i], self.b[j])
            if kind != cv2.INTERSECT_NONE and points is not None:
                # Its corners are in no order: the hull of them is the outline.
                shared = cv2.contourArea(cv2.convexHull(points))
                values[k] = shared / (self.area_a[i] + self.area_b[j] - shared)
        return values


def timed_rows(row: Callable[[int], object], rows: int) -> tuple[float, int]:
    """Seconds for all rows, and how many were timed."""
    start = time.perf_counter()
    for done in range(1, rows + 1):
        row(done - 1)
        spent = time.perf_counter() - start
        if spent > SECONDS:
            break
    return spent * rows / done, done


def matrix(count: int, side: int) -> dict[str, float | int]:
    """Seconds of a count x count matrix by each, and the largest differences of their values."""
    rng = np.random.default_rng(side)
    a, b = scene(count, side, rng), scene(count, side, rng)
    ours = seconds(lambda: rotated.iou_matrix(a, b), 5)
    found = rotated.iou_matrix(a, b)
    by_shapely, by_opencv = ByShapely(a, b), ByOpenCV(a, b)
    report: dict[str, float | int] = {"side_px": side, "meeting": float((found > 0).mean()), "ours_s": ours}
    by_shapely.near(0)
    runs: dict[str, Callable[[int], object]] = {
        "shapely": by_shapely.row,
        "shapely, near": lambda i: by_shapely.row(i, by_shapely.near(i)),
        "opencv": by_opencv.row,
        "opencv, near": lambda i: by_opencv.row(i, by_shapely.near(i)),
    }
    for name, run in runs.items():
        report[f"{name}_s"], report[f"{name}_rows"] = timed_rows(run, count)
    for name, compared in (("shapely", by_shapely.row), ("opencv", by_opencv.row)):
        rows = range(min(20, int(report[f"{name}_rows"])))
        report[f"{name}_difference"] = max(float(np.abs(compared(i) - found[i]).max()) for i in rows)
    return report


def suppression(count: int, side: int) -> dict[str, float | int]:
    """Seconds to suppress count boxes by each."""
    rng = np.random.default_rng(side + 1)
    boxes, scores = scene(count, side, rng), rng.random(count)
    ours = seconds(lambda: rotated.nms(boxes, scores, IOU), 5)
    kept = rotated.nms(boxes, scores, IOU)
    order = np.argsort(-scores, kind="stable")
    sorted_boxes = boxes[order]
    report: dict[str, float | int] = {"side_px": side, "kept": len(kept), "ours_s": ours}
    shapes = ByShapely(sorted_boxes, sorted_boxes)
    shapes.near(0)
    opencv = ByOpenCV(sorted_boxes, sorted_boxes)
    for name, row in (("shapely", shapes.row), ("opencv", opencv.row)):
        spent, done, chosen = greedy(row, shapes.near, count)
        report[f"{name}_s"], report[f"{name}_rows"] = spent * count / done, done
        ahead = np.isin(kept, order[:done])
        report[f"{name}_same"] = int(np.array_equal(order[chosen], kept[ahead]))
    return report


def greedy(
    row: Callable[[int, NDArray[np.int64]], Float], near: Callable[[int], NDArray[np.int64]], count: int
) -> tuple[float, int, NDArray[np.int64]]:
    """Suppression of boxes sorted by score: seconds, rows done in time, and those kept of them."""
    left = np.ones(count, bool)
    start = time.perf_counter()
    kept = []
    for i in range(count):
        if left[i]:
            kept.append(i)
            others = near(i)
            others = others[(others > i) & left[others]]
            left[others[row(i, others) > IOU]] = False
        if time.perf_counter() - start > 2 * SECONDS:
            break
    return time.perf_counter() - start, i + 1, np.array(kept)


def show(title: str, reports: list[dict[str, float | int]], total: int) -> None:
    """Print one table: milliseconds and how many times ours."""
    print(f"{title}\n{'':18s}{'side px':>8s}{'ms':>12s}{'x ours':>9s}")
    for report in reports:
        for key in [k[:-2] for k in report if k.endswith("_s")]:
            scaled = "~" if report.get(f"{key}_rows", total) < total else " "
            took = report[f"{key}_s"]
            ratio = took / report["ours_s"]
            print(f"  {key:16s}{report['side_px']:8d}{scaled:>3s}{1e3 * took:9.1f}{ratio:9.1f}")
        rest = [f"{k} {v:.2g}" for k, v in report.items() if not k.endswith(("_s", "_px", "_rows"))]
        print(f"  {', '.join(rest)}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=2000, help="rows and columns of the matrix")
    parser.add_argument("--candidates", type=int, default=20000, help="boxes to suppress")
    parser.add_argument("--side", type=int, nargs="+", default=[1000, 4000], help="sides of the images in pixels")
    parser.add_argument("--threads", type=int, default=1, help="of ours and OpenCV's")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    matrices = [matrix(options.boxes, side) for side in options.side]
    suppressions = [suppression(options.candidates, side) for side in options.side]
    show(f"matrix, {options.boxes} x {options.boxes}", matrices, options.boxes)
    show(f"suppression, {options.candidates} boxes, IoU {IOU}", suppressions, options.candidates)
    if options.json:
        report = {k: getattr(options, k) for k in ("boxes", "candidates", "threads")}
        partial = options.json.with_suffix(".partial")
        whole = report | {"iou": IOU, "matrix": matrices, "suppression": suppressions}
        partial.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, options.json)


if __name__ == "__main__":
    main()
