# SPDX-License-Identifier: Apache-2.0
"""Rotated boxes as plain float64 arrays: conventions, corners, transforms, exact overlap, suppression.

A box is ``(cx, cy, w, h, theta)``: pixels and radians, y down, theta from +x towards +y (clockwise on screen). Inside
the library boxes are le90: ``w >= h`` and theta in [-pi/2, pi/2); every function takes any other w, h and theta too.
What needs torch stands in modules of its own: :mod:`~vision3d.geometry.rotated.oracle`,
:mod:`~vision3d.geometry.rotated.iou_loss`.
"""

from vision3d.geometry.rotated.angles import angle_distance, axial_mean, wrap
from vision3d.geometry.rotated.boxes import canonical, check_boxes
from vision3d.geometry.rotated.conventions import CONVENTIONS, convert
from vision3d.geometry.rotated.corners import corners, hulls, points_in_boxes
from vision3d.geometry.rotated.enclosing import enclosing_box, from_corners
from vision3d.geometry.rotated.iou import iof_matrix, iou_matrix, iou_pairs
from vision3d.geometry.rotated.nms import nms, soft_nms
from vision3d.geometry.rotated.transforms import flipped, rotated, scaled, shifted, turned

__all__ = [
    "CONVENTIONS",
    "angle_distance",
    "axial_mean",
    "canonical",
    "check_boxes",
    "convert",
    "corners",
    "enclosing_box",
    "flipped",
    "from_corners",
    "hulls",
    "iof_matrix",
    "iou_matrix",
    "iou_pairs",
    "nms",
    "points_in_boxes",
    "rotated",
    "scaled",
    "shifted",
    "soft_nms",
    "turned",
    "wrap",
]
