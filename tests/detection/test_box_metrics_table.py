# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from metric_samples import CLASSES, random_scene, result_of, row_of_boxes, truth_of, values

from detection.metrics.config import MetricsConfig
from detection.metrics.errors import box_errors
from detection.metrics.evaluation import evaluate
from detection.metrics.files import write_tables
from detection.metrics.table import COLUMNS, class_rows, class_table, score_boxes
from vision3d.errors import UserError
from vision3d.geometry import rotated
from vision3d.types import BoxResult, BoxTruth

FAILED = BoxResult(name="gone", status="failed", reason="out of memory")
PROTOCOLS = [
    MetricsConfig(difficult=difficult, match=match, compat=compat, shapes=shapes)
    for difficult in ("devkit-1.0", "devkit-1.5", "mmrotate")
    for match in ("voc", "coco")
    for compat in ("none", "devkit")
    for shapes in ("boxes", "quads")
]


def as_result(name: str, truth: BoxTruth, with_ids: bool = True) -> BoxResult:
    """The labels themselves as detections."""
    scores = np.linspace(1.0, 0.5, len(truth.boxes)) if len(truth.boxes) else []
    ids = list(range(len(truth.boxes))) if with_ids else None
    return result_of(name, truth.boxes, scores, truth.labels, ids, truth.classes)


@pytest.mark.parametrize("config", PROTOCOLS, ids=str)
def test_labels_as_detections_are_perfect_in_every_protocol(config: MetricsConfig) -> None:
    _, truths = random_scene(np.random.default_rng(1), 6)
    apart = [replace(t, boxes=t.boxes + np.outer(np.arange(len(t.boxes)), [200, 0, 0, 0, 0])) for t in truths]
    apart = [replace(t, quads=rotated.corners(t.boxes)) for t in apart]
    for with_ids in (True, False):
        found = values(score_boxes([as_result(f"{i}", t, with_ids) for i, t in enumerate(apart)], apart, config))
        for name in ("ap50", "ap50_voc07", "ap75", "ap50_95", "mean_iou", "recall50"):
            assert found[name] == pytest.approx(1.0, abs=1e-12)
        for name in ("angle_error_deg", "centre_error_px", "size_error"):
            assert found[name] == pytest.approx(0.0, abs=1e-9)


def test_half_of_the_objects_found() -> None:
    truth = truth_of(row_of_boxes(10))
    found = values(score_boxes([result_of("a", row_of_boxes(10)[:5], [0.9] * 5)], [truth]))
    assert found["ap50"] == pytest.approx(0.5)
    assert found["ap50_voc07"] == pytest.approx(6 / 11)
    assert found["recall50"] == found["mean_iou"] == pytest.approx(0.5)


def test_a_failure_counts_as_an_image_without_detections() -> None:
    truth = truth_of(row_of_boxes(4))
    found = values(score_boxes([result_of("a", row_of_boxes(4), [0.9] * 4), FAILED], [truth, truth]))
    assert found["ap50"] == found["recall50"] == found["mean_iou"] == pytest.approx(0.5)
    everything = score_boxes([FAILED], [truth])
    assert values(everything)["ap50"] == 0.0
    assert math.isinf(values(everything)["angle_error_deg"])
    assert not any(math.isnan(m.value) for m in everything)


def test_classes_without_objects_stay_out_of_the_mean_and_are_named() -> None:
    truth = truth_of(row_of_boxes(2), labels=[0, 2])
    result = result_of("a", row_of_boxes(3), [0.9, 0.8, 0.7], labels=[0, 2, 1])
    evaluation = evaluate([result], [truth], MetricsConfig())
    assert evaluation.empty == ("plane",)
    assert values(score_boxes([result], [truth]))["ap50"] == 1.0
    assert values(score_boxes([result], [truth]))["classes_without_objects"] == 1
    assert class_table(evaluation).splitlines()[-1] == "without objects that count, left out of the means: plane"


def test_nothing_to_find_gives_counts_only() -> None:
    found = score_boxes([result_of("a", row_of_boxes(1), [0.9])], [truth_of([])])
    assert [m.name for m in found] == ["classes_without_objects"]
    assert score_boxes([], []) == []
    hard = truth_of(row_of_boxes(2), difficult=[1, 1])
    names = [m.name for m in score_boxes([FAILED], [hard])]
    assert names == ["objects_not_counted", "classes_without_objects"]


def test_a_box_made_for_an_object_is_held_against_that_one() -> None:
    truth = truth_of(row_of_boxes(3))
    # Boxes of objects 0 and 1 changed places; object 2 has two, of which the better-scored one counts.
    boxes = row_of_boxes(3)[[1, 0, 2, 0]]
    result = result_of("a", boxes, [0.9, 0.9, 0.8, 0.2], ids=[0, 1, 2, 2])
    assert values(score_boxes([result], [truth]))["mean_iou"] == pytest.approx(1 / 3)
    assert values(score_boxes([replace(result, ids=None)], [truth]))["mean_iou"] == pytest.approx(1.0)
    assert values(score_boxes([replace(result, ids=None)], [truth]))["centre_error_px"] == pytest.approx(0.0)
    # All boxes that were made for an object are measured: 100, 100 and 0 pixels off.
    assert values(score_boxes([result], [truth]))["centre_error_px"] == pytest.approx(100.0)


