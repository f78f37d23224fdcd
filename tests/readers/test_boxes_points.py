# SPDX-License-Identifier: Apache-2.0
"""Points: drawn near the centres of true boxes, or clicked and read from ``points/``."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from box_layouts import BOX_DATA, DOTA_CLASSES, IMAGES, drawn

from vision3d.contracts import DataConfig
from vision3d.errors import ConfigError, DataError
from vision3d.geometry import rotated
from vision3d.readers._boxes_points import drawn_points, matched_rows
from vision3d.readers.dota import SPEC as DOTA
from vision3d.readers.points import SPEC as POINTS
from vision3d.types.images import BoxTruth


def truth_of(boxes: np.ndarray, size: tuple[int, int] = (4000, 4000)) -> BoxTruth:
    count = len(boxes)
    return BoxTruth(
        boxes=boxes,
        labels=np.zeros(count, dtype=np.int64),
        difficult=np.zeros(count, dtype=np.uint8),
        quads=rotated.corners(boxes),
        classes=("ship",),
        size=size,
    )


def test_drawn_points_fill_the_ellipse_evenly() -> None:
    box = np.array([2000.0, 1500.0, 300.0, 60.0, 0.7])
    truth = truth_of(np.tile(box, (20_000, 1)))
    points = drawn_points(truth, 0.1, 0, "P1")
    offset = points - box[:2]
    along = offset @ [np.cos(0.7), np.sin(0.7)] / (0.1 * 300)
    across = offset @ [-np.sin(0.7), np.cos(0.7)] / (0.1 * 60)
    radius = np.hypot(along, across)
    assert radius.max() <= 1
    # Uniform in a disc: the share within r is r squared, and the mean is the centre.
    for r in (0.3, 0.5, 0.8):
        assert (radius < r).mean() == pytest.approx(r * r, abs=0.01)
    assert np.abs([along.mean(), across.mean()]).max() < 0.02
    assert along.std() == pytest.approx(0.5, abs=0.01)
    assert across.std() == pytest.approx(0.5, abs=0.01)


def test_jitter_seed_and_name_decide_the_draw() -> None:
    truth = truth_of(np.array([[100.0, 100.0, 40.0, 20.0, 0.3], [300.0, 80.0, 30.0, 30.0, 0.0]]))
    np.testing.assert_allclose(drawn_points(truth, 0.0, 0, "P1"), truth.boxes[:, :2])
    first = drawn_points(truth, 0.1, 0, "P1")
    np.testing.assert_array_equal(first, drawn_points(truth, 0.1, 0, "P1"))
    for other in (drawn_points(truth, 0.1, 1, "P1"), drawn_points(truth, 0.1, 0, "P2")):
        assert (first != other).all()
    np.testing.assert_allclose(drawn_points(truth, 0.2, 0, "P1") - truth.boxes[:, :2], 2 * (first - truth.boxes[:, :2]))


def test_drawn_points_stay_inside_the_image() -> None:
    truth = truth_of(np.array([[-8.0, 20.0, 40.0, 10.0, 0.0], [99.0, 120.0, 30.0, 60.0, 0.0]]), (100, 100))
    points = drawn_points(truth, 0.1, 0, "P1")
    assert points.min() >= 0
    assert points.max() <= 99


def test_points_do_not_depend_on_the_order_of_reading_or_on_the_others(tmp_path: Path) -> None:
    source = BOX_DATA["dota"](tmp_path / "set")
    reader = DOTA.open(source, DataConfig())
    forward = [reader[i].points for i in range(IMAGES)]
    backward = [DOTA.open(source, DataConfig(select=f"{i}:{i + 1}"))[0].points for i in reversed(range(IMAGES))]
    for a, b in zip(forward, reversed(backward)):
        np.testing.assert_array_equal(a, b)
    other = DOTA.open(f"{source}?seed=1", DataConfig())
    assert (other[0].points != forward[0]).all()
    center = DOTA.open(f"{source}?jitter=0", DataConfig())
    np.testing.assert_allclose(center[0].points, drawn(0).boxes[:, :2], atol=1e-9)


def test_matched_rows_against_all_assignments() -> None:
    """No point and no box is used twice; a point's box holds it; of pairs that could both be, the nearer is there."""
    rng = np.random.default_rng(3)
    for _ in range(40):
        boxes = np.column_stack([rng.uniform(0, 60, (9, 2)), rng.uniform(8, 30, (9, 2)), rng.uniform(-1.5, 1.5, 9)])
        truth = replace(truth_of(rotated.canonical(boxes)), labels=rng.integers(0, 2, 9))
        points, labels = rng.uniform(0, 60, (12, 2)), rng.integers(0, 2, 12)
        rows = matched_rows(points, labels, truth)
        used = rows[rows >= 0]
        assert len(set(used.tolist())) == len(used)
        inside = rotated.points_in_boxes(points, truth.boxes) & (labels[:, None] == truth.labels)
        assert inside[rows >= 0, used].all()
        # Nothing is left over that could still be matched.
        free = ~np.isin(np.arange(9), used)
        assert not inside[rows < 0][:, free].any()
    assert matched_rows(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), truth).shape == (0,)


