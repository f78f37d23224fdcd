# SPDX-License-Identifier: Apache-2.0
"""Options of the layout method. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from detection.pointobb.class_map.config import ClassMapConfig
from vision3d.errors import ConfigError, check_ranges


@dataclass(frozen=True)
class LayoutConfig:
    """Bounds from the layout of points, a watershed and a class map (after Point2RBox-v2 and v3, PointOBB-v2).

    No option belongs to a class, and no network of another origin is asked.

    Attributes:
        hidden: channels of the head's two layers.
        overlap_weight: of the loss that pushes neighbours apart: the upper bound of sizes.
        touch: overlap coefficient of two objects that touch; e^-0.5 for equal circles. Less overlap costs little.
        touch_slope: part of the loss's slope that is left below ``touch``.
        basin_weight: of the loss that draws boxes to their watershed basins: the lower bound of sizes.
        basin_keep: part of the objects of a step whose basins count; those that fit worst are left out.
        slack: cost of a box that is larger than its basin, over that of one that is smaller by as much.
        axis_weight: of the loss that turns boxes to the long axis of their basins.
        view_weight: of the loss for boxes that do not follow a flip, turn or scaling of the image.
        level_weight: of the loss that teaches which level of the pyramid answers for an object.
        map_weight: of the loss of the class map.
        flip: probability that the second view is mirrored; without mirrored views a constant error of the angle
            would cost nothing.
        scale: probability that it is smaller; it is turned otherwise.
        smallest_scale: of the smaller view, which shrinks by this factor or less.
        own_from: part of the run after which the network's own boxes, not the basins, choose levels and markers.
        inner: part of the own box that marks the object for the watershed.
        outer: multiple of the own box outside of which is marked as background.
        reach: distance of the background from a point, in multiples of the local spacing of points, before the network
            has boxes of its own.
        blur_px: standard deviation of the blur before the watershed.
        contrast: difference in a channel, of 255, from which on a border between neighbours is background. Where it
            looks like the objects, they touch.
        measure: weight of the final watershed against the median of the network's box, the first watershed and the
            class map; 0 takes the network's box as it is.
        map: how the class map is learned, and how boxes are read from it.
    """

    hidden: int = 128
    overlap_weight: float = 2.0
    touch: float = 0.6065
    touch_slope: float = 0.01
    basin_weight: float = 5.0
    basin_keep: float = 0.95
    slack: float = 0.5
    axis_weight: float = 1.0
    view_weight: float = 1.0
    level_weight: float = 0.5
    map_weight: float = 1.0
    flip: float = 0.35
    scale: float = 0.25
    smallest_scale: float = 0.5
    own_from: float = 0.5
    inner: float = 0.6
    outer: float = 2.0
    reach: float = 2.0
    blur_px: float = 1.0
    contrast: float = 30.0
    measure: float = 0.75
    map: ClassMapConfig = field(default_factory=ClassMapConfig)

    def __post_init__(self) -> None:
        weights = ("overlap_weight", "basin_weight", "axis_weight", "view_weight", "level_weight", "map_weight")
        check_ranges("layout", self, **dict.fromkeys(weights, (0, 1000)))
        parts = ("touch", "touch_slope", "slack", "flip", "scale", "own_from", "measure")
        check_ranges("layout", self, **dict.fromkeys(parts, (0, 1)))
        check_ranges("layout", self, hidden=(8, 4096), basin_keep=(0.1, 1), smallest_scale=(0.25, 1))
        check_ranges("layout", self, inner=(0.05, 0.95), outer=(1.05, 10), reach=(0.5, 10))
        check_ranges("layout", self, blur_px=(0, 10), contrast=(0, 255))
        if self.flip + self.scale > 1:
            raise ConfigError(f"layout.flip + layout.scale is {self.flip + self.scale:g}: must not exceed 1")
