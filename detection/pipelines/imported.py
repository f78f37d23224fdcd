# SPDX-License-Identifier: Apache-2.0
"""Results of another program as a pipeline, so that they are measured and drawn like ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from detection.config import DetectionsConfig
from detection.dota.merge import merge_tiles
from detection.dota.results_files import read_results
from detection.dota.sidecar import tile_of_name
from detection.pipelines.common import BoxPipeline, box_result
from detection.problem import Detections
from vision3d.errors import DataError, UserError
from vision3d.types import BoxResult, LabeledImage

MERGE_IOU = 0.1  # MMRotate's, where tiles of one image are put together


class ImportedPipeline(BoxPipeline[DetectionsConfig]):
    """The boxes that a file of results has for an image, or for the tiles of it."""

    deterministic = True

    def __init__(self, config: DetectionsConfig) -> None:
        super().__init__(config)
        self._results: dict[tuple[str, ...], tuple[Mapping[str, Detections], tuple[str, ...]]] = {}
        self._merged: dict[tuple[str, ...], Mapping[str, Detections]] = {}

    def step(self, model: None, sample: LabeledImage, previous: BoxResult | None = None) -> BoxResult:
        """The image's boxes; an image that the file does not name has none.

        Raises:
            UserError: the file cannot be read, or names none of the data's classes: that would fail every image alike.
        """
        began_s = time.perf_counter()
        found, classes = self._found(sample.classes)
        if sample.classes and not set(classes) & set(sample.classes):
            theirs, ours = ", ".join(classes[:5]), ", ".join(sample.classes[:5])
            raise UserError(f"{self.config.results}: has the classes {theirs}, and the data {ours}: none in common")
        if sample.name in found:
            return box_result(sample, found[sample.name], classes, began_s)
        whole = self._whole(sample.classes).get(sample.name)
        if whole is not None:
            return box_result(sample, whole, classes, began_s, {"merged": "from tiles"})
        return box_result(
            sample, Detections.none(), classes, began_s, {"missing": "the results do not name this image"}
        )

    def _found(self, classes: tuple[str, ...]) -> tuple[Mapping[str, Detections], tuple[str, ...]]:
        """The results per image or tile; formats that only number their classes have those of the data."""
        if classes not in self._results:
            path = self.config.results
            assert path is not None  # the spec asks for it
            try:
                self._results[classes] = read_results(path)
            except DataError as error:
                if not classes:
                    raise UserError(str(error)) from error
                self._results[classes] = _read_numbered(path, classes, error)
        return self._results[classes]

    def _whole(self, classes: tuple[str, ...]) -> Mapping[str, Detections]:
        """The results per image, those of its tiles merged."""
        if classes not in self._merged:
            self._merged[classes] = merge_tiles(self._found(classes)[0].items(), tile_of_name, MERGE_IOU)
        return self._merged[classes]


def _read_numbered(
    path: Path, classes: tuple[str, ...], first: DataError
) -> tuple[Mapping[str, Detections], tuple[str, ...]]:
    """Raises:
    UserError: the file cannot be read with the data's classes either; says what was wrong without them.
    """
    try:
        return read_results(path, classes)
    except DataError:
        raise UserError(str(first)) from first
