# SPDX-License-Identifier: Apache-2.0
"""The labels as results: what the readers, the tiles, the merging and the score do to perfect boxes."""

from __future__ import annotations

import time

from detection.config import OracleConfig
from detection.dota.oracle import tiled_truth
from detection.pipelines.common import BoxPipeline, box_result
from vision3d.errors import UserError
from vision3d.types import BoxResult, BoxTruth, LabeledImage


class OraclePipeline(BoxPipeline[OracleConfig]):
    """No method: it is shown the truth, cuts it into tiles as a detector's images are cut, and merges it again."""

    deterministic = True
    sees_truth = True

    def step(
        self,
        model: None,
        sample: LabeledImage,
        previous: BoxResult | None = None,
        truth: BoxTruth | None = None,
    ) -> BoxResult:
        """The image's labels, each with score 1.

        Raises:
            UserError: there is no truth to show, as in a ``run``.
        """
        if truth is None:
            raise UserError("oracle answers with the labels of the data: use it with `vision3d eval`")
        began_s = time.perf_counter()
        found = tiled_truth(truth, self.config.tiles)
        return box_result(sample, found, truth.classes, began_s)
