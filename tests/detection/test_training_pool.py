# SPDX-License-Identifier: Apache-2.0
"""Training crops: what they show, which objects are in them, and that no true box gets near them."""

from __future__ import annotations

import numpy as np
import pytest
from training_context import ImageReader, noise_image

from detection.problem import Detections
from detection.training.pool import MEAN_RGB, Pool
from vision3d.errors import DataError
from vision3d.types import LabeledImage


def boxes_of(points: np.ndarray) -> Detections:
    boxes = np.concatenate([points, np.tile([20.0, 10.0, 0.3], (len(points), 1))], axis=1)
    return Detections(boxes, np.full(len(points), 0.7), np.arange(len(points)) % 3)


def test_a_crop_shows_the_pixels_around_its_points() -> None:
    points = np.random.default_rng(1).uniform(0, [199, 149], (40, 2)).round()
    pool = Pool(ImageReader([noise_image("x", (200, 150), points, np.arange(40) % 3)]), 64)
    whole = pool.whole(0).image
    rng = np.random.default_rng(0)
    for _ in range(50):
        crop = pool.draw(rng)
        assert crop.image.shape == (64, 64, 3)
        assert len(crop.points) >= 1
        assert (crop.points >= -0.5).all()
        assert (crop.points < 63.5).all()
        for point, i in zip(crop.points, crop.ids):
            x, y = points[i].astype(int)
            assert (crop.image[int(point[1]), int(point[0])] == whole[y, x]).all()
        assert (crop.labels == crop.ids % 3).all()
        # Nothing that lies in the crop is missing.
        corner = points[crop.ids[0]] - crop.points[0]
        inside = ((points - corner >= -0.5) & (points - corner < 63.5)).all(1)
        assert set(crop.ids) == set(np.flatnonzero(inside))


def test_a_small_image_is_padded_and_a_flip_moves_points_and_boxes() -> None:
    points = np.array([[10.0, 5.0], [30.0, 20.0]])
    image = noise_image("x", (40, 30), points)
    pool = Pool(ImageReader([image]), 64, lambda index: boxes_of(points))
    plain = pool.draw(np.random.default_rng(0), flip=0.0)
    assert (plain.image[30:] == MEAN_RGB).all()
    assert (plain.image[:, 40:] == MEAN_RGB).all()
    assert (plain.image[:30, :40] == image.image).all()
    flipped = pool.draw(np.random.default_rng(0), flip=1.0)
    assert (flipped.image == plain.image[:, ::-1]).all()
    assert plain.boxes is not None
    assert flipped.boxes is not None
    np.testing.assert_allclose(flipped.points[:, 0], 63 - plain.points[:, 0])
    np.testing.assert_allclose(flipped.boxes[:, 0], 63 - plain.boxes[:, 0])
    np.testing.assert_allclose(flipped.boxes[:, 4], -plain.boxes[:, 4])
    assert plain.weights is not None
    np.testing.assert_allclose(plain.weights, 0.7)


def test_every_object_is_drawn_and_empty_images_never() -> None:
    points = np.array([[1.0, 1.0], [198.0, 148.0], [100.0, 70.0]])
    empty = noise_image("empty", (50, 50), [])
    pool = Pool(ImageReader([empty, noise_image("x", (200, 150), points), empty]), 64)
    rng = np.random.default_rng(0)
    crops = [pool.draw(rng) for _ in range(60)]
    assert {crop.index for crop in crops} == {1}
    assert {int(i) for crop in crops for i in crop.ids} == {0, 1, 2}


def test_a_pool_of_points_never_asks_for_a_truth() -> None:
    reader = ImageReader([noise_image("x", (80, 80), [[40, 40]])], truths=None)  # asking would fail
    pool = Pool(reader, 64)
    assert pool.draw(np.random.default_rng(0)).boxes is None


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(DataError, match="no points in any of its 1 images"):
        Pool(ImageReader([noise_image("x", (80, 80), [])]), 64)
    plain = LabeledImage("y", np.zeros((9, 9, 3), np.uint8), ("a",))
    with pytest.raises(DataError, match="has no points"):
        Pool(ImageReader([plain]), 64)
    other = LabeledImage("z", np.zeros((9, 9, 3), np.uint8), ("b",), np.zeros((1, 2)), np.zeros(1, np.int64))
    with pytest.raises(DataError, match="other classes"):
        Pool(ImageReader([noise_image("x", (80, 80), [[4, 4]]), other]), 64)
