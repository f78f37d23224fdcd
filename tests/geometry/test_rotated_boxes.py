# SPDX-License-Identifier: Apache-2.0
"""Angles, the one form of a box, corners, enclosing rectangles, transforms and conventions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from vision3d.geometry import rotated
from vision3d.geometry.rotated import _native

DEGREE = np.pi / 180
QUARTER = np.pi / 2
ROUNDING = 1e-9


def random_boxes(n: int = 200, seed: int = 0, span: float = 100.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(0, span, (n, 2)), rng.uniform(0.5, 40, (n, 2)), rng.uniform(-7, 7, n)])


def same_rectangle(a: np.ndarray, b: np.ndarray, atol: float = ROUNDING) -> None:
    """Corners agree as sets: each of one has a partner of the other."""
    distance = np.linalg.norm(rotated.corners(a)[:, :, None] - rotated.corners(b)[:, None], axis=-1)
    assert distance.min(axis=2).max() < atol
    assert distance.min(axis=1).max() < atol


# Angles


def test_wrap_ends_before_a_quarter_turn_and_leaves_what_is_inside() -> None:
    angles = np.array(
        [0, 0.3, -QUARTER, QUARTER, QUARTER + 0.1, -QUARTER - 0.1, np.nextafter(-QUARTER, -9), 40 * np.pi]
    )
    expected = [0, 0.3, -QUARTER, -QUARTER, -QUARTER + 0.1, QUARTER - 0.1, -QUARTER, 0]
    np.testing.assert_allclose(rotated.wrap(angles), expected, atol=1e-13)
    many = np.random.default_rng(0).uniform(-QUARTER, QUARTER, 1000)
    np.testing.assert_array_equal(rotated.wrap(many), many)


@given(st.floats(-1e6, 1e6), st.sampled_from([np.pi, QUARTER, 2 * np.pi]))
def test_wrapped_angles_lie_in_their_period(angle: float, period: float) -> None:
    wrapped = float(rotated.wrap(angle, period))
    assert -period / 2 <= wrapped < period / 2
    turns = (angle - wrapped) / period
    assert abs(turns - round(turns)) < 1e-9 * max(1.0, abs(turns))


def test_axial_distance() -> None:
    assert rotated.angle_distance(89 * DEGREE, -89 * DEGREE) == pytest.approx(2 * DEGREE)
    assert rotated.angle_distance(0, np.pi) == pytest.approx(0)
    assert rotated.angle_distance(0, QUARTER) == pytest.approx(QUARTER)
    assert rotated.angle_distance(0, 80 * DEGREE, period=QUARTER) == pytest.approx(10 * DEGREE)


def test_axial_mean_where_the_plain_mean_is_wrong() -> None:
    mean = rotated.axial_mean([89 * DEGREE, -89 * DEGREE])
    assert rotated.angle_distance(mean, QUARTER) < 1e-12
    assert rotated.axial_mean([10 * DEGREE, 30 * DEGREE]) == pytest.approx(20 * DEGREE)
    assert rotated.axial_mean([0.1, 0.5], weights=[1, 0]) == pytest.approx(0.1)
    # Squares: 44 and -44 degrees are two degrees apart.
    square = rotated.axial_mean([44 * DEGREE, -44 * DEGREE], period=QUARTER)
    assert rotated.angle_distance(square, 45 * DEGREE, period=QUARTER) < 1e-12
    np.testing.assert_allclose(rotated.axial_mean(np.array([[0.1, 0.3], [0.2, 0.4]]), axis=0), [0.15, 0.35])
    with pytest.raises(ValueError, match="no angles"):
        rotated.axial_mean([])


def test_axial_mean_turns_with_its_angles() -> None:
    rng = np.random.default_rng(1)
    angles, weights = rng.uniform(-0.4, 0.4, 20), rng.uniform(0, 1, 20)
    for turn in rng.uniform(-9, 9, 20):
        moved = rotated.axial_mean(angles + turn + np.pi * rng.integers(0, 3, 20), weights)
        assert rotated.angle_distance(moved, rotated.axial_mean(angles, weights) + turn) < 1e-12


# The one form of a box


def test_canonical_is_the_same_rectangle_in_le90_and_stays() -> None:
    boxes = random_boxes()
    found = rotated.canonical(boxes)
    assert (found[:, 2] >= found[:, 3]).all()
    assert ((found[:, 4] >= -QUARTER) & (found[:, 4] < QUARTER)).all()
    same_rectangle(boxes, found)
    np.testing.assert_array_equal(rotated.canonical(found), found)


def test_equal_boxes_have_one_canonical_form() -> None:
    boxes = rotated.canonical(random_boxes())
    half_turn, swapped = boxes.copy(), boxes[:, [0, 1, 3, 2, 4]]
    half_turn[:, 4] += np.pi
    swapped[:, 4] -= QUARTER
    for other in (half_turn, swapped):
        found = rotated.canonical(other)
        np.testing.assert_allclose(found[:, :4], boxes[:, :4], atol=0)
        assert rotated.angle_distance(found[:, 4], boxes[:, 4]).max() < 1e-12


@pytest.mark.parametrize("turn", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("noise", [0.0, 1e-8, -1e-8])
def test_the_angle_of_a_square_is_unique(turn: int, noise: float) -> None:
    found = rotated.canonical([(5, 6, 10, 10 + noise, 20 * DEGREE + turn * QUARTER)])[0]
    assert found[4] == pytest.approx(20 * DEGREE)
    assert found[2] >= found[3]


def test_nothing_is_a_box_list_as_well() -> None:
    for empty in ([], np.zeros((0, 5))):
        assert rotated.canonical(empty).shape == (0, 5)
        assert rotated.corners(empty).shape == (0, 4, 2)
        assert rotated.hulls(empty).shape == (0, 4)
        assert rotated.convert(empty, "le90", "opencv").shape == (0, 5)
    assert rotated.from_corners([]).shape == (0, 5)
    assert rotated.points_in_boxes([], [(0, 0, 1, 1, 0)]).shape == (0, 1)
    assert rotated.points_in_boxes([(0, 0)], []).shape == (1, 0)


BAD = [
    ((1, 2, np.nan, 3, 0), "not a finite box"),
    ((1, np.inf, 2, 3, 0), "not a finite box"),
    ((1, 2, 2, 3, -np.inf), "not a finite box"),
    ((1, 2, 2, -3, 0), "a side is negative"),
    ((1, 2, 1e200, 3, 0), "not a finite box"),
]


@pytest.mark.parametrize(("row", "problem"), BAD)
def test_a_bad_box_is_named_by_its_row(row: tuple[float, ...], problem: str) -> None:
    boxes = np.array([(0, 0, 2, 1, 0), (0, 0, 3, 1, 0), row])
    calls = [
        rotated.canonical,
        rotated.corners,
        rotated.hulls,
        lambda b: rotated.convert(b, "le90", "le135"),
        lambda b: rotated.iou_matrix(b, boxes[:1]),
        lambda b: rotated.nms(b, np.ones(3), 0.5),
        lambda b: rotated.points_in_boxes([(0, 0)], b),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"\[2\] = .*{problem}"):
            call(boxes)


@pytest.mark.parametrize("shape", [(3, 4), (5,), (2, 5, 1)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must have the shape \(N, 5\)"):
        rotated.canonical(np.ones(shape))


# Corners, hulls, points


def test_corners_go_clockwise_on_screen_from_the_top_left() -> None:
    np.testing.assert_allclose(rotated.corners([(10, 20, 8, 4, 0)])[0], [(6, 18), (14, 18), (14, 22), (6, 22)])
    # A quarter turn clockwise moves the top left corner to the top right.
    np.testing.assert_allclose(
        rotated.corners([(10, 20, 8, 4, QUARTER)])[0], [(12, 16), (12, 24), (8, 24), (8, 16)], atol=1e-12
    )


def test_hulls_hold_the_corners_tightly() -> None:
    boxes = random_boxes()
    quads, hulls = rotated.corners(boxes), rotated.hulls(boxes)
    np.testing.assert_allclose(hulls, np.concatenate([quads.min(axis=1), quads.max(axis=1)], axis=1), atol=ROUNDING)


@pytest.mark.parametrize("plain", [True, False])
def test_points_in_boxes_agree_with_shapely(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setattr(_native, "module", lambda: None)
    boxes = random_boxes(60)
    points = np.random.default_rng(2).uniform(-20, 120, (500, 2))
    found = rotated.points_in_boxes(points, boxes)
    expected = shapely.contains_xy(shapely.polygons(rotated.corners(boxes))[None], points[:, :1], points[:, 1:])
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, expected)
    # The border belongs to the box.
    np.testing.assert_array_equal(
        rotated.points_in_boxes([(4, 2), (4.0001, 2), (0, 0)], [(0, 0, 8, 4, 0)])[:, 0], [True, False, True]
    )


# The smallest rectangle


def test_boxes_come_back_from_their_corners() -> None:
    boxes = rotated.canonical(random_boxes(2000))
    quads = rotated.corners(boxes)
    found = rotated.from_corners(quads)
    np.testing.assert_allclose(found[:, :4], boxes[:, :4], atol=ROUNDING)
    assert rotated.angle_distance(found[:, 4], boxes[:, 4]).max() < ROUNDING
    for order in ([1, 2, 3, 0], [3, 2, 1, 0], [0, 2, 1, 3]):
        same_rectangle(rotated.from_corners(quads[:, order]), boxes)
    np.testing.assert_array_equal(rotated.from_corners(quads.reshape(-1, 8)), found)


def test_thin_and_far_boxes_come_back_from_their_corners() -> None:
    rng = np.random.default_rng(3)
    boxes = random_boxes(500)
    boxes[:, 2], boxes[:, 3] = rng.uniform(500, 3000, 500), rng.uniform(0.01, 2, 500)
    boxes[:, :2] += 20000
    same_rectangle(rotated.from_corners(rotated.corners(boxes)), boxes, atol=1e-6)


@pytest.mark.parametrize("count", [4, 5, 30])
def test_the_smallest_rectangle_is_shapelys(count: int) -> None:
    rng = np.random.default_rng(count)
    for points in rng.normal(size=(60, count, 2)) * (30, 7) + (200, 100):
        box = rotated.from_corners(points[None])[0] if count == 4 else rotated.enclosing_box(points)
        np.testing.assert_allclose(rotated.enclosing_box(points), box, atol=ROUNDING)
        least = shapely.MultiPoint(points).minimum_rotated_rectangle
        assert box[2] * box[3] == pytest.approx(least.area, rel=1e-9)
        grown = box + np.array([0, 0, 1e-9, 1e-9, 0])
        assert rotated.points_in_boxes(points, grown[None]).all()


def test_the_smallest_rectangle_is_opencvs_whatever_its_angle_means() -> None:
    rng = np.random.default_rng(5)
    for points in rng.uniform(0, 60, (40, 12, 2)).astype(np.float32):
        (cx, cy), (w, h), degrees = cv2.minAreaRect(points)
        found = rotated.enclosing_box(points.astype(np.float64))
        same_rectangle(rotated.convert([(cx, cy, w, h, degrees)], "opencv", "le90"), found[None], atol=1e-3)


def test_flat_and_single_outlines() -> None:
    np.testing.assert_allclose(rotated.enclosing_box([(3, 4)]), [3, 4, 0, 0, 0])
    np.testing.assert_allclose(rotated.enclosing_box([(0, 0), (2, 2), (4, 4)]), [2, 2, np.sqrt(32), 0, np.pi / 4])
    np.testing.assert_allclose(rotated.from_corners([[(3, 4)] * 4])[0], [3, 4, 0, 0, 0])
    line = rotated.from_corners([[(0, 0), (10, 0), (7, 0), (2, 0)]])[0]
    np.testing.assert_allclose(line, [5, 0, 10, 0, 0], atol=1e-12)
    # A crossed quadrilateral has the rectangle of its corners.
    np.testing.assert_allclose(rotated.from_corners([[(0, 0), (8, 4), (8, 0), (0, 4)]])[0], [4, 2, 8, 4, 0], atol=1e-12)


def test_bad_outlines_are_refused() -> None:
    quads = np.zeros((3, 4, 2))
    quads[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match=r"quads\[1\] .* not finite"):
        rotated.from_corners(quads)
    with pytest.raises(ValueError, match="shape"):
        rotated.from_corners(np.zeros((3, 6)))
    with pytest.raises(ValueError, match="no points"):
        rotated.enclosing_box([])


# Transforms


def picture(size: tuple[int, int] = (60, 40)) -> tuple[np.ndarray, np.ndarray]:
    """A box, and an image of it: 1 where the pixel's centre is inside."""
    box = np.array([[22.3, 17.1, 21.0, 9.0, 0.5]])
    return box, mask(box, size)


