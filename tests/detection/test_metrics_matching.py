# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_samples import random_scene, result_of, row_of_boxes, truth_of, values

from detection.metrics.config import MetricsConfig
from detection.metrics.image import score_image
from detection.metrics.matching import FALSE, IGNORED, THRESHOLDS, TRUE, match_image
from detection.metrics.overlaps import overlaps
from detection.metrics.polygons import quad_iou
from detection.metrics.table import score_boxes
from vision3d.errors import ConfigError
from vision3d.geometry import rotated
from vision3d.types import BoxResult, BoxTruth

# Two objects side by side and two detections that both fit the first one best, but the second one too.
SIDE_BY_SIDE = [[50.0, 50.0, 40.0, 40.0, 0.0], [50.0, 62.0, 40.0, 40.0, 0.0]]
BETWEEN = [[50.0, 52.0, 40.0, 40.0, 0.0], [50.0, 54.0, 40.0, 40.0, 0.0]]


def kinds_of(result: BoxResult, truth: BoxTruth, config: MetricsConfig, limit: float = 0.5) -> list[int]:
    return match_image(score_image(result, truth, config), config, (limit,)).kinds[0].tolist()


def test_voc_calls_a_second_detection_false_where_coco_looks_for_a_free_object() -> None:
    truth, result = truth_of(SIDE_BY_SIDE), result_of("a", BETWEEN, [0.9, 0.8])
    assert kinds_of(result, truth, MetricsConfig(match="voc")) == [TRUE, FALSE]
    assert kinds_of(result, truth, MetricsConfig(match="coco")) == [TRUE, TRUE]


def test_difficult_objects_take_any_number_of_detections() -> None:
    truth = truth_of(row_of_boxes(1), difficult=[1])
    result = result_of("a", np.repeat(row_of_boxes(1), 3, axis=0), [0.9, 0.8, 0.7])
    for match in ("voc", "coco"):
        assert kinds_of(result, truth, MetricsConfig(match=match)) == [IGNORED] * 3
        assert kinds_of(result, truth, MetricsConfig(match=match, difficult="devkit-1.5")) == [TRUE, FALSE, FALSE]


def test_coco_prefers_an_object_that_counts_to_a_better_difficult_one() -> None:
    truth = truth_of(SIDE_BY_SIDE, difficult=[1, 0])
    result = result_of("a", BETWEEN[:1], [0.9])
    assert kinds_of(result, truth, MetricsConfig(match="voc")) == [IGNORED]
    assert kinds_of(result, truth, MetricsConfig(match="coco")) == [TRUE]


def test_a_mark_of_two_is_difficult_in_version_one_only() -> None:
    truth, result = truth_of(row_of_boxes(1), difficult=[2]), result_of("a", row_of_boxes(1), [0.5])
    assert kinds_of(result, truth, MetricsConfig()) == [IGNORED]
    assert kinds_of(result, truth, MetricsConfig(difficult="mmrotate")) == [TRUE]


def test_an_iou_equal_to_the_limit() -> None:
    # 20 x 10 in 40 x 10 is exactly a half.
    truth, result = truth_of([[50, 50, 40, 10, 0]]), result_of("a", [[40, 50, 20, 10, 0]], [0.9])
    assert overlaps(result.boxes, truth.boxes).iou.tolist() == [0.5]
    assert kinds_of(result, truth, MetricsConfig()) == [FALSE]
    assert kinds_of(result, truth, MetricsConfig(difficult="mmrotate")) == [TRUE]
    assert kinds_of(result, truth, MetricsConfig(iou_test="inclusive")) == [TRUE]
    assert kinds_of(result, truth, MetricsConfig(difficult="mmrotate", iou_test="strict")) == [FALSE]


def test_classes_do_not_touch_one_another() -> None:
    truth = truth_of(row_of_boxes(1), labels=[1])
    assert kinds_of(result_of("a", row_of_boxes(1), [0.9], labels=[0]), truth, MetricsConfig()) == [FALSE]
    assert kinds_of(result_of("a", row_of_boxes(1), [0.9], labels=[1]), truth, MetricsConfig()) == [TRUE]


@pytest.mark.parametrize("match", ["voc", "coco"])
@pytest.mark.parametrize("difficult", ["devkit-1.0", "mmrotate"])
def test_equal_to_plain_loops(match: str, difficult: str) -> None:
    config = MetricsConfig(match=match, difficult=difficult)
    for result, truth in zip(*random_scene(np.random.default_rng(2), 20), strict=True):
        image = score_image(result, truth, config)
        found = match_image(image, config)
        iou = rotated.iou_matrix(image.boxes, image.true_boxes)
        iou[image.labels[:, None] != image.true_labels[None]] = -1.0
        for t, limit in enumerate(THRESHOLDS):
            taken = np.zeros(len(image.true_boxes), dtype=bool)
            for d in range(len(image.boxes)):
                ok = iou[d] > limit if config.strict else iou[d] >= limit
                wanted, best = FALSE, -1
                if match == "coco":
                    free = [g for g in np.flatnonzero(ok) if image.counts[g] and not taken[g]]
                    rest = [g for g in np.flatnonzero(ok) if not image.counts[g]]
                    if free or rest:
                        best = max(free or rest, key=lambda g: iou[d, g])
                        wanted = TRUE if free else IGNORED
                elif ok.any():
                    best = int(np.argmax(iou[d]))
                    wanted = IGNORED if not image.counts[best] else FALSE if taken[best] else TRUE
                if wanted == TRUE:
                    taken[best] = True
                assert found.kinds[t, d] == wanted
                assert found.objects[t, d] == (best if wanted != FALSE else -1)