def test_objects_that_do_not_count_stay_out_of_every_number() -> None:
    truth = truth_of(row_of_boxes(3), difficult=[0, 0, 1])
    worse = row_of_boxes(3)
    worse[2, :2] += 500.0
    found = values(score_boxes([result_of("a", worse, [0.9] * 3, ids=[0, 1, 2])], [truth]))
    assert found["mean_iou"] == pytest.approx(1.0)
    assert found["objects_not_counted"] == 1


def test_angle_centre_and_size_errors() -> None:
    true = np.array([[0, 0, 40, 10, np.deg2rad(89)], [0, 0, 40, 10, 0.0], [0, 0, 20, 20, 0.0], [0, 0, 21, 20, 0.0]])
    boxes = true.copy()
    boxes[0, 4] = np.deg2rad(-89)
    boxes[1] += [3, 4, 4, 1, np.deg2rad(-30)]
    boxes[2:, 4] = np.deg2rad(80)
    errors = box_errors(boxes, true)
    # Near-square objects: a quarter turn is no error.
    np.testing.assert_allclose(np.rad2deg(errors.angle_rad), [2, 30, 10, 10])
    np.testing.assert_allclose(errors.centre_px, [0, 5, 0, 0])
    np.testing.assert_allclose(errors.size, [0, 0.1, 0, 0])


def test_moving_turning_and_flipping_the_image_changes_no_score() -> None:
    results, truths = random_scene(np.random.default_rng(6), 6)
    there = values(score_boxes(results, truths))

    def moved(boxes: np.ndarray) -> np.ndarray:
        out = boxes * [1, -1, 1, 1, -1]
        c, s = np.cos(0.7), np.sin(0.7)
        out[:, :2] = out[:, :2] @ np.array([[c, s], [-s, c]]) + [300, -40]
        out[:, 4] += 0.7
        return rotated.canonical(out)

    results = [replace(r, boxes=moved(r.boxes)) for r in results]
    truths = [replace(t, boxes=moved(t.boxes), quads=rotated.corners(moved(t.boxes))) for t in truths]
    assert values(score_boxes(results, truths)) == pytest.approx(there, abs=1e-9)


def test_detections_in_another_order_score_the_same() -> None:
    results, truths = random_scene(np.random.default_rng(7), 5)
    results = [replace(r, scores=np.linspace(0.9, 0.1, len(r.scores))) for r in results]
    order = [np.random.default_rng(i).permutation(len(r.scores)) for i, r in enumerate(results)]
    mixed = [
        replace(r, boxes=r.boxes[o], scores=r.scores[o], labels=r.labels[o])
        for r, o in zip(results, order, strict=True)
    ]
    assert values(score_boxes(mixed, truths)) == pytest.approx(values(score_boxes(results, truths)))


def test_classes_are_matched_by_name() -> None:
    truth = truth_of(row_of_boxes(2), labels=[0, 2])
    result = result_of("a", row_of_boxes(3), [0.9] * 3, labels=[1, 0, 2], classes=("truck", "ship", "harbor"))
    found = values(score_boxes([result], [truth]))
    assert found["ap50/ship"] == found["ap50/truck"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("harbor", "lake", "tree")}, "have none in common"),
        ({"size": (100, 50)}, "of an image of 100 x 50 pixels, the truth of one of 64 x 64"),
        ({"ids": np.array([0, 5])}, "ids outside of the truth's 2 objects"),
        ({"ids": np.array([0, -2])}, "ids outside of the truth's 2 objects"),
        ({"labels": np.array([0, 3])}, "labels outside of its 3 classes"),
        ({"scores": np.array([0.5, np.nan])}, "score 1 is not a number"),
        ({"scores": np.array([0.5])}, "2 boxes, 1 scores and 2 labels"),
        ({"boxes": np.array([[0, 0, 1, 1, 0], [0, np.nan, 1, 1, 0]])}, "boxes cannot be scored"),
    ],
)
def test_results_of_other_data_are_refused(change: dict[str, object], message: str) -> None:
    truth = replace(truth_of(row_of_boxes(2)), size=(64, 64))
    result = replace(result_of("P0001", row_of_boxes(2), [0.9, 0.8]), **{"size": (64, 64), **change})
    with pytest.raises(UserError, match=f"^P0001: .*{message}"):
        score_boxes([result], [truth])


def test_more_results_than_truths_and_other_classes_are_refused() -> None:
    truth = truth_of(row_of_boxes(1))
    result = result_of("a", row_of_boxes(1), [0.5])
    with pytest.raises(ValueError, match="2 results for 1 truths"):
        score_boxes([result, result], [truth])
    with pytest.raises(UserError, match="b: its truth has other classes"):
        score_boxes([result, replace(result, name="b")], [truth, truth_of([], classes=("ship",))])


