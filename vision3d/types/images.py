# SPDX-License-Identifier: Apache-2.0
"""Images with objects in them: the points a person clicked, the true oriented boxes, and the boxes a method found.

A rotated box is ``(cx, cy, w, h, theta)``: pixels and radians, y down, theta from +x towards +y (clockwise on screen),
le90: ``w >= h`` and theta in [-pi/2, pi/2). Pixel centres lie at integer coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]

BOX_ARRAYS = ("boxes", "scores", "labels", "ids")  # of a BoxResult


@dataclass(frozen=True)
class LabeledImage:
    """An image and one point per object. It never carries its own boxes: see :class:`BoxTruth`.

    Attributes:
        name: unique in its data set, without a suffix, e.g. ``P0706``.
        image: (H, W, 3) uint8, RGB.
        classes: names of the classes that labels index, the same tuple for every sample of a data set.
        points: (N, 2) pixels, one per object; None where the data set has none (a plain image).
        labels: (N,) class of each point; None exactly where ``points`` is.
        ids: (N,) which annotation each point stands for: the row of :class:`BoxTruth`, where there is one.
        gsd_m: metres per pixel on the ground, or None.
    """

    name: str
    image: NDArray[np.uint8]
    classes: tuple[str, ...]
    points: Float | None = None
    labels: Int | None = None
    ids: Int | None = None
    gsd_m: float | None = None


@dataclass(frozen=True)
class BoxTruth:
    """What is known about an image and kept from methods that learn from points; N objects.

    Attributes:
        boxes: (N, 5) le90, the smallest rectangle around each quadrilateral.
        labels: (N,) indices into ``classes``.
        difficult: (N,) uint8 as in the file: 0, 1 (hard to see) or 2 (cut by a tile's border).
        quads: (N, 4, 2) corners, pixels, in the order of the file.
        classes: as in the samples.
        size: (width, height) of the image in pixels.
        heading: (N,) radians of the full turn from +x towards +y where the data set knows it; NaN where not. Or None.
    """

    boxes: Float
    labels: Int
    difficult: NDArray[np.uint8]
    quads: Float
    classes: tuple[str, ...]
    size: tuple[int, int]
    heading: Float | None = None


@dataclass(frozen=True)
class BoxResult:
    """The oriented boxes that a method found in an image, or why there are none; M boxes.

    Attributes:
        name: the image's name.
        status: ``ok`` (M may be 0), ``failed`` or ``bad_input``.
        reason: one line; empty when ok.
        boxes: (M, 5) float64 le90, pixels and radians; None when not ok.
        scores: (M,) float64 in [0, 1].
        labels: (M,) int64 indices into ``classes``.
        ids: (M,) int64 the annotation that a box was made for (:attr:`LabeledImage.ids`), or None for a detector.
        classes: names that ``labels`` index.
        size: (width, height) of the image.
        timing_ms: stage -> milliseconds; kept out of the stored result.
        extra: small JSON-able facts of the method.
    """

    name: str
    status: Literal["ok", "failed", "bad_input"]
    reason: str = ""
    boxes: Float | None = None
    scores: Float | None = None
    labels: Int | None = None
    ids: Int | None = None
    classes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What fits a line of text; :meth:`arrays` holds the rest."""
        return {
            "name": self.name,
            "status": self.status,
            "reason": self.reason,
            "n_boxes": 0 if self.boxes is None else len(self.boxes),
            "classes": list(self.classes),
            "size": list(self.size),
            "extra": dict(self.extra),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BoxResult:
        """The inverse of :meth:`to_json`; the arrays come by :meth:`with_arrays`."""
        width, height = data["size"]
        return cls(
            name=data["name"],
            status=data["status"],
            reason=data["reason"],
            classes=tuple(data["classes"]),
            size=(width, height),
            extra=data["extra"],
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are there, by name: the runner keeps them beside the line of :meth:`to_json`."""
        named = {name: getattr(self, name) for name in BOX_ARRAYS}
        return {name: array for name, array in named.items() if array is not None}

    def with_arrays(self, arrays: Mapping[str, Any]) -> BoxResult:
        """This result with the arrays of :meth:`arrays`."""
        return replace(self, **arrays)
