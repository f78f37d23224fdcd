# SPDX-License-Identifier: Apache-2.0
"""One sheet per image: the boxes, a line of facts above, and what colours and lines mean below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detection.drawing.boxes import boxes_on_image, draw_found, draw_true
from detection.drawing.colors import TRUE, VERDICT_COLORS, class_color
from detection.drawing.frame import Frame
from detection.metrics.config import MetricsConfig
from detection.metrics.image import score_image
from detection.metrics.verdicts import VERDICTS, verdicts
from vision3d import canvas
from vision3d.canvas import Picture, Rgb
from vision3d.types import BoxResult, BoxTruth, LabeledImage

Float = NDArray[np.float64]

_TEXT_PX, _HEAD_PX, _LINE_PX = 14, 34, 24
_DARK: Rgb = (52, 58, 66)
# Limits of the IoU, and the colours of what lies below, between and above them.
_LIMITS = (0.3, 0.5, 0.75)
_GRADES: tuple[Rgb, ...] = (canvas.VERMILLION, canvas.ORANGE, canvas.YELLOW, (60, 210, 150))


@dataclass(frozen=True)
class Key:
    """One entry of a legend: ``line`` is solid, dashed or cross."""

    text: str
    color: Rgb
    line: str = "solid"


def draw_boxes(sample: LabeledImage, result: BoxResult, truth: BoxTruth | None = None) -> Picture:
    """(h, w, 3) uint8 RGB: found boxes solid, true ones dashed, points as crosses, and a legend with counts.

    A result without boxes shows what is known and the reason.
    """
    classes = truth.classes if truth is not None else sample.classes
    picture = boxes_on_image(sample.image, result, truth, classes, sample.points, sample.labels)
    facts = [sample.name]
    if result.boxes is None:
        facts.append(f"no boxes: {result.reason}")
    else:
        facts.append(f"{len(result.boxes)} boxes")
    if truth is not None:
        facts.append(f"{len(truth.boxes)} objects")
        if result.boxes is not None:
            facts.append(_quality(result, truth))
    return with_legend(picture, " · ".join(facts), _class_keys(sample, result, truth, classes))


def verdict_sheet(
    sample: LabeledImage, result: BoxResult, truth: BoxTruth, config: MetricsConfig | None = None
) -> Picture:
    """(h, w, 3) uint8 RGB: boxes in the colours of what became of them, missed objects dashed.

    Only detections of ``config.confusion_score`` and more are shown, as in the confusion matrix: the many weak ones,
    which average precision needs, would hide everything.

    Raises:
        UserError: as :func:`detection.metrics.image.score_image`.
    """
    least = (config or MetricsConfig()).confusion_score
    if result.boxes is not None and result.scores is not None and result.labels is not None and result.ids is None:
        sure = result.scores >= least
        result = replace(result, boxes=result.boxes[sure], scores=result.scores[sure], labels=result.labels[sure])
    judged = verdicts(result, truth, config)
    frame = Frame.around(sample.image)
    if result.boxes is not None:
        draw_found(frame, result.boxes, [VERDICT_COLORS[kind] for kind in judged.kinds])
    frame.dashes(truth.boxes[judged.missed], TRUE)
    counts = judged.counts()
    keys = [Key(f"{kind} {counts[kind]}", VERDICT_COLORS[kind]) for kind in VERDICTS if counts[kind]]
    keys.append(Key(f"missed {len(judged.missed)}", TRUE, "dashed"))
    title = f"{sample.name} · detections of score {least:g} and more by what became of them"
    return with_legend(frame.picture, title, keys)


def overlay_sheet(sample: LabeledImage, pseudo: BoxResult, truth: BoxTruth) -> Picture:
    """(h, w, 3) uint8 RGB: boxes made from points over the true ones, in colours from bad to good by their IoU.

    Raises:
        UserError: as :func:`detection.metrics.image.score_image`.
    """
    image = score_image(pseudo, truth, MetricsConfig(difficult="devkit-1.5"))
    frame = Frame.around(sample.image)
    if image.ids is not None:
        iou = np.zeros(len(image.boxes))
        rows, objects = image.made_for()
        iou[rows] = image.true_iou()[objects]
    else:
        iou = image.own.best_columns()[0]
    colors = [_GRADES[int(np.searchsorted(_LIMITS, value, side="right"))] for value in iou]
    draw_found(frame, image.boxes, colors)
    draw_true(frame, truth)
    if sample.points is not None:
        frame.crosses(sample.points, 2.0, TRUE)
    per_object = image.true_iou()
    mean = float(per_object.mean()) if len(per_object) else 0.0
    names = ("IoU below 0.3", "0.3 to 0.5", "0.5 to 0.75", "0.75 and more")
    counts = np.bincount(np.searchsorted(_LIMITS, iou, side="right"), minlength=len(_GRADES))
    keys = [Key(f"{name} ({n})", color) for name, n, color in zip(names, counts, _GRADES, strict=True)]
    keys.append(Key("true", TRUE, "dashed"))
    return with_legend(frame.picture, f"{sample.name} · mean IoU {mean:.3f} of {len(per_object)} objects", keys)


def with_legend(picture: Picture, title: str, keys: Sequence[Key]) -> Picture:
    """``picture`` between a line of text and the legend, which takes as many lines as it needs."""
    width = picture.shape[1]
    head = np.full((_HEAD_PX, width, 3), canvas.PAPER, dtype=np.uint8)
    canvas.put_text(head, canvas.fit_text(title, width - 20, 16), (10, _HEAD_PX // 2), 16, canvas.INK, "lm")
    lines: list[list[tuple[int, Key]]] = [[]]
    x = 10
    for key in keys:
        wide = 40 + canvas.text_width(key.text, _TEXT_PX) + 16
        if lines[-1] and x + wide > width - 10:
            lines.append([])
            x = 10
        lines[-1].append((x, key))
        x += wide
    foot = np.full((_LINE_PX * len(lines) + 12, width, 3), _DARK, dtype=np.uint8)
    for i, line in enumerate(lines):
        for x, key in line:
            _draw_key(foot, x, 6 + i * _LINE_PX + _LINE_PX // 2, key)
    return np.concatenate([head, picture, foot])


def _draw_key(foot: Picture, x: int, y: int, key: Key) -> None:
    # The legend is dark like the picture, so that white and pale lines look as they do there.
    at = np.array([[x, y]], dtype=np.float64)
    if key.line == "cross":
        canvas.crosses(foot, at + [[14.0, 0.0]], 4.0, key.color)
    elif key.line == "dashed":
        starts = at + np.array([[0.0, 0.0], [11.0, 0.0], [22.0, 0.0]])
        canvas.segments(foot, starts, starts + [6.0, 0.0], key.color, 1)
    else:
        canvas.segments(foot, at, at + [[28.0, 0.0]], key.color, 3)
    canvas.put_text(foot, key.text, (x + 36, y), _TEXT_PX, TRUE, "lm")


def _class_keys(sample: LabeledImage, result: BoxResult, truth: BoxTruth | None, classes: Sequence[str]) -> list[Key]:
    found = result.labels if result.boxes is not None and result.labels is not None else np.zeros(0, np.int64)
    names = [(result.classes or tuple(classes))[label] for label in found]
    keys = []
    for label, name in enumerate(classes):
        n, of = names.count(name), None if truth is None else int((truth.labels == label).sum())
        seen = sample.labels is not None and bool((sample.labels == label).any())
        if n or of or seen:
            keys.append(Key(f"{name} {n}" + ("" if of is None else f" of {of}"), class_color(label)))
    others = sum(name not in classes for name in names)
    if others:
        keys.append(Key(f"other classes {others}", class_color(len(classes))))
    if truth is not None:
        keys.append(Key("true", TRUE, "dashed"))
    if sample.points is not None and len(sample.points):
        keys.append(Key("point", TRUE, "cross"))
    return keys


def _quality(result: BoxResult, truth: BoxTruth) -> str:
    image = score_image(result, truth, MetricsConfig(difficult="devkit-1.5"))
    iou = image.true_iou()
    if not len(iou):
        return "nothing to find"
    return f"mean IoU {iou.mean():.3f}, {100 * (iou > 0.5).mean():.0f} % above 0.5"
