# SPDX-License-Identifier: Apache-2.0
"""Writers of labelled images: what they write, their readers give back."""

from __future__ import annotations

import importlib
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from shapely.geometry import Polygon

from vision3d.contracts import DataConfig, ReaderSpec, WriterSpec
from vision3d.errors import DataError
from vision3d.geometry import rotated
from vision3d.types.images import BoxTruth, LabeledImage

NAMES = ("dota", "yolo-obb", "coco-rotated", "points")
WRITERS: dict[str, WriterSpec] = {}
READERS: dict[str, ReaderSpec] = {}
for _name in NAMES:
    _module = _name.replace("-", "_")
    WRITERS[_name] = importlib.import_module(f"vision3d.writers.{_module}").SPEC
    READERS[_name] = importlib.import_module(f"vision3d.readers.{_module}").SPEC
ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("plane", "large-vehicle", "ship")


def sample(name: str = "P1", count: int = 6, size: tuple[int, int] = (97, 61)) -> tuple[LabeledImage, BoxTruth]:
    """An image of odd size, quadrilaterals that are not quite rectangles, some corners outside of the image."""
    rng = np.random.default_rng([count, *name.encode()])
    boxes = np.column_stack(
        [rng.uniform(0, size, (count, 2)), rng.uniform(6, 40, (count, 2)), rng.uniform(-2, 2, count)]
    )
    quads = rotated.corners(boxes) + rng.uniform(-0.4, 0.4, (count, 4, 2)) if count else np.zeros((0, 4, 2))
    labels = rng.integers(0, 3, count)
    difficult = rng.integers(0, 3, count).astype(np.uint8)
    image = rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    truth = BoxTruth(rotated.from_corners(quads), labels, difficult, quads, CLASSES, size)
    points = np.clip(truth.boxes[:, :2] + 0.123456789, 0, np.array(size) - 1)
    return LabeledImage(name, image, CLASSES, points, labels, np.arange(count), 0.1 + 1 / 3), truth