def test_clicked_points_replace_the_drawn_ones_and_know_their_boxes(tmp_path: Path) -> None:
    source = Path(BOX_DATA["dota"](tmp_path / "set"))
    (source / "points").mkdir()
    rng = np.random.default_rng(0)
    orders = []
    for index in range(IMAGES):
        item = drawn(index)
        orders.append(rng.permutation(len(item.boxes)))
        rows = [(*item.boxes[row, :2], DOTA_CLASSES[item.labels[row]]) for row in orders[-1]]
        rows += [(3.0, 3.0, "ship")]  # an object that the truth does not know
        text = "".join(f"{x:.2f} {y:.2f} {name}\n" for x, y, name in rows)
        (source / "points" / f"{item.name}.txt").write_text(text)
    reader = DOTA.open(str(source), DataConfig())
    assert DOTA.match(str(source)) > POINTS.match(str(source)) > 0
    for index, order in enumerate(orders):
        sample = reader[index]
        np.testing.assert_array_equal(sample.ids, [*order, -1])
        np.testing.assert_allclose(sample.points[:-1], np.round(drawn(index).boxes[order, :2], 2))
        assert len(reader.truth(index).boxes) == len(order)
    again = DOTA.open(f"{source}?points=drawn", DataConfig())
    assert len(again[0].points) == len(drawn(0).boxes)
    shutil.move(source / "points", tmp_path / "elsewhere" / "points")
    for given in (tmp_path / "elsewhere", tmp_path / "elsewhere" / "points"):
        there = DOTA.open(f"{source}?points={given}", DataConfig())
        np.testing.assert_array_equal(there[0].points, reader[0].points)


def test_points_reader_reads_what_was_clicked(tmp_path: Path) -> None:
    source = Path(BOX_DATA["points"](tmp_path / "set"))
    reader = POINTS.open(str(source), DataConfig())
    assert reader.truth(0) is None
    np.testing.assert_array_equal(reader[0].ids, np.arange(len(drawn(0).boxes)))
    # Images directly in the folder.
    flat = tmp_path / "flat"
    shutil.copytree(source / "images", flat)
    shutil.copytree(source / "points", flat / "points")
    with pytest.raises(DataError, match=r"does not say what its classes are: add a classes\.txt"):
        POINTS.open(str(flat), DataConfig())
    auto = POINTS.open(f"{flat}?classes=auto", DataConfig())
    assert auto.classes == reader.classes
    np.testing.assert_array_equal(auto[2].points, reader[2].points)
    with pytest.raises(ConfigError, match="defines no split 'train'"):
        POINTS.open(str(source), DataConfig(split="train"))
    # Points kept elsewhere, with their list of classes.
    shutil.move(source / "points", tmp_path / "out" / "points")
    shutil.move(source / "classes.txt", tmp_path / "out" / "classes.txt")
    moved = POINTS.open(f"{source}?points={tmp_path / 'out'}", DataConfig())
    assert moved.classes == reader.classes
    np.testing.assert_array_equal(moved[2].points, reader[2].points)
    with pytest.raises(DataError, match="no such folder of points"):
        POINTS.open(f"{source}?points={tmp_path / 'none'}", DataConfig())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("3 4", "line 2: has 2 fields; a point is 'x y class'"),
        ("3 b ship", "line 2: '3 b' are not two numbers"),
        ("3 200 ship", "line 2: the point lies outside of the image, which is 160x160 pixels"),
        ("nan 2 ship", "line 2: the point lies outside of the image"),
        ("3 4 shop", "line 2: unknown class 'shop': did you mean 'ship'"),
    ],
)
def test_bad_points_are_named(line: str, words: str, tmp_path: Path) -> None:
    source = Path(BOX_DATA["points"](tmp_path / "set"))
    path = source / "points" / "00001.txt"
    path.write_text(f"20 30 ship\r\n{line}\r\n")
    with pytest.raises(DataError, match=rf"00001\.txt: {words}"):
        POINTS.open(str(source), DataConfig())
    assert len(POINTS.check(str(source))) == 1
    reader = POINTS.open(f"{source}?skip_lines=1", DataConfig())
    np.testing.assert_array_equal(reader[1].points, [[20, 30]])
    assert reader.notes[0].startswith("1 bad labels left out: 00001.txt line 2: ")