def test_overlaps_are_the_positive_entries_of_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    results, truths = random_scene(np.random.default_rng(4), 4, objects=30, detections=40)
    boxes, true = results[1].boxes, truths[2].boxes
    matrix = rotated.iou_matrix(boxes, true)
    whole = overlaps(boxes, true)
    monkeypatch.setattr("detection.metrics.overlaps.CHUNK", 7)
    for pairs in (whole, overlaps(boxes, true)):
        rebuilt = np.zeros(matrix.shape)
        rebuilt[pairs.rows, pairs.columns] = pairs.iou
        np.testing.assert_allclose(rebuilt, matrix, atol=1e-12)
        best, where = pairs.best_columns()
        np.testing.assert_allclose(best, matrix.max(axis=1), atol=1e-12)
        assert (where[best > 0] == matrix.argmax(axis=1)[best > 0]).all()
        np.testing.assert_allclose(pairs.best_rows()[0], matrix.max(axis=0), atol=1e-12)


def test_quadrilaterals_that_are_rectangles_overlap_like_boxes() -> None:
    rng = np.random.default_rng(8)
    a, b = (
        np.column_stack([rng.uniform(0, 30, (400, 2)), rng.uniform(2, 40, (400, 2)), rng.uniform(-2, 2, 400)])
        for _ in "ab"
    )
    a[:20] = b[:20]
    np.testing.assert_allclose(quad_iou(a, rotated.corners(b)), rotated.iou_pairs(a, b), atol=1e-12)
    np.testing.assert_allclose(quad_iou(a, rotated.corners(b)[:, ::-1]), rotated.iou_pairs(a, b), atol=1e-12)


def test_any_quadrilateral_overlaps_as_in_shapely() -> None:
    polygon = pytest.importorskip("shapely").Polygon
    rng = np.random.default_rng(9)
    boxes = np.column_stack([rng.uniform(0, 20, (300, 2)), rng.uniform(2, 40, (300, 2)), rng.uniform(-2, 2, 300)])
    quads = rotated.corners(boxes[::-1]) + rng.uniform(-1, 1, (300, 4, 2))
    # One corner drawn in far, as in a label that is not convex.
    quads[:40, 0] = 0.8 * quads[:40].mean(axis=1) + 0.2 * quads[:40, 2]
    shift = np.array([1e5, 2e5])
    found = quad_iou(boxes + np.array([*shift, 0, 0, 0]), quads + shift)
    for i in range(300):
        a, b = polygon(rotated.corners(boxes[i : i + 1])[0]), polygon(quads[i])
        if b.is_valid:
            shared = a.intersection(b).area
            assert found[i] == pytest.approx(shared / (a.area + b.area - shared), abs=1e-9)


def test_no_area_is_no_overlap() -> None:
    point = np.full((1, 4, 2), 5.0)
    assert quad_iou(np.array([[5.0, 5, 4, 2, 0]]), point).tolist() == [0.0]
    assert quad_iou(np.zeros((0, 5)), np.zeros((0, 4, 2))).shape == (0,)
    assert not len(overlaps(np.array([[5.0, 5, 0, 0, 0]]), np.array([[5.0, 5, 4, 2, 0]])).iou)


def test_a_limit_that_is_no_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"metrics\.confusion_score is 2\.0: must lie between 0 and 1"):
        MetricsConfig(confusion_score=2.0)


def test_inclusive_and_strict_change_a_score() -> None:
    truth, result = truth_of([[50, 50, 40, 10, 0]]), result_of("a", [[40, 50, 20, 10, 0]], [0.9])
    assert values(score_boxes([result], [truth]))["ap50"] == 0.0
    assert values(score_boxes([result], [truth], MetricsConfig(iou_test="inclusive")))["ap50"] == 1.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), difficult=st.sampled_from(["devkit-1.0", "devkit-1.5", "mmrotate"]))
def test_what_must_hold_for_any_scene(seed: int, difficult: str) -> None:
    results, truths = random_scene(np.random.default_rng(seed), 4)
    voc, coco = (score_boxes(results, truths, MetricsConfig(difficult=difficult, match=m)) for m in ("voc", "coco"))
    for metrics in (voc, coco):
        assert all(np.isfinite(m.value) or m.name.endswith(("_deg", "_px", "size_error")) for m in metrics)
        found = values(metrics)
        if "ap50" in found:
            assert 0.0 <= found["ap50_95"] <= found["ap50"] <= found["recall50"] + 1e-12 <= 1.0 + 1e-12
            assert found["ap75"] <= found["ap50"] + 1e-12
            assert 0.0 <= found["mean_iou"] <= 1.0
    if "recall50" in values(voc):
        assert values(voc)["recall50"] <= values(coco)["recall50"] + 1e-12
