# SPDX-License-Identifier: Apache-2.0
"""Files that tell an evaluation in full: by class, which class for which, and what became of each detection."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detection.metrics.config import MetricsConfig
from detection.metrics.confusion import Confusion, confusion_matrix
from detection.metrics.evaluation import evaluate
from detection.metrics.table import COLUMNS, class_rows, class_table
from detection.metrics.verdicts import write_verdicts
from vision3d.atomic import whole_file
from vision3d.types import BoxResult, BoxTruth


def write_tables(
    results: Sequence[BoxResult], truths: Sequence[BoxTruth], config: MetricsConfig, folder: Path
) -> list[Path]:
    """Write ``per_class`` as .csv, .json and .txt, ``confusion.csv`` and ``verdicts.csv``; the files written.

    Raises:
        ValueError, UserError: as :func:`detection.metrics.table.score_boxes`.
    """
    evaluation = evaluate(results, truths, config)
    confusion = confusion_matrix(results, truths, config)
    folder.mkdir(parents=True, exist_ok=True)
    rows = class_rows(evaluation)
    # Infinite errors are no JSON; there they are null, as in a class without objects.
    plain = [{k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()} for row in rows]
    texts = {
        "per_class.csv": _csv([list(COLUMNS), *([_cell(row[name]) for name in COLUMNS] for row in rows)]),
        "per_class.json": json.dumps({"classes": plain, "without_objects": list(evaluation.empty)}, indent=2) + "\n",
        "per_class.txt": class_table(evaluation) + "\n",
        "confusion.csv": confusion_csv(confusion),
    }
    for name, text in texts.items():
        with whole_file(folder / name) as file:
            file.write(text.encode())
    judged = write_verdicts(results, truths, folder / "verdicts.csv", config)
    return [*(folder / name for name in texts), judged]


def confusion_csv(confusion: Confusion) -> str:
    """True classes down, found ones across; the last of each is the background."""
    head = ["true \\ found", *confusion.names]
    return _csv([head, *([name, *map(str, row)] for name, row in zip(confusion.names, confusion.counts, strict=True))])


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
