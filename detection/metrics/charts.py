# SPDX-License-Identifier: Apache-2.0
"""What a run shows of its boxes: precision and recall, AP by IoU and by size, tables of classes, a row per image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detection.metrics.average_precision import TOLERANCE, Curve
from detection.metrics.config import MetricsConfig
from detection.metrics.confusion import confusion_exhibit, confusion_matrix
from detection.metrics.evaluation import AT_50, ClassScores, Evaluation, evaluate
from detection.metrics.image import ScoredImage, scored_images
from detection.metrics.matching import FALSE, THRESHOLDS, TRUE, match_image
from detection.metrics.table import class_exhibit
from vision3d.types import BoxResult, BoxTruth, Chart, Exhibit

Float = NDArray[np.float64]

# Recalls at which curves are drawn: a detector has as many points as detections.
RECALLS = np.linspace(0.0, 1.0, 101)
# More curves than the palette has colours cannot be told apart.
CURVES_PER_CHART = 6
# Square root of the area, pixels: a factor of 1.41 per bin, so that a floor of the size shows.
SIZE_EDGES_PX = 2.0 ** np.arange(2.0, 11.01, 0.5)
# A share of fewer objects is noise.
FEWEST = 5


def boxes_exhibit(
    results: Sequence[BoxResult], truths: Sequence[BoxTruth], config: MetricsConfig | None = None
) -> Exhibit:
    """Charts and tables over all images and a row per image; empty without truths or without objects that count.

    Raises:
        ValueError, UserError: as :func:`detection.metrics.image.scored_images`.
    """
    config = config or MetricsConfig()
    if not len(truths):
        return Exhibit()
    evaluation = evaluate(results, truths, config)
    if not evaluation.scored:
        return Exhibit()
    per_sample = {image.name: image_columns(image, config) for image in scored_images(results, truths, config)}
    charts = [*precision_charts(evaluation), _ap_by_iou(evaluation), _iou_spread(evaluation)]
    by_size = _by_size(evaluation)
    return Exhibit(
        charts=(*charts, by_size) if by_size is not None else tuple(charts),
        tables=(class_exhibit(evaluation), confusion_exhibit(confusion_matrix(results, truths, config))),
        per_sample=per_sample,
    )


def image_columns(image: ScoredImage, config: MetricsConfig) -> dict[str, float]:
    """An image's numbers for the table of all images, at an IoU of 0.5; shares only where an object counts."""
    kinds = match_image(image, config, (0.5,)).kinds[0]
    objects, found = int(image.counts.sum()), int((kinds == TRUE).sum())
    columns: dict[str, float] = {"objects": objects, "found": found, "false": int((kinds == FALSE).sum())}
    if objects:
        columns["recall50"] = found / objects
        columns["mean_iou"] = float(image.true_iou()[image.counts].mean())
    return columns


def precision_charts(evaluation: Evaluation) -> list[Chart]:
    """Precision by recall at an IoU of 0.5: the mean of classes, then each, best AP first, six to a chart."""
    scored = sorted(evaluation.scored, key=lambda c: -c.ap[AT_50])
    curves = {c.name: _at_recalls(c.curve(AT_50)) for c in scored}
    mean = np.mean(list(curves.values()), axis=0)
    charts = [
        _precision_chart("precision_recall", f"Precision and recall, mean of {len(scored)} classes", {"mean": mean})
    ]
    names = list(curves)
    for i, start in enumerate(range(0, len(names), CURVES_PER_CHART)):
        some = names[start : start + CURVES_PER_CHART]
        title = "Precision and recall by class, AP50 in %" + (
            f", {start + 1} to {start + len(some)}" if len(names) > len(some) else ""
        )
        labels = {name: f"{name} {100 * c.ap[AT_50]:.0f}" for name, c in zip(names, scored, strict=True)}
        series = {labels[name]: curves[name] for name in some}
        charts.append(_precision_chart(f"precision_recall_{i + 1}", title, series))
    return charts


def _precision_chart(name: str, title: str, curves: dict[str, Float]) -> Chart:
    return Chart(name, title, "recall", "precision", {label: (RECALLS, curve) for label, curve in curves.items()})


def _at_recalls(curve: Curve) -> Float:
    """(101,) best precision at each of RECALLS or above, 0 beyond the last."""
    if not len(curve.recall):
        return np.zeros(len(RECALLS))
    highest = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
    return highest[np.searchsorted(curve.recall, RECALLS - TOLERANCE)]


def _ap_by_iou(evaluation: Evaluation) -> Chart:
    ap = np.mean([c.ap for c in evaluation.scored], axis=0)
    return Chart("ap_iou", "AP by the IoU asked for", "IoU", "AP (area)", {"mean": (np.array(THRESHOLDS), ap)})


def _iou_spread(evaluation: Evaluation) -> Chart:
    """Share of objects whose box has at least an IoU of x: where boxes are nearly good enough, and where not at all."""
    limits = np.linspace(0.0, 1.0, 101)
    # The classes with the most objects; a curve of three objects says little.
    most = sorted(evaluation.scored, key=lambda c: -c.objects)[: CURVES_PER_CHART - 1]
    parts = {"all": [c.iou for c in evaluation.scored]}
    if len(evaluation.scored) > 1:
        parts |= {c.name: [c.iou] for c in most}
    series = {name: (limits, _share_above(np.concatenate(iou), limits)) for name, iou in parts.items()}
    return Chart("iou", "Objects boxed with at least this IoU", "IoU", "share of objects", series)


def _share_above(iou: Float, limits: Float) -> Float:
    return 1.0 - np.searchsorted(np.sort(iou), limits - TOLERANCE, side="left") / len(iou)


def _by_size(evaluation: Evaluation) -> Chart | None:
    """Recall and mean IoU by the objects' size; None where no bin holds enough of them."""
    classes: tuple[ClassScores, ...] = evaluation.scored
    sizes = np.concatenate([c.sizes_px for c in classes])
    values = {
        "recall at IoU 0.5": np.concatenate([c.found for c in classes]).astype(np.float64),
        "mean IoU": np.concatenate([c.iou for c in classes]),
    }
    bins = np.digitize(sizes, SIZE_EDGES_PX)
    counts = np.bincount(bins, minlength=len(SIZE_EDGES_PX) + 1)
    used = np.flatnonzero(counts >= FEWEST)
    if not len(used):
        return None
    middle = np.array([np.exp(np.log(sizes[bins == b]).mean()) for b in used])
    series = {
        name: (middle, np.bincount(bins, weights=value, minlength=len(counts))[used] / counts[used])
        for name, value in values.items()
    }
    return Chart("size", "What the size of objects does", "square root of the area (px)", "share", series, x_log=True)
