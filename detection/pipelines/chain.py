# SPDX-License-Identifier: Apache-2.0
"""PointOBB from end to end: points to pseudo boxes to a detector that needs no points any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.config import ChainConfig, RotatedFcosConfig
from detection.detectors import DETECTOR, Trained, build_detector, fit_detector, load_detector
from detection.fcos.detector import FcosDetector
from detection.labelling import Labelling, fit_labeller
from detection.pipelines.common import BoxPipeline
from detection.pipelines.detector import DetectorPipeline
from detection.pipelines.pseudo import label_sample, load_labelling, save_labelling, short_facts
from detection.problem import Detections
from detection.training.loop import choose_device
from detection.training.store import save_network
from vision3d.contracts import FitContext, Reader
from vision3d.nn.team import connected
from vision3d.types import BoxResult, BoxTruth, LabeledImage

PSEUDO = "pseudo boxes"


class ChainPipeline(BoxPipeline[ChainConfig]):
    """A detector that was taught by one point per object.

    The model folder holds all three stages: ``labeller.*``, ``pseudo_boxes/`` (DOTA's text format) and ``detector.*``.
    """

    deterministic = True

    def __init__(self, config: ChainConfig, untrained: bool = False) -> None:
        super().__init__(config)
        self._untrained = untrained
        self._fresh: Trained | None = None
        self._detection = DetectorPipeline(
            RotatedFcosConfig(metrics=config.metrics, write=config.write, detector=config.detector)
        )

    def fit(self, train: Reader, out: Path, context: FitContext) -> None:
        """The labeller, its boxes, the detector: each is taken up where an earlier run left it."""
        with connected(choose_device(self.config.detector.train.device)):
            self._fit(train, out, context)

    def _fit(self, train: Reader, out: Path, context: FitContext) -> None:
        labelling = self._labelling(train, context)
        save_labelling(out, labelling, self.config.labeller.method)
        found = pseudo_boxes(labelling, train, context)
        names: tuple[str, ...] = train[0].classes  # the data's list, which its labels index
        self._write_pseudo_boxes(out, train, found, names)
        taught = self._teachers(found)
        if self.config.mmrotate:
            write_for_mmrotate(out / "mmrotate", train, taught, names, self.config.detector.train.crop)
        context.log(
            f"the detector learns from {sum(map(len, taught))} of {sum(map(len, found))} pseudo boxes in "
            f"{len(found)} images"
        )
        net, classes, facts = fit_detector(self.config.detector, train, taught.__getitem__, context)
        save_network(out, DETECTOR, net, DETECTOR, classes, facts)

    def _labelling(self, train: Reader, context: FitContext) -> Labelling:
        """The labeller that the user brings, or one that is trained here.

        Raises:
            DataError: the one that was brought is damaged or of another method.
        """
        folder = self.config.labeller_model
        if folder is None:
            return fit_labeller(self.config.labeller, train, context)
        return load_labelling(folder, self.config.labeller)

    def load(self, model: Path) -> Trained:
        """The detector that :meth:`fit` wrote.

        Raises:
            DataError: it is damaged, or of another architecture.
        """
        return load_detector(model, self.config.detector)

    def step(self, model: Trained, sample: LabeledImage, previous: BoxResult | None = None) -> BoxResult:
        """Boxes of one image, found without its points."""
        if self._untrained:
            model = self._fresh = self._fresh or self._with_random_weights(model)
        return self._detection.step(model, sample, previous)

    def draw(
        self, model: Trained, sample: LabeledImage, result: BoxResult, truth: BoxTruth | None = None
    ) -> NDArray[np.uint8]:
        """As a detector's results are drawn."""
        return self._detection.draw(model, sample, result, truth)

    def baselines(self) -> Mapping[str, ChainPipeline]:
        """The detector with random weights."""
        return {"untrained": ChainPipeline(self.config, untrained=True)}

    def describe(self, model: Trained) -> Mapping[str, Any]:
        """Facts about a model for ``vision3d inspect``."""
        return {"labelled_by": self.config.labeller.method, "classes": list(model.classes), **short_facts(model.facts)}

    def export_model(self, model: Trained, folder: Path) -> list[Path]:
        """The detector as ONNX."""
        return self._detection.export_model(model, folder)

    def _with_random_weights(self, model: Trained) -> Trained:
        net = build_detector(self.config.detector, model.classes, 0)
        net.eval()
        return Trained(FcosDetector(net, self.config.detector.fcos, model.classes), net, model.classes, {})

    def _teachers(self, found: Sequence[Detections]) -> list[Detections]:
        """The pseudo boxes that are good enough to learn from."""
        config = self.config
        return [
            boxes[
                (boxes.scores >= config.min_score)
                & (boxes.boxes[:, 2:4].min(axis=1, initial=np.inf) >= config.min_side)
            ]
            for boxes in found
        ]

    def _write_pseudo_boxes(
        self, out: Path, train: Reader, found: Sequence[Detections], classes: tuple[str, ...]
    ) -> None:
        from detection.pipelines.formats import write_label_files

        folder = out / "pseudo_boxes"
        folder.mkdir(exist_ok=True)
        write_label_files([train.key(i) for i in range(len(found))], found, classes, folder, self.config.min_score)


def write_for_mmrotate(
    folder: Path, train: Reader, taught: Sequence[Detections], classes: tuple[str, ...], size: int
) -> None:
    """The images with the boxes that teach, in MMRotate's layout, beside configs that train on them."""
    from detection.bridge.mmrotate import Annotated, write_configs, write_split

    images = (Annotated.of_boxes(train.key(i), train[i].image, boxes) for i, boxes in enumerate(taught))
    write_split(folder, "train", images, classes)
    write_configs(folder, classes, size, val="train")


def pseudo_boxes(labelling: Labelling, train: Reader, context: FitContext) -> list[Detections]:
    """Boxes of all points of all images, image by image in the cache."""
    return [
        _from_arrays(context.cached(f"{PSEUDO} {index:06d}", _labels_of(labelling, train, index)))
        for index in context.progress(range(len(train)), len(train), PSEUDO)
    ]


def _labels_of(labelling: Labelling, train: Reader, index: int) -> Callable[[], dict[str, NDArray[Any]]]:
    def make() -> dict[str, NDArray[Any]]:
        found = label_sample(labelling, train[index])
        ids = np.arange(len(found)) if found.ids is None else found.ids
        return {"boxes": found.boxes, "scores": found.scores, "labels": found.labels, "ids": ids}

    return make


def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Detections:
    return Detections(arrays["boxes"], arrays["scores"], arrays["labels"], arrays["ids"])
