# SPDX-License-Identifier: Apache-2.0
"""Every reader of oriented boxes gives back what was drawn."""

from __future__ import annotations

import importlib
import json
import math
import shutil
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from box_layouts import BOX_DATA, CLASSES, DOTA_CLASSES, IMAGES, LAST, SIDE, dota_lines, drawn, write_image, write_text

from vision3d.contracts import DataConfig, Reader, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.geometry import rotated
from vision3d.readers.hrsc import heading
from vision3d.types.images import LabeledImage

SPECS: dict[str, ReaderSpec] = {
    name: importlib.import_module(f"vision3d.readers.{name.replace('-', '_')}").SPEC for name in BOX_DATA
}


def opened(name: str, source: str, **config: object) -> Reader:
    return SPECS[name].open(source, DataConfig(**config))


@pytest.mark.parametrize("name", BOX_DATA)
def test_what_was_drawn_is_read(name: str, tmp_path: Path) -> None:
    source = BOX_DATA[name](tmp_path / "set")
    reader = opened(name, source)
    assert isinstance(reader, Reader)
    assert (len(reader), reader.samples, dict(reader.bad)) == (IMAGES, LabeledImage, {})
    assert SPECS[name].check(source) == []
    for index in range(IMAGES):
        item, sample, truth = drawn(index), reader[index], reader.truth(index)
        assert (reader.key(index), sample.name) == (item.name, item.name)
        assert sample.image.shape == (SIDE, SIDE, 3)
        assert sample.image.dtype == np.uint8
        if name != "dior":  # JPEG
            np.testing.assert_array_equal(sample.image, item.image)
        if name == "points":
            assert truth is None
            np.testing.assert_array_equal(sample.points, item.boxes[:, :2])
            np.testing.assert_array_equal(sample.labels, item.labels)
            continue
        kept = item.labels == 0 if name == "hrsc" else np.ones(len(item.labels), dtype=bool)
        assert truth.size == (SIDE, SIDE)
        assert truth.classes == sample.classes
        names = [truth.classes[label] for label in truth.labels]
        assert names == [(DOTA_CLASSES if name == "dota" else CLASSES)[label] for label in item.labels[kept]]
        np.testing.assert_allclose(truth.quads, item.quads[kept], atol=1e-9)
        if kept.any():
            np.testing.assert_allclose(rotated.iou_pairs(truth.boxes, item.boxes[kept]), 1, atol=1e-9)
        if name in ("dota", "dior", "coco-rotated"):
            np.testing.assert_array_equal(truth.difficult, item.difficult)
        if name in ("dota", "hrsc"):
            assert sample.gsd_m == {"dota": 0.25, "hrsc": 1.07}[name]
        assert len(sample.points) == len(sample.labels) == len(truth.boxes)
        np.testing.assert_array_equal(sample.ids, np.arange(len(truth.boxes)))
        if len(sample.points):
            inside = rotated.points_in_boxes(sample.points, truth.boxes)
            assert inside.diagonal().all()


@pytest.mark.parametrize("name", BOX_DATA)
def test_the_reader_is_guessed_also_from_above(name: str, tmp_path: Path) -> None:
    source = BOX_DATA[name](tmp_path / "above" / "set")
    every = {entry.name: entry.load() for entry in entry_points(group="vision3d.readers")} | SPECS
    for path in (source, str(tmp_path / "above")):
        scores = {other: spec.match(path) for other, spec in every.items()}
        assert max(scores, key=scores.__getitem__) == name, scores
        assert sorted(scores.values())[-2] < scores[name]
        assert len(opened(name, path)) == IMAGES


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("dior", {"train": 2, "val": 2, "trainval": 4, "test": 4}),
        ("hrsc", {"train": 3, "val": 2, "trainval": 5, "test": 3}),
        ("yolo-obb", {"train": 6, "val": 2}),
        ("coco-rotated", {"instances": 8}),
    ],
)
def test_splits(name: str, splits: dict[str, int], tmp_path: Path) -> None:
    source = BOX_DATA[name](tmp_path / "set")
    assert {split: len(opened(name, source, split=split)) for split in splits} == splits
    first = next(iter(splits))
    assert opened(name, source, split=first).name == f"set-{first}"
    with pytest.raises(ConfigError, match=r"train2|no split|has no list"):
        opened(name, source, split="train2")
    assert [opened(name, source, select="1::3").key(i) for i in range(3)] == ["00001", "00004", "00007"]


