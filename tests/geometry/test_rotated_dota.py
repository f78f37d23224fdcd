# SPDX-License-Identifier: Apache-2.0
"""Rotated boxes on the label files of real aerial images, and how fast they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely

from vision3d.geometry import rotated

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "rotated_boxes.py"


@pytest.fixture(scope="module")
def quads(shared_data: Path) -> dict[str, np.ndarray]:
    """Image name -> (N, 4, 2) corners as written; at most 1500 of an image."""
    files = sorted((shared_data / "dota_full" / "labelTxt").glob("*.txt"))
    if not files:
        pytest.skip("no DOTA label files")
    found = {}
    for file in files:
        rows = [line.split()[:8] for line in file.read_text(encoding="utf-8").splitlines() if len(line.split()) >= 9]
        found[file.stem] = np.array(rows[:1500], dtype=np.float64).reshape(-1, 4, 2)
    return found


def test_the_smallest_rectangles_of_real_labels_are_shapelys(quads: dict[str, np.ndarray]) -> None:
    for name, outlines in quads.items():
        boxes = rotated.from_corners(outlines)
        least = shapely.area(shapely.oriented_envelope(shapely.multipoints(outlines)))
        np.testing.assert_allclose(boxes[:, 2] * boxes[:, 3], least, rtol=1e-9, err_msg=name)
        grown = boxes + np.array([0, 0, 1e-6, 1e-6, 0])
        held = rotated.points_in_boxes(outlines.reshape(-1, 2), grown).reshape(len(boxes), 4, -1)
        assert held[np.arange(len(boxes)), :, np.arange(len(boxes))].all(), name
        back = rotated.from_corners(rotated.corners(boxes))
        np.testing.assert_allclose(rotated.iou_pairs(boxes, back), 1, atol=1e-9, err_msg=name)


def test_overlaps_of_real_boxes_are_shapelys(quads: dict[str, np.ndarray]) -> None:
    for name, outlines in quads.items():
        a = rotated.from_corners(outlines)
        b = rotated.shifted(rotated.rotated(a, 0.05, a[:, :2].mean(axis=0)), (2.5, -1.0))
        p, q = shapely.polygons(rotated.corners(a)), shapely.polygons(rotated.corners(b))
        i, j = shapely.STRtree(q).query(p)
        shared = shapely.area(shapely.intersection(p[i], q[j]))
        expected = np.zeros((len(a), len(b)))
        expected[i, j] = shared / (shapely.area(p[i]) + shapely.area(q[j]) - shared)
        np.testing.assert_allclose(rotated.iou_matrix(a, b), expected, atol=1e-9, err_msg=name)


def test_suppression_of_real_labels_as_detections_keeps_each_once(quads: dict[str, np.ndarray]) -> None:
    """Two copies of every label: one of each is left, and at a high limit no neighbour is lost."""
    for name, outlines in quads.items():
        boxes = rotated.from_corners(outlines)
        alone = len(rotated.nms(boxes, np.ones(len(boxes)), 0.99))
        kept = rotated.nms(np.concatenate([boxes, boxes]), np.repeat([0.9, 0.8], len(boxes)), 0.99)
        assert len(kept) == alone, name
        assert (kept < len(boxes)).all(), name


@pytest.mark.slow
def test_twenty_times_as_fast_as_shapely_and_not_slower_than_opencv(tmp_path: Path) -> None:
    pytest.importorskip("vision3d.sparse._native")
    written = tmp_path / "speed.json"
    subprocess.run([sys.executable, str(BENCHMARK), "--json", str(written)], check=True)
    report = json.loads(written.read_text())
    for part in report["matrix"] + report["suppression"]:
        assert part["shapely_s"] >= 20 * part["ours_s"], part
        assert part["opencv_s"] >= part["ours_s"], part
    for part in report["matrix"]:
        assert part["shapely_difference"] < 1e-9
        assert part["opencv_difference"] < 1e-3
        assert part["opencv, near_s"] >= part["ours_s"], part
    assert all(part["shapely_same"] and part["opencv_same"] for part in report["suppression"])
