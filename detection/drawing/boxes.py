# SPDX-License-Identifier: Apache-2.0
"""Boxes on an image: found ones solid in the colour of their class, true ones dashed in white, points as crosses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detection.drawing.colors import DIFFICULT, TRUE, class_color
from detection.drawing.frame import Frame
from vision3d import canvas
from vision3d.canvas import Picture, Rgb
from vision3d.geometry import rotated
from vision3d.types import BoxResult, BoxTruth

Float = NDArray[np.float64]
Int = NDArray[np.int64]

# Thicker lines than one pixel only where the boxes are large enough to leave their inside free.
_THIN_BELOW_PX = 14.0
_SCORE_PX = 12
# More scores than this are not read.
_MOST_SCORES = 80


def boxes_on_image(
    image: NDArray[np.uint8],
    result: BoxResult | None,
    truth: BoxTruth | None = None,
    classes: Sequence[str] = (),
    points: Float | None = None,
    point_labels: Int | None = None,
) -> Picture:
    """(h, w, 3) uint8 RGB: the image, dimmed and fitted to 640 to 1280 pixels of width, with what is known drawn in.

    Args:
        image: (H, W, 3) uint8 RGB.
        result: its boxes are drawn solid, with scores where there is room; None or without boxes draws none.
        truth: its boxes are drawn dashed, difficult ones in grey.
        classes: names by which colours are given; those of the truth or the result when empty.
        points, point_labels: (N, 2) image pixels and (N,) classes: crosses.
    """
    frame = Frame.around(image)
    classes = tuple(classes) or (truth.classes if truth is not None else result.classes if result is not None else ())
    if result is not None and result.boxes is not None and result.labels is not None:
        labels = to_classes(result.labels, result.classes, classes)
        draw_found(frame, result.boxes, [class_color(int(label)) for label in labels])
    if truth is not None:
        draw_true(frame, truth)
    if points is not None and len(points):
        labels = np.zeros(len(points), np.int64) if point_labels is None else point_labels
        draw_points(frame, points, [class_color(int(label)) for label in labels])
    if result is not None and result.boxes is not None and result.scores is not None:
        write_scores(frame, result.boxes, result.scores)
    return frame.picture


def to_classes(labels: Int, names: Sequence[str], classes: Sequence[str]) -> Int:
    """Labels into ``names`` as labels into ``classes``; names that are not there come after the last."""
    if not names or tuple(names) == tuple(classes):
        return labels
    places = {name: i for i, name in enumerate(classes)}
    return np.array([places.get(name, len(classes)) for name in names], dtype=np.int64)[labels]


def draw_found(frame: Frame, boxes: Float, colors: Sequence[Rgb]) -> None:
    """Solid outlines of (N, 5) boxes in (N,) colours, on a dark rim where they are large."""
    width = line_width(frame, boxes)
    if width > 1:
        frame.outline(boxes, canvas.BLACK, width + 2)
    for color in sorted(set(colors)):
        rows = np.array([c == color for c in colors])
        frame.outline(boxes[rows], color, width)


def draw_true(frame: Frame, truth: BoxTruth) -> None:
    """Dashed outlines of the true boxes, grey for difficult ones."""
    easy = truth.difficult == 0
    frame.dashes(truth.boxes[~easy], DIFFICULT)
    frame.dashes(truth.boxes[easy], TRUE)


def draw_points(frame: Frame, points: Float, colors: Sequence[Rgb]) -> None:
    """Crosses at (N, 2) points; smaller where points are dense."""
    radius = 4.0
    if len(points) > 1:
        placed = frame.place(points)
        sample = placed[:: max(1, len(placed) // 200)]
        apart = np.linalg.norm(sample[:, None] - placed[None], axis=2)
        apart[apart == 0] = np.inf
        nearest = np.median(apart.min(axis=1))
        radius = float(np.clip(0.2 * nearest, 1.5, 4.0)) if np.isfinite(nearest) else radius
    for color in sorted(set(colors)):
        frame.crosses(points[np.array([c == color for c in colors])], radius, color)


def write_scores(frame: Frame, boxes: Float, scores: Float) -> None:
    """Scores above the boxes, best first, where no other box or score is; none in a crowd."""
    if len(boxes) > _MOST_SCORES:
        return
    h, w = frame.picture.shape[:2]
    taken = np.zeros((h, w), dtype=bool)
    hulls = rotated.hulls(boxes)
    shown = np.concatenate([frame.place(hulls[:, :2]), frame.place(hulls[:, 2:])], axis=1)
    for x0, y0, x1, y1 in np.clip(np.rint(shown), 0, [w, h, w, h]).astype(int):
        taken[y0:y1, x0:x1] = True
    for row in np.argsort(-scores, kind="stable"):
        text = f"{scores[row]:.2f}"
        wide, tall = canvas.text_width(text, _SCORE_PX) + 6, _SCORE_PX + 4
        x = round((shown[row, 0] + shown[row, 2]) / 2 - wide / 2)
        for y in (round(shown[row, 1]) - tall - 1, round(shown[row, 3]) + 2):
            if x < 0 or y < 0 or x + wide > w or y + tall > h or taken[y : y + tall, x : x + wide].any():
                continue
            taken[y : y + tall, x : x + wide] = True
            patch = frame.picture[y : y + tall, x : x + wide]
            patch //= 3
            canvas.put_text(patch, text, (wide // 2, tall // 2), _SCORE_PX, TRUE, "mm")
            break


def line_width(frame: Frame, boxes: Float) -> int:
    """Pixels of the outlines of (N, 5) boxes: 1 where they are small, else 2."""
    if not len(boxes):
        return 1
    return 1 if np.median(boxes[:, 2:4].min(axis=1)) * frame.factor < _THIN_BELOW_PX else 2
