# SPDX-License-Identifier: Apache-2.0
"""DIOR-R: images of 800x800 pixels with oriented boxes of 20 classes, a VOC-like XML file each.

``Annotations/Oriented Bounding Boxes/NAME.xml`` (or ``Annotations/NAME.xml``), images in any of
``JPEGImages-trainval/``, ``JPEGImages-test/`` and the like, splits in ``ImageSets/Main/{train,val,test}.txt``;
``trainval`` is both of the first. Corners come in the order of the file: left top, right top, right bottom, left bottom
of the object. Class names are compared without regard to case, blanks or dashes. Objects without a ``robndbox`` are
left out and counted.

Options after '?': those of all readers of boxes (``classes``, ``jitter``, ``seed``, ``points``, ``skip_lines``).
"""

from __future__ import annotations

from pathlib import Path

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import DataError
from vision3d.readers._boxes_common import OPTIONS, BoxReader, check_boxes, lenient
from vision3d.readers._boxes_images import images_by_name
from vision3d.readers._boxes_objects import Objects
from vision3d.readers._boxes_records import BoxRecord
from vision3d.readers._boxes_xml import difficult_of, numbers_of, read_xml, split_names, text_of
from vision3d.readers._source import one_root, parse_source, score

CLASSES = (
    "airplane",
    "airport",
    "baseballfield",
    "basketballcourt",
    "bridge",
    "chimney",
    "expressway-service-area",
    "expressway-toll-station",
    "dam",
    "golffield",
    "groundtrackfield",
    "harbor",
    "overpass",
    "ship",
    "stadium",
    "storagetank",
    "tenniscourt",
    "trainstation",
    "vehicle",
    "windmill",
)
ORIENTED = "Oriented Bounding Boxes"
CORNERS = tuple(
    f"{axis}_{corner}" for corner in ("left_top", "right_top", "right_bottom", "left_bottom") for axis in "xy"
)


class DiorReader(BoxReader):
    """The images of a split, in the order of its list, else sorted by name."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, OPTIONS)
        root = one_root(source, _accepts, f"DIOR-R data (Annotations/{ORIENTED}/ and JPEGImages*/)")
        labels = _labels(root)
        images, twice = images_by_name(_image_folders(root))
        names = split_names(root / "ImageSets" / "Main", config.split)
        if names is None:
            names = sorted(path.stem for path in labels.glob("*.xml") if not path.name.startswith("."))
        self._spelled = {_plain(name): name for name in CLASSES}
        self.without_box = 0
        records = []
        for name in names:
            missing = None if name in images else DataError(labels / f"{name}.xml", f"there is no image {name}")
            image = images.get(name, labels / f"{name}.xml")
            records.append(BoxRecord(name, image, root, labels / f"{name}.xml", problem=missing))
        records += [BoxRecord(Path(e.path).name, Path(e.path), root, problem=e) for e in twice]
        title = root.absolute().name if config.split == "all" else f"{root.absolute().name}-{config.split}"
        super().__init__(title, records, config, options, CLASSES)
        if self.without_box:
            self.notes += (f"{self.without_box} objects without <robndbox> left out",)

    def _list(self, record: BoxRecord, size: tuple[int, int]) -> Objects:
        assert record.labels is not None
        found = Objects(record.labels)
        for number, item in enumerate(read_xml(record.labels, "annotation").iter("object"), start=1):
            where, box = f"object {number}", item.find("robndbox")
            if box is None:
                self.without_box += 1
                continue
            quad, difficult = numbers_of(box, CORNERS), difficult_of(item)
            if isinstance(quad, str):
                found.problems.append((where, quad))
            elif isinstance(difficult, str):
                found.problems.append((where, difficult))
            else:
                name = text_of(item, "name")
                found.add(where, quad, self._spelled.get(_plain(name), name.lower()), difficult)
        return found


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _labels(root: Path) -> Path:
    oriented = root / "Annotations" / ORIENTED
    return oriented if oriented.is_dir() else root / "Annotations"


def _image_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name.startswith("JPEGImage"))


def _accepts(folder: Path) -> bool:
    labels = _labels(folder)
    return labels.is_dir() and next(labels.glob("*.xml"), None) is not None and bool(_image_folders(folder))


def match(source: str) -> float:
    return score(source, _accepts, 0.9)


def check(source: str) -> list[str]:
    return check_boxes(DiorReader, source)


SPEC = ReaderSpec(
    name="dior",
    summary="DIOR-R: Annotations/Oriented Bounding Boxes/*.xml, JPEGImages-*/; oriented boxes of 20 classes",
    samples="LabeledImage",
    match=match,
    open=DiorReader,
    card="dior-r",
    check=check,
    lenient=lenient,
)
