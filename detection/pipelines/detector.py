# SPDX-License-Identifier: Apache-2.0
"""A rotated detector, trained on boxes: those of the data, or pseudo boxes that stand in their place."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.config import RotatedFcosConfig
from detection.detectors import DETECTOR, Trained, fit_detector, load_detector
from detection.dota.inference import tiled_detect
from detection.pipelines.common import BoxPipeline, box_result, require_classes
from detection.pipelines.pseudo import short_facts
from detection.problem import Detections
from detection.training.store import save_network
from vision3d.atomic import whole_file
from vision3d.contracts import FitContext, Reader
from vision3d.errors import DataError
from vision3d.types import BoxResult, BoxTruth, LabeledImage


class DetectorPipeline(BoxPipeline[RotatedFcosConfig]):
    """Oriented boxes of an image of any size, found without points."""

    deterministic = True

    def fit(self, train: Reader, out: Path, context: FitContext) -> None:
        """Train on all boxes of ``train``; those that a tile's border cuts, and the difficult ones, count too.

        Raises:
            DataError: there are no boxes.
        """
        net, classes, facts = fit_detector(self.config.detector, train, true_boxes(train), context)
        save_network(out, DETECTOR, net, DETECTOR, classes, facts)

    def load(self, model: Path) -> Trained:
        """The detector that :meth:`fit` wrote.

        Raises:
            DataError: it is damaged, or of another architecture.
        """
        return load_detector(model, self.config.detector)

    def step(self, model: Trained, sample: LabeledImage, previous: BoxResult | None = None) -> BoxResult:
        """Boxes of one image: in tiles where it is larger than a window, merged by rotated NMS."""
        unknown = require_classes(sample, model.classes)
        began_s = time.perf_counter()
        found = tiled_detect(model.detector, sample.image, self.config.detector.tiles)
        return box_result(sample, found, model.classes, began_s, {"not_taught": unknown} if unknown else None)

    def draw(
        self, model: Trained, sample: LabeledImage, result: BoxResult, truth: BoxTruth | None = None
    ) -> NDArray[np.uint8]:
        """The boxes found; with a truth, in the colours of what became of them, and missed objects dashed."""
        from detection.drawing.sheet import draw_boxes, verdict_sheet

        return (
            draw_boxes(sample, result) if truth is None else verdict_sheet(sample, result, truth, self.config.metrics)
        )

    def describe(self, model: Trained) -> Mapping[str, Any]:
        """Facts about a detector for ``vision3d inspect``."""
        return {"classes": list(model.classes), **short_facts(model.facts)}

    def export_model(self, model: Trained, folder: Path) -> list[Path]:
        """The network as ONNX with standard operators: boxes and scores, without NMS; and what is known about it."""
        from detection.fcos.export_onnx import export_onnx

        path, facts = folder / "detector.onnx", folder / "detector.json"
        found = export_onnx(model.net, path)
        with whole_file(facts) as file:
            file.write((json.dumps({**found, "classes": list(model.classes)}, indent=2) + "\n").encode())
        return [path, facts]


def true_boxes(train: Reader) -> Callable[[int], Detections]:
    """Position -> the data's own boxes, each with full weight."""

    def boxes(index: int) -> Detections:
        truth: BoxTruth | None = train.truth(index)
        if truth is None:
            raise DataError(train.key(index), "has no boxes to train on; `vision3d fit pointobb` learns from points")
        return Detections(truth.boxes, np.ones(len(truth.boxes)), truth.labels)

    return boxes
