# SPDX-License-Identifier: Apache-2.0
"""SIFT on OpenCV with RootSIFT descriptors (Arandjelovic and Zisserman, CVPR 2012): needs no weights."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from relocalization.features.base import Features, check_image
from relocalization.features.config import FeatureConfig

# OpenCV's default of 0.04 finds some 1000 points in a room at 640 x 480; this finds 2000 to 4000
CONTRAST = 0.01


class SiftExtractor:
    """See :class:`relocalization.features.base.Extractor`."""

    name = "sift"
    channels = 128
    similarity = 0.85
    has_dense = False
    fingerprint = "sift"

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config
        contrast = CONTRAST if config.score_threshold is None else config.score_threshold
        # precise upscaling: without it OpenCV's doubled first octave moves every key point by a quarter pixel
        self._sift = cv2.SIFT.create(contrastThreshold=contrast, enable_precise_upscale=True)

    def __call__(self, image: NDArray[np.uint8], *, dense: bool = False) -> Features:
        if dense:
            raise ValueError("sift describes key points only: it has no dense descriptors")
        image = check_image(image)
        height, width = image.shape[:2]
        found, raw = self._sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        uv = np.array([p.pt for p in found], dtype=np.float64).reshape(-1, 2)
        scores = np.array([p.response for p in found], dtype=np.float32)
        angles = np.deg2rad(np.array([p.angle for p in found])).astype(np.float32)
        scales = np.array([p.size for p in found], dtype=np.float32)
        raw = np.zeros((0, self.channels), np.float32) if raw is None else raw.astype(np.float32)

        border = self._config.border
        inside = (uv >= border).all(1) & (uv <= np.array([width, height]) - 1 - border).all(1)
        order = np.flatnonzero(inside & (raw.sum(1) > 0))
        # strongest first; ties by place, so that the order never depends on OpenCV's threads
        keys = (angles[order], uv[order, 0], uv[order, 1], -scores[order])
        order = order[np.lexsort(keys)][: self._config.max_keypoints]
        root = np.sqrt(raw[order] / raw[order].sum(1, keepdims=True))
        return Features(
            keypoints=uv[order],
            scores=scores[order],
            descriptors=root.astype(np.float32),
            size=(height, width),
            scales=scales[order],
            angles=angles[order],
        )
