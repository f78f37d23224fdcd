# SPDX-License-Identifier: Apache-2.0
"""Options of the class-map method. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from vision3d.errors import check_ranges


@dataclass(frozen=True)
class ClassMapConfig:
    """A map of classes, learned from discs around the points; boxes are read from it (Ren et al., ICLR 2025).

    The paper's thresholds per class are replaced by one that is relative to the map at the point.

    Attributes:
        radius_px: of the disc around a point that has its class; at most half the way to the nearest other point.
        clear: pixels whose distance from every point, times this, exceeds that point's distance to its nearest
            neighbour are background.
        between_px: radius of the disc of background half-way between nearest neighbours of a class.
        lone_px: stands for the distance to the nearest neighbour where that is farther.
        focus: exponent of the focal loss.
        positive: weight of a positive pixel in the focal loss; 1 - it of a negative one.
        window_px: first radius around a point of the pixels whose principal axes are taken; then half the box's side.
        damping_px: a pixel counts for a point by its share of exp(-distance / this) among the points of the class.
        stop: a side ends where the map falls below this part of its value at the point.
        longest_px: longest half side.
    """

    radius_px: float = 6.0
    clear: float = 1.5
    between_px: float = 4.0
    lone_px: float = 192.0
    focus: float = 2.0
    positive: float = 0.25
    window_px: float = 20.0
    damping_px: float = 4.0
    stop: float = 0.5
    longest_px: float = 256.0

    def __post_init__(self) -> None:
        check_ranges("class_map", self, radius_px=(1, 100), clear=(0.5, 10), between_px=(0, 100), lone_px=(8, 10_000))
        check_ranges("class_map", self, focus=(0, 10), positive=(0.01, 0.99), window_px=(4, 500), damping_px=(0.1, 100))
        check_ranges("class_map", self, stop=(0.01, 0.99), longest_px=(4, 5000))
