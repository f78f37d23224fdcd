# SPDX-License-Identifier: Apache-2.0
"""One loss for three kinds of views: boxes follow a flip, a turn and a scaling of the image."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from detection.pointobb import angle_coder, views
from detection.pointobb.layout.config import LayoutConfig
from vision3d.geometry.rotated import gaussian

BETA = 0.1  # radians up to which an error of the angle counts squared


def draw_view(config: LayoutConfig, rng: np.random.Generator) -> tuple[str, float]:
    """A kind of view for a step: ("flip", 0), ("scale", factor) or ("turn", radians, clockwise)."""
    kind = rng.random()
    if kind < config.flip:
        return "flip", 0.0
    if kind < config.flip + config.scale:
        return "scale", float(rng.uniform(config.smallest_scale, 0.9))
    return "turn", float(rng.uniform(math.pi / 4, 3 * math.pi / 4) * rng.choice([-1, 1]))


def make_view(images: Tensor, kind: str, value: float) -> tuple[Tensor, views.Frame]:
    """The view of (B, 3, H, W) images that :func:`draw_view` chose."""
    whole = images.new_tensor([-0.5, -0.5, images.shape[3] - 0.5, images.shape[2] - 0.5]).expand(len(images), 4)
    if kind == "flip":
        return views.flipped(images, whole)
    if kind == "scale":
        return views.resized(images, whole, value)
    return views.rotated(images, whole, value)


def view_loss(before: Tensor, after: Tensor, frame: views.Frame) -> Tensor:
    """How far boxes in a view (N, 5) are from those of the original (N, 5), moved into the view; scalar.

    Gaussian Wasserstein distance over size, and the angle on top by smooth L1: the Gaussian of a square box has none.
    """
    if not len(before):
        return after.sum() * 0
    moved = frame.boxes(before)
    turn = angle_coder.wrap(moved[:, 4] - after[:, 4])
    angle = functional.smooth_l1_loss(turn, torch.zeros_like(turn), beta=BETA, reduction="none")
    return (gaussian.gwd_loss(moved, after) + angle).mean()
