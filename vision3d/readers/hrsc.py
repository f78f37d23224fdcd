# SPDX-License-Identifier: Apache-2.0
"""HRSC2016: ships in harbours, an XML file per image, with the direction of the bow.

``FullDataSet/Annotations/NAME.xml`` and ``FullDataSet/AllImages/NAME.bmp``, splits in
``ImageSets/{train,val,test}.txt`` (``trainval`` too). A ship is ``mbox_cx, mbox_cy, mbox_w, mbox_h, mbox_ang``: pixels
and radians, clockwise on screen. ``header_x, header_y`` is its bow: of the box's two directions along the axis the
heading is the one that points there.

Options after '?': ``level=1`` (default: everything is a ship), ``level=3`` (types, 31 classes; a ship whose type is not
known stays a ``ship``), and those of all readers of boxes (``classes``, ``jitter``, ``seed``, ``points``,
``skip_lines``).
"""

from __future__ import annotations

import math
from pathlib import Path

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import DataError
from vision3d.readers._boxes_common import OPTIONS as COMMON
from vision3d.readers._boxes_common import BoxReader, check_boxes, lenient
from vision3d.readers._boxes_images import images_by_name
from vision3d.readers._boxes_objects import Objects
from vision3d.readers._boxes_records import BoxRecord
from vision3d.readers._boxes_xml import difficult_of, numbers_of, read_xml, split_names, text_of
from vision3d.readers._source import one_root, parse_source, score

# Class_ID minus 100000000 -> name; 21 and 23 were never given out.
TYPES = {
    1: "ship",
    2: "aircraft-carrier",
    3: "warcraft",
    4: "merchant-ship",
    5: "nimitz",
    6: "enterprise",
    7: "arleigh-burke",
    8: "whidbey-island",
    9: "perry",
    10: "san-antonio",
    11: "ticonderoga",
    12: "kitty-hawk",
    13: "kuznetsov",
    14: "abukuma",
    15: "austin",
    16: "tarawa",
    17: "blue-ridge",
    18: "container",
    19: "oxo",
    20: "car-carrier-a",
    22: "hovercraft",
    24: "yacht",
    25: "container-ship",
    26: "cruise",
    27: "submarine",
    28: "lute",
    29: "medical",
    30: "car-carrier-b",
    31: "ford-class",
    32: "midway-class",
    33: "invincible-class",
}
FIRST_ID = 100_000_000
BOX = ("mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang")


def _level(text: str) -> int:
    if text not in ("1", "3"):
        raise ValueError("say 1 (ships) or 3 (types of ship)")
    return int(text)


OPTIONS = {**COMMON, "level": _level}


class HrscReader(BoxReader):
    """The images of a split, in the order of its list, else sorted by name."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, OPTIONS)
        root = one_root(source, _accepts, "HRSC2016 data (Annotations/*.xml and AllImages/)")
        self.level: int = options.get("level", 1)
        lists = next((path for path in (root / "ImageSets", root.parent / "ImageSets") if path.is_dir()), root)
        images, twice = images_by_name([_image_folder(root)])
        names = split_names(lists, config.split)
        labels = root / "Annotations"
        if names is None:
            names = sorted(path.stem for path in labels.glob("*.xml") if not path.name.startswith("."))
        records = []
        for name in names:
            missing = None if name in images else DataError(labels / f"{name}.xml", f"there is no image {name}")
            image = images.get(name, labels / f"{name}.xml")
            records.append(BoxRecord(name, image, root, labels / f"{name}.xml", problem=missing))
        records += [BoxRecord(Path(e.path).name, Path(e.path), root, problem=e) for e in twice]
        classes = ("ship",) if self.level == 1 else tuple(TYPES.values())
        folder = root.absolute()
        title = folder.parent.name if folder.name == "FullDataSet" else folder.name
        super().__init__(
            title if config.split == "all" else f"{title}-{config.split}", records, config, options, classes
        )

    def _list(self, record: BoxRecord, size: tuple[int, int]) -> Objects:
        from vision3d.geometry import rotated

        assert record.labels is not None
        tree = read_xml(record.labels, "HRSC_Image")
        found = Objects(record.labels)
        resolution = numbers_of(tree, ("Img_Resolution",))
        if not isinstance(resolution, str) and 0 < resolution[0] < 1e6:
            found.gsd_m = resolution[0]
        for number, item in enumerate(tree.iter("HRSC_Object"), start=1):
            where = f"object {number}"
            box, difficult = numbers_of(item, BOX), difficult_of(item)
            kind = _type(text_of(item, "Class_ID"))
            if isinstance(box, str):
                found.problems.append((where, box))
            elif isinstance(difficult, str):
                found.problems.append((where, difficult))
            elif kind is None:
                found.problems.append((where, f"unknown class '{text_of(item, 'Class_ID')}'"))
            elif not all(map(math.isfinite, box)) or min(box[2:4]) < 0:
                found.problems.append((where, "its box holds NaN, infinite or negative numbers"))
            else:
                quad = rotated.corners([box])[0].ravel().tolist()
                name = "ship" if self.level == 1 else kind
                found.add(where, quad, name, difficult, heading(box, numbers_of(item, ("header_x", "header_y"))))
        return found


def heading(box: list[float], bow: list[float] | str) -> float:
    """Radians in [-pi, pi) of the direction along the box's axis that points to the bow; NaN where no bow is marked."""
    if isinstance(bow, str) or bow == [0.0, 0.0]:
        return math.nan
    cx, cy, w, h, theta = box
    theta += 0 if w >= h else math.pi / 2
    ahead = (bow[0] - cx) * math.cos(theta) + (bow[1] - cy) * math.sin(theta) >= 0
    return (theta + (0 if ahead else math.pi) + math.pi) % (2 * math.pi) - math.pi


def _type(text: str) -> str | None:
    return TYPES.get(int(text) - FIRST_ID) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _image_folder(root: Path) -> Path:
    return next((root / name for name in ("AllImages", "images") if (root / name).is_dir()), root / "AllImages")


def _accepts(folder: Path) -> bool:
    labels = folder / "Annotations"
    if not labels.is_dir() or not _image_folder(folder).is_dir():
        return False
    first = next(labels.glob("*.xml"), None)
    if first is None:
        return False
    with open(first, "rb") as file:
        return b"<HRSC_Image" in file.read(4096)


def match(source: str) -> float:
    return score(source, _accepts, 0.9)


def check(source: str) -> list[str]:
    return check_boxes(HrscReader, source)


SPEC = ReaderSpec(
    name="hrsc",
    summary="HRSC2016: Annotations/*.xml and AllImages/*.bmp; ships as oriented boxes with their heading",
    samples="LabeledImage",
    match=match,
    open=HrscReader,
    card="hrsc2016",
    check=check,
    lenient=lenient,
)
