# SPDX-License-Identifier: Apache-2.0
"""Detections of tiles, put together into detections of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detection.dota.sidecar import Tile
from detection.dota.windows import Window
from detection.problem import Detections
from vision3d.geometry import rotated

Bool = NDArray[np.bool_]


def concatenated(parts: Sequence[Detections]) -> Detections:
    """All of them, one after the other; ids only where every part has them."""
    if not parts:
        return Detections.none()
    ids = [part.ids for part in parts if part.ids is not None]
    return Detections(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate(ids) if len(ids) == len(parts) else None,
    )


def merged(parts: Sequence[Detections], iou: float) -> Detections:
    """Rotated suppression over all parts, within classes; by falling score, equal ones in the order of the parts.

    Args:
        iou: of two boxes that overlap by more than this, the one of lower score goes.
    """
    together = concatenated(parts)
    return together[rotated.nms(together.boxes, together.scores, iou, together.labels)]


def merge_tiles(
    found: Iterable[tuple[str, Detections]], tile_of: Callable[[str], Tile | None], iou: float
) -> Mapping[str, Detections]:
    """Detections per tile -> per image, in order of appearance.

    Args:
        tile_of: where a tile lies (:meth:`Sidecar.tile`, :func:`tile_of_name`); what it does not know is an image.

    Returns:
        Boxes in pixels of the images. Those of tiles have no ids: a tile counts its points from 0.
    """
    parts: dict[str, list[Detections]] = {}
    for name, there in found:
        known = tile_of(name)
        tile = known or Tile(name)
        moved = Detections(tile.to_image(there.boxes), there.scores, there.labels, there.ids if known is None else None)
        parts.setdefault(tile.image, []).append(moved)
    return {image: merged(pieces, iou) for image, pieces in parts.items()}


def seen_better_elsewhere(
    found: Detections, window: Window, others: Sequence[Window], margin: int, size: tuple[int, int]
) -> Bool:
    """Boxes with their centre near to a window's border that another window holds whole and further inside.

    Args:
        found: what was found in the window, in pixels of the image.
        others: further windows of the same rate.
        margin: how near, in pixels. Borders that are the image's do not count.
        size: (width, height) of the image; what only its border cuts is as whole as it can be.
    """
    width, height = size
    image = np.array([-0.5, -0.5, width - 0.5, height - 0.5])
    hulls = rotated.hulls(found.boxes)
    hulls = np.clip(hulls, image[[0, 1, 0, 1]], image[[2, 3, 2, 3]])
    better = np.zeros(len(found), bool)
    for other in others:
        bounds = np.array(other.bounds)
        whole = np.all((hulls[:, :2] >= bounds[:2]) & (hulls[:, 2:] <= bounds[2:]), axis=1)
        better |= whole & ~_near_border(found.boxes, other, margin, image)
    return better & _near_border(found.boxes, window, margin, image)


def _near_border(boxes: NDArray[np.float64], window: Window, margin: int, image: NDArray[np.float64]) -> Bool:
    bounds = np.array(window.bounds)
    low = np.where(bounds[:2] <= image[:2], -np.inf, bounds[:2] + margin)
    high = np.where(bounds[2:] >= image[2:], np.inf, bounds[2:] - margin)
    return np.any((boxes[:, :2] < low) | (boxes[:, :2] > high), axis=1)
