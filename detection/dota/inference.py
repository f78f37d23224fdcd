# SPDX-License-Identifier: Apache-2.0
"""Detectors on images of any size: windows and views in, one set of boxes out."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.dota.config import TileConfig, View
from detection.dota.merge import concatenated, merged, seen_better_elsewhere
from detection.dota.sidecar import Tile
from detection.dota.windows import Window, grid
from detection.problem import Detections, Detector
from vision3d.geometry import rotated

Image = NDArray[np.uint8]

QUARTERS: dict[View, int] = {"turn-90": -1, "turn-180": 2, "turn-270": 1}  # of np.rot90, which turns the other way


def tiled_detect(detector: Detector, image: Image, config: TileConfig) -> Detections:
    """What the detector finds in an image of any size.

    The detector sees ``config.batch`` windows at a time, each in every view, so that what is kept beside the image
    does not grow with it, but for the boxes. An image that is not larger than a window goes in whole, and with one view
    and rate the detector's answer is the answer.

    Args:
        image: (H, W, 3) uint8, RGB.

    Returns:
        Boxes in the image's pixels, by falling score.

    Raises:
        ValueError: an image of another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"the image is {image.shape} {image.dtype}, not (H, W, 3) uint8")
    height, width = image.shape[:2]
    windows = grid(width, height, config)
    parts: list[Detections] = []
    shown: list[tuple[Window, Tile, View, Image]] = []
    for window, tile, pixels in _tiles(image, windows, config):
        shown += [(window, tile, view, seen(pixels, view)) for view in config.views]
        while len(shown) >= config.batch:
            parts += _detect(detector, shown[: config.batch], windows, (width, height), config)
            shown = shown[config.batch :]
    if shown:
        parts += _detect(detector, shown, windows, (width, height), config)
    if len(windows) * len(config.views) == 1:
        return parts[0][np.argsort(-parts[0].scores, kind="stable")]
    return merged(parts, config.merge_iou)


def _tiles(image: Image, windows: list[Window], config: TileConfig) -> Iterator[tuple[Window, Tile, Image]]:
    """The part of the image in each window, at the scale of the window's rate; never padded."""
    for window in windows:
        scale = config.window / window.size
        pixels = image[window.y : window.y + window.size, window.x : window.x + window.size]
        yield window, Tile.of("", window, scale), resized(pixels, scale)


def _detect(
    detector: Detector,
    shown: list[tuple[Window, Tile, View, Image]],
    windows: list[Window],
    size: tuple[int, int],
    config: TileConfig,
) -> list[Detections]:
    """One batch, in pixels of the whole image."""
    out = []
    found = detector.detect([pixels for *_, pixels in shown])
    for (window, tile, view, pixels), there in zip(shown, found, strict=True):
        boxes = tile.to_image(unseen(there.boxes, view, (pixels.shape[1], pixels.shape[0])))
        moved = Detections(boxes, there.scores, there.labels, there.ids)
        if config.margin:
            others = [w for w in windows if w.rate == window.rate and w != window]
            moved = moved[~seen_better_elsewhere(moved, window, others, config.margin, size)]
        out.append(moved)
    return [concatenated(out)]


def resized(image: Image, scale: float) -> Image:
    """The image with sides multiplied by ``scale`` (and rounded), about its outer corner; itself at scale 1."""
    if scale == 1:
        return image
    # Without a target size OpenCV keeps to the scale as given, so that boxes go back by one number for x and y.
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    height, width = image.shape[:2]
    if min(height, width) * scale < 1:  # a sliver: OpenCV would round its side to nothing
        return np.asarray(cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale)))), np.uint8)
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=way), np.uint8)


def seen(image: Image, view: View) -> Image:
    """The image in a view: mirrored left to right (flip-x), top to bottom (flip-y), or turned clockwise on screen."""
    if view == "plain":
        return image
    if view in QUARTERS:
        return np.ascontiguousarray(np.rot90(image, QUARTERS[view]))
    return np.ascontiguousarray(image[:, ::-1] if view == "flip-x" else image[::-1])


def unseen(boxes: NDArray[np.float64], view: View, size: tuple[int, int]) -> NDArray[np.float64]:
    """(N, 5) boxes of a view of ``size`` (width, height) -> of the image that was shown."""
    if view == "plain":
        return boxes
    if view in QUARTERS:
        return rotated.turned(boxes, size, -QUARTERS[view])
    return rotated.flipped(boxes, size, horizontal=view == "flip-x", vertical=view == "flip-y")