@pytest.mark.parametrize("layout", ["{split}/images {split}/labelTxt", "images/{split} labelTxt/{split}"])
def test_dota_with_a_folder_per_split(layout: str, tmp_path: Path) -> None:
    for index in range(4):
        item, split = drawn(index), "train" if index < 3 else "val"
        images, labels = layout.format(split=split).split()
        write_image(tmp_path / images / f"{item.name}.png", item.image)
        write_text(tmp_path / labels / f"{item.name}.txt", dota_lines(item))
    write_image(tmp_path / layout.format(split="test").split()[0] / "P9.png", drawn(0).image)
    assert [len(opened("dota", str(tmp_path), split=s)) for s in ("train", "val", "test", "all")] == [3, 1, 1, 5]
    test = opened("dota", str(tmp_path), split="test")
    assert (test[0].points, test[0].labels, test[0].ids, test.truth(0)) == (None, None, None, None)
    with pytest.raises(ConfigError, match="has no split 'dev'; it has: test, train, val, and all"):
        opened("dota", str(tmp_path), split="dev")
    assert SPECS["dota"].check(str(tmp_path)) == []


def test_dota_versions_have_their_classes_and_folders(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "P1.png", drawn(0).image)
    write_text(tmp_path / "labelTxt" / "P1.txt", "10 10 30 10 30 20 10 20 plane 0\n")
    write_text(tmp_path / "labelTxt_v1.5" / "P1.txt", "10 10 30 10 30 20 10 20 container-crane 1\n")
    plain, one, five = (opened("dota", f"{tmp_path}{query}") for query in ("", "?version=1.0", "?version=v1.5"))
    assert (len(plain.classes), len(one.classes), len(five.classes)) == (18, 15, 16)
    assert plain.classes[:15] == one.classes
    assert (one.truth(0).labels[0], five.truth(0).labels[0]) == (0, 15)
    assert five.truth(0).difficult[0] == 1
    named = opened("dota", f"{tmp_path}?labels=labelTxt_v1.5")
    assert named.truth(0).labels[0] == 15
    (tmp_path / "labelTxt_v1.5").rename(tmp_path / "mine")
    assert opened("dota", f"{tmp_path}?labels=mine").truth(0).labels[0] == 15
    with pytest.raises(DataError, match="holds no folder 'labels9'"):
        opened("dota", f"{tmp_path}?labels=labels9")
    with pytest.raises(DataError, match=r"option 'version' cannot be '3': say 1\.0, 1\.5, 2\.0"):
        opened("dota", f"{tmp_path}?version=3")


def test_classes_may_be_chosen(tmp_path: Path) -> None:
    source = BOX_DATA["dota"](tmp_path / "set")
    whole = opened("dota", source)
    some = opened("dota", f"{source}?classes=small-vehicle,ship")
    assert some.classes == ("small-vehicle", "ship")
    for index in range(IMAGES):
        mine, all_of_them = some.truth(index), whole.truth(index)
        kept = all_of_them.labels != 1
        np.testing.assert_array_equal(mine.labels, np.where(all_of_them.labels[kept] == 2, 0, 1))
        np.testing.assert_array_equal(mine.quads, all_of_them.quads[kept])
    left_out = sum((whole.truth(i).labels == 1).sum() for i in range(IMAGES))
    assert some.notes == (f"{left_out} objects of other classes left out (storage-tank)",)
    auto = opened("dota", f"{source}?classes=auto")
    assert auto.classes == tuple(sorted(DOTA_CLASSES))
    with pytest.raises(DataError, match="each once"):
        opened("dota", f"{source}?classes=ship,ship")