def written(form: str, folder: Path, *pairs: tuple[LabeledImage, BoxTruth | None]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    files = [path for image, truth in pairs for path in WRITERS[form].write(image.name, image, truth, folder)]
    if WRITERS[form].finish is not None:
        files += WRITERS[form].finish(folder, [image.name for image, _ in pairs])
    return files


def test_entry_points_lead_to_specs_of_their_name() -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["vision3d.writers"]
    for name, spec in WRITERS.items():
        assert entries[name] == f"vision3d.writers.{name.replace('-', '_')}:SPEC"
        assert (spec.name, spec.samples) == (name, "LabeledImage")
        assert 0 < len(spec.summary) < 100


@pytest.mark.parametrize("form", NAMES)
def test_round_trip(form: str, tmp_path: Path) -> None:
    pairs = [sample("P1"), sample("b__0.5__0___0", 3), sample("empty", 0)]
    files = written(form, tmp_path / "set", *pairs)
    assert {path for path in (tmp_path / "set").rglob("*") if path.is_file()} == set(files)
    source = str(tmp_path / "set")
    assert READERS[form].check(source) == []
    assert READERS[form].match(source) > 0.6
    reader = READERS[form].open(source, DataConfig())
    assert (len(reader), reader.notes, reader.classes) == (3, (), CLASSES)
    found = {reader.key(i): i for i in range(3)}
    for image, truth in pairs:
        index = found[image.name]
        back, known = reader[index], reader.truth(index)
        np.testing.assert_array_equal(back.image, image.image)
        assert back.gsd_m == (image.gsd_m if form == "dota" else None)
        if form == "points":
            assert known is None
            np.testing.assert_array_equal(back.points, image.points)
            np.testing.assert_array_equal(back.labels, image.labels)
            continue
        np.testing.assert_allclose(known.quads, truth.quads, atol=1e-10)
        np.testing.assert_allclose(known.boxes, truth.boxes, atol=1e-10)
        np.testing.assert_array_equal(known.labels, truth.labels)
        np.testing.assert_array_equal(known.difficult, 0 * truth.difficult if form == "yolo-obb" else truth.difficult)
        assert known.size == truth.size


@pytest.mark.parametrize("form", NAMES)
def test_writing_twice_gives_the_same_bytes(form: str, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in written(form, tmp_path / "a", sample())]
    assert first == [path.read_bytes() for path in written(form, tmp_path / "b", sample())]
    assert first == [path.read_bytes() for path in written(form, tmp_path / "b", sample())]


def test_coco_boxes_are_detectrons(tmp_path: Path) -> None:
    image, truth = sample()
    written("coco-rotated", tmp_path / "set", (image, truth))
    path = tmp_path / "set" / "annotations" / "instances.json"
    data = json.loads(path.read_text())
    assert data["images"] == [{"id": 1, "file_name": "P1.png", "width": 97, "height": 61}]
    assert [item["name"] for item in data["categories"]] == list(CLASSES)
    for item, box, quad in zip(data["annotations"], truth.boxes, truth.quads):
        cx, cy, w, h, degrees = item["bbox"]
        # Counter-clockwise on screen: the way along the width is (cos, -sin) in pixels.
        along = np.array([np.cos(np.radians(degrees)), -np.sin(np.radians(degrees))])
        assert abs(along @ [np.cos(box[4]), np.sin(box[4])]) == pytest.approx(1)
        np.testing.assert_allclose([cx, cy, w, h], box[:4])
        assert item["area"] == pytest.approx(Polygon(quad).area)
        item.pop("segmentation")
    path.write_text(json.dumps(data))
    reader = READERS["coco-rotated"].open(str(tmp_path / "set"), DataConfig())
    np.testing.assert_allclose(reader.truth(0).boxes, truth.boxes, atol=1e-9)


def test_dota_text_is_as_the_data_set_has_it(tmp_path: Path) -> None:
    image, truth = sample(count=1)
    classes = ("plane", "large vehicle", "ship")
    one = replace(
        truth, quads=np.array([[[1, 2], [30.5, 2], [30.5, 12], [1, 12]]]), labels=np.array([1]), classes=classes
    )
    one = replace(one, difficult=np.array([2], dtype=np.uint8))
    written("dota", tmp_path / "set", (replace(image, classes=classes, gsd_m=None), one))
    assert (tmp_path / "set" / "labelTxt" / "P1.txt").read_text() == (
        "imagesource:vision3d\ngsd:null\n1.0 2.0 30.5 2.0 30.5 12.0 1.0 12.0 large-vehicle 2\n"
    )
    assert (tmp_path / "set" / "classes.txt").read_text() == "plane\nlarge-vehicle\nship\n"
    clash = replace(image, classes=("a b", "a-b"))
    with pytest.raises(DataError, match="are one when blanks become dashes"):
        WRITERS["dota"].write("P2", clash, truth, tmp_path / "set")


def test_yolo_names_survive_yaml(tmp_path: Path) -> None:
    image, truth = sample()
    classes = ("large vehicle", "a: 'b' # c", "Schiff ü")
    written("yolo-obb", tmp_path / "set", (replace(image, classes=classes), replace(truth, classes=classes)))
    data = yaml.safe_load((tmp_path / "set" / "data.yaml").read_text())
    assert data["names"] == dict(enumerate(classes))
    assert READERS["yolo-obb"].open(str(tmp_path / "set"), DataConfig()).classes == classes


@pytest.mark.parametrize("form", NAMES)
def test_what_cannot_be_written_is_told(form: str, tmp_path: Path) -> None:
    image, truth = sample()
    write = WRITERS[form].write
    if form == "points":
        with pytest.raises(DataError, match="P1: has no points"):
            write("P1", replace(image, points=None, labels=None), truth, tmp_path)
    else:
        with pytest.raises(DataError, match="P1: has no true boxes; points alone are written with --to points"):
            write("P1", image, None, tmp_path)
        with pytest.raises(DataError, match=r"P1: its boxes are of an image of \(5, 6\), not \(97, 61\) pixels"):
            write("P1", image, replace(truth, size=(5, 6)), tmp_path)
    with pytest.raises(DataError, match="cannot be a file's name"):
        write("..", image, truth, tmp_path)
    with pytest.raises(DataError, match=r"an image is \(H, W, 3\) uint8"):
        write("P1", replace(image, image=image.image.astype(np.float32)), truth, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    write("a/b", image, truth, tmp_path)
    assert (tmp_path / "images" / "a_b.png").is_file()
    with pytest.raises(DataError, match=r"classes\.txt: lists other classes"):
        write("c", replace(image, classes=("x", "y", "z")), truth, tmp_path)


def test_real_images_there_and_back(shared_data: Path, tmp_path: Path) -> None:
    source = READERS["dota"].open(str(shared_data / "dota_half"), DataConfig())
    pairs = [(source[i], source.truth(i)) for i in range(len(source))]
    for form in NAMES[:3]:
        written(form, tmp_path / form, *pairs)
        reader = READERS[form].open(str(tmp_path / form), DataConfig())
        for index, (image, truth) in enumerate(pairs):
            np.testing.assert_array_equal(reader[index].image, image.image)
            np.testing.assert_allclose(reader.truth(index).quads, truth.quads, atol=1e-9)
            np.testing.assert_allclose(reader[index].points, image.points, atol=1e-9)
