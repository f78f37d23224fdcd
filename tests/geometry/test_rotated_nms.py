# SPDX-License-Identifier: Apache-2.0
"""Suppression of rotated boxes against plain loops, with ties, classes, and boxes of all sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision3d.geometry import rotated
from vision3d.geometry.rotated import _native


@pytest.fixture(params=["native", "plain"], autouse=True)
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with the compiled version and with the plain one."""
    if request.param == "plain":
        monkeypatch.setattr(_native, "module", lambda: None)
    elif _native.module() is None:
        pytest.skip("the compiled module is not installed")
    return str(request.param)


def crowd(n: int, seed: int, span: float = 100.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores with many ties, and three classes."""
    rng = np.random.default_rng(seed)
    boxes = np.column_stack([rng.uniform(0, span, (n, 2)), rng.uniform(2, 30, (n, 2)), rng.uniform(-4, 4, n)])
    return boxes, rng.integers(0, 20, n) / 20, rng.integers(0, 3, n)


def by_loops(boxes: np.ndarray, scores: np.ndarray, iou: float, labels: np.ndarray | None = None) -> list[int]:
    overlap = rotated.iou_matrix(boxes, boxes)
    kept: list[int] = []
    for row in sorted(range(len(boxes)), key=lambda r: (-scores[r], r)):
        rivals = [k for k in kept if labels is None or labels[k] == labels[row]]
        if all(overlap[k, row] <= iou for k in rivals):
            kept.append(row)
    return kept


@pytest.mark.parametrize("iou", [0.0, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_greedy_suppression_equals_plain_loops(seed: int, iou: float) -> None:
    boxes, scores, labels = crowd(200, seed)
    assert rotated.nms(boxes, scores, iou).tolist() == by_loops(boxes, scores, iou)
    assert rotated.nms(boxes, scores, iou, labels).tolist() == by_loops(boxes, scores, iou, labels)


@pytest.mark.parametrize("seed", range(3))
def test_boxes_of_all_sizes_and_places(seed: int) -> None:
    """Some far larger than the grid's cells, some without area, some so far away that cell numbers run out."""
    boxes, scores, labels = crowd(300, seed, 400)
    rng = np.random.default_rng(seed)
    boxes[:30, 2:4] *= 10.0 ** rng.uniform(-3, 3, (30, 1))
    boxes[30:40, 2] = 0
    boxes[40:50, :2] = rng.choice([1e18, -1e18, 1e300], (10, 2))
    boxes[50:60] = boxes[60:70]
    assert rotated.nms(boxes, scores, 0.2, labels).tolist() == by_loops(boxes, scores, 0.2, labels)
    nothing = boxes * np.array([1, 1, 0, 0, 1])
    assert len(rotated.nms(nothing, scores, 0.0)) == 300


def test_order_and_repetition_do_not_matter() -> None:
    boxes, _, labels = crowd(200, 7)
    scores = np.random.default_rng(7).permutation(200) / 200
    kept = rotated.nms(boxes, scores, 0.2, labels)
    assert (np.diff(scores[kept]) < 0).all()
    shuffle = np.random.default_rng(8).permutation(200)
    again = rotated.nms(boxes[shuffle], scores[shuffle], 0.2, labels[shuffle])
    np.testing.assert_array_equal(shuffle[again], kept)
    np.testing.assert_array_equal(rotated.nms(boxes[kept], scores[kept], 0.2, labels[kept]), np.arange(len(kept)))


def test_equal_scores_go_by_row_and_equal_boxes_leave_one() -> None:
    boxes = np.tile([(5.0, 5, 8, 3, 0.3)], (4, 1))
    assert rotated.nms(boxes, np.ones(4), 0.5).tolist() == [0]
    assert rotated.nms(boxes, np.ones(4), 1.0).tolist() == [0, 1, 2, 3]
    assert rotated.nms(boxes, [0.5, 0.7, 0.7, 0.1], 0.5, [0, 1, 1, 0]).tolist() == [1, 0]


def test_an_overlap_of_exactly_the_limit_is_kept() -> None:
    boxes = [(0, 0, 2, 2, 0), (0, 0.5, 2, 1, 0)]
    assert rotated.iou_matrix(boxes, boxes)[0, 1] == 0.5
    assert rotated.nms(boxes, [0.9, 0.8], 0.5).tolist() == [0, 1]
    assert rotated.nms(boxes, [0.9, 0.8], np.nextafter(0.5, 0)).tolist() == [0]


def test_many_classes_far_from_the_origin_stay_apart() -> None:
    """Offsetting centres by class, a usual trick, would lose them in single precision."""
    boxes = np.tile([(20000.0, 20000.0, 30, 10, 0.2)], (40, 1))
    assert len(rotated.nms(boxes, np.ones(40), 0.1, np.arange(40))) == 40
    assert len(rotated.nms(boxes, np.ones(40), 0.1, np.arange(40) % 7 - 3)) == 7


def test_level_boxes_are_suppressed_as_upright_ones() -> None:
    ops = pytest.importorskip("torchvision.ops")
    torch = pytest.importorskip("torch")
    boxes, scores, labels = crowd(300, 9)
    scores = np.random.default_rng(9).permutation(300) / 300
    boxes[:, 4] = 0
    hulls = torch.from_numpy(rotated.hulls(boxes))
    theirs = ops.batched_nms(hulls, torch.from_numpy(scores), torch.from_numpy(labels), 0.3)
    np.testing.assert_array_equal(rotated.nms(boxes, scores, 0.3, labels), theirs.numpy())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.floats(0, 1), st.integers(0, 10**6))
