# SPDX-License-Identifier: Apache-2.0
"""Options of the detector. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from vision3d.errors import check_ranges


@dataclass(frozen=True)
class FcosConfig:
    """An anchor-free detector of oriented boxes.

    Attributes:
        convs: 3x3 convolutions in each of the two towers, classes and boxes; the pyramid's levels share them.
        reach: an object goes to the finest level whose stride times this is at least its long side.
        radius: cells this many strides around an object's centre, along its axes, answer for it, inside of the box.
        box_weight: of the loss of decoded boxes.
        angle_weight: of the loss of the angle's code.
        quality_weight: of the loss of the predicted overlap.
        turn: probability that a training crop is turned by 90, 180 or 270 degrees.
        score: boxes below this are dropped.
        candidates: best boxes of each image that meet in the suppression.
        nms: rotated IoU above which the weaker of two boxes of a class is dropped.
        most: boxes kept per image.
    """

    convs: int = 2
    reach: float = 16.0
    radius: float = 1.5
    box_weight: float = 2.0
    angle_weight: float = 2.0
    quality_weight: float = 0.5
    turn: float = 0.5
    score: float = 0.05
    candidates: int = 3000
    nms: float = 0.1
    most: int = 2000

    def __post_init__(self) -> None:
        check_ranges(
            "fcos",
            self,
            convs=(0, 8),
            reach=(1, 1000),
            radius=(0.75, 10),
            box_weight=(0, 100),
            angle_weight=(0, 100),
            quality_weight=(0, 100),
            turn=(0, 1),
            score=(0, 1),
            candidates=(1, 1_000_000),
            nms=(0, 1),
            most=(1, 1_000_000),
        )
