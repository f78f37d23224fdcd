# SPDX-License-Identifier: Apache-2.0
"""A reader of labelled images from a list of records: what every reader of oriented boxes builds on.

Options that all of them take after '?':

- ``classes=a,b,c``: the classes, in this order, other ones of the data set left out; ``classes=auto``: those that the
  labels name, sorted;
- ``jitter=0.1``: the point of an object is drawn uniformly in the ellipse of 10 % of w and h around its centre, turned
  with the box; 0 takes the centre. ``seed=0`` of that draw;
- ``points=FOLDER``: points that a person clicked, a file per image; ``points/`` beside the images is found without it.
  ``points=drawn`` passes over such a folder;
- ``skip_lines=1``: leave bad lines out and count them, as ``--skip-bad`` does. Otherwise one makes its image bad.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.contracts import DataConfig, Reader
from vision3d.errors import ConfigError, DataError
from vision3d.readers._boxes_images import header_size, name_problem, read_rgb
from vision3d.readers._boxes_objects import Objects, duplicates, judge
from vision3d.readers._boxes_points import Clicks, drawn_points, matched_rows, place_clicks, read_clicks
from vision3d.readers._boxes_records import DRAWN, BoxRecord, Entry, clicks_file, fitted, require_unique
from vision3d.readers._images import resize_image
from vision3d.readers._source import bounded, flag, selected, split_source
from vision3d.types.images import BoxTruth, Float, Int, LabeledImage

REMEDY = "?classes=a,b,c names the classes, ?classes=auto takes those of the labels"
SHOWN = 3  # bad lines that a note quotes


def class_names(text: str) -> tuple[str, ...]:
    """``a,b,c``; ``auto`` becomes the empty tuple."""
    if text == "auto":
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise ValueError("say auto, or names between commas, each once")
    return names


OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "classes": class_names,
    "jitter": bounded(float, 0, 0.5),
    "seed": bounded(int, 0, 2**32 - 1),
    "points": Path,
    "skip_lines": flag,
}


def lenient(source: str) -> str:
    """The source with ``skip_lines=1``, unless it says something about bad lines itself."""
    path, options = split_source(source)
    if "skip_lines" in options:
        return source
    return f"{source}{'&' if path != source else '?'}skip_lines=1"


class BoxReader:
    """Images with points and, kept apart, their true boxes. Implements :class:`vision3d.contracts.Reader`.

    Label files are read and judged when the reader is opened (text only); images are decoded one at a time. A format
    fills in :meth:`_list`, and sets what that needs before it calls this constructor.

    Args:
        name: of the data set, for titles and run folders.
        records: all images of the wanted split, in order.
        config: its ``select``, ``size`` and ``skip_bad`` are applied here.
        options: values of :data:`OPTIONS` that the source carries.
        classes: those that the data set has, in order; None where only the labels tell.
        notes: facts that the user must see.
        orphans: label files without an image: a note here, problems for ``check``.

    Raises:
        ConfigError: ``truth`` is given, which is of images with poses, or ``select`` leaves nothing.
        DataError: no image, two of one name, no such folder of points, or without ``skip_bad`` the first unusable
            image.
    """

    samples: type = LabeledImage

    def __init__(
        self,
        name: str,
        records: Sequence[BoxRecord],
        config: DataConfig,
        options: Mapping[str, Any],
        classes: tuple[str, ...] | None,
        notes: Iterable[str] = (),
        orphans: Sequence[DataError] = (),
    ) -> None:
        if config.truth is not None:
            raise ConfigError(f"a file of true poses says nothing about boxes: leave it out for {name}")
        self.name, self.config = name, config
        self.orphans = tuple(orphans)
        self.problems: list[str] = []  # every bad label and every bad image, in order
        self.notes: tuple[str, ...] = tuple(notes)
        if orphans:
            self.notes += (f"{len(orphans)} label files have no image, e.g. {Path(orphans[0].path).name}",)
        clicked: Path | None = options.get("points")
        if clicked is not None and clicked != DRAWN and not clicked.is_dir():
            raise DataError(clicked, "no such folder of points; ?points=drawn draws them from the boxes")
        self._options = options
        self._foreign = 0
        self._left_out: list[str] = []
        require_unique(name, records)
        listed = [self._found(record) for record in records]
        clicks = [self._clicks(record) for record in records]
        self.classes, self._others = self._choose(classes, listed, clicks)
        entries = [self._entry(*parts) for parts in zip(records, listed, clicks)]
        self._tell()
        if not records:
            raise DataError(name, "holds no images")
        chosen = selected(len(records), config.select, f"images of {name}")
        self.records = tuple(records[row] for row in chosen)
        self.entries = [entries[row] for row in chosen]
        self.bad: Mapping[int, str] = {i: str(e) for i, e in enumerate(self.entries) if isinstance(e, DataError)}
        if self.bad and not config.skip_bad:
            self._good(min(self.bad))

    def __len__(self) -> int:
        return len(self.records)

    def key(self, index: int) -> str:
        return self.records[index].name

    def __getitem__(self, index: int) -> LabeledImage:
        entry, record = self._good(index), self.records[index]
        image = read_rgb(record.image)
        if image.shape[1::-1] != entry.size:
            raise DataError(record.image, f"decodes to {image.shape[1]}x{image.shape[0]}, its header says {entry.size}")
        entry = fitted(entry, self.config.size)
        if image.shape[1::-1] != entry.size:
            image = resize_image(image, *entry.size)
        return LabeledImage(record.name, image, self.classes, entry.points, entry.labels, entry.ids, entry.gsd_m)

    def truth(self, index: int) -> BoxTruth | None:
        """The true boxes; None for an image that nobody has labelled, and for a bad one."""
        return None if index % len(self) in self.bad else fitted(self._good(index), self.config.size).truth

    @property
    def points_identity(self) -> str:
        """A digest of all points and their classes, which neither the names of the images nor the truth tell."""
        found = hashlib.sha256()
        for entry in self.entries:
            if isinstance(entry, Entry) and entry.points is not None and entry.labels is not None:
                found.update(entry.points.tobytes() + entry.labels.tobytes())
            found.update(b"|")
        return found.hexdigest()[:16]

    # What a format does differently.

    def _list(self, record: BoxRecord, size: tuple[int, int]) -> Objects:
        """What the image's label file says."""
        raise NotImplementedError

    # How an image comes to its entry.

    def _good(self, index: int) -> Entry:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        entry = self.entries[index]
        if isinstance(entry, DataError):
            raise entry
        return entry

    def _found(self, record: BoxRecord) -> tuple[tuple[int, int], Objects] | DataError:
        problem = record.problem or name_problem(record.image)
        if problem is not None:
            return problem
        try:
            size = header_size(record.image)
            return size, self._list(record, size)
        except DataError as error:
            return error

    def _clicks(self, record: BoxRecord) -> Clicks | DataError | None:
        """What a person clicked in the image; None where points are to be drawn."""
        path = clicks_file(record, self._options.get("points"))
        if path is None:
            return None
        if not path.is_file():
            return DataError(path, f"no such file: nobody has clicked the points of {record.image.name} yet")
        try:
            return read_clicks(path)
        except DataError as error:
            return error

    def _choose(
        self,
        own: tuple[str, ...] | None,
        listed: Sequence[tuple[tuple[int, int], Objects] | DataError],
        clicks: Sequence[Clicks | DataError | None],
    ) -> tuple[tuple[str, ...], frozenset[str]]:
        """The classes, and those of the data set that are left out."""
        wanted: tuple[str, ...] | None = self._options.get("classes")
        if wanted == ():
            names = {name for item in listed if not isinstance(item, DataError) for name in item[1].names}
            names |= {name for item in clicks if isinstance(item, Clicks) for name in item.names}
            return tuple(sorted(names)), frozenset()
        if wanted is None and own is None:
            raise DataError(self.name, f"does not say what its classes are: add a classes.txt, or {REMEDY}")
        return wanted or own or (), frozenset(own or ()) - frozenset(wanted or own or ())

    def _entry(
        self,
        record: BoxRecord,
        found: tuple[tuple[int, int], Objects] | DataError,
        clicks: Clicks | DataError | None,
    ) -> Entry | DataError:
        if isinstance(found, DataError):
            self.problems.append(str(found))
            return found
        if isinstance(clicks, DataError):
            self.problems.append(str(clicks))
            return clicks
        size, objects = found
        judged = judge(objects, self.classes, self._others, size, REMEDY)
        self._foreign += judged.foreign
        wrong = [DataError(objects.path, text) for text in judged.problems]
        truth = judged.truth
        points: Float | None = None
        labels: Int | None = None
        ids: Int | None = None
        if clicks is not None:
            placed = place_clicks(clicks, self.classes, self._others, size, REMEDY)
            points, labels = placed.points, placed.labels
            self._foreign += placed.foreign if truth is None else 0
            wrong += [DataError(clicks.path, text) for text in placed.problems]
            ids = np.arange(len(points), dtype=np.int64) if truth is None else matched_rows(points, labels, truth)
        elif truth is not None:
            jitter, seed = self._options.get("jitter", 0.1), self._options.get("seed", 0)
            points, labels = drawn_points(truth, jitter, seed, record.name), truth.labels
            ids = np.arange(len(points), dtype=np.int64)
        self.problems += map(str, wrong)
        if wrong and not self._options.get("skip_lines", False):
            more = f" (and {len(wrong) - 1} more like it)" if len(wrong) > 1 else ""
            return DataError(wrong[0].path, f"{wrong[0].problem}{more}; ?skip_lines=1 leaves bad lines out")
        self._left_out += [f"{Path(error.path).name} {error.problem}" for error in wrong]
        return Entry(size, truth, points, labels, ids, objects.gsd_m)

    def repeated(self, record: BoxRecord, entry: Entry) -> list[str]:
        """A line for each object of an image that is listed twice."""
        objects = self._list(record, entry.size)
        judged = judge(objects, self.classes, self._others, entry.size, REMEDY)
        return [f"{objects.path}: {text}" for text in duplicates(judged)]

    def _tell(self) -> None:
        """Notes on what was left out."""
        if self._left_out:
            more = "; ..." if len(self._left_out) > SHOWN else ""
            shown = "; ".join(self._left_out[:SHOWN])
            self.notes += (f"{len(self._left_out)} bad labels left out: {shown}{more}",)
        if self._foreign:
            self.notes += (f"{self._foreign} objects of other classes left out ({', '.join(sorted(self._others))})",)


def check_boxes(open_reader: Callable[[str, DataConfig], Reader], source: str) -> list[str]:
    """Problems of a data set, one line each, with the file and where in it: what cannot be opened, bad labels, labels
    that are there twice, label files without an image. No image is decoded."""
    try:
        reader = open_reader(source, DataConfig(skip_bad=True))
    except (DataError, ConfigError) as error:
        return [str(error)]
    assert isinstance(reader, BoxReader)
    problems = [*reader.problems, *map(str, reader.orphans)]
    for record, entry in zip(reader.records, reader.entries):
        problems += [] if isinstance(entry, DataError) else reader.repeated(record, entry)
    return problems
