# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from metric_samples import CLASSES, result_of, row_of_boxes, truth_of

from detection.drawing.boxes import boxes_on_image, draw_points, to_classes
from detection.drawing.colors import DIFFICULT, TRUE, angle_colors, class_color
from detection.drawing.frame import HEIGHT_PX, WIDTH_PX, Frame
from detection.drawing.sheet import draw_boxes, overlay_sheet, verdict_sheet
from detection.drawing.training import angle_sheet, bag_sheet
from vision3d.geometry import rotated
from vision3d.types import BoxResult, LabeledImage

GROUND = np.full((100, 700, 3), 90, dtype=np.uint8)
BOX = np.array([[200.0, 50.0, 120.0, 60.0, 0.0]])


def shows(picture: np.ndarray, color: tuple[int, int, int], within: int = 0) -> np.ndarray:
    """(K, 2) x and y of the pixels of this colour; thin smoothed lines come ``within`` some levels of theirs."""
    return np.argwhere((np.abs(picture.astype(int) - color) <= within).all(axis=2))[:, ::-1]


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((100, 700), (100, 700)),
        ((64, 128), (320, 640)),
        ((1000, 2560), (500, 1280)),
        ((8000, 1000), (HEIGHT_PX, 200)),
    ],
)
def test_images_are_fitted(shape: tuple[int, int], shown: tuple[int, int]) -> None:
    picture = boxes_on_image(np.zeros((*shape, 3), dtype=np.uint8), None)
    assert picture.shape == (*shown, 3)
    assert picture.shape[1] <= WIDTH_PX


def test_the_image_itself_is_left_alone() -> None:
    image = GROUND.copy()
    boxes_on_image(image, result_of("a", BOX, [0.9]), truth_of(BOX), points=BOX[:, :2])
    assert (image == GROUND).all()


def test_a_found_box_is_drawn_where_it_is_in_the_colour_of_its_class() -> None:
    picture = boxes_on_image(GROUND, result_of("a", BOX, [0.9], labels=[2]), classes=CLASSES)
    x, y = shows(picture, class_color(2)).T
    assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx((140, 260, 20, 80), abs=1)
    # Nothing inside it, and the dimmed ground beside it.
    assert len(np.unique(picture[40:60, 160:240].reshape(-1, 3), axis=0)) == 1
    assert len(shows(picture, class_color(0))) == 0


def test_boxes_land_on_enlarged_pixels() -> None:
    image = np.zeros((100, 160, 3), dtype=np.uint8)
    image[20:41, 30:91] = 255
    # The patch covers [29.5, 90.5] x [19.5, 40.5]: its box is drawn on its border.
    frame = Frame.around(image, bold=True)
    corners = frame.place(rotated.corners(np.array([[60.0, 30.0, 61.0, 21.0, 0.0]]))[0])
    lit = np.argwhere(frame.picture[..., 0] > 127)[:, ::-1]
    np.testing.assert_allclose(corners.min(axis=0), lit.min(axis=0) - 0.5, atol=1)
    np.testing.assert_allclose(corners.max(axis=0), lit.max(axis=0) + 0.5, atol=1)


def test_true_boxes_are_dashed_and_difficult_ones_grey() -> None:
    truth = truth_of([[200, 50, 120, 60, 0], [500, 50, 120, 60, 0]], difficult=[0, 1])
    picture = boxes_on_image(GROUND, None, truth)
    easy, hard = shows(picture, TRUE, 40), shows(picture[:, 350:], DIFFICULT, 30)
    assert easy[:, 0].max() < 300
    assert len(hard) > 60
    along_top = np.unique(easy[np.abs(easy[:, 1] - 20) <= 1][:, 0])
    assert along_top.min() == pytest.approx(140, abs=1)
    assert along_top.max() == pytest.approx(260, abs=1)
    assert 40 < len(along_top) < 100  # dashes and gaps


def test_the_smallest_true_box_shows() -> None:
    assert len(np.unique(boxes_on_image(GROUND, None, truth_of([[50, 50, 2, 2, 0.2]])).reshape(-1, 3), axis=0)) > 1


def test_scores_are_written_where_there_is_room() -> None:
    alone = result_of("a", BOX, [0.87])
    crowd = result_of("a", np.repeat(BOX, 100, axis=0), [0.87] * 100)
    assert len(shows(boxes_on_image(GROUND, alone), TRUE, 60)) > 5
    assert len(shows(boxes_on_image(GROUND, crowd), TRUE, 60)) == 0
    # No room above or below a box that fills the picture.
    assert len(shows(boxes_on_image(GROUND, result_of("a", [[350, 50, 690, 96, 0]], [0.5])), TRUE, 60)) == 0


def test_points_are_crosses_in_the_colour_of_their_class() -> None:
    points = np.array([[100.0, 50.0], [600.0, 50.0]])
    picture = boxes_on_image(GROUND, None, classes=CLASSES, points=points, point_labels=np.array([0, 1]))
    for point, label in zip(points, (0, 1), strict=True):
        lit = shows(picture, class_color(label))
        assert len(lit) > 3
        assert np.abs(lit - point).max() <= 5


