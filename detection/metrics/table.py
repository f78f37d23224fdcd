# SPDX-License-Identifier: Apache-2.0
"""Every number of a run: means over classes and the classes one by one, as metrics, as text and as a table.

Conventions:

- AP and recall are means over the classes that have an object that counts; the others are named, not averaged.
- An image without an answer is one without detections: its objects are missed.
- ``mean_iou`` is over all objects that count. A box that was made for a given object is held against that one.
- Errors are medians over what was found at an IoU of 0.5 (over all boxes, where they were made for given objects).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detection.metrics.config import MetricsConfig
from detection.metrics.errors import median
from detection.metrics.evaluation import AT_50, AT_75, ClassScores, Evaluation, evaluate
from vision3d.types import BoxResult, BoxTruth, Metric, Table

COLUMNS = (
    "class",
    "objects",
    "not_counted",
    "detections",
    "ap50",
    "ap50_voc07",
    "ap75",
    "ap50_95",
    "recall50",
    "precision50",
    "mean_iou",
    "angle_error_deg",
    "centre_error_px",
    "size_error",
)
Row = dict[str, str | int | float | None]


def score_boxes(
    results: Sequence[BoxResult], truths: Sequence[BoxTruth], config: MetricsConfig | None = None
) -> list[Metric]:
    """Metrics of ``results``, where ``results[i]`` belongs to ``truths[i]``; both may be read lazily.

    Without an object that counts there is nothing but the counts.

    Raises:
        ValueError: there are more of one than of the other.
        UserError: a result does not belong to its truth, named by its image.
    """
    return metrics_of(evaluate(results, truths, config or MetricsConfig()))


def metrics_of(evaluation: Evaluation) -> list[Metric]:
    """The metrics of :func:`score_boxes`: means first, then ``ap50/CLASS`` and ``mean_iou/CLASS``, then counts."""
    scored, n = evaluation.scored, evaluation.objects
    metrics: list[Metric] = []
    if scored:
        errors = evaluation.errors()
        metrics += [
            Metric("ap50", float(np.mean([c.ap[AT_50] for c in scored])), "", "higher", n),
            Metric("ap50_voc07", float(np.mean([c.ap50_voc07 for c in scored])), "", "higher", n),
            Metric("ap75", float(np.mean([c.ap[AT_75] for c in scored])), "", "higher", n),
            Metric("ap50_95", float(np.mean([c.ap for c in scored])), "", "higher", n),
            Metric("mean_iou", float(np.concatenate([c.iou for c in scored]).mean()), "", "higher", n),
            Metric("recall50", float(np.mean([c.recall50 for c in scored])), "", "higher", n),
            Metric("angle_error_deg", errors["angle_deg"], "deg", "lower", n),
            Metric("centre_error_px", errors["centre_px"], "px", "lower", n),
            Metric("size_error", errors["size"], "", "lower", n),
        ]
        metrics += [Metric(f"ap50/{c.name}", float(c.ap[AT_50]), "", "higher", c.objects) for c in scored]
        metrics += [Metric(f"mean_iou/{c.name}", c.mean_iou, "", "higher", c.objects) for c in scored]
    detections = sum(len(c.scores) for c in evaluation.classes)
    not_counted = sum(c.not_counted for c in evaluation.classes)
    if detections and evaluation.ignored:
        metrics.append(Metric("ignored_detections", evaluation.ignored, "", "lower", detections))
    if not_counted:
        metrics.append(Metric("objects_not_counted", not_counted, "", "lower", n + not_counted))
    if evaluation.empty:
        metrics.append(Metric("classes_without_objects", len(evaluation.empty), "", "lower", len(evaluation.classes)))
    return metrics


def class_rows(evaluation: Evaluation) -> list[Row]:
    """A row per class with the columns of COLUMNS; what needs an object is None where there is none."""
    return [_row(scores) for scores in evaluation.classes]


def class_table(evaluation: Evaluation) -> str:
    """The rows as text for a terminal, shares in percent; classes without objects are named below it."""
    heads = ("class", "objects", "found", "AP50", "AP50 voc07", "AP75", "AP50:95", "mean IoU", "angle deg")
    lines = [list(heads)]
    for c in evaluation.scored:
        shares = (c.recall50, c.ap[AT_50], c.ap50_voc07, c.ap[AT_75], c.ap.mean(), c.mean_iou)
        angle = float(np.rad2deg(median(c.errors.angle_rad)))
        lines.append([c.name, str(c.objects), *(f"{100 * share:.1f}" for share in shares), f"{angle:.1f}"])
    if evaluation.scored:
        by_name = {m.name: m.value for m in metrics_of(evaluation)}
        means = [100 * by_name[name] for name in ("recall50", "ap50", "ap50_voc07", "ap75", "ap50_95", "mean_iou")]
        lines.append(
            ["mean", str(evaluation.objects), *(f"{x:.1f}" for x in means), f"{by_name['angle_error_deg']:.1f}"]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = []
    for name, *cells in lines:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        text.append("  ".join([name.ljust(widths[0]), *numbers]))
    if evaluation.empty:
        text.append(f"without objects that count, left out of the means: {', '.join(evaluation.empty)}")
    return "\n".join(text)


def class_exhibit(evaluation: Evaluation) -> Table:
    """The rows as a table of a report."""
    rows = []
    for row in class_rows(evaluation):
        values = [row[name] for name in COLUMNS]
        rows.append(tuple("" if v is None or (isinstance(v, float) and not np.isfinite(v)) else v for v in values))
    note = (
        f"Without objects that count, left out of the means: {', '.join(evaluation.empty)}." if evaluation.empty else ""
    )
    return Table("per_class", "By class", COLUMNS, tuple(rows), note)


def _row(c: ClassScores) -> Row:
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"class": c.name, "objects": c.objects, "not_counted": c.not_counted, "detections": len(c.scores)}
    if c.objects:
        row |= {
            "ap50": float(c.ap[AT_50]),
            "ap50_voc07": c.ap50_voc07,
            "ap75": float(c.ap[AT_75]),
            "ap50_95": float(c.ap.mean()),
            "recall50": c.recall50,
            "precision50": c.precision50,
            "mean_iou": c.mean_iou,
            "angle_error_deg": float(np.rad2deg(median(c.errors.angle_rad))),
            "centre_error_px": median(c.errors.centre_px),
            "size_error": median(c.errors.size),
        }
    return row