def test_size_shrinks_image_boxes_and_points_alike(tmp_path: Path) -> None:
    item = drawn(0)
    image = np.concatenate([item.image, item.image[: SIDE // 2]])  # 160 x 240
    write_image(tmp_path / "images" / "P1.png", image)
    write_text(tmp_path / "labelTxt" / "P1.txt", dota_lines(item))
    whole, half = opened("dota", str(tmp_path)), opened("dota", str(tmp_path), size=120)
    sample, truth = half[0], half.truth(0)
    assert sample.image.shape == (120, 80, 3)
    assert truth.size == (80, 120)
    np.testing.assert_allclose(truth.boxes[:, 2:4], whole.truth(0).boxes[:, 2:4] / 2, atol=1e-9)
    np.testing.assert_allclose(truth.boxes[:, :2], (whole.truth(0).boxes[:, :2] + 0.5) / 2 - 0.5, atol=1e-9)
    np.testing.assert_allclose(sample.points, (whole[0].points + 0.5) / 2 - 0.5, atol=1e-9)
    assert sample.gsd_m == pytest.approx(0.5)
    assert opened("dota", str(tmp_path), size=1000)[0].image.shape == image.shape


def test_hrsc_headings_point_to_the_bow(tmp_path: Path) -> None:
    source = BOX_DATA["hrsc"](tmp_path / "set")
    reader = opened("hrsc", f"{source}?level=3")
    assert len(reader.classes) == 31
    for index in range(LAST):
        truth, item = reader.truth(index), drawn(index)
        assert {reader.classes[label] for label in truth.labels} <= {"kuznetsov"}
        if len(truth.labels):
            expected = item.boxes[item.labels == 0, 4]
            np.testing.assert_allclose(np.cos(truth.heading - expected), 1, atol=1e-9)
    assert heading([0, 0, 4, 2, 0.3], [-5, -1]) == pytest.approx(0.3 - math.pi)
    assert heading([0, 0, 2, 4, 0.0], [0, 5]) == pytest.approx(math.pi / 2)
    assert math.isnan(heading([0, 0, 2, 4, 0.0], "has no <header_x>"))


def test_dior_objects_without_a_rotated_box_are_counted(tmp_path: Path) -> None:
    source = BOX_DATA["dior"](tmp_path / "set")
    path = tmp_path / "set" / "Annotations" / "Oriented Bounding Boxes" / "00000.xml"
    extra = "<object><name>Train Station</name><bndbox><xmin>1</xmin></bndbox></object>"
    path.write_text(path.read_text().replace("</annotation>", f"{extra}</annotation>"))
    reader = opened("dior", source)
    assert reader.notes == ("1 objects without <robndbox> left out",)
    assert len(reader.truth(0).boxes) == len(drawn(0).boxes)


def test_yolo_names_come_from_yaml_classes_or_the_option(tmp_path: Path) -> None:
    source = Path(BOX_DATA["yolo-obb"](tmp_path / "set"))
    assert opened("yolo-obb", str(source / "data.yaml")).classes == CLASSES
    assert opened("yolo-obb", str(source)).notes == ("1 images have no label file and so no objects",)
    assert SPECS["yolo-obb"].match(str(source / "data.yaml")) == 0.8
    (source / "data.yaml").write_text("names: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(DataError, match=r"data\.yaml: is not YAML \(line 1\)"):
        opened("yolo-obb", str(source))
    (source / "data.yaml").write_text("names: {0: a, 2: b}\n")
    with pytest.raises(DataError, match="'names' must list the classes"):
        opened("yolo-obb", str(source))
    (source / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"has no YAML file with 'names' and no classes\.txt"):
        opened("yolo-obb", str(source))
    assert opened("yolo-obb", f"{source}?classes=a,b,c").classes == ("a", "b", "c")
    (source / "classes.txt").write_text("x\r\ny z\r\nw\r\n")
    assert opened("yolo-obb", str(source)).classes == ("x", "y z", "w")


def test_coco_angles_follow_the_convention_asked_for(tmp_path: Path) -> None:
    source = Path(BOX_DATA["coco-rotated"](tmp_path / "set"))
    path = source / "annotations" / "instances.json"
    data = json.loads(path.read_text())
    for item in data["annotations"]:
        if "bbox" in item:
            item["bbox"][4] = -math.radians(item["bbox"][4])
    path.write_text(json.dumps(data))
    reader = opened("coco-rotated", f"{source}?angle=le90")
    np.testing.assert_allclose(reader.truth(0).quads, drawn(0).quads, atol=1e-9)
    assert len(opened("coco-rotated", str(path))) == IMAGES
    with pytest.raises(DataError, match="option 'angle' cannot be 'degrees': known: le90"):
        opened("coco-rotated", f"{source}?angle=degrees")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["annotations"][0].update(image_id=99), "refers to an image that is not listed: 99"),
        (lambda d: d["images"][0].pop("file_name"), "lacks a field"),
        (lambda d: d["categories"][0].update(name="vehicle"), "is there twice or missing"),
        (lambda d: d.pop("categories"), "must hold lists"),
        (lambda d: d["images"][0].update(file_name="../../x.png"), "is no path inside of the data set's folder"),
        (lambda d: d["images"][0].update(width=5), "is 160x160 pixels, instances.json says"),
        (lambda d: d["annotations"][0].pop("bbox"), "annotation 1: has neither a bbox of 5 numbers"),
        (lambda d: d["annotations"][0].update(category_id=7), "annotation 1: unknown class: no category has the id 7"),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, 3, 4, float("nan")]), "annotation 1: its bbox holds NaN"),
    ],
)
def test_damaged_coco_files_are_named(change, words: str, tmp_path: Path) -> None:
    source = Path(BOX_DATA["coco-rotated"](tmp_path / "set"))
    path = source / "annotations" / "instances.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=words):
        opened("coco-rotated", str(path))
    (problem,) = SPECS["coco-rotated"].check(str(path))
    assert words.split(":")[-1].strip() in problem


