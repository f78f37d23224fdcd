# SPDX-License-Identifier: Apache-2.0
"""How other programs write a rotated box, and converters from each to each.

All have five columns: cx, cy, w, h and an angle. They differ in the angle's unit, sign and range and in which side is
the width. As a source every convention is read for any angle; only as a target does its range matter. OpenCV's
``minAreaRect`` changed its range twice; read both ways, its output is the same box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d.geometry.rotated.angles import wrap
from vision3d.geometry.rotated.boxes import canonical

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Convention:
    """One way to write a box.

    Attributes:
        low: start of the angle's range in degrees, counted clockwise on screen; the range ends before ``low + span``.
        span: 180 where the width is the longer side, 90 where the sides swap to fit the range.
        degrees: the angle is in degrees, else in radians.
        clockwise: positive angles turn clockwise on screen (from +x towards +y, y down).
        open_low: ``low`` itself is left out and the range includes its end instead.
        who: programs that write it.
    """

    low: float
    span: float
    degrees: bool
    clockwise: bool
    open_low: bool
    who: str


CONVENTIONS: dict[str, Convention] = {
    "le90": Convention(-90, 180, False, True, False, "this library; MMRotate le90"),
    "le135": Convention(-45, 180, False, True, False, "MMRotate le135; Ultralytics inside its head"),
    "mmrotate-oc-0.x": Convention(0, 90, False, True, True, "MMRotate 0.x, oc: (0, 90] degrees in radians"),
    "mmrotate-oc-1.x": Convention(-90, 90, False, True, False, "MMRotate 1.x, oc: [-90, 0) degrees in radians"),
    "opencv": Convention(-90, 90, True, True, False, "OpenCV minAreaRect before 4.5.1 and from 4.13: [-90, 0)"),
    "opencv-4.5": Convention(0, 90, True, True, True, "OpenCV minAreaRect 4.5.1 to 4.12: (0, 90]"),
    "ultralytics": Convention(0, 90, False, True, False, "Ultralytics xywhr results: [0, 90) degrees in radians"),
    "detectron2": Convention(-90, 180, True, False, False, "Detectron2 RotatedBoxes: degrees, counter-clockwise"),
    "torchvision": Convention(-90, 180, True, False, False, "torchvision CXCYWHR: degrees, counter-clockwise"),
}


def convert(boxes: ArrayLike, source: str, target: str) -> Float:
    """Boxes (N, 5) of one of :data:`CONVENTIONS` in another.

    Raises:
        ValueError: an unknown convention; a box that :func:`~vision3d.geometry.rotated.check_boxes` refuses.
    """
    for name in (source, target):
        if name not in CONVENTIONS:
            raise ValueError(f"unknown box convention {name!r}: known are {', '.join(CONVENTIONS)}")
    here, there = CONVENTIONS[source], CONVENTIONS[target]
    inside = np.array(boxes, dtype=np.float64)
    if inside.ndim == 2 and inside.shape[1] == 5:
        theta = inside[:, 4] if here.clockwise else -inside[:, 4]
        inside[:, 4] = np.deg2rad(theta) if here.degrees else theta
    return _to(canonical(inside), there)


def _to(boxes: Float, there: Convention) -> Float:
    """Boxes in le90 written as ``there``."""
    w, h, theta = boxes[:, 2], boxes[:, 3], boxes[:, 4]
    low, period = np.deg2rad(there.low), np.deg2rad(there.span)
    middle = low + period / 2
    inside = (theta > low if there.open_low else theta >= low) & (
        theta <= low + period if there.open_low else theta < low + period
    )
    # Seen from the other side, a half-open range is open at the other end.
    moved = middle - wrap(middle - theta, period) if there.open_low else middle + wrap(theta - middle, period)
    angle = np.where(inside, theta, moved)
    # Where an odd number of quarter turns lies between the two angles, the sides change names.
    odd = np.rint((angle - theta) / (np.pi / 2)).astype(np.int64) % 2 == 1
    w, h = np.where(odd, h, w), np.where(odd, w, h)
    angle = angle if there.clockwise else -angle
    if there.degrees:
        angle = np.rad2deg(angle)
    return np.stack([boxes[:, 0], boxes[:, 1], w, h, angle], axis=1)
