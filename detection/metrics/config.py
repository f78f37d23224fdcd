# SPDX-License-Identifier: Apache-2.0
"""How boxes are scored: the protocols of the field by name. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vision3d.errors import check_ranges

Difficult = Literal["devkit-1.0", "devkit-1.5", "mmrotate"]
Match = Literal["voc", "coco"]
IouTest = Literal["protocol", "strict", "inclusive"]
Shapes = Literal["boxes", "quads"]
Compat = Literal["none", "devkit"]


@dataclass(frozen=True)
class MetricsConfig:
    """How detections are held against true boxes. The defaults are those of DOTA's devkit and server, version 1.0.

    Attributes:
        difficult: which objects count. devkit-1.0: those marked 0, a detection on another is neither right nor wrong;
            devkit-1.5: all; mmrotate: all marked 100 or less, which are all, and an IoU equal to the limit passes.
        match: voc gives a detection to the object of highest IoU and calls it false when that one is taken; coco gives
            it to the best object that is still free.
        iou_test: strict asks for IoU above the limit, inclusive also takes the limit itself; protocol is inclusive for
            mmrotate and strict for the devkits.
        shapes: boxes compares with the smallest rectangle around each true quadrilateral, quads with the quadrilateral
            itself, as the devkit does.
        compat: devkit keeps its rounding slip in the 11 points, which costs a detector with a recall of exactly 0.3,
            0.6 or 0.7 a whole step.
        confusion_score: detections below it stay out of the confusion matrix; boxes made for given points all count.
    """

    difficult: Difficult = "devkit-1.0"
    match: Match = "voc"
    iou_test: IouTest = "protocol"
    shapes: Shapes = "boxes"
    compat: Compat = "none"
    confusion_score: float = 0.3

    def __post_init__(self) -> None:
        check_ranges("metrics", self, confusion_score=(0.0, 1.0))

    @property
    def strict(self) -> bool:
        """Whether an IoU equal to the limit fails."""
        if self.iou_test == "protocol":
            return self.difficult != "mmrotate"
        return self.iou_test == "strict"
