# SPDX-License-Identifier: Apache-2.0
"""The objects that a label file lists, and which of them cannot be used."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision3d.types.images import BoxTruth, Float, Int

LEAST_SIDE_PX = 1.0
# Labels are mostly rounded to whole pixels: a corner moved that far makes a dent that means nothing.
DENT_PX = 1.0


@dataclass
class Objects:
    """What one label file says about one image, line by line; nothing is judged yet.

    Attributes:
        path: the file.
        where: of each object, e.g. ``line 12``.
        quads: eight numbers each, pixels, in the order of the file.
        names: class of each object.
        difficult: 0, 1 or 2.
        heading: radians, NaN where not known.
        problems: (where, what is wrong) of lines that are no object at all.
        gsd_m: metres per pixel, where the file says so.
        listed: whether there is such a list: False for an image that nobody has labelled.
    """

    path: Path
    where: list[str] = field(default_factory=list)
    quads: list[Sequence[float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    difficult: list[int] = field(default_factory=list)
    heading: list[float] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    gsd_m: float | None = None
    listed: bool = True

    def add(
        self, where: str, quad: Sequence[float], name: str, difficult: int = 0, heading: float = float("nan")
    ) -> None:
        self.where.append(where)
        self.quads.append(quad)
        self.names.append(name)
        self.difficult.append(difficult)
        self.heading.append(heading)


@dataclass(frozen=True)
class Judged:
    """The objects of one image that can be used, and what is wrong with the others.

    Attributes:
        truth: None for an image that nobody has labelled.
        where: the place in the file of each of its rows.
        problems: one line of text per bad label, e.g. ``line 12: unknown class 'boat'``.
        foreign: how many objects are of a class that was not asked for.
    """

    truth: BoxTruth | None
    where: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    foreign: int = 0


def judge(
    found: Objects, classes: tuple[str, ...], others: Collection[str], size: tuple[int, int], remedy: str
) -> Judged:
    """Sort the objects of an image into good and bad ones.

    Args:
        classes: the ones that are asked for.
        others: classes that the data set has as well; their objects are left out.
        size: (width, height) of the image in pixels.
        remedy: ends the line about an unknown class that is near to none.
    """
    if not found.listed:
        return Judged(None, problems=tuple(f"{where}: {text}" for where, text in found.problems))
    index = {name: position for position, name in enumerate(classes)}
    rows = len(found.where)
    quads = np.array(found.quads, dtype=np.float64).reshape(rows, 4, 2)
    boxes, shapes = shape_problems(quads, size)
    wrong = {row: text for row, text in enumerate(shapes) if text}
    foreign = {row for row, name in enumerate(found.names) if name not in index and name in others}
    for row, name in enumerate(found.names):
        if name not in index and row not in foreign:
            wrong[row] = unknown_class(name, [*classes, *others], remedy)
    good = np.array([row for row in range(rows) if row not in wrong and row not in foreign], dtype=np.intp)
    heading = np.array(found.heading, dtype=np.float64)[good]
    truth = BoxTruth(
        boxes=boxes[good],
        labels=np.array([index[found.names[row]] for row in good], dtype=np.int64),
        difficult=np.array(found.difficult, dtype=np.uint8)[good],
        quads=quads[good],
        classes=classes,
        size=size,
        heading=heading if np.isfinite(heading).any() else None,
    )
    problems = [*found.problems, *((found.where[row], text) for row, text in wrong.items() if row not in foreign)]
    problems.sort(key=lambda item: _number(item[0]))
    texts = tuple(f"{where}: {text}" for where, text in problems)
    return Judged(truth, tuple(found.where[row] for row in good), texts, len(foreign))


def shape_problems(quads: Float, size: tuple[int, int]) -> tuple[Float, list[str]]:
    """The smallest rectangle (N, 5) around each quadrilateral (N, 4, 2), and what is wrong with it ("" for nothing).

    Wrong are numbers that are not finite, edges that cross, a dent deeper than ``DENT_PX``, a side shorter than
    ``LEAST_SIDE_PX``, and a box that does not touch the image: its centre is farther outside than half the box.
    """
    from vision3d.geometry import rotated

    finite = np.isfinite(quads).all(axis=(1, 2)) & (np.abs(np.nan_to_num(quads)).max(axis=(1, 2), initial=0) < 1e9)
    boxes = rotated.from_corners(np.where(finite[:, None, None], quads, 0.0))
    corners = np.where(finite[:, None, None], quads, 0.0)
    reflex = _turns(corners)
    low, high = corners.min(axis=1, initial=np.inf), corners.max(axis=1, initial=-np.inf)
    outside = ((high < -0.5) | (low > np.array(size) - 0.5)).any(axis=1)
    texts = []
    for row in range(len(quads)):
        width, height = boxes[row, 2:4]
        if not finite[row]:
            texts.append("a coordinate is not a finite number, or is beyond all images")
        elif min(width, height) < LEAST_SIDE_PX:
            texts.append(f"is {width:.3g} x {height:.3g} pixels: a side under 1 pixel is no object")
        elif reflex[row] == 2:
            texts.append("its edges cross one another: are the corners in order?")
        elif reflex[row] == 1:
            texts.append("the quadrilateral is not convex")
        elif outside[row]:
            texts.append(f"lies outside of the image, which is {size[0]}x{size[1]} pixels")
        else:
            texts.append("")
    return boxes, texts


def duplicates(judged: Judged) -> list[str]:
    """A line for each object that says the same as an earlier one, to a hundredth of a pixel."""
    if judged.truth is None:
        return []
    truth = judged.truth
    seen: dict[tuple[float, ...], int] = {}
    twice = []
    for row, key in enumerate(np.column_stack([truth.labels, np.round(truth.quads.reshape(-1, 8), 2)]).tolist()):
        first = seen.setdefault(tuple(key), row)
        if first != row:
            twice.append(f"{judged.where[row]}: says the same as {judged.where[first]}")
    return twice


def unknown_class(name: str, known: Sequence[str], remedy: str) -> str:
    """``unknown class 'shp': did you mean 'ship'?``, or what else can be done."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"unknown class '{name}': " + (f"did you mean '{near[0]}'?" if near else remedy)


def _turns(quads: Float) -> Int:
    """(N,) how many of the four corners bend against the others, by more than ``DENT_PX``: 0 convex, 1 dent, 2 crossed.

    The distance of a corner from the line between its neighbours is twice the triangle's area over that line's length.
    """
    before, after = np.roll(quads, 1, axis=1) - quads, np.roll(quads, -1, axis=1) - quads
    area = after[..., 0] * before[..., 1] - after[..., 1] * before[..., 0]
    between = np.linalg.norm(after - before, axis=-1)
    depth = np.divide(area, between, out=np.zeros_like(area), where=between > 0)
    left, right = (depth > DENT_PX).sum(axis=1), (depth < -DENT_PX).sum(axis=1)
    fewer: NDArray[np.int64] = np.minimum(left, right)
    return fewer


def _number(where: str) -> int:
    digits = "".join(letter for letter in where if letter.isdigit())
    return int(digits or 0)