def test_an_image_that_nobody_has_clicked_is_bad_until_then(tmp_path: Path) -> None:
    source = Path(BOX_DATA["points"](tmp_path / "set"))
    (source / "points" / "00002.txt").unlink()
    (source / "points" / "00003.txt").write_text("")
    (source / "points" / "99.txt").write_text("")
    with pytest.raises(DataError, match=r"00002\.txt: no such file: nobody has clicked the points of 00002\.png yet"):
        POINTS.open(str(source), DataConfig())
    reader = POINTS.open(str(source), DataConfig(skip_bad=True))
    assert list(reader.bad) == [2]
    assert reader[3].points.shape == (0, 2)
    assert [problem.rpartition("/")[2] for problem in POINTS.check(str(source))] == [
        "00002.txt: no such file: nobody has clicked the points of 00002.png yet",
        "99.txt: has no image",
    ]


def test_classes_that_were_not_asked_for_leave_points_too(tmp_path: Path) -> None:
    source = BOX_DATA["points"](tmp_path / "set")
    reader = POINTS.open(f"{source}?classes=vehicle", DataConfig())
    assert reader.classes == ("vehicle",)
    assert len(reader[0].points) == (drawn(0).labels == 2).sum()
    assert "objects of other classes left out (ship, storagetank)" in reader.notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"a\nb\na\n", "line 3: the class 'a' is there twice"), (b"\n \n", "names no class"), (b"\xff\n", "not UTF-8")],
)
def test_bad_lists_of_classes_are_named(text: bytes, words: str, tmp_path: Path) -> None:
    source = Path(BOX_DATA["points"](tmp_path / "set"))
    (source / "classes.txt").write_bytes(text)
    with pytest.raises(DataError, match=rf"classes\.txt: {words}|classes\.txt: line 1: .*{words}"):
        POINTS.open(str(source), DataConfig())


def test_a_folder_of_points_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = BOX_DATA["dota"](tmp_path / "set")
    with pytest.raises(DataError, match="nowhere: no such folder of points"):
        DOTA.open(f"{source}?points={tmp_path / 'nowhere'}", DataConfig(skip_bad=True))


def test_every_click_and_every_other_draw_changes_the_identity_of_points(tmp_path: Path) -> None:
    source = Path(BOX_DATA["dota"](tmp_path / "set"))

    def identity(options: str = "") -> str:
        return DOTA.open(f"{source}{options}", DataConfig(skip_bad=True)).points_identity

    assert identity() == identity("?jitter=0.1&seed=0")
    seen = {identity(), identity("?jitter=0"), identity("?seed=1")}
    (source / "points").mkdir()
    one, other = DOTA_CLASSES[:2]
    for text in ("", f"30 30 {one}\n", f"30 30 {other}\n", f"30 30.5 {other}\n"):
        (source / "points" / f"{drawn(0).name}.txt").write_text(text)
        seen.add(identity())
    assert len(seen) == 7