def test_what_is_kept_does_not_overlap_and_what_is_dropped_does(n: int, iou: float, seed: int) -> None:
    boxes, scores, _ = crowd(n, seed, 40)
    kept = rotated.nms(boxes, scores, iou)
    overlap = rotated.iou_matrix(boxes, boxes)
    within = overlap[np.ix_(kept, kept)] * (1 - np.eye(len(kept)))
    assert (within <= iou).all()
    for row in set(range(n)) - set(kept.tolist()):
        better = [k for k in kept if (-scores[k], k) < (-scores[row], row)]
        assert (overlap[row, better] > iou).any()


def soft_by_loops(
    boxes: np.ndarray, scores: np.ndarray, iou: float, labels: np.ndarray, method: str, sigma: float, least: float
) -> list[tuple[int, float]]:
    overlap = rotated.iou_matrix(boxes, boxes)
    left = {row: float(score) for row, score in enumerate(scores) if score >= least}
    taken = []
    while left:
        best = min(left, key=lambda r: (-left[r], r))
        taken.append((best, left.pop(best)))
        for row in list(left):
            if labels[row] == labels[best]:
                o = overlap[best, row]
                left[row] *= (1 - o if o > iou else 1) if method == "linear" else np.exp(-o * o / sigma)
                if left[row] < least:
                    del left[row]
    return taken


@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_suppression_equals_plain_loops(method: str) -> None:
    boxes, scores, labels = crowd(120, 3)
    rows, values = rotated.soft_nms(boxes, scores, 0.2, labels, method, 0.3, 0.05)  # type: ignore[arg-type]
    expected = soft_by_loops(boxes, scores, 0.2, labels, method, 0.3, 0.05)
    assert rows.tolist() == [row for row, _ in expected]
    np.testing.assert_allclose(values, [value for _, value in expected], atol=1e-14)
    assert (np.diff(values) <= 0).all() and (values >= 0.05).all()
    assert (values <= scores[rows]).all()


def test_soft_suppression_without_overlap_is_sorting() -> None:
    boxes = np.column_stack([np.arange(10) * 100.0, np.zeros(10), np.full(10, 9.0), np.full(10, 4.0), np.arange(10)])
    scores = np.linspace(0.1, 0.9, 10)
    for method in ("linear", "gaussian"):
        rows, values = rotated.soft_nms(boxes, scores, method=method)  # type: ignore[arg-type]
        assert rows.tolist() == list(range(9, -1, -1))
        np.testing.assert_array_equal(values, scores[::-1])
    assert len(rotated.soft_nms([], [])[0]) == 0


def test_wrong_arguments_are_refused() -> None:
    boxes, scores, labels = crowd(5, 0)
    assert len(rotated.nms([], [], 0.5)) == 0
    with pytest.raises(ValueError, match=r"5 boxes, but scores \(4,\)"):
        rotated.nms(boxes, scores[:4], 0.5)
    with pytest.raises(ValueError, match=r"labels \(3,\)"):
        rotated.nms(boxes, scores, 0.5, labels[:3])
    with pytest.raises(ValueError, match=r"scores\[1\] is not a number"):
        rotated.nms(boxes, [0.1, np.nan, 0, 0, 0], 0.5)
    with pytest.raises(ValueError, match="iou must lie between 0 and 1"):
        rotated.nms(boxes, scores, 1.5)
    with pytest.raises(ValueError, match="method must be"):
        rotated.soft_nms(boxes, scores, method="cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sigma must be positive"):
        rotated.soft_nms(boxes, scores, method="gaussian", sigma=0)