def test_coco_splits_are_files_of_the_same_categories(tmp_path: Path) -> None:
    source = Path(BOX_DATA["coco-rotated"](tmp_path / "set"))
    path = source / "annotations" / "instances.json"
    data = json.loads(path.read_text())
    for split, keep in (("train", data["images"][:5]), ("val", data["images"][5:])):
        ids = {item["id"] for item in keep}
        part = data | {"images": keep, "annotations": [a for a in data["annotations"] if a["image_id"] in ids]}
        path.with_name(f"instances_{split}.json").write_text(json.dumps(part))
    path.unlink()
    assert [len(opened("coco-rotated", str(source), split=s)) for s in ("train", "val", "all")] == [5, 3, 8]
    other = json.loads(path.with_name("instances_val.json").read_text())
    other["categories"].pop()
    path.with_name("instances_val.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="has other categories than the files before it"):
        opened("coco-rotated", str(source))


def test_nothing_there_is_one_line(tmp_path: Path) -> None:
    for name, spec in SPECS.items():
        with pytest.raises(DataError, match="no such file or folder"):
            spec.open(str(tmp_path / "none"), DataConfig())
        (tmp_path / name).mkdir()
        (problem,) = spec.check(str(tmp_path / name))
        assert "holds no" in problem
        assert spec.match(str(tmp_path / name)) == 0


def test_a_file_of_poses_and_a_bad_selection_are_refused(tmp_path: Path) -> None:
    source = BOX_DATA["dota"](tmp_path / "set")
    with pytest.raises(ConfigError, match="says nothing about boxes"):
        opened("dota", source, truth=tmp_path)
    with pytest.raises(ConfigError, match="is not START:STOP:STEP"):
        opened("dota", source, select="x")
    with pytest.raises(ConfigError, match="leaves none of the 8 images"):
        opened("dota", source, select="20:")
    with pytest.raises(IndexError):
        opened("dota", source)[IMAGES]


def test_two_images_of_one_name_are_a_problem(tmp_path: Path) -> None:
    source = BOX_DATA["dota"](tmp_path / "set")
    shutil.copy(tmp_path / "set/images/00003.png", tmp_path / "set/images/00003.tif")
    reader = opened("dota", source, skip_bad=True)
    assert list(reader.bad) == [IMAGES]
    assert "has the same name as" in reader.bad[IMAGES]
    assert reader.truth(IMAGES) is None
    item = replace(drawn(0), name="00000")
    for split in ("a", "b"):
        write_image(tmp_path / "two" / split / "images" / f"{item.name}.png", item.image)
        write_text(tmp_path / "two" / split / "labelTxt" / f"{item.name}.txt", dota_lines(item))
    with pytest.raises(DataError, match="occurs 2 times in two: name a split"):
        opened("dota", str(tmp_path / "two"))
    assert len(opened("dota", str(tmp_path / "two"), split="b")) == 1
