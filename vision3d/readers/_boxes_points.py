# SPDX-License-Identifier: Apache-2.0
"""The one point per object: clicked by a person and kept in ``points/``, or drawn near the centre of a true box."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision3d.errors import DataError
from vision3d.readers._boxes_objects import unknown_class
from vision3d.types.images import BoxTruth, Float, Int

NO_ROW = -1  # the id of a point that stands for no object of the truth


@dataclass(frozen=True)
class Clicks:
    """What a person clicked in one image.

    Attributes:
        path: the file.
        points: (N, 2) pixels.
        lines: of the file, one per point.
        names: class of each point.
        problems: of other lines, as ``line 3: ...``.
    """

    path: Path
    points: Float
    lines: tuple[int, ...]
    names: tuple[str, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Placed:
    """Points (N, 2) and labels (N,) that can be used, the problems of others, how many are of other classes."""

    points: Float
    labels: Int
    problems: tuple[str, ...]
    foreign: int


def drawn_points(truth: BoxTruth, jitter: float, seed: int, name: str) -> Float:
    """(N, 2) points, uniform in the ellipse of ``jitter`` times w and h around each centre, turned with the box.

    Nobody clicks outside of an image: a point of an object that is cut by the border is moved to the border. The draw
    depends on ``seed`` and the image's ``name`` alone.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
    radius, angle = np.sqrt(rng.random(len(truth.boxes))), 2 * np.pi * rng.random(len(truth.boxes))
    center, sides, theta = truth.boxes[:, :2], truth.boxes[:, 2:4], truth.boxes[:, 4]
    u, v = (jitter * sides * radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])).T
    cos, sin = np.cos(theta), np.sin(theta)
    offset = np.column_stack([cos * u - sin * v, sin * u + cos * v])
    points: Float = np.clip(center + offset, 0.0, np.array(truth.size) - 1.0)
    return points


def matched_rows(points: Float, labels: Int, truth: BoxTruth) -> Int:
    """(N,) the row of ``truth`` that each clicked point stands for, -1 for none; no row twice.

    A point stands for a box of its class that holds it. Where there is a choice, the pairs that are nearest, measured
    in halves of the box's sides, come first.
    """
    rows: Int = np.full(len(points), NO_ROW, dtype=np.int64)
    if not len(points) or not len(truth.boxes):
        return rows
    offset = points[:, None] - truth.boxes[None, :, :2]
    cos, sin = np.cos(truth.boxes[:, 4]), np.sin(truth.boxes[:, 4])
    u = np.abs(cos * offset[..., 0] + sin * offset[..., 1]) / (truth.boxes[:, 2] / 2)
    v = np.abs(-sin * offset[..., 0] + cos * offset[..., 1]) / (truth.boxes[:, 3] / 2)
    inside = (np.maximum(u, v) <= 1) & (labels[:, None] == truth.labels)
    point, row = np.nonzero(inside)
    used = np.zeros(len(truth.boxes), dtype=bool)
    for pair in np.argsort(np.hypot(u, v)[point, row], kind="stable"):
        if rows[point[pair]] == NO_ROW and not used[row[pair]]:
            rows[point[pair]] = row[pair]
            used[row[pair]] = True
    return rows


def read_clicks(path: Path) -> Clicks:
    """The points of one image: lines ``x y class``, pixels; a class may hold spaces.

    Raises:
        DataError: the file cannot be read.
    """
    points: list[tuple[float, float]] = []
    lines: list[int] = []
    names: list[str] = []
    problems = []
    for number, line in text_lines(path):
        fields = [] if line is None else line.split(maxsplit=2)
        if line is None:
            problems.append(f"line {number}: holds bytes that are not UTF-8")
        elif fields and len(fields) < 3:
            problems.append(f"line {number}: has {len(fields)} fields; a point is 'x y class'")
        elif fields:
            x, y = number_or_none(fields[0]), number_or_none(fields[1])
            if x is None or y is None:
                problems.append(f"line {number}: '{fields[0]} {fields[1]}' are not two numbers")
            else:
                points.append((x, y))
                lines.append(number)
                names.append(fields[2].strip())
    return Clicks(path, np.array(points, dtype=np.float64).reshape(-1, 2), tuple(lines), tuple(names), tuple(problems))


def place_clicks(
    clicks: Clicks, classes: tuple[str, ...], others: Collection[str], size: tuple[int, int], remedy: str
) -> Placed:
    """Sort the clicks into good ones, those of classes that were not asked for, and bad ones.

    Args:
        classes, others, size, remedy: as in :func:`vision3d.readers._boxes_objects.judge`.
    """
    index = {name: position for position, name in enumerate(classes)}
    rows, foreign, problems = [], 0, list(clicks.problems)
    for row, ((x, y), line, name) in enumerate(zip(clicks.points.tolist(), clicks.lines, clicks.names)):
        if not (-0.5 <= x <= size[0] - 0.5 and -0.5 <= y <= size[1] - 0.5):
            problems.append(f"line {line}: the point lies outside of the image, which is {size[0]}x{size[1]} pixels")
        elif name in index:
            rows.append(row)
        elif name in others:
            foreign += 1
        else:
            problems.append(f"line {line}: {unknown_class(name, [*classes, *others], remedy)}")
    labels = np.array([index[clicks.names[row]] for row in rows], dtype=np.int64)
    return Placed(clicks.points[np.array(rows, dtype=np.intp)], labels, tuple(problems), foreign)


def text_lines(path: Path) -> list[tuple[int, str | None]]:
    """Numbered lines of a text file, whatever ends them; None for a line that is not UTF-8. No byte order mark.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    try:
        data.decode()
    except UnicodeDecodeError:
        return [(number, _decoded(line)) for number, line in enumerate(data.splitlines(), start=1)]
    return [(number, line.decode()) for number, line in enumerate(data.splitlines(), start=1)]


def _decoded(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def number_or_none(text: str) -> float | None:
    """The number that a text is; Python's own ``1_000`` is none."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
