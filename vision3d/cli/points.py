# SPDX-License-Identifier: Apache-2.0
"""``vision3d points DATA``: a page in the browser to click one point per object of each image."""

from __future__ import annotations

import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.cli.arguments import Parser
from vision3d.cli.interrupt import interruptible
from vision3d.cli.output import Output
from vision3d.contracts import DataConfig
from vision3d.errors import UserError

if TYPE_CHECKING:
    from detection.annotate.images import ImageSet

SAMPLES = "LabeledImage"
WINDOWS = (128, 4096)


@dataclass(frozen=True)
class Source:
    """What is to be annotated.

    Attributes:
        folder: where points go unless told otherwise; None where there is no such folder.
        classes: of the data set; empty where it names none.
    """

    images: ImageSet
    folder: Path | None
    classes: tuple[str, ...]


def points(args: list[str], out: Output) -> int:
    """Serve the page until Ctrl-C; every click is on disk before the page says so."""
    about = (
        "Click one point per object in a page of this machine's browser. Writes points/NAME.txt (lines 'x y class') "
        "and classes.txt beside the images, which is what training from points reads. Ends with Ctrl-C; the next call "
        "goes on where this one stopped."
    )
    parser = Parser("points", description=about)
    parser.add_argument("data", metavar="DATA", help="a folder of images, or data that a reader knows")
    parser.add_argument("--classes", default="", metavar="A,B,C", help="names (classes.txt, or those of the data)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (beside the images)")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (0: a free one)")
    parser.add_argument("--window", type=int, default=1024, metavar="PX", help="side of a tile (1024)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    parser.add_argument("--reader", default="", metavar="NAME", help="name of the reader (guessed)")
    parser.add_argument("--split", default="all", metavar="NAME", help="a split that the data set defines (all)")
    options = parser.parse_args(args)
    if not 0 <= options.port <= 65535:
        raise UserError(f"--port must lie between 0 and 65535, got {options.port}")
    if not WINDOWS[0] <= options.window <= WINDOWS[1]:
        raise UserError(f"--window must lie between {WINDOWS[0]} and {WINDOWS[1]} pixels, got {options.window}")

    from detection.annotate.server import PointServer
    from detection.annotate.store import PointStore

    source = _source(options)
    folder = options.out or source.folder
    if folder is None:
        raise UserError(f"{options.data}: say where to write the points: --out FOLDER, or name one --split")
    if options.classes and options.out is None:
        _require_labelled(_classes(options.classes), folder)
    classes = _classes(options.classes) or _listed(folder) or source.classes
    if not classes:
        raise UserError(f"{options.data}: name the classes: --classes plane,ship (or put a classes.txt into {folder})")
    store = PointStore(folder, classes)
    store.counts(source.images.names)  # a damaged file is told before a page is opened
    with PointServer(source.images, store, options.window, options.port) as server:
        out.note(f"{len(source.images)} images, points in {folder}; Ctrl-C ends")
        out.note(f"page: {server.url}")
        if not options.no_browser and not webbrowser.open(server.url):
            out.note("no browser could be opened: open the address yourself")
        try:
            with interruptible():
                server.serve_forever()
        except KeyboardInterrupt:
            out.note("")
    return _tell(store, source, out)


def _require_labelled(classes: tuple[str, ...], folder: Path) -> None:
    """Refuse a list of classes that would make the labels beside the images unreadable.

    Raises:
        UserError: the folder has true boxes of a class that is not in the list.
    """
    from vision3d.readers._boxes_common import BoxReader
    from vision3d.run.console import Console
    from vision3d.run.data import open_data

    try:
        config = DataConfig(skip_bad=True)
        reader = open_data(f"{folder}?classes=auto", config, Console(sys.stderr), SAMPLES, "vision3d points").reader
    except UserError:
        return  # no reader of boxes knows the folder: there are no labels to lose
    reader = getattr(reader, "base", reader)
    truths = [reader.truth(i) for i in range(len(reader))] if isinstance(reader, BoxReader) else []
    named = {truth.classes[label] for truth in truths if truth is not None for label in truth.labels}
    missing = sorted(named - set(classes))
    if missing:
        raise UserError(
            f"{folder}: has labels of the class '{missing[0]}', which --classes leaves out, and its classes.txt is for "
            "both: name all classes, or write elsewhere with --out FOLDER and read it by ?points=FOLDER"
        )


def _tell(store: Any, source: Source, out: Output) -> int:
    counts = store.counts(source.images.names)
    done = [count for count in counts if count is not None]
    document = {
        "out": store.folder,
        "classes": store.classes,
        "n_images": len(counts),
        "n_annotated": len(done),
        "n_points": sum(done),
    }
    out.result(document, f"{store.folder}: {sum(done)} points in {len(done)} of {len(counts)} images")
    return 0


def _source(options: Any) -> Source:
    """The images of a plain folder, or else those of a reader."""
    from vision3d.readers._source import list_images

    root = Path(options.data)
    if not options.reader and options.split == "all" and root.is_dir():
        inner = root / "images"
        folder = inner if inner.is_dir() and list_images(inner) else root
        if list_images(folder):
            return _folder_source(folder, options)
    return _reader_source(options, options.data)


def _folder_source(folder: Path, options: Any) -> Source:
    from vision3d.readers._boxes_images import images_by_name, name_problem

    found, problems = images_by_name([folder])
    problems += [problem for path in found.values() if (problem := name_problem(path)) is not None]
    if problems:
        raise problems[0]
    root = folder.parent if folder.name == "images" else folder
    classes: tuple[str, ...] = ()
    if not options.classes and not _listed(options.out or root):
        try:
            classes = _reader_source(options, str(root)).classes
        except UserError:
            classes = ()  # no reader knows the folder: the classes must be named
    return Source(_files(list(found), list(found.values())), root, classes)


def _reader_source(options: Any, data: str) -> Source:
    from detection.annotate.images import ImageSet
    from vision3d.readers._boxes_common import BoxReader
    from vision3d.run.console import Console
    from vision3d.run.data import open_data

    # An image that nobody has clicked yet is bad for training, and what this command is for.
    config = DataConfig(options.reader, options.split, skip_bad=True)
    reader = open_data(data, config, Console(sys.stderr), SAMPLES, "vision3d points").reader
    base = getattr(reader, "base", reader)
    if isinstance(base, BoxReader):
        roots = {record.root for record in base.records}
        paths = [record.image for record in base.records]
        return Source(
            _files([record.name for record in base.records], paths),
            roots.pop() if len(roots) == 1 else None,
            tuple(base.classes),
        )
    names = [reader.key(index) for index in range(len(reader))]
    classes = tuple(getattr(base, "classes", ())) or tuple(reader[0].classes)
    return Source(ImageSet(names, lambda index: reader[index].image), None, classes)


def _files(names: list[str], paths: list[Path]) -> ImageSet:
    from detection.annotate.images import ImageSet
    from vision3d.readers._boxes_images import read_rgb

    return ImageSet(names, lambda index: read_rgb(paths[index]))


def _classes(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _listed(folder: Path) -> tuple[str, ...]:
    """The names in the folder's ``classes.txt``; none where there is no such file."""
    from vision3d.readers._boxes_records import read_class_file

    return read_class_file(folder / "classes.txt") or ()
