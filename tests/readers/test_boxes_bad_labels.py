# SPDX-License-Identifier: Apache-2.0
"""Bad labels: one clear line with file and line number; with ``?skip_lines=1`` left out and counted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from box_layouts import BOX_DATA, drawn, write_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon

from vision3d.contracts import DataConfig
from vision3d.errors import DataError
from vision3d.readers._boxes_objects import shape_problems
from vision3d.readers._boxes_xml import read_xml
from vision3d.readers.coco_rotated import SPEC as COCO
from vision3d.readers.dior import SPEC as DIOR
from vision3d.readers.dota import SPEC as DOTA
from vision3d.readers.points import SPEC as POINTS
from vision3d.readers.yolo_obb import SPEC as YOLO

GOOD = b"10 10 30 10 30 20 10 20 ship 0"
BAD = {
    b"10 10 30 20 30 10 10 20 ship 0": "its edges cross one another",
    b"10 10 40 10 20 17 10 40 ship 0": "the quadrilateral is not convex",
    b"10 10 30 10 30 10.5 10 10.5 ship 0": "is 20 x 0.5 pixels: a side under 1 pixel is no object",
    b"10 10 10 10 10 10 10 10 ship 0": "is 0 x 0 pixels",
    b"170 10 190 10 190 20 170 20 ship 0": "lies outside of the image, which is 160x160 pixels",
    b"10 -40 30 -40 30 -1 10 -1 ship 0": "lies outside of the image",
    b"10 10 30 10 30 20 10 20 shipp 0": "unknown class 'shipp': did you mean 'ship'?",
    b"10 10 30 10 30 20 10 20 Q 0": r"unknown class 'Q': \?classes=a,b,c names the classes, \?classes=auto takes",
    b"10 10 30 10 30 20 10 ship 0": "'ship' is no coordinate",
    b"10 10 30 10 30 20 10 20": "has 8 fields; an object has 8 coordinates, a class",
    b"10 10 30 10 30 20 10 20 storage tank 0": "has 11 fields",
    b"10 10 30 10 30 20 10 x ship 0": "'x' is no coordinate",
    b"10 10 30 10 30 20 10 nan ship 0": "a coordinate is not a finite number",
    b"10 10 30 10 30 20 10 1e300 ship 0": "a coordinate is not a finite number, or is beyond all images",
    b"10 10 30 10 30 20 10 20 ship 3": "difficult is '3': must be 0, 1 or 2",
    b"10 10 30 10 30 20 10 20 sh\xff\xfep 0": "holds bytes that are not UTF-8",
}


def data_set(root: Path, *lines: bytes, end: bytes = b"\n") -> Path:
    write_image(root / "images" / "P0706.png", drawn(0).image)
    (root / "labelTxt").mkdir()
    (root / "labelTxt" / "P0706.txt").write_bytes(end.join([b"imagesource:x", b"gsd:null", *lines, b""]))
    return root


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_makes_its_image_bad(line: bytes, tmp_path: Path) -> None:
    root = data_set(tmp_path / "set", GOOD, line, GOOD.replace(b"10", b"50").replace(b"30", b"70"))
    words = rf"P0706\.txt: line 4: {BAD[line]}"
    with pytest.raises(DataError, match=words) as caught:
        DOTA.open(str(root), DataConfig())
    assert "?skip_lines=1 leaves bad lines out" in str(caught.value)
    assert "\n" not in str(caught.value)
    reader = DOTA.open(str(root), DataConfig(skip_bad=True))
    assert list(reader.bad) == [0]
    assert reader.truth(0) is None
    with pytest.raises(DataError, match=words):
        reader[0]
    (problem,) = DOTA.check(str(root))
    assert problem.startswith(f"{root}/labelTxt/P0706.txt: line 4: ")
    lenient = DOTA.open(f"{root}?skip_lines=1", DataConfig())
    assert dict(lenient.bad) == {}
    assert len(lenient.truth(0).boxes) == len(lenient[0].points) == 2
    assert lenient.notes[0].startswith("1 bad labels left out: P0706.txt line 4: ")


def test_all_bad_lines_are_counted_and_listed(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set", *BAD)
    with pytest.raises(DataError, match=rf"line 3: .* \(and {len(BAD) - 1} more like it\)"):
        DOTA.open(str(root), DataConfig())
    problems = DOTA.check(str(root))
    lines = [int(problem.split("line ")[1].split(":")[0]) for problem in problems]
    assert lines == list(range(3, 3 + len(BAD)))
    reader = DOTA.open(f"{root}?skip_lines=1", DataConfig())
    assert len(reader.truth(0).boxes) == 0
    assert reader.truth(0).quads.shape == (0, 4, 2)
    assert reader[0].points.shape == (0, 2)
    assert reader.notes[0].startswith(f"{len(BAD)} bad labels left out: ")
    assert reader.notes[0].count("line ") == 3


@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\n"])
def test_line_ends_headers_and_marks_are_accepted_silently(end: bytes, tmp_path: Path) -> None:
    root = data_set(tmp_path / "set", b"", GOOD, b"  ", GOOD[:-2].replace(b"20", b"25") + b"  ", end=end)
    path = root / "labelTxt" / "P0706.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    reader = DOTA.open(str(root), DataConfig())
    assert (reader.notes, len(reader.truth(0).boxes), list(reader.truth(0).difficult)) == ((), 2, [0, 0])
    assert reader[0].gsd_m is None
    assert DOTA.check(str(root)) == []
    for header in (b"", b"gsd:0.5\n", b"imagesource:GoogleEarth\n", b"imagesource:x\ngsd:0.5\n"):
        path.write_bytes(header + GOOD)
        reader = DOTA.open(str(root), DataConfig())
        assert reader[0].gsd_m == (0.5 if b"gsd" in header else None)
        assert len(reader.truth(0).boxes) == 1


def test_real_habits_are_fine(tmp_path: Path) -> None:
    """Corners outside of the image, rounded and so not quite convex or rectangular, any order, floats, one pixel."""
    lines = [
        b"-30 10 30 10 30 20 -30 20 ship 0",
        b"140 150 190 150 190 180 140 180 ship 2",
        b"10 10 50 12 52 31 9 30 ship 0",
        b"10 20 30 20 30 10 10 10 ship 1",
        b"10.25 10 31.75 10 31 20.5 10 20 ship 0",
        b"10 10 30 10 30 11 10 11 ship 0",
        b"10 10 20 10 30 10 20 40 ship 0",
        b"100 100 120 99.5 140 100 120 130 ship 0",
    ]
    root = data_set(tmp_path / "set", *lines)
    reader = DOTA.open(str(root), DataConfig())
    assert len(reader.truth(0).boxes) == len(lines)
    assert (reader[0].points >= 0).all()
    assert (reader[0].points <= 159).all()
    assert DOTA.check(str(root)) == []


def test_check_lists_duplicates_and_files_without_partners(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set", GOOD, GOOD.replace(b"20", b"25"), GOOD)
    write_image(root / "images" / "P1.png", drawn(0).image)
    (root / "labelTxt" / "P2.txt").write_bytes(GOOD)
    labels = root / "labelTxt"
    assert DOTA.check(str(root)) == [
        f"{labels}/P1.txt: no such label file (an image without objects has an empty one)",
        f"{labels}/P2.txt: has no image",
        f"{labels}/P0706.txt: line 5: says the same as line 3",
    ]
    reader = DOTA.open(str(root), DataConfig(skip_bad=True))
    assert reader.notes == ("1 label files have no image, e.g. P2.txt",)
    assert list(reader.bad) == [1]
    assert len(reader.truth(0).boxes) == 3


def test_names_that_are_not_utf8_are_named_readably(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set", GOOD)
    try:
        os.link(root / "images" / "P0706.png", os.fsencode(root / "images") + b"/P\xff1.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    reader = DOTA.open(str(root), DataConfig(skip_bad=True))
    (text,) = reader.bad.values()
    assert text.encode().decode() == f"{root}/images/P�1.png: its name is not UTF-8: rename the file"
    assert DOTA.check(str(root)) == [text]


def test_damaged_images_are_named(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set", GOOD)
    path = root / "images" / "P0706.png"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    reader = DOTA.open(str(root), DataConfig())
    with pytest.raises(DataError, match=r"P0706\.png: truncated PNG"):
        reader[0]
    path.write_bytes(b"no image at all, but long enough for a header")
    with pytest.raises(DataError, match=r"P0706\.png: is not an image that can be read"):
        DOTA.open(str(root), DataConfig())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 .1 .1 .5 .1 .5 .4 .1", "line 1: has 8 fields; an object is a class and 8 coordinates"),
        ("0 .1 .1 .5 .1", "line 1: has 5 fields.*5 fields are upright boxes"),
        ("7 .1 .1 .5 .1 .5 .4 .1 .4", "line 1: unknown class 7: there are 3, counted from 0"),
        ("-1 .1 .1 .5 .1 .5 .4 .1 .4", "line 1: unknown class -1"),
        ("ship .1 .1 .5 .1 .5 .4 .1 .4", "line 1: 'ship' is no number"),
        ("0 10 10 50 10 50 40 10 40", "line 1: lies outside of the image"),
    ],
)
def test_bad_lines_of_yolo(line: str, words: str, tmp_path: Path) -> None:
    source = Path(BOX_DATA["yolo-obb"](tmp_path / "set"))
    (source / "labels" / "train" / "00000.txt").write_text(line)
    with pytest.raises(DataError, match=rf"00000\.txt: {words}"):
        YOLO.open(str(source), DataConfig())
    (problem,) = YOLO.check(str(source))
    assert "00000.txt: line 1" in problem


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: t.replace("<x_left_top>", "<x_left>").replace("</x_left_top>", "</x_left>"),
            "object 1: has no <x_l",
        ),
        (lambda t: t.replace("<y_left_top>", "<y_left_top>a", 1), "object 1: <y_left_top> is 'a.*': must be a number"),
        (lambda t: t.replace("Ship", "Shed", 1).replace("Vehicle", "Shed", 1), "object .: unknown class 'shed'"),
        (lambda t: t.replace("<difficult>0", "<difficult>9", 1), "object 1: <difficult> is '9'"),
        (lambda t: t[: len(t) // 2], "line 1: is not XML"),
        (lambda t: t.replace("annotation>", "note>"), "must hold <annotation>, found <note>"),
        (lambda t: '<!DOCTYPE x [<!ENTITY a "b">]>' + t, "declares XML entities"),
    ],
)
def test_bad_objects_of_dior(change, words: str, tmp_path: Path) -> None:
    source = BOX_DATA["dior"](tmp_path / "set")
    path = tmp_path / "set" / "Annotations" / "Oriented Bounding Boxes" / "00000.xml"
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=rf"00000\.xml: {words}"):
        DIOR.open(source, DataConfig())


def test_xml_that_is_missing_or_of_an_unknown_encoding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such label file"):
        read_xml(tmp_path / "a.xml", "annotation")
    (tmp_path / "a.xml").write_text('<?xml version="1.0" encoding="klingon"?><annotation/>')
    with pytest.raises(DataError, match="is not XML"):
        read_xml(tmp_path / "a.xml", "annotation")


words = st.sampled_from(
    ["1", "20", "1e999", "-3.5", "nan", "ship", "²", "٣", "1_0", "9" * 5000, "{", "<", "\0", "a b", "gsd:"]
)
lines = st.lists(words, max_size=12).map(" ".join)
texts = st.one_of(st.lists(lines, max_size=5).map(lambda rows: "\n".join(rows).encode()), st.binary(max_size=200))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts)
def test_no_text_breaks_a_reader(tmp_path: Path, text: bytes) -> None:
    """Whatever a label file holds: an error that names it, or labels."""
    folder = tmp_path / "fuzz"
    if not folder.exists():
        BOX_DATA["points"](folder / "points")
        BOX_DATA["yolo-obb"](folder / "yolo")
        data_set(folder / "dota", GOOD)
    targets = (
        (DOTA, folder / "dota", "labelTxt/P0706.txt"),
        (YOLO, folder / "yolo", "labels/train/00000.txt"),
        (POINTS, folder / "points", "points/00000.txt"),
    )
    for spec, root, name in targets:
        (root / name).write_bytes(text)
        reader = spec.open(str(root), DataConfig(skip_bad=True))
        if 0 not in reader.bad:
            assert reader[0].points is not None
        lenient = spec.open(f"{root}?skip_lines=1", DataConfig())
        assert len(lenient[0].points) == len(lenient[0].labels)


odd = st.sampled_from(
    [None, True, [], {}, "x", "", -1, 1, 2.5, float("nan"), float("inf"), 10**400, [1] * 5, [[1] * 8]]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["images", "annotations", "categories"]), st.data())
def test_no_json_breaks_the_coco_reader(tmp_path: Path, part: str, data: st.DataObject) -> None:
    folder = tmp_path / "fuzz"
    if not folder.exists():
        BOX_DATA["coco-rotated"](folder)
        (folder / "annotations" / "instances.json").rename(folder / "kept.txt")
    document = json.loads((folder / "kept.txt").read_text())
    item = document[part][data.draw(st.integers(0, len(document[part]) - 1))]
    keys = [
        "id",
        "file_name",
        "width",
        "image_id",
        "category_id",
        "bbox",
        "segmentation",
        "name",
        "difficult",
        "iscrowd",
    ]
    item[data.draw(st.sampled_from(keys))] = data.draw(odd)
    path = folder / "annotations" / "instances.json"
    path.write_text(json.dumps(document))
    try:
        reader = COCO.open(str(path), DataConfig(skip_bad=True))
    except DataError:
        return
    for index in range(len(reader)):
        if index not in reader.bad:
            assert len(reader[index].points) == len(reader.truth(index).boxes)


numbers = st.floats(-60, 220).map(lambda value: round(value, 1))


@settings(max_examples=300, deadline=None)
@given(st.lists(numbers, min_size=8, max_size=8))
def test_what_is_called_good_is_a_simple_convex_polygon_that_meets_the_image(values: list[float]) -> None:
    quad = np.array(values).reshape(1, 4, 2)
    boxes, (text,) = shape_problems(quad, (160, 160))
    polygon = Polygon(quad[0])
    hull = polygon.convex_hull
    if not text:
        # A dent of a pixel is what rounding makes.
        assert hull.area - polygon.buffer(0).area <= 1.0 * hull.length
        assert boxes[0, 2:4].min() >= 1
        x, y = quad[0].T
        assert x.max() >= -0.5
        assert x.min() <= 159.5
        assert y.max() >= -0.5
        assert y.min() <= 159.5
    elif "cross" in text:
        assert not polygon.is_valid
    elif "convex" in text:
        assert hull.area > polygon.buffer(0).area
    if polygon.is_valid and hull.area - polygon.area < 1e-9 and boxes[0, 2:4].min() >= 1:
        assert not text or "outside" in text


def test_coco_with_numbers_or_ids_that_mean_nothing(tmp_path: Path) -> None:
    (source,) = Path(BOX_DATA["coco-rotated"](tmp_path / "set")).glob("annotations/*.json")
    data = json.loads(source.read_text())
    item = {**data["annotations"][0], "segmentation": [], "bbox": [1e308, 40, 1e308, 10, 0]}
    source.write_text(json.dumps({**data, "annotations": [item]}))
    with pytest.raises(DataError, match="its bbox lies beyond all images"):
        COCO.open(str(tmp_path / "set"), DataConfig())
    twice = [*data["categories"], {**data["categories"][0], "name": "another"}]
    source.write_text(json.dumps({**data, "categories": twice}))
    with pytest.raises(DataError, match="a category's id or name"):
        COCO.open(str(tmp_path / "set"), DataConfig())