def mask(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return rotated.points_in_boxes(np.column_stack([x.ravel(), y.ravel()]), box)[:, 0].reshape(size[1], size[0])


def test_flips_follow_the_pixels() -> None:
    box, image = picture()
    np.testing.assert_array_equal(mask(rotated.flipped(box, (60, 40)), (60, 40)), image[:, ::-1])
    np.testing.assert_array_equal(mask(rotated.flipped(box, (60, 40), False, True), (60, 40)), image[::-1])
    both = rotated.flipped(box, (60, 40), True, True)
    np.testing.assert_array_equal(mask(both, (60, 40)), image[::-1, ::-1])
    assert both[0, 4] == box[0, 4]
    np.testing.assert_array_equal(rotated.flipped(box, (60, 40), False, False), rotated.canonical(box))


@pytest.mark.parametrize("quarters", [-5, -1, 0, 1, 2, 3, 4])
def test_quarter_turns_follow_the_pixels(quarters: int) -> None:
    box, image = picture()
    size = (60, 40) if quarters % 2 == 0 else (40, 60)
    there = rotated.turned(box, (60, 40), quarters)
    np.testing.assert_array_equal(mask(there, size), np.rot90(image, quarters))
    same_rectangle(rotated.turned(there, size, -quarters), box)


def test_rotation_turns_corners_about_the_centre() -> None:
    boxes, centre, angle = random_boxes(), np.array([31.0, 7.0]), 0.7
    c, s = np.cos(angle), np.sin(angle)
    expected = (rotated.corners(boxes) - centre) @ np.array([[c, -s], [s, c]]).T + centre
    same_rectangle(rotated.rotated(boxes, angle, centre), rotated.from_corners(expected))
    same_rectangle(rotated.rotated(rotated.rotated(boxes, angle, centre), -angle, centre), boxes)


def test_scales_keep_the_corner_of_the_image() -> None:
    boxes = random_boxes()
    for factor in (0.37, (0.37, 0.37)):
        half = rotated.scaled(boxes, factor)
        same_rectangle(half, rotated.from_corners((rotated.corners(boxes) + 0.5) * 0.37 - 0.5))
    # Half the size puts pixel centres 0 and 1 around the new pixel 0.
    np.testing.assert_allclose(rotated.scaled([(0.5, 0.5, 2, 2, 0)], 0.5)[0], [0, 0, 1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rotated.scaled([(6, 8, 4, 2, 0)], 0.5, (0, 0))[0], [3, 4, 2, 1, 0], atol=1e-12)
    stretched = rotated.scaled([(0, 0, 4, 2, 0), (0, 0, 10, 1, np.pi / 4)], (2.0, 1.0), (0, 0))
    np.testing.assert_allclose(stretched[0], [0, 0, 8, 2, 0], atol=1e-12)
    grown = stretched[1:] + np.array([0, 0, 1e-9, 1e-9, 0])
    assert rotated.points_in_boxes(rotated.corners([(0, 0, 10, 1, np.pi / 4)])[0] * (2, 1), grown).all()
    with pytest.raises(ValueError, match="positive"):
        rotated.scaled(boxes, 0.0)


def test_shifts() -> None:
    boxes = random_boxes(3)
    np.testing.assert_allclose(rotated.shifted(boxes, (5, -2))[:, :2], boxes[:, :2] + (5, -2))
    np.testing.assert_allclose(rotated.shifted(boxes, [(1, 0), (2, 0), (3, 0)])[:, 0], boxes[:, 0] + [1, 2, 3])


# Conventions


@pytest.mark.parametrize("name", rotated.CONVENTIONS)
def test_every_convention_keeps_its_range_and_the_rectangle(name: str) -> None:
    boxes = rotated.canonical(random_boxes(3000))
    quarter_turns = rotated.canonical([(0, 0, 9, 4, k * QUARTER / 2) for k in range(-9, 9)])
    squares = rotated.canonical([(0, 0, 4, 4, k * QUARTER / 3) for k in range(-9, 9)])
    boxes = np.concatenate([boxes, quarter_turns, squares])
    written = rotated.convert(boxes, "le90", name)
    rule = rotated.CONVENTIONS[name]
    degrees = (1 if rule.clockwise else -1) * (written[:, 4] if rule.degrees else np.rad2deg(written[:, 4]))
    if rule.open_low:
        assert (degrees > rule.low).all() and (degrees <= rule.low + rule.span + 1e-12).all()
    else:
        assert (degrees >= rule.low - 1e-12).all() and (degrees < rule.low + rule.span).all()
    if rule.span == 180:
        assert (written[:, 2] >= written[:, 3]).all()
    same_rectangle(rotated.convert(written, name, "le90"), boxes)
    for other in rotated.CONVENTIONS:
        same_rectangle(rotated.convert(rotated.convert(written, name, other), other, "le90"), boxes)


def test_conventions_of_one_box_written_out() -> None:
    """A box 40 x 10 whose long side points 30 degrees up to the right: counter-clockwise on screen."""
    box = [(5, 6, 40, 10, -30 * DEGREE)]
    expected = {
        "le90": (40, 10, -30 * DEGREE),
        "le135": (40, 10, -30 * DEGREE),
        "mmrotate-oc-0.x": (10, 40, 60 * DEGREE),
        "mmrotate-oc-1.x": (40, 10, -30 * DEGREE),
        "opencv": (40, 10, -30),
        "opencv-4.5": (10, 40, 60),
        "ultralytics": (10, 40, 60 * DEGREE),
        "detectron2": (40, 10, 30),
        "torchvision": (40, 10, 30),
    }
    assert set(expected) == set(rotated.CONVENTIONS)
    for name, rest in expected.items():
        np.testing.assert_allclose(rotated.convert(box, "le90", name)[0], (5, 6, *rest), atol=1e-12)


def test_an_axis_aligned_box_at_the_ends_of_the_ranges() -> None:
    """OpenCV 4.12 gives (10, 40, 90) and 4.13 (10, 40, -90) for 40 x 10; both mean the same."""
    level = [(0, 0, 40, 10, 0)]
    for degrees in (90, -90):
        np.testing.assert_allclose(rotated.convert([(0, 0, 10, 40, degrees)], "opencv", "le90"), level, atol=1e-12)
    np.testing.assert_allclose(rotated.convert(level, "le90", "opencv-4.5")[0], (0, 0, 10, 40, 90), atol=1e-12)
    np.testing.assert_allclose(rotated.convert(level, "le90", "opencv")[0], (0, 0, 10, 40, -90), atol=1e-12)
    np.testing.assert_allclose(rotated.convert(level, "le90", "ultralytics"), level, atol=1e-12)
    # Upright: le90 has -90 degrees for it, le135 has 90.
    upright = rotated.canonical([(0, 0, 10, 40, 0)])
    assert upright[0, 4] == -QUARTER
    assert rotated.convert(upright, "le90", "le135")[0, 4] == pytest.approx(QUARTER)


def test_torchvision_draws_the_same_corners() -> None:
    ops = pytest.importorskip("torchvision.ops")
    torch = pytest.importorskip("torch")
    boxes = random_boxes(50)
    theirs = torch.from_numpy(rotated.convert(boxes, "le90", "torchvision"))
    quads = ops.box_convert(theirs, "cxcywhr", "xyxyxyxy").numpy().reshape(-1, 4, 2)
    same_rectangle(rotated.from_corners(quads), boxes, atol=1e-6)


def test_unknown_conventions_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown box convention 'le45': known are le90"):
        rotated.convert([(0, 0, 1, 1, 0)], "le45", "le90")


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-1e4, 1e4)] * 2, *[st.floats(1e-3, 1e4)] * 2, st.floats(-20, 20)))
def test_any_box_survives_its_forms(box: tuple[float, ...]) -> None:
    boxes = np.array([box])
    scale = max(map(abs, box))
    same_rectangle(rotated.canonical(boxes), boxes, atol=1e-6 + 1e-12 * scale)
    same_rectangle(rotated.from_corners(rotated.corners(boxes)), boxes, atol=2e-6 + 1e-9 * scale)
