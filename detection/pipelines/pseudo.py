# SPDX-License-Identifier: Apache-2.0
"""Points to pseudo boxes: the first half of PointOBB, usable alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.config import LabellerConfig, PseudoBoxesConfig
from detection.labelling import LABEL, Labelling, build_network, fit_labeller, make_labeller
from detection.pipelines.common import BoxPipeline, box_result, require_classes, require_points
from detection.problem import Detections, Int
from detection.training.store import fill_network, read_document, save_network, write_document
from vision3d.contracts import FitContext, Reader
from vision3d.types import BoxResult, BoxTruth, LabeledImage

UNTRAINED_SEED = 0


class PseudoPipeline(BoxPipeline[PseudoBoxesConfig]):
    """One oriented box for every point of an image.

    Args:
        untrained: use a network with random weights, whatever model is given: the floor to beat.
    """

    deterministic = True

    def __init__(self, config: PseudoBoxesConfig, untrained: bool = False) -> None:
        super().__init__(config)
        self._untrained = untrained
        self._fresh: Labelling | None = None

    def fit(self, train: Reader, out: Path, context: FitContext) -> None:
        """Train the labeller on all points of ``train``; its boxes are made when it runs."""
        save_labelling(out, fit_labeller(self.config.labeller, train, context), self.config.labeller.method)

    def load(self, model: Path) -> Labelling:
        """The labeller that :meth:`fit` wrote.

        Raises:
            DataError: it is damaged, or of another method.
        """
        return load_labelling(model, self.config.labeller)

    def check(self, sample: LabeledImage) -> None:
        """Raises:
        DataError: the image has no points.
        """
        require_points(sample)

    def step(self, model: Labelling | None, sample: LabeledImage, previous: BoxResult | None = None) -> BoxResult:
        """A box for each point, in their order, with their classes and ids."""
        self.check(sample)
        labelling = self._labelling(model, sample)
        began_s = time.perf_counter()
        found = label_sample(labelling, sample)
        extra = {"method": "untrained" if self._untrained else self.config.labeller.method}
        return box_result(sample, found, sample.classes, began_s, extra)

    def draw(
        self, model: Labelling | None, sample: LabeledImage, result: BoxResult, truth: BoxTruth | None = None
    ) -> NDArray[np.uint8]:
        """Boxes and points; with a truth, boxes in the colours of their IoU. PointOBB adds a bag and its angles."""
        from detection.drawing.sheet import draw_boxes, overlay_sheet

        picture = draw_boxes(sample, result) if truth is None else overlay_sheet(sample, result, truth)
        if model is None or self._untrained or self.config.labeller.method not in ("seed", "bags"):
            return picture
        from detection.drawing.training import sight_sheets
        from detection.pointobb.explain import sight
        from detection.pointobb.network import PointObbNet

        assert isinstance(model.net, PointObbNet) and sample.points is not None and sample.labels is not None
        if not len(sample.points):
            return picture
        seen = sight(model.net, sample.image, sample.points, known_labels(model, sample), 0)
        chosen = None if result.boxes is None else result.boxes[0]
        return sight_sheets(
            picture, sample.image, sample.points[0], seen.bag, seen.scores, chosen, seen.angles, seen.stride
        )

    def baselines(self) -> Mapping[str, PseudoPipeline]:
        """The same network untrained, and the watershed without any network."""
        found = {}
        if self.config.labeller.method != "watershed":
            found["untrained"] = PseudoPipeline(self.config, untrained=True)
            watershed = replace(self.config, labeller=replace(self.config.labeller, method="watershed"))
            found["watershed"] = PseudoPipeline(watershed, untrained=True)
        return found

    def describe(self, model: Labelling) -> Mapping[str, Any]:
        """Facts about a labeller for ``vision3d inspect``."""
        return {"method": self.config.labeller.method, "classes": list(model.classes), **short_facts(model.facts)}

    def _labelling(self, model: Labelling | None, sample: LabeledImage) -> Labelling:
        if model is not None and not self._untrained:
            return model
        if self._fresh is None or self._fresh.classes != sample.classes:
            net = build_network(self.config.labeller, sample.classes, UNTRAINED_SEED)
            if net is not None:
                net.eval()
            self._fresh = Labelling(make_labeller(self.config.labeller, net), sample.classes, net, {})
        return self._fresh


def label_sample(labelling: Labelling, sample: LabeledImage) -> Detections:
    """Boxes of a sample's points; labels stay those of the sample's own list of classes.

    Raises:
        DataError: a point's class is unknown to the labeller.
    """
    assert sample.points is not None and sample.labels is not None
    boxes, scores = labelling.labeller.label(sample.image, sample.points, known_labels(labelling, sample))
    ids = np.arange(len(boxes)) if sample.ids is None else sample.ids
    return Detections(boxes, scores, sample.labels, ids)


def known_labels(labelling: Labelling, sample: LabeledImage) -> Int:
    """(N,) the classes of a sample's points in the labeller's list.

    Raises:
        DataError: one of them is unknown to the labeller.
    """
    assert sample.labels is not None
    require_classes(sample, labelling.classes, sample.labels)
    places = {name: place for place, name in enumerate(labelling.classes)}
    known = np.array([places.get(name, -1) for name in sample.classes], dtype=np.int64)
    return known[sample.labels]


def save_labelling(folder: Path, labelling: Labelling, method: str) -> None:
    """Write a labeller into an existing folder."""
    if labelling.net is None:
        write_document(folder, LABEL, method, labelling.classes, "", labelling.facts)
    else:
        save_network(folder, LABEL, labelling.net, method, labelling.classes, labelling.facts)


def load_labelling(folder: Path, config: LabellerConfig) -> Labelling:
    """What :func:`save_labelling` wrote.

    Raises:
        DataError: it is damaged, or of another method or architecture.
    """
    document = read_document(folder, LABEL, config.method)
    classes = tuple(document["classes"])
    config = replace(config, backbone=replace(config.backbone, weights=None))  # all weights lie in the folder
    net = build_network(config, classes, UNTRAINED_SEED)
    if net is not None:
        fill_network(net, folder, LABEL, document)
    return Labelling(make_labeller(config, net), classes, net, document["facts"])


def short_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of one value each: histories are left out."""
    return {name: value for name, value in facts.items() if not isinstance(value, (list, dict))}
