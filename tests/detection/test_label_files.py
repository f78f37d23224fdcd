# SPDX-License-Identifier: Apache-2.0
"""What a run writes beside its records: labels that our own readers take, submissions, rotated COCO."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from detection.dota.results_files import read_results
from detection.pipelines.formats import write_label_files, write_results
from detection.problem import Detections
from vision3d.contracts import DataConfig
from vision3d.errors import UserError
from vision3d.geometry import rotated
from vision3d.readers.coco_rotated import SPEC as COCO
from vision3d.readers.dota import SPEC as DOTA
from vision3d.types import BoxResult

CLASSES = ("ship", "small-vehicle")
BOXES = np.array([[30.0, 20, 24, 10, 0.4], [60, 60, 8, 2, -1.2], [20, 70, 12, 1.9, 0.0], [50, 50, 0, 0, 0.0]])
FOUND = Detections(BOXES, np.array([0.9, 0.5, 0.8, 0.01]), np.array([0, 1, 0, 1]))


def result(name: str = "a") -> BoxResult:
    return BoxResult(name, "ok", "", FOUND.boxes, FOUND.scores, FOUND.labels, None, CLASSES, (100, 90))


def test_written_labels_are_read_back(tmp_path: Path) -> None:
    """Card check 13: within 0.1 px and 0.1 degrees; boxes with a side below 2 px are no labels."""
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((90, 100, 3), np.uint8))
    write_label_files(["a"], [FOUND], CLASSES, tmp_path, difficult_below=0.6)
    truth = DOTA.open(str(tmp_path), DataConfig()).truth(0)
    assert truth is not None
    np.testing.assert_allclose(truth.boxes, rotated.canonical(BOXES[:2]), atol=1e-4)
    assert truth.labels.tolist() == [0, 1]
    assert truth.difficult.tolist() == [0, 1]
    assert truth.classes == CLASSES


def test_every_format_holds_the_same_boxes(tmp_path: Path) -> None:
    failed = BoxResult("b", "failed", "nothing there", size=(100, 90))
    written = write_results([result(), failed], tmp_path, ["dota", "task1", "task2", "coco"])
    assert all(path.exists() for path in written)
    assert (tmp_path / "labelTxt" / "b.txt").read_text() == ""
    found, classes = read_results(tmp_path / "Task1.zip")
    assert set(classes) == set(CLASSES)
    row = found["a"]
    order = np.argsort(-row.scores)
    np.testing.assert_allclose(row.scores[order], [0.9, 0.8, 0.5, 0.01])
    document = json.loads((tmp_path / "rotated_coco.json").read_text())
    assert len(document["annotations"]) == 4
    assert [image["file_name"] for image in document["images"]] == ["a", "b"]


def test_rotated_coco_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((90, 100, 3), np.uint8))
    good = FOUND[np.array([0, 1])]
    one = BoxResult("a", "ok", "", good.boxes, good.scores, good.labels, None, CLASSES, (100, 90))
    write_results([one], tmp_path, ["coco"])
    document = json.loads((tmp_path / "rotated_coco.json").read_text())
    document["images"][0]["file_name"] = "images/a.png"
    (tmp_path / "rotated_coco.json").write_text(json.dumps(document))
    truth = COCO.open(str(tmp_path), DataConfig()).truth(0)
    assert truth is not None
    np.testing.assert_allclose(truth.boxes, rotated.canonical(good.boxes), atol=1e-6)


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot name a file"):
        write_label_files(["../a"], [FOUND], CLASSES, tmp_path, 0.0)