def test_dense_points_get_small_crosses() -> None:
    frame = Frame.around(GROUND)
    grid = np.stack(np.meshgrid(np.arange(10, 690, 8.0), np.arange(10, 90, 8.0)), axis=-1).reshape(-1, 2)
    draw_points(frame, grid, [class_color(0)] * len(grid))
    between = frame.picture[14::8, 14:680:8]
    assert (between == between[0, 0]).all()


def test_far_and_empty_boxes_do_no_harm() -> None:
    boxes = np.array([[1e7, 0, 10, 5, 0], [-50, -50, 10, 5, 0], [50, 50, 0, 0, 0]])
    result = result_of("a", boxes, [0.5] * 3)
    assert boxes_on_image(GROUND, result, truth_of(boxes)).shape == GROUND.shape
    assert boxes_on_image(GROUND, result_of("a", [], []), truth_of([])).shape == GROUND.shape


def test_labels_follow_names() -> None:
    assert to_classes(np.array([0, 1, 2]), ("truck", "ship", "kite"), CLASSES).tolist() == [2, 0, 3]
    assert to_classes(np.array([0, 1]), (), CLASSES).tolist() == [0, 1]


def test_class_colours_differ_and_stay() -> None:
    colors = [class_color(i) for i in range(21)]
    assert len(set(colors)) == 21
    assert all(max(color) > 80 for color in colors)
    assert class_color(3) == class_color(3)


def test_angles_that_differ_by_half_a_turn_have_one_colour() -> None:
    angles = np.linspace(-1.5, 1.5, 13)
    assert (angle_colors(angles) == angle_colors(angles + np.pi)).all()
    assert len(np.unique(angle_colors(angles), axis=0)) == 13


@pytest.fixture
def sample() -> LabeledImage:
    boxes = row_of_boxes(6)
    return LabeledImage("P0001", GROUND, CLASSES, boxes[:, :2], np.array([0, 0, 1, 1, 2, 2]), np.arange(6))


def test_sheets_have_a_head_and_a_legend(sample: LabeledImage) -> None:
    truth = truth_of(row_of_boxes(6), labels=[0, 0, 1, 1, 2, 2])
    moved = row_of_boxes(6) + [2, 1, 4, 1, 0.1]
    result = result_of("P0001", moved, [0.9] * 6, [0, 0, 1, 1, 2, 0], ids=list(range(6)))
    for picture in (
        draw_boxes(sample, result),
        draw_boxes(sample, result, truth),
        overlay_sheet(sample, result, truth),
        overlay_sheet(sample, replace(result, ids=None), truth),
        verdict_sheet(sample, result, truth),
    ):
        assert picture.dtype == np.uint8
        assert picture.shape[0] > GROUND.shape[0] + 40
        assert picture.shape[1] == GROUND.shape[1]
        assert len(shows(picture[-30:], TRUE)) > 10


def test_a_failure_shows_what_is_known(sample: LabeledImage) -> None:
    failed = BoxResult(name="P0001", status="failed", reason="out of memory")
    truth = truth_of(row_of_boxes(6), labels=[0, 0, 1, 1, 2, 2])
    for picture in (
        draw_boxes(sample, failed),
        draw_boxes(sample, failed, truth),
        overlay_sheet(sample, failed, truth),
    ):
        assert picture.shape[1] == GROUND.shape[1]
    assert verdict_sheet(sample, failed, truth).shape[1] == GROUND.shape[1]


def test_a_plain_image_has_no_points_to_draw(sample: LabeledImage) -> None:
    plain = replace(sample, points=None, labels=None, ids=None)
    assert draw_boxes(plain, result_of("P0001", BOX, [0.9])).shape[1] == GROUND.shape[1]


def test_a_long_legend_takes_more_lines(sample: LabeledImage) -> None:
    classes = tuple(f"a-class-with-a-long-name-{i}" for i in range(18))
    truth = truth_of(row_of_boxes(18), labels=list(range(18)), classes=classes)
    few = draw_boxes(sample, result_of("P0001", [], []), truth_of([]))
    many = draw_boxes(replace(sample, classes=classes), result_of("P0001", [], [], classes=classes), truth)
    assert many.shape[0] > few.shape[0] + 60


def test_a_bag_is_shown_around_its_point() -> None:
    image = np.full((300, 900, 3), 90, dtype=np.uint8)
    bag = np.array([[400, 150, w, h, 0.0] for w in (10, 20, 40) for h in (10, 20, 40)])
    picture = bag_sheet(image, np.array([400.0, 150.0]), bag, np.linspace(0, 1, 9), bag[8], bag[4])
    assert picture.shape[1] == 640
    bare = bag_sheet(image, np.array([0.0, 299.0]), bag[:0])
    assert bare.shape[1] == 640


def test_the_angle_field_points_where_it_says() -> None:
    angles = np.zeros((25, 175))
    picture = angle_sheet(GROUND, angles, stride=4, boxes=BOX)
    r, g, b = angle_colors(np.zeros(1))[0]
    lit = shows(picture[34:134], (int(r), int(g), int(b)))
    # Level lines are level: each lies on few rows and covers most columns.
    assert len(np.unique(lit[:, 0])) > 500
    assert len(np.unique(lit[:, 1])) < 30
    short = angle_sheet(GROUND, angles, 4, strength=np.full(angles.shape, 0.2))
    assert len(shows(short[34:134], (int(r), int(g), int(b)))) < 0.6 * len(lit)
