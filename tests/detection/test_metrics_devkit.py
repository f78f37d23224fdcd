# SPDX-License-Identifier: Apache-2.0
"""The numbers of DOTA's devkit: a case worked out by hand, and its algorithm in plain loops with Shapely's polygons."""

from __future__ import annotations

import numpy as np
import pytest
from metric_samples import CLASSES, random_scene, result_of, truth_of, values
from numpy.typing import NDArray

from detection.metrics.config import MetricsConfig
from detection.metrics.table import score_boxes
from vision3d.geometry import rotated
from vision3d.types import BoxResult, BoxTruth

Polygon = pytest.importorskip("shapely").Polygon


def devkit_ap(
    results: list[BoxResult], truths: list[BoxTruth], label: int, limit: float, easy_only: bool, points11: bool
) -> float | None:
    """The evaluation of one class as the devkit does it, written anew from its description. None without objects."""
    objects: dict[str, list[dict[str, object]]] = {}
    to_find = 0
    for result, truth in zip(results, truths, strict=True):
        objects[result.name] = []
        for quad, own, difficult in zip(truth.quads, truth.labels, truth.difficult, strict=True):
            if own == label:
                hard = bool(difficult) and easy_only
                objects[result.name].append({"polygon": Polygon(quad), "hard": hard, "taken": False})
                to_find += not hard
    detections = []
    for result in results:
        if result.status != "ok":
            continue
        assert result.boxes is not None and result.scores is not None and result.labels is not None
        for i in range(len(result.boxes)):
            if result.labels[i] == label:
                polygon = Polygon(rotated.corners(result.boxes[i : i + 1])[0])
                detections.append((-result.scores[i], result.name, i, polygon))
    if not to_find:
        return None
    true = false = 0
    recalls, precisions = [], []
    for _, name, _, polygon in sorted(detections, key=lambda d: d[:3]):
        best, best_object = -1.0, None
        for candidate in objects[name]:
            shared = polygon.intersection(candidate["polygon"]).area
            iou = shared / (polygon.area + candidate["polygon"].area - shared)
            if iou > best:
                best, best_object = iou, candidate
        if best > limit and best_object is not None:
            if not best_object["hard"]:
                if best_object["taken"]:
                    false += 1
                else:
                    true += 1
                    best_object["taken"] = True
        else:
            false += 1
        recalls.append(true / to_find)
        precisions.append(true / max(true + false, np.finfo(np.float64).eps))
    recall, precision = np.array(recalls), np.array(precisions)
    if points11:
        ap = 0.0
        for point in np.arange(0.0, 1.1, 0.1):
            ap += (precision[recall >= point].max() if (recall >= point).any() else 0.0) / 11
        return ap
    r, p = np.concatenate([[0.0], recall, [1.0]]), np.concatenate([[0.0], precision, [0.0]])
    for i in range(len(p) - 1, 0, -1):
        p[i - 1] = max(p[i - 1], p[i])
    steps = np.flatnonzero(r[1:] != r[:-1])
    return float(((r[steps + 1] - r[steps]) * p[steps + 1]).sum())


@pytest.fixture(scope="module")
def by_hand() -> tuple[list[BoxResult], list[BoxTruth]]:
    """Ships in two images, 4 that count and a difficult one.

    By falling score: b finds ship 0 of image two (1/1), a finds ship 0 of image one (2/2), a second one on it is false
    (2/3), one on the difficult ship is nothing, one beside everything is false (2/4), one of IoU 1/3 with ship 1 is
    false (2/5), one finds ship 1 of image one (3/6). The last ship of image two is missed.
    """
    one = truth_of(
        [[50, 50, 40, 10, 0], [150, 50, 40, 10, 0], [250, 50, 40, 10, 0]], difficult=[0, 0, 1], labels=[0, 0, 0]
    )
    two = truth_of([[60, 60, 30, 10, 0.5], [60, 160, 30, 10, 0.5]])
    first = result_of(
        "one",
        [
            [50, 50, 40, 10, 0],
            [52, 50, 40, 10, 0],
            [250, 50, 40, 10, 0],
            [400, 400, 40, 10, 0],
            [170, 50, 40, 10, 0],
            [150, 51, 40, 10, 0],
        ],
        [0.8, 0.7, 0.6, 0.5, 0.4, 0.3],
    )
    second = result_of("two", [[60, 60, 30, 10, 0.5]], [0.9])
    return [first, second], [one, two]


