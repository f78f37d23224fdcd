# SPDX-License-Identifier: Apache-2.0
"""Points on disk: ``points/NAME.txt`` with lines ``x y class``, and ``classes.txt`` with a name per line.

Files are whole or absent at any moment. An image that was looked at and holds no object has an empty file; an image
that nobody has looked at has none.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Sequence
from pathlib import Path

from vision3d.atomic import whole_file
from vision3d.errors import DataError

Point = tuple[float, float, int]  # x and y in pixels, whose centres lie at integers; index of the class
MOST_POINTS = 100_000


class Conflict(Exception):
    """The file is not what the writer believes it to be: somebody else wrote it meanwhile."""


class PointStore:
    """The points of all images below one folder.

    Args:
        folder: ``points/`` and ``classes.txt`` come to lie in it, with the first points.
        classes: names, in the order of the page's keys 1 to 9.

    Raises:
        DataError: there is no class, a name occurs twice, or a name cannot stand on a line of its own.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        if not classes:
            raise DataError(folder, "no class is named: give --classes a,b,c, or put a classes.txt there")
        for name in classes:
            if not name.isprintable() or not name or name != " ".join(name.split()):
                raise DataError(folder, f"'{name}' cannot be the name of a class: it is empty or has odd blanks")
            if list(classes).count(name) > 1:
                raise DataError(folder, f"the class '{name}' is named twice")
        self.folder = folder
        self.classes = tuple(classes)
        self._lock = threading.Lock()

    def path(self, name: str) -> Path:
        """The points file of an image."""
        return self.folder / "points" / f"{name}.txt"

    def load(self, name: str) -> tuple[list[Point], str]:
        """Points in the order of the file, and its version; no points and an empty version where there is none.

        Raises:
            DataError: with the line, when the file holds something else than points of the known classes.
        """
        data = self._bytes(name)
        return ([], "") if data is None else (self._parse(self.path(name), data), _version(data))

    def save(self, name: str, points: Sequence[Point], version: str, size: tuple[int, int]) -> str:
        """Write an image's points if the file is still at ``version``; returns the new version.

        Args:
            size: (width, height) of the image.

        Raises:
            Conflict: the file is at another version.
            ValueError: a point lies outside of the image, or its class is unknown; nothing is written.
            DataError: the file cannot be written.
        """
        data = "".join(self._line(point, size) for point in points).encode()
        if len(points) > MOST_POINTS:
            raise ValueError(f"more than {MOST_POINTS} points")
        path = self.path(name)
        with self._lock:
            before = self._bytes(name)
            if version != ("" if before is None else _version(before)):
                raise Conflict(name)
            try:
                self._write_classes()
                path.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(path) as file:
                    file.write(data)
            except OSError as error:
                raise DataError(path, f"cannot be written: {error.strerror or error}") from None
        return _version(data)

    def counts(self, names: Sequence[str]) -> list[int | None]:
        """Number of points of each image, None for those that nobody has looked at.

        Raises:
            DataError: a points file is damaged.
        """
        found: list[int | None] = []
        for name in names:
            points, version = self.load(name)
            found.append(len(points) if version else None)
        return found

    def _bytes(self, name: str) -> bytes | None:
        path = self.path(name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(path, f"cannot be read: {error.strerror or error}") from None

    def _parse(self, path: Path, data: bytes) -> list[Point]:
        points: list[Point] = []
        try:
            lines = data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise DataError(path, "holds bytes that are not UTF-8") from None
        for number, line in enumerate(lines, 1):
            fields = line.split(maxsplit=2)
            if not fields:
                continue
            try:
                x, y, name = float(fields[0]), float(fields[1]), fields[2].strip()
            except (ValueError, IndexError):
                raise DataError(path, f"line {number}: is not 'x y class'") from None
            if name not in self.classes:
                known = ", ".join(self.classes)
                raise DataError(path, f"line {number}: unknown class '{name}'; known are {known} (see --classes)")
            if not (math.isfinite(x) and math.isfinite(y)):
                raise DataError(path, f"line {number}: is not 'x y class'")
            points.append((x, y, self.classes.index(name)))
        return points

    def _line(self, point: Point, size: tuple[int, int]) -> str:
        x, y, label = point
        # An image covers half a pixel more than its pixels' centres. NaN fails every comparison.
        if not (-0.5 <= x <= size[0] - 0.5 and -0.5 <= y <= size[1] - 0.5):
            raise ValueError(f"the point ({x}, {y}) lies outside of the image of {size[0]}x{size[1]} pixels")
        if not 0 <= label < len(self.classes):
            raise ValueError(f"there is no class {label}")
        return f"{x:.2f} {y:.2f} {self.classes[label]}\n"

    def _write_classes(self) -> None:
        text = "".join(f"{name}\n" for name in self.classes).encode()
        path = self.folder / "classes.txt"
        if not path.is_file() or path.read_bytes() != text:
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                file.write(text)


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
