# SPDX-License-Identifier: Apache-2.0
"""The views that PointOBB compares: resized, rotated and flipped images with their points and boxes (step 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MULTIPLE = 32  # sides that the backbone takes


@dataclass(frozen=True)
class Frame:
    """Where a view's pixels come from: view = centre' + ratio R(rotation) F (original - centre).

    Attributes:
        size: (width, height) of the view in pixels.
        source: (width, height) of the original.
        contents: (B, 4) left, top, right and bottom border of each image's real content, in the original; the rest is
            padding. A whole image has (-0.5, -0.5, W - 0.5, H - 0.5).
        ratio: pixels of the view per pixel of the original.
        rotation: radians, clockwise on screen.
        flipped: upside down, before the rotation.
    """

    size: tuple[int, int]
    source: tuple[int, int]
    contents: Tensor
    ratio: float = 1.0
    rotation: float = 0.0
    flipped: bool = False

    def points(self, points: Tensor) -> Tensor:
        """Where points (..., 2) of the original lie in the view."""
        away = points - points.new_tensor(_centre(self.source))
        x, y = away[..., 0], -away[..., 1] if self.flipped else away[..., 1]
        c, s = math.cos(self.rotation), math.sin(self.rotation)
        turned = torch.stack((c * x - s * y, s * x + c * y), -1)
        return self.ratio * turned + points.new_tensor(_centre(self.size))

    def back(self, points: Tensor) -> Tensor:
        """The inverse of :meth:`points`."""
        away = (points - points.new_tensor(_centre(self.size))) / self.ratio
        c, s = math.cos(self.rotation), math.sin(self.rotation)
        x, y = c * away[..., 0] + s * away[..., 1], c * away[..., 1] - s * away[..., 0]
        return torch.stack((x, -y if self.flipped else y), -1) + points.new_tensor(_centre(self.source))

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 5) of the original in the view; angles are not wrapped."""
        theta = -boxes[..., 4:] if self.flipped else boxes[..., 4:]
        return torch.cat((self.points(boxes[..., :2]), boxes[..., 2:4] * self.ratio, theta + self.rotation), -1)

    def shows(self, points: Tensor, images: Tensor) -> Tensor:
        """(G, P) whether places (G, P, 2) of the view lie in it and show real content of their image (G,)."""
        width, height = self.size
        x, y = points[..., 0], points[..., 1]
        within = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
        at = self.back(points)
        border = self.contents[images][:, None]
        return within & (at >= border[..., :2]).all(-1) & (at <= border[..., 2:]).all(-1)


def original(images: Tensor, contents: Tensor) -> Frame:
    """The frame of (B, 3, H, W) images as they are."""
    size = (images.shape[3], images.shape[2])
    return Frame(size, size, contents.to(images.dtype))


def resized(images: Tensor, contents: Tensor, ratio: float) -> tuple[Tensor, Frame]:
    """The images resized by nearest neighbours; square ones by the ratio nearest to ``ratio`` that needs no padding.

    Args:
        images: (B, 3, H, W), H and W multiples of 32; when they differ, the right and bottom are padded by the border.
    """
    height, width = images.shape[2:]
    side = max(width, height)
    ratio = max(MULTIPLE, round(side * ratio / MULTIPLE) * MULTIPLE) / side
    shape = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    small = functional.interpolate(images, size=shape, mode="nearest-exact")
    small = pad_to_multiple(small)
    return small, Frame((shape[1], shape[0]), (width, height), contents.to(images.dtype), ratio)


def rotated(images: Tensor, contents: Tensor, rotation: float) -> tuple[Tensor, Frame]:
    """The images turned clockwise about their centre by ``rotation`` radians in the same frame.

    What comes from outside is mirrored content, where objects are not labelled: :meth:`Frame.shows` leaves it out.
    """
    height, width = images.shape[2:]
    c, s = math.cos(rotation), math.sin(rotation)
    # affine_grid asks where an output pixel comes from, in half sides.
    back = images.new_tensor([[c, s * height / width, 0.0], [-s * width / height, c, 0.0]])
    grid = functional.affine_grid(back.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    turned = functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    size = (width, height)
    return turned, Frame(size, size, contents.to(images.dtype), rotation=rotation)


def flipped(images: Tensor, contents: Tensor) -> tuple[Tensor, Frame]:
    """The images upside down."""
    size = (images.shape[3], images.shape[2])
    return images.flip(2), Frame(size, size, contents.to(images.dtype), flipped=True)


def pad_to_multiple(images: Tensor) -> Tensor:
    """(B, 3, H, W) with the border repeated at the right and bottom until both sides are multiples of 32."""
    height, width = images.shape[2:]
    right, bottom = -width % MULTIPLE, -height % MULTIPLE
    return functional.pad(images, (0, right, 0, bottom), mode="replicate") if right or bottom else images


def _centre(size: tuple[int, int]) -> tuple[float, float]:
    return (size[0] - 1) / 2, (size[1] - 1) / 2
