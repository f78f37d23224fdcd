# SPDX-License-Identifier: Apache-2.0
"""True boxes sent through the tiles and back: what is left must be what was there."""

from __future__ import annotations

import numpy as np

from detection.dota.config import SplitConfig, TileConfig
from detection.dota.merge import concatenated
from detection.dota.sidecar import Tile
from detection.dota.windows import grid, share_out
from detection.problem import Detections
from vision3d.types.images import BoxTruth


def tiled_truth(truth: BoxTruth, config: TileConfig) -> Detections:
    """The true boxes as detections of score 1, cut into windows as a data set is and put together again.

    An object that several windows hold comes out once: tiles are merged by the objects' ids, not by their overlap, so
    that true neighbours that overlap stay. An object that lies outside of its image altogether is not among them.

    Returns:
        (M, 5) boxes in the image's pixels in the order of the truth; ``ids`` are its rows.
    """
    width, height = truth.size
    windows = grid(width, height, config)
    shares = share_out(truth.quads, windows, truth.size, SplitConfig().keep)
    parts = []
    for window, share in zip(windows, shares, strict=True):
        tile = Tile.of("", window, config.window / window.size)
        boxes = truth.boxes[share.rows].copy()
        boxes[:, :2] = tile.to_tile(boxes[:, :2])
        boxes[:, 2:4] *= tile.scale
        labels = truth.labels[share.rows].astype(np.int64)
        parts.append(Detections(tile.to_image(boxes), np.ones(len(share.rows)), labels, share.rows.astype(np.int64)))
    together = concatenated(parts)
    assert together.ids is not None
    _, first = np.unique(together.ids, return_index=True)
    return together[first]