def test_written_tables_hold_the_numbers(tmp_path: Path) -> None:
    results, truths = random_scene(np.random.default_rng(3), 8)
    files = write_tables(results, truths, MetricsConfig(), tmp_path / "tables")
    assert [f.name for f in files] == [
        "per_class.csv",
        "per_class.json",
        "per_class.txt",
        "confusion.csv",
        "verdicts.csv",
    ]
    assert sorted(p.name for p in (tmp_path / "tables").iterdir()) == sorted(f.name for f in files)
    rows = list(csv.DictReader(files[0].read_text().splitlines()))
    found = values(score_boxes(results, truths))
    assert tuple(rows[0]) == COLUMNS
    assert [row["class"] for row in rows] == list(CLASSES)
    for row in rows:
        assert float(row["ap50"]) == pytest.approx(found[f"ap50/{row['class']}"], rel=1e-5)
        assert float(row["mean_iou"]) == pytest.approx(found[f"mean_iou/{row['class']}"], rel=1e-5)
    data = json.loads(files[1].read_text())
    assert [row["class"] for row in data["classes"]] == list(CLASSES)
    confusion = list(csv.reader(files[3].read_text().splitlines()))
    assert confusion[0] == ["true \\ found", *CLASSES, "background"]
    assert len(confusion) == 5


def test_files_of_a_run_that_found_nothing_are_json(tmp_path: Path) -> None:
    files = write_tables([FAILED], [truth_of(row_of_boxes(2))], MetricsConfig(), tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    data = json.loads(files[1].read_text(), parse_constant=refuse)
    assert data["classes"][0]["angle_error_deg"] is None
    assert data["without_objects"] == ["plane", "truck"]


def test_table_for_a_terminal() -> None:
    truth = truth_of(row_of_boxes(4), labels=[0, 0, 1, 1])
    text = class_table(
        evaluate([result_of("a", row_of_boxes(3), [0.9] * 3, labels=[0, 0, 1])], [truth], MetricsConfig())
    )
    lines = text.splitlines()
    assert lines[0].split()[:3] == ["class", "objects", "found"]
    assert lines[1].split() == ["ship", "2", *["100.0"] * 6, "0.0"]
    assert lines[2].split() == ["plane", "2", "50.0", "50.0", "54.5", "50.0", "50.0", "50.0", "0.0"]
    assert lines[3].split()[:3] == ["mean", "4", "75.0"]
    assert len({len(line) for line in lines[:4]}) == 1


def test_rows_of_a_class_without_objects_are_empty() -> None:
    rows = class_rows(evaluate([FAILED], [truth_of(row_of_boxes(1))], MetricsConfig()))
    assert rows[1]["ap50"] is None
    assert rows[1]["objects"] == 0


def test_real_labels_as_detections_score_one(shared_data: Path) -> None:
    folder = shared_data / "dota_full" / "labelTxt"
    if not folder.is_dir():
        pytest.skip(f"no DOTA labels at {folder}")
    classes = ("harbor", "large-vehicle", "ship", "small-vehicle")
    truths, results = [], []
    for file in sorted(folder.glob("*.txt")):
        rows = [line.split() for line in file.read_text().splitlines() if len(line.split()) > 8]
        quads = np.array([[float(x) for x in row[:8]] for row in rows]).reshape(-1, 4, 2)
        labels = [classes.index(row[8]) for row in rows]
        truths.append(truth_of(rotated.from_corners(quads), labels, [int(r[9]) for r in rows], quads, classes))
        results.append(as_result(file.stem, truths[-1]))
    assert sum(len(t.boxes) for t in truths) == 785
    for config in PROTOCOLS:
        found = values(score_boxes(results, truths, config))
        assert found["ap50"] == pytest.approx(1.0, abs=1e-12)
        assert found["ap50_voc07"] == pytest.approx(1.0, abs=1e-12)
        if config.shapes == "boxes":
            assert found["ap50_95"] == found["mean_iou"] == pytest.approx(1.0, abs=1e-9)
        else:
            # DOTA's quadrilaterals are not rectangles: a box cannot fit them better.
            assert 0.9 < found["mean_iou"] < 0.99


def test_a_box_for_a_point_beside_all_objects_is_a_false_one() -> None:
    """A click that no true box holds has the id -1."""
    truth = truth_of(row_of_boxes(2))
    right = result_of("a", row_of_boxes(2), [0.9, 0.8])
    found = values(score_boxes([replace(right, ids=np.array([0, 1]))], [truth]))
    assert found["mean_iou"] == pytest.approx(1) and found["ap50"] == 1
    beside = result_of("a", [*row_of_boxes(2), [900.0, 900, 20, 10, 0]], [0.9, 0.8, 0.95])
    found = values(score_boxes([replace(beside, ids=np.array([0, 1, -1]))], [truth]))
    assert found["mean_iou"] == pytest.approx(1)
    assert found["ap50"] == pytest.approx(2 / 3)
    none = values(score_boxes([replace(right, ids=np.array([-1, -1]))], [truth]))
    assert none["mean_iou"] == 0
