# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from relocalization.features.base import make_extractor
from relocalization.features.config import FeatureConfig


@pytest.mark.parametrize("sigma", [1.5, 2.5, 5.0])
def test_blobs_are_found_where_they_are(sigma: float) -> None:
    """OpenCV's default upscaling would put every blob a quarter of a pixel to the lower right."""
    extractor = make_extractor(FeatureConfig(name="sift"))
    yy, xx = np.mgrid[:128, :128]
    errors = []
    for x, y in np.random.default_rng(0).uniform(60, 70, (25, 2)):
        grey = 40 + 180 * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 2 / sigma**2)
        found = extractor(np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2))
        offsets = found.keypoints - [x, y]
        errors.append(offsets[np.linalg.norm(offsets, axis=1).argmin()])
    assert np.abs(np.mean(errors, axis=0)).max() < 0.02
    assert np.abs(errors).max() < 0.15


def test_descriptors_are_the_square_roots_of_opencvs() -> None:
    image = cv2.resize(skimage.data.coffee(), (300, 200), interpolation=cv2.INTER_AREA)
    ours = make_extractor(FeatureConfig(name="sift"))(image)
    sift = cv2.SIFT.create(contrastThreshold=0.01, enable_precise_upscale=True)
    theirs, raw = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    table = {(p.pt, np.float32(np.deg2rad(p.angle))): d / d.sum() for p, d in zip(theirs, raw)}
    for uv, angle, descriptor in zip(ours.keypoints, ours.angles, ours.descriptors):
        np.testing.assert_allclose(descriptor**2, table[tuple(uv), angle], atol=1e-6)


def test_scale_and_angle_follow_the_image() -> None:
    image = cv2.resize(skimage.data.coffee(), (300, 200), interpolation=cv2.INTER_AREA)
    extractor = make_extractor(FeatureConfig(name="sift"))
    a, b = extractor(image), extractor(np.ascontiguousarray(np.rot90(image)))
    similarity = a.descriptors @ b.descriptors.T
    i = np.flatnonzero(similarity.max(1) > 0.97)
    j = similarity.argmax(1)[i]
    assert len(i) > 50
    # np.rot90 turns counter-clockwise: (x, y) -> (y, W - 1 - x), angles (from +x towards +y) by -90 degrees
    there = np.stack([a.keypoints[i, 1], 299 - a.keypoints[i, 0]], axis=1)
    assert np.median(np.linalg.norm(there - b.keypoints[j], axis=1)) < 0.05
    turn = (a.angles[i] - b.angles[j] - np.pi / 2 + np.pi) % (2 * np.pi) - np.pi
    assert np.median(np.abs(turn)) < 0.02
    np.testing.assert_allclose(np.median(a.scales[i] / b.scales[j]), 1, atol=0.02)


def test_default_contrast_finds_more_than_twice_as_many_points_as_opencvs() -> None:
    image = cv2.resize(skimage.data.coffee(), (300, 200), interpolation=cv2.INTER_AREA)
    default = make_extractor(FeatureConfig(name="sift"))(image)
    opencv = make_extractor(FeatureConfig(name="sift", score_threshold=0.04))(image)
    assert len(default) > 2 * len(opencv) > 0
