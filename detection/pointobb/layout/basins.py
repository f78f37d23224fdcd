# SPDX-License-Identifier: Apache-2.0
"""Basins of the objects of an image, as the method's options ask for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detection.pointobb.layout.config import LayoutConfig
from detection.pointobb.layout.voronoi import spacing
from detection.pointobb.layout.watershed import Basins, disks, flood
from detection.problem import Float, Image
from vision3d.geometry import rotated

MARK_PX = 1.5  # radius of an object's marker before the network has boxes of its own
TRUST = 0.15  # in an axis of a network or a class map, over that of a basin: edges tell angles best


def basins_of(image: Image, points: Float, boxes: Float | None, config: LayoutConfig) -> Basins:
    """Basins of the points of an image: between the inner and the outer part of boxes (N, 5), or of all that is near.

    Without boxes the background starts ``config.reach`` times the spacing of the points away, at most half the image.
    """
    if boxes is not None:
        core, limit = boxes.copy(), boxes.copy()
        core[:, 2:4] *= config.inner
        limit[:, 2:4] *= config.outer
        return flood(image, points, core, limit, config.blur_px, config.contrast)
    shape = (image.shape[0], image.shape[1])
    radius = np.minimum(config.reach * spacing(points, shape), min(shape) / 2)
    return flood(image, points, disks(points, MARK_PX), disks(points, radius), config.blur_px, config.contrast)


def together(parts: Sequence[Basins]) -> Basins:
    """The basins of several images as those of one list of objects."""
    before = np.cumsum([0, *(part.count for part in parts)])
    return Basins(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.owner + offset for part, offset in zip(parts, before)]),
        int(before[-1]),
    )


def measured(image: Image, points: Float, boxes: Float, certainty: Float, mapped: Float, config: LayoutConfig) -> Float:
    """Final boxes (N, 5) le90 from three that err in different ways, and a watershed between the bounds they give.

    A watershed from the points alone finds too little of an object with parts, a class map too much of one on its own,
    and a network what objects of a class have in common. The angle is the mean of the three axes by how sure each is,
    centre and sides are medians, number by number: one of the three may be far off. The watershed that this box marks
    then moves it by ``config.measure``.

    Args:
        boxes: (N, 5) le90, the network's.
        certainty: (N,) of their angles, from 0 to 1.
        mapped: (N, 5) le90, from the class map.
    """
    if config.measure == 0:
        return boxes
    free = basins_of(image, points, None, config)
    axis, long = free.axes()
    around, _ = free.boxes(axis)
    full = np.minimum(free.sizes() / np.maximum(around[:, 2] * around[:, 3], 1), 1)
    pulls = np.stack([TRUST * certainty, TRUST * (1 - mapped[:, 3] / mapped[:, 2]), long * full])
    pulls[0] += pulls.sum(0) == 0
    angle = rotated.axial_mean(np.stack([boxes[:, 4], mapped[:, 4], axis]), pulls, axis=0)
    own = turned_to(boxes, angle)
    basin, valid = free.boxes(angle)
    guess = np.median([own, turned_to(mapped, angle), np.where(valid[:, None], basin, own)], axis=0)
    found = between(guess, *basins_of(image, points, guess, config).boxes(angle), config.measure)
    return np.asarray(rotated.canonical(found))


def turned_to(boxes: Float, angle: Float) -> Float:
    """Boxes (N, 5) with other angles (N,); w stays the side that is nearer to the angle."""
    crossed = rotated.angle_distance(boxes[:, 4], angle) > np.pi / 4
    sides = np.where(crossed[:, None], boxes[:, [3, 2]], boxes[:, 2:4])
    return np.column_stack([boxes[:, :2], sides, angle])


def between(boxes: Float, others: Float, valid: NDArray[np.bool_], part: float) -> Float:
    """Boxes (N, 5) moved by ``part`` of the way to others of the same angles where those are valid (N,).

    Centres are mixed, and the logarithms of the sides.
    """
    weight = np.where(valid, part, 0.0)[:, None]
    sides = np.exp((1 - weight) * np.log(boxes[:, 2:4]) + weight * np.log(np.where(valid[:, None], others[:, 2:4], 1)))
    return np.column_stack([(1 - weight) * boxes[:, :2] + weight * others[:, :2], sides, boxes[:, 4]])
