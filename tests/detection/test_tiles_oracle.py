# SPDX-License-Identifier: Apache-2.0
"""True boxes come back from the tiles as they were, each once."""

from __future__ import annotations

import numpy as np
import pytest
from tile_toys import rows_of_boxes, truth_of

from detection.dota.config import TileConfig
from detection.dota.oracle import tiled_truth
from vision3d.geometry import rotated


@pytest.mark.parametrize("config", [TileConfig(256, 80), TileConfig(256, 80, (0.5, 1.0, 1.5)), TileConfig(1024, 0)])
def test_what_comes_back_is_what_was_there(config: TileConfig) -> None:
    boxes, labels = rows_of_boxes(1500, 900, 200)
    boxes[::3, 4] += 0.4
    found = tiled_truth(truth_of(rotated.canonical(boxes), labels, (1500, 900)), config)
    assert found.ids is not None
    assert found.ids.tolist() == list(range(200))
    assert np.abs(found.boxes - rotated.canonical(boxes)).max() < 1e-9
    assert found.labels.tolist() == labels.tolist()
    assert set(found.scores.tolist()) == {1.0}


def test_neighbours_that_overlap_and_long_objects_stay() -> None:
    boxes = np.array(
        [
            [100.0, 100, 40, 20, 0.2],
            [101.0, 101, 40, 20, 0.2],  # nearly the same object: suppression would drop it
            [100.0, 100, 40, 20, 0.2],  # the same one twice
            [500.0, 300, 700, 12, 0.3],  # longer than any window
            [-3.0, 200, 30, 10, 0.0],  # leaves the image
            [-300.0, 200, 30, 10, 0.0],  # is not in it
        ]
    )
    found = tiled_truth(truth_of(boxes, [0] * 6, (1000, 600)), TileConfig(128, 30))
    assert found.ids is not None
    assert found.ids.tolist() == [0, 1, 2, 3, 4]
    assert np.abs(found.boxes - boxes[:5]).max() < 1e-9


def test_no_object_at_all() -> None:
    found = tiled_truth(truth_of(np.zeros((0, 5)), [], (1000, 600)), TileConfig())
    assert len(found) == 0
    assert found.boxes.shape == (0, 5)
