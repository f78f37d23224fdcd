# SPDX-License-Identifier: Apache-2.0
"""Results of another program as a pipeline, so that they are measured and drawn like ours."""

from __future__ import annotations

import time
from functools import cached_property

from detection.config import DetectionsConfig
from detection.dota.results_files import read_results
from detection.pipelines.common import BoxPipeline, box_result
from detection.problem import Detections
from vision3d.errors import DataError
from vision3d.types import BoxResult, LabeledImage


class ImportedPipeline(BoxPipeline[DetectionsConfig]):
    """The boxes that a file of results has for an image."""

    deterministic = True

    @cached_property
    def _results(self) -> tuple[dict[str, Detections], tuple[str, ...]]:
        assert self.config.results is not None  # the spec asks for it
        return read_results(self.config.results)

    def step(self, model: None, sample: LabeledImage, previous: BoxResult | None = None) -> BoxResult:
        """The image's boxes; an image that the file does not name has none.

        Raises:
            DataError: the file cannot be read, or names none of the data's classes.
        """
        began_s = time.perf_counter()
        found, classes = self._results
        if sample.classes and not set(classes) & set(sample.classes):
            theirs, ours = ", ".join(classes[:5]), ", ".join(sample.classes[:5])
            raise DataError(self.config.results or "", f"has the classes {theirs}, and the data {ours}: none in common")
        extra = {} if sample.name in found else {"missing": "the results do not name this image"}
        return box_result(sample, found.get(sample.name, Detections.none()), classes, began_s, extra)
