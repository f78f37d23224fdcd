# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from metric_samples import CLASSES, random_scene, result_of, row_of_boxes, truth_of, values

from detection.metrics.charts import RECALLS, boxes_exhibit
from detection.metrics.config import MetricsConfig
from detection.metrics.confusion import confusion_matrix
from detection.metrics.evaluation import AT_50, evaluate
from detection.metrics.table import score_boxes
from detection.metrics.verdicts import verdicts, write_verdicts
from vision3d.types import BoxResult

FAILED = BoxResult(name="gone", status="failed", reason="out of memory")


def test_each_verdict() -> None:
    truth = truth_of(row_of_boxes(5), labels=[0, 0, 1, 0, 0], difficult=[0, 0, 0, 1, 0])
    boxes = row_of_boxes(5)[[0, 0, 1, 2, 3, 0, 4]]
    boxes[2, :2] += 25.0 * np.array([np.cos(0.3), np.sin(0.3)])  # IoU 15 / 65
    boxes[5, 1] += 300.0
    labels = [0, 0, 0, 0, 0, 0, 2]
    result = result_of("a", boxes, [0.8, 0.9, 0.7, 0.6, 0.5, 0.4, 0.3], labels)
    result = replace(result, classes=("ship", "plane", "kite"))
    judged = verdicts(result, truth)
    assert judged.kinds == ("duplicate", "true", "loose", "confused", "ignored", "background", "unknown")
    assert judged.objects.tolist() == [0, 0, 1, 2, 3, -1, -1]
    np.testing.assert_allclose(judged.iou[[0, 1, 3, 4, 5, 6]], [1, 1, 1, 1, 0, 0], atol=1e-12)
    assert judged.iou[2] == pytest.approx(15 / 65)
    assert judged.missed.tolist() == [1, 2, 4]
    assert judged.counts() == dict.fromkeys(judged.kinds, 1)


@pytest.mark.parametrize("match", ["voc", "coco"])
def test_verdicts_add_up_to_the_scores(match: str) -> None:
    config = MetricsConfig(match=match)
    results, truths = random_scene(np.random.default_rng(12), 10)
    judged = [verdicts(r, t, config) for r, t in zip(results, truths, strict=True)]
    evaluation = evaluate(results, truths, config)
    true = sum(v.counts()["true"] for v in judged)
    assert true == sum(int((c.kinds[AT_50] == 1).sum()) for c in evaluation.classes)
    assert sum(v.counts()["ignored"] for v in judged) == evaluation.ignored
    assert true + sum(len(v.missed) for v in judged) == evaluation.objects
    confusion = confusion_matrix(results, truths, replace(config, confusion_score=0.0))
    assert np.trace(confusion.counts) == true


def test_verdicts_of_a_failure_name_what_was_missed() -> None:
    judged = verdicts(FAILED, truth_of(row_of_boxes(3), difficult=[0, 1, 0]))
    assert judged.kinds == ()
    assert judged.missed.tolist() == [0, 2]


def test_written_verdicts(tmp_path: Path) -> None:
    truth = truth_of(row_of_boxes(3), labels=[0, 1, 1])
    result = result_of("a", row_of_boxes(2), [0.75, 0.5], [0, 2])
    path = write_verdicts([result, FAILED], [truth, truth], tmp_path / "verdicts.csv")
    assert path.read_text().splitlines() == [
        "image,row,class,score,verdict,object,iou",
        "a,0,ship,0.750000,true,0,1.000000",
        "a,1,truck,0.500000,confused,1,1.000000",
        "a,,plane,,missed,1,",
        "a,,plane,,missed,2,",
        "gone,,ship,,missed,0,",
        "gone,,plane,,missed,1,",
        "gone,,plane,,missed,2,",
    ]
    with pytest.raises(ValueError, match="1 results for 2 truths"):
        write_verdicts([result], [truth, truth], tmp_path / "half.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["verdicts.csv"]


def test_confusion_matrix_by_hand() -> None:
    truth = truth_of(row_of_boxes(6), labels=[0, 0, 1, 1, 2, 2], difficult=[0, 0, 0, 0, 0, 1])
    # ship found, ship taken for a plane, plane found twice, plane missed, truck below the score, difficult truck.
    boxes = row_of_boxes(6)[[0, 1, 2, 2, 4, 5]]
    result = result_of("a", boxes, [0.9, 0.9, 0.9, 0.8, 0.1, 0.9], [0, 1, 1, 1, 2, 2])
    confusion = confusion_matrix([result], [truth])
    assert confusion.names == ("ship", "plane", "truck", "background")
    assert confusion.counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0]]
    with_weak = confusion_matrix([result], [truth], MetricsConfig(confusion_score=0.0))
    assert with_weak.counts[2].tolist() == [0, 0, 1, 0]