def test_the_case_by_hand(by_hand: tuple[list[BoxResult], list[BoxTruth]]) -> None:
    found = values(score_boxes(*by_hand))
    # Recall 1/4, 1/2 at precision 1; 3/4 at precision 3/6.
    assert found["ap50"] == pytest.approx(0.25 + 0.25 + 0.25 * 0.5)
    # Points 0 to 0.5 at precision 1; 0.6 and 0.7 at 1/2; 0.8 and more are not reached.
    assert found["ap50_voc07"] == pytest.approx((6 + 2 * 0.5) / 11)
    assert found["recall50"] == pytest.approx(0.75)
    assert found["ignored_detections"] == 1
    assert found["objects_not_counted"] == 1


def test_the_case_by_hand_where_difficult_objects_count(by_hand: tuple[list[BoxResult], list[BoxTruth]]) -> None:
    # 5 objects; the detection on the difficult one is now the third true one of four: 1/5, 2/5 at 1; 3/5 at 3/4;
    # 4/5 at 4/7.
    for name in ("devkit-1.5", "mmrotate"):
        found = values(score_boxes(*by_hand, MetricsConfig(difficult=name)))
        assert found["ap50"] == pytest.approx(0.2 + 0.2 + 0.2 * 0.75 + 0.2 * 4 / 7)
        assert "ignored_detections" not in found


def test_the_case_by_hand_with_the_devkits_rounding(by_hand: tuple[list[BoxResult], list[BoxTruth]]) -> None:
    found = values(score_boxes(*by_hand, MetricsConfig(compat="devkit")))
    expected = devkit_ap(*by_hand, label=0, limit=0.5, easy_only=True, points11=True)
    assert found["ap50_voc07"] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("difficult", ["devkit-1.0", "devkit-1.5"])
@pytest.mark.parametrize("skewed", [False, True])
def test_equal_to_the_devkit_on_crowded_images(difficult: str, skewed: bool) -> None:
    rng = np.random.default_rng(11)
    results, truths = random_scene(rng, 12)
    if skewed:
        # Quadrilaterals as people draw them; some run the other way around.
        moved = [t.quads + rng.uniform(-1.5, 1.5, t.quads.shape) for t in truths]
        moved = [q[:, ::-1] if i % 2 else q for i, q in enumerate(moved)]
        truths = [
            truth_of(rotated.from_corners(q) if len(q) else t.boxes, list(t.labels), list(t.difficult), quads=q)
            for t, q in zip(truths, moved, strict=True)
        ]
    config = MetricsConfig(difficult=difficult, compat="devkit", shapes="quads")
    found = values(score_boxes(results, truths, config))
    easy = difficult == "devkit-1.0"
    eleven = [devkit_ap(results, truths, c, 0.5, easy, True) for c in range(3)]
    area = [devkit_ap(results, truths, c, 0.5, easy, False) for c in range(3)]
    assert 0.2 < found["ap50"] < 0.95
    for name, ap in zip(CLASSES, area, strict=True):
        assert found[f"ap50/{name}"] == pytest.approx(ap, abs=1e-12)
    assert found["ap50"] == pytest.approx(np.mean(area), abs=1e-12)
    assert found["ap50_voc07"] == pytest.approx(np.mean(eleven), abs=1e-12)
    limits = [i / 100 for i in range(50, 100, 5)]
    all_limits = [[devkit_ap(results, truths, c, limit, easy, False) for c in range(3)] for limit in limits]
    assert found["ap50_95"] == pytest.approx(np.mean(all_limits), abs=1e-12)


def test_the_order_of_images_and_of_equal_scores_changes_nothing() -> None:
    results, truths = random_scene(np.random.default_rng(5), 10)
    there = values(score_boxes(results, truths))
    order: NDArray[np.int64] = np.random.default_rng(1).permutation(len(results))
    back = values(score_boxes([results[i] for i in order], [truths[i] for i in order]))
    assert there == pytest.approx(back, abs=1e-12)
