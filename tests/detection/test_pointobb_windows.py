# SPDX-License-Identifier: Apache-2.0
"""Points of large images are answered window by window."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from detection.pointobb.windows import label_in_windows, window_starts

Array = NDArray[np.float64]


def echo(image: NDArray[np.uint8], points: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
    """A box on each point, as long as the distance to the window's nearest border; the score tells the class."""
    height, width = image.shape[:2]
    room = np.minimum(points, [width - 1, height - 1] - points).min(1)
    return np.column_stack((points, room, room, 0 * room)), labels / 10


@pytest.mark.parametrize("size", [(100, 80), (400, 300), (1000, 90), (301, 299)])
def test_every_point_is_answered_once_in_its_place(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (60, 2)) * (np.array(size) - 1)
    labels = rng.integers(0, 10, 60)
    boxes, scores = label_in_windows(np.zeros((size[1], size[0], 3), np.uint8), points, labels, 128, 48, echo)
    np.testing.assert_allclose(boxes[:, :2], points)
    np.testing.assert_allclose(scores, labels / 10)


def test_the_window_with_the_most_room_answers() -> None:
    """A point away from the image's border has at least half of the overlap around it."""
    points = np.random.default_rng(0).uniform(30, 470, (200, 2))
    image = np.zeros((500, 500, 3), np.uint8)
    boxes, _ = label_in_windows(image, points, np.zeros(200, np.int64), 128, 48, echo)
    assert boxes[:, 2].min() >= 48 / 2 - 1


def test_neighbours_in_the_window_come_along_and_points_beyond_the_image_too() -> None:
    seen: list[int] = []

    def counting(image: NDArray[np.uint8], points: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
        seen.append(len(points))
        return echo(image, points, labels)

    points = np.array([[100.0, 50], [110, 50], [305.0, 50]])  # the last one lies beyond a 300 px wide image
    image = np.zeros((100, 300, 3), np.uint8)
    boxes, _ = label_in_windows(image, points, np.zeros(3, np.int64), 128, 48, counting)
    np.testing.assert_allclose(boxes[:, :2], points)
    assert max(seen) == 2


def test_starts() -> None:
    assert window_starts(100, 128, 48) == [0]
    assert window_starts(128, 128, 48) == [0]
    assert window_starts(300, 128, 48) == [0, 80, 160, 172]
    for length in range(129, 600, 7):
        starts = window_starts(length, 128, 48)
        assert starts[-1] + 128 == length
        assert max(np.diff(starts)) <= 80
    with pytest.raises(ValueError, match="overlap"):
        window_starts(500, 100, 100)
