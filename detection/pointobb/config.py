# SPDX-License-Identifier: Apache-2.0
"""Options of PointOBB. Imports no torch.

The defaults are the method with its known faults mended; :func:`seed_faithful` is the published one, faults included.
Luo et al., "PointOBB: Learning Oriented Object Detection via Single Point Supervision", CVPR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from vision3d.errors import ConfigError, check_ranges

# Classes that the authors treat as having no direction, in the names of DOTA and of DIOR-R.
ROUND_CLASSES = (
    "baseball-diamond",
    "storage-tank",
    "roundabout",
    "chimney",
    "golffield",
    "storagetank",
    "windmill",
)
# Factors on w and h at export in the authors' code; a patch for the size floor of their bags.
_DOTA_SIZES = {"small-vehicle": 0.65}
_DIOR_SIZES = {"ship": 0.65, "vehicle": 0.65}


@dataclass(frozen=True)
class PointObbConfig:
    """From a bag of boxes around each point to one oriented box.

    Attributes:
        scales: sizes of the first bag: ``density`` follows the distance to the neighbouring point, ``image`` the side
            of the training crop (published; no box below 4 % of the side then).
        multiples: ``image``: sqrt(w h) in hundredths of the training crop's side.
        smallest_px: ``density``: sqrt(w h) of the smallest boxes.
        reach: ``density``: sqrt(w h) of the largest boxes, in distances to the nearest other point.
        ratios: sqrt(w / h) of the first bag.
        factors: of w and of h in the second bag.
        shift: of the second bag's boxes, in parts of w and h.
        top_k: boxes of a bag that are averaged.
        angle_mean: how angles are averaged; ``linear`` (published) is wrong around +-90 degrees.
        validity: area that boxes of the second bag must lie in: the image's ``content``, or ``mean-angle``
            (published): the frame turned by the mean angle of the boxes.
        min_inside: part of a box of the second bag that must lie in it.
        level_unit_px: boxes with sqrt(w h) from twice this on use the second level of the pyramid.
        fc_width: of the two layers over box features; 1024 published.
        roi_size: bins per side of box features.
        roi_samples: samples per side of a bin; 2 published.
        angle_width: channels of the angle head; 256 published.
        negatives: random background boxes per image; 500 published.
        max_rois: boxes of an image that are worked on at once; in training more objects are left out at random.
        angle_from: part of the run after which the rotated view replaces the resized one.
        assign_from: part of the run after which boxes take predicted angles.
        flip: probability that the second view is flipped instead of rotated; 0.05 published, 0 leaves the angle's
            offset arbitrary.
        flip_from: part of the run after which it is, once rotations have taught what an angle is; 0 published. One
            angle for everything answers every flip, and a training that meets many of them early stays there.
        scale_weight: of the scale-sensitive consistency; 0 switches it off.
        angle_weight: of the self-supervised angle loss; 0.5 published, which a short training from random weights does
            not settle with.
        bag_weight: of both bags' losses.
        negative_weight: of the background's loss; 0.75 published.
        round_classes: classes without a direction: angle 0, and no angle loss. Unknown names are ignored.
        size_table: factors per class at export: ``none``, or those of the authors' code.
    """

    scales: Literal["density", "image"] = "density"
    multiples: tuple[float, ...] = (4, 8, 16, 24, 32, 48, 64, 72, 80, 96)
    smallest_px: float = 7.0
    reach: float = 3.0
    ratios: tuple[float, ...] = (1 / 3, 1 / 2, 1 / 1.5, 1, 1.5, 2, 3)
    factors: tuple[float, ...] = (1, 1.2, 1.3, 0.8, 0.7)
    shift: float = 0.1
    top_k: int = 7
    angle_mean: Literal["axial", "linear"] = "axial"
    validity: Literal["content", "mean-angle"] = "content"
    min_inside: float = 0.8
    level_unit_px: float = 56.0
    fc_width: int = 128
    roi_size: int = 7
    roi_samples: int = 1
    angle_width: int = 64
    negatives: int = 100
    max_rois: int = 10_000
    angle_from: float = 0.23
    assign_from: float = 0.31
    flip: float = 0.3
    flip_from: float = 0.6
    scale_weight: float = 1.0
    angle_weight: float = 2.0
    bag_weight: float = 0.25
    negative_weight: float = 0.19
    round_classes: tuple[str, ...] = ()
    size_table: Literal["none", "pointobb"] = "none"

    def __post_init__(self) -> None:
        check_ranges(
            "pointobb",
            self,
            smallest_px=(2, 64),
            reach=(1, 100),
            shift=(0, 0.5),
            top_k=(1, 1000),
            min_inside=(0, 1),
            level_unit_px=(1, 1024),
            fc_width=(8, 4096),
            roi_size=(1, 28),
            roi_samples=(1, 4),
            angle_width=(8, 1024),
            negatives=(0, 10_000),
            max_rois=(1000, 10_000_000),
            angle_from=(0, 1),
            assign_from=(0, 1),
            flip=(0, 1),
            flip_from=(0, 1),
            scale_weight=(0, 100),
            angle_weight=(0, 100),
            bag_weight=(0, 100),
            negative_weight=(0, 100),
        )
        for name in ("multiples", "ratios", "factors"):
            values = getattr(self, name)
            if not values or min(values) <= 0:
                raise ConfigError(f"pointobb.{name} is {values}: must be positive numbers, at least one")
        if self.assign_from < self.angle_from:
            raise ConfigError(
                f"pointobb.assign_from is {self.assign_from:g}: must not lie before angle_from ({self.angle_from:g}), "
                "or boxes take angles that were never trained"
            )
        if self.max_rois < len(self.multiples) * len(self.ratios):
            raise ConfigError(f"pointobb.max_rois is {self.max_rois}: smaller than the bag of one point")


def size_table(name: str, classes: tuple[str, ...]) -> dict[str, float]:
    """Class -> factor on w and h at export. The authors have one table for DOTA and another for DIOR-R.

    Which of the two applies is told by the names of the classes: only DOTA has ``small-vehicle``.
    """
    if name == "none":
        return {}
    return _DOTA_SIZES if "small-vehicle" in classes else _DIOR_SIZES


def seed_faithful(config: PointObbConfig | None = None) -> PointObbConfig:
    """The published method with its faults, to be reported apart; widths and other options as in ``config``."""
    return replace(
        config or PointObbConfig(),
        scales="image",
        angle_mean="linear",
        validity="mean-angle",
        flip=0.05,
        flip_from=0.0,
        negative_weight=0.75,
        angle_weight=0.5,
        round_classes=ROUND_CLASSES,
        size_table="pointobb",
    )
