# SPDX-License-Identifier: Apache-2.0
"""Images in which a person clicked one point per object: what ``vision3d points`` writes. There is no truth.

``images/NAME.png`` and ``points/NAME.txt`` (or the images directly in the folder, beside ``points/``), with
``classes.txt``, a name per line. A points file holds lines ``x y class``: pixels of the image, whose pixel centres lie
at integers. An image without objects has an empty file; one without a file has not been looked at yet, and is bad.

Options after '?': those of all readers of boxes (``classes``, ``points``, ``skip_lines``; nothing is drawn here).
"""

from __future__ import annotations

from pathlib import Path

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import DataError
from vision3d.readers._boxes_common import OPTIONS as COMMON
from vision3d.readers._boxes_common import BoxReader, check_boxes, lenient
from vision3d.readers._boxes_objects import Objects
from vision3d.readers._boxes_records import BoxRecord, box_records, read_class_file
from vision3d.readers._common import require_split
from vision3d.readers._source import list_images, one_root, parse_source, score

OPTIONS = {name: COMMON[name] for name in ("classes", "points", "skip_lines")}


class PointsReader(BoxReader):
    """The images of the folder, sorted by name."""

    def __init__(self, source: str, config: DataConfig) -> None:
        _, options = parse_source(source, OPTIONS)
        require_split(config, "a folder of points")
        given: Path | None = options.get("points")
        if given is not None and not given.is_dir():
            raise DataError(given, "no such folder of points")
        accepts, wanted = (_has_images, "images") if given else (_accepts, "images with a points/ folder beside them")
        root = one_root(source, accepts, wanted)
        images = root / "images" if (root / "images").is_dir() else root
        records, named = box_records(root, images, None)
        folder = root / "points" if given is None else given / "points" if (given / "points").is_dir() else given
        orphans = [DataError(path, "has no image") for path in sorted(folder.glob("*.txt")) if path.stem not in named]
        orphans = [error for error in orphans if Path(error.path).name != "classes.txt"]
        beside = [root, *([] if given is None else [given, given.parent])]
        classes = next((names for names in map(read_class_file, (f / "classes.txt" for f in beside)) if names), None)
        super().__init__(root.absolute().name, records, config, options, classes, orphans=orphans)

    def _list(self, record: BoxRecord, size: tuple[int, int]) -> Objects:
        return Objects(record.image, listed=False)


def _has_images(folder: Path) -> bool:
    return bool(list_images(folder / "images" if (folder / "images").is_dir() else folder))


def _accepts(folder: Path) -> bool:
    return (folder / "points").is_dir() and _has_images(folder)


def match(source: str) -> float:
    return score(source, _accepts, 0.7)


def check(source: str) -> list[str]:
    return check_boxes(PointsReader, source)


SPEC = ReaderSpec(
    name="points",
    summary="images/, points/ (lines 'x y class') and classes.txt: what `vision3d points` writes; no true boxes",
    samples="LabeledImage",
    match=match,
    open=PointsReader,
    check=check,
    lenient=lenient,
)
