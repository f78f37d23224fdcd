# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from detection.metrics.average_precision import Curve, area_ap, by_score, eleven_point_ap, precision_recall


def curve(kinds: list[int], objects: int) -> Curve:
    scores = np.linspace(1.0, 0.1, max(len(kinds), 1))[: len(kinds)]
    return precision_recall(np.array(kinds, dtype=np.int8), scores, objects)


def test_perfect_detections_have_an_ap_of_one() -> None:
    assert area_ap(curve([1] * 7, 7)) == pytest.approx(1.0, abs=1e-15)
    assert eleven_point_ap(curve([1] * 7, 7)) == pytest.approx(1.0, abs=1e-15)


def test_half_of_the_objects_at_full_precision() -> None:
    half = curve([1] * 5, 10)
    assert area_ap(half) == pytest.approx(0.5)
    assert eleven_point_ap(half) == pytest.approx(6 / 11)


def test_no_detection_is_no_ap() -> None:
    assert area_ap(curve([], 3)) == 0.0
    assert eleven_point_ap(curve([], 3)) == 0.0
    assert area_ap(curve([-1, -1], 3)) == 0.0


def test_false_ones_after_full_recall_change_nothing() -> None:
    assert area_ap(curve([1, 1, 0, 0, 0], 2)) == 1.0
    assert eleven_point_ap(curve([1, 1, 0, 0, 0], 2)) == pytest.approx(1.0)


def test_duplicates_lower_precision_but_not_recall() -> None:
    plain, doubled = curve([1, 1], 2), curve([1, 0, 1, 0], 2)
    assert doubled.recall.max() == plain.recall.max() == 1.0
    assert area_ap(doubled) == pytest.approx((1 + 2 / 3) / 2)
    assert area_ap(doubled) < area_ap(plain)


def test_ignored_detections_leave_no_trace() -> None:
    assert area_ap(curve([-1, 1, -1, 0, 1], 2)) == area_ap(curve([1, 0, 1], 2))


@pytest.mark.parametrize("tenths", range(1, 11))
def test_every_recall_of_whole_tenths_earns_its_point(tenths: int) -> None:
    """The points 0.3, 0.6 and 0.7 of steps of 0.1 lie a hair above: the devkit loses them, we do not."""
    found = curve([1] * tenths, 10)
    lost = 1 if tenths in (3, 6, 7) else 0
    assert eleven_point_ap(found) == pytest.approx((tenths + 1) / 11, abs=1e-12)
    assert eleven_point_ap(found, "devkit") == pytest.approx((tenths + 1 - lost) / 11, abs=1e-12)


def test_recall_of_three_tenths_by_the_numbers_of_the_devkit() -> None:
    assert round(eleven_point_ap(curve([1, 1, 1], 10)), 4) == 0.3636
    assert round(eleven_point_ap(curve([1, 1, 1], 10), "devkit"), 4) == 0.2727


def test_thirds_of_objects_reach_their_points_in_spite_of_rounding() -> None:
    for objects in (3, 7, 30, 49, 90, 110):
        for found in range(objects + 1):
            wanted = (10 * found // objects + 1 if found else 0) / 11
            assert eleven_point_ap(curve([1] * found, objects)) == pytest.approx(wanted, abs=1e-12)


def test_area_ap_equals_an_integral_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        kinds = list(rng.integers(0, 2, 30))
        objects = max(sum(kinds), 1) + int(rng.integers(0, 9))
        c = curve(kinds, objects)
        total = 0.0
        for k in range(1, objects + 1):  # the best precision at a recall of k objects or more
            reached = c.precision[np.round(c.recall * objects) >= k]
            total += (reached.max() if len(reached) else 0.0) / objects
        assert area_ap(c) == pytest.approx(total, abs=1e-12)


def test_equal_scores_are_taken_by_image_and_row() -> None:
    scores, images, rows = np.array([0.5, 0.5, 0.9, 0.5]), np.array([1, 0, 1, 0]), np.array([0, 4, 1, 2])
    assert by_score(scores, images, rows).tolist() == [2, 3, 1, 0]