def test_boxes_made_for_points_all_enter_the_confusion_matrix() -> None:
    result = result_of("a", row_of_boxes(2), [0.01, 0.02], ids=[0, 1])
    assert confusion_matrix([result], [truth_of(row_of_boxes(2))]).counts[0, 0] == 2


def test_weak_detections_take_no_object_from_strong_ones() -> None:
    truth = truth_of(row_of_boxes(1))
    result = result_of("a", row_of_boxes(1)[[0, 0]], [0.05, 0.9], [0, 1])
    assert confusion_matrix([result], [truth]).counts[0].tolist() == [0, 1, 0, 0]


def test_rows_of_the_confusion_matrix_count_every_object() -> None:
    results, truths = random_scene(np.random.default_rng(13), 10)
    confusion = confusion_matrix(results, truths, MetricsConfig(difficult="devkit-1.5"))
    objects = np.bincount(np.concatenate([t.labels for t in truths]), minlength=3)
    assert confusion.counts[:3].sum(axis=1).tolist() == objects.tolist()
    assert confusion_matrix([], []).counts.tolist() == [[0]]


def test_exhibit_of_a_run() -> None:
    results, truths = random_scene(np.random.default_rng(14), 12)
    exhibit = boxes_exhibit(results, truths)
    names = [chart.name for chart in exhibit.charts]
    assert names == ["precision_recall", "precision_recall_1", "ap_iou", "iou", "size"]
    for chart in exhibit.charts:
        for x, y in chart.series.values():
            assert len(x) == len(y) > 0
            assert np.isfinite(x).all()
            assert ((y >= 0) & (y <= 1)).all()
    found = values(score_boxes(results, truths))
    by_iou = exhibit.charts[2].series["mean"]
    assert by_iou[1].mean() == pytest.approx(found["ap50_95"])
    # Every hundredth of the recall: close to the area.
    assert exhibit.charts[0].series["mean"][1].mean() == pytest.approx(found["ap50"], abs=0.02)
    assert len(exhibit.charts[0].series["mean"][0]) == len(RECALLS)
    by_class, confusion = exhibit.tables
    assert [row[0] for row in by_class.rows] == list(CLASSES)
    assert [row[by_class.header.index("ap50")] for row in by_class.rows] == [found[f"ap50/{c}"] for c in CLASSES]
    assert confusion.header[1:] == (*CLASSES, "background")
    assert all(len(row) == len(table.header) for table in exhibit.tables for row in table.rows)
    assert set(exhibit.per_sample) == {r.name for r in results}
    total = sum(row["found"] for row in exhibit.per_sample.values())
    assert total == sum(verdicts(r, t).counts()["true"] for r, t in zip(results, truths, strict=True))


def test_mean_iou_is_the_area_under_its_curve() -> None:
    results, truths = random_scene(np.random.default_rng(15), 6)
    exhibit = boxes_exhibit(results, truths)
    x, y = exhibit.charts[3].series["all"]
    assert np.trapezoid(y, x) == pytest.approx(values(score_boxes(results, truths))["mean_iou"], abs=0.01)


def test_many_classes_are_spread_over_charts() -> None:
    classes = tuple(f"class{i:02d}" for i in range(15))
    truth = truth_of(row_of_boxes(15), labels=list(range(15)), classes=classes)
    result = result_of("a", row_of_boxes(15), [0.9] * 15, list(range(15)), classes=classes)
    charts = boxes_exhibit([result], [truth]).charts
    per_class = [c for c in charts if c.name.startswith("precision_recall_")]
    assert [len(c.series) for c in per_class] == [6, 6, 3]
    assert all(len(c.series) <= 7 for c in charts)


def test_an_exhibit_without_objects_is_empty() -> None:
    assert boxes_exhibit([], []).charts == ()
    assert boxes_exhibit([FAILED], [truth_of([])]).charts == ()
    failed = boxes_exhibit([FAILED], [truth_of(row_of_boxes(6))])
    assert failed.tables[0].note.endswith("plane, truck.")
    assert failed.tables[0].rows[0][-1] == ""
    assert failed.tables[1].rows == (("ship", 0, 6), ("background", 0, 0))
    assert failed.per_sample["gone"] == {"objects": 6, "found": 0, "false": 0, "recall50": 0.0, "mean_iou": 0.0}
