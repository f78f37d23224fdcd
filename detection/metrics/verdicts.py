# SPDX-License-Identifier: Apache-2.0
"""What became of each detection and each object of one image, in words that explain an AP."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detection.metrics.config import MetricsConfig
from detection.metrics.image import score_image
from detection.metrics.matching import IGNORED, TRUE, match_image
from vision3d.atomic import whole_file
from vision3d.types import BoxResult, BoxTruth

Verdict = Literal["true", "duplicate", "confused", "loose", "background", "ignored", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("true", "duplicate", "confused", "loose", "background", "ignored", "unknown")

# Less overlap than this with an object of its class, and a detection is not about that object.
LOOSE_IOU = 0.1


@dataclass(frozen=True)
class Verdicts:
    """M detections in the result's order and N objects.

    Attributes:
        kinds: (M,) true; duplicate: its object was found by a better one; confused: on an object of another class;
            loose: overlaps an object of its class, but too little; background: none of these; ignored: on an object
            that does not count; unknown: of a class that the truth does not have.
        objects: (M,) the object meant, -1 for background and unknown.
        iou: (M,) with that object.
        missed: (K,) rows of the objects that count and were not found.
    """

    kinds: tuple[Verdict, ...]
    objects: NDArray[np.int64]
    iou: NDArray[np.float64]
    missed: NDArray[np.int64]

    def counts(self) -> dict[Verdict, int]:
        """How many detections of each kind, all kinds in order."""
        found = Counter(self.kinds)
        return {kind: found[kind] for kind in VERDICTS}


def verdicts(result: BoxResult, truth: BoxTruth, config: MetricsConfig | None = None, iou: float = 0.5) -> Verdicts:
    """Judge every detection of ``result`` at the limit ``iou``; right and wrong are those that the AP counts.

    Raises:
        UserError: as :func:`detection.metrics.image.score_image`.
    """
    config = config or MetricsConfig()
    image = score_image(result, truth, config)
    match = match_image(image, config, (iou,))
    own_iou, own = image.own.best_columns()
    pairs = image.overlaps
    others = pairs.where(image.labels[pairs.rows] != image.true_labels[pairs.columns])
    other_iou, other = others.best_columns()
    total = 0 if result.boxes is None else len(result.boxes)
    kinds: list[Verdict] = ["unknown"] * total
    objects, overlap = np.full(total, -1, dtype=np.int64), np.zeros(total)
    passes = (lambda x: x > iou) if config.strict else (lambda x: x >= iou)
    for i, row in enumerate(image.rows):
        kind = match.kinds[0, i]
        if kind in (TRUE, IGNORED):
            kinds[row], objects[row] = "true" if kind == TRUE else "ignored", match.objects[0, i]
            # COCO may give a detection to another object than its best.
            overlap[row] = pairs.iou[(pairs.rows == i) & (pairs.columns == objects[row])][0]
        elif passes(own_iou[i]):
            kinds[row], objects[row], overlap[row] = "duplicate", own[i], own_iou[i]
        elif passes(other_iou[i]):
            kinds[row], objects[row], overlap[row] = "confused", other[i], other_iou[i]
        elif own_iou[i] >= LOOSE_IOU:
            kinds[row], objects[row], overlap[row] = "loose", own[i], own_iou[i]
        else:
            kinds[row] = "background"
    found = match.objects[0][match.kinds[0] == TRUE]
    return Verdicts(tuple(kinds), objects, overlap, np.setdiff1d(np.flatnonzero(image.counts), found))


def write_verdicts(
    results: Sequence[BoxResult], truths: Sequence[BoxTruth], path: Path, config: MetricsConfig | None = None
) -> Path:
    """Write a table of all detections and all missed objects as CSV to ``path``: why an AP is what it is.

    Columns: image, row (of the detection in its result; empty for a missed object), class, score, verdict (or
    ``missed``), object (row of the truth; empty without one) and iou.

    Raises:
        ValueError, UserError: as :func:`detection.metrics.image.scored_images`.
    """
    if len(results) != len(truths):
        raise ValueError(f"{len(results)} results for {len(truths)} truths")
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("image", "row", "class", "score", "verdict", "object", "iou"))
        for i in range(len(truths)):
            result, truth = results[i], truths[i]
            table.writerows(_rows(result, truth, verdicts(result, truth, config)))
        text.flush()
        text.detach()
    return path


def _rows(result: BoxResult, truth: BoxTruth, judged: Verdicts) -> list[tuple[str | int, ...]]:
    rows: list[tuple[str | int, ...]] = []
    classes = result.classes or truth.classes
    if result.scores is not None and result.labels is not None:
        for row, kind in enumerate(judged.kinds):
            score, name = f"{result.scores[row]:.6f}", classes[result.labels[row]]
            meant = int(judged.objects[row]) if judged.objects[row] >= 0 else ""
            rows.append((result.name, row, name, score, kind, meant, f"{judged.iou[row]:.6f}" if meant != "" else ""))
    rows += [(result.name, "", truth.classes[truth.labels[i]], "", "missed", int(i), "") for i in judged.missed]
    return rows
