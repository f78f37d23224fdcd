# SPDX-License-Identifier: Apache-2.0
"""Views: images, points and boxes move together, and padding or mirrored content is known as such."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.pointobb.views import Frame, flipped, original, pad_to_multiple, resized, rotated
from vision3d.geometry import rotated as geometry

WHOLE = torch.tensor([[-0.5, -0.5, 95.5, 63.5]])
MADE = {
    "original": lambda x: (x, original(x, WHOLE)),
    "smaller": lambda x: resized(x, WHOLE, 0.66),
    "larger": lambda x: resized(x, WHOLE, 1.34),
    "turned": lambda x: rotated(x, WHOLE, 1.0),
    "upside down": lambda x: flipped(x, WHOLE),
}


def spot(x: float, y: float) -> Tensor:
    """A smooth bump at (x, y) in a 96 x 64 image."""
    v, u = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    return torch.exp(-((u - x) ** 2 + (v - y) ** 2) / 18).expand(1, 3, 64, 96)


@pytest.mark.parametrize("name", sorted(MADE))
@pytest.mark.parametrize("place", [(48.0, 20.0), (60.5, 40.0)])
def test_points_follow_the_pixels(name: str, place: tuple[float, float]) -> None:
    view, frame = MADE[name](spot(*place))
    v, u = torch.meshgrid(torch.arange(float(view.shape[2])), torch.arange(float(view.shape[3])), indexing="ij")
    wanted = frame.points(torch.tensor(place))
    # Only around there: the rotated view holds mirrored bumps too.
    weight = view[0, 0] * ((u - wanted[0]).hypot(v - wanted[1]) < 12)
    found = [float((u * weight).sum() / weight.sum()), float((v * weight).sum() / weight.sum())]
    np.testing.assert_allclose(found, wanted, atol=0.3)
    torch.testing.assert_close(frame.back(wanted), torch.tensor(place), rtol=0, atol=1e-4)
    assert view.shape[2] % 32 == 0
    assert view.shape[3] % 32 == 0


@pytest.mark.parametrize("name", sorted(MADE))
def test_boxes_follow_their_corners(name: str) -> None:
    _, frame = MADE[name](torch.zeros(1, 3, 64, 96))
    boxes = torch.tensor([[40.0, 30, 30, 10, 0.3], [20, 50, 12, 9, -1.4]]).double()
    corners = frame.points(torch.from_numpy(geometry.corners(boxes.numpy())))
    wanted = geometry.from_corners(corners.numpy())
    found = geometry.canonical(frame.boxes(boxes).numpy())
    np.testing.assert_allclose(geometry.iou_pairs(found, wanted), 1, atol=1e-6)


def test_the_resized_view_of_a_square_needs_no_padding() -> None:
    images = torch.rand(1, 3, 128, 128)
    border = torch.tensor([[-0.5, -0.5, 127.5, 127.5]])
    for ratio, side in ((0.5, 64), (0.9, 128), (1.5, 192), (1.3, 160)):
        view, frame = resized(images, border, ratio)
        assert view.shape == (1, 3, side, side)
        assert frame.size == (side, side)
        assert frame.ratio == side / 128


def test_mirrored_and_padded_content_is_not_shown() -> None:
    """The published rotated view takes what reflection puts into its corners for background."""
    border = torch.tensor([[-0.5, -0.5, 63.5, 63.5], [-0.5, -0.5, 31.5, 63.5]])
    _, frame = rotated(torch.zeros(2, 3, 64, 64), border, math.pi / 4)
    places = torch.tensor([[[2.0, 2.0], [31.5, 31.5], [31.5, 2.0], [40.0, 40.0], [-3.0, 31.5]]]).expand(2, -1, -1)
    shown = frame.shows(places, torch.tensor([0, 1]))
    assert shown[0].tolist() == [False, True, True, True, False]
    # In the second image the right half is padding; it lies at the lower right after the turn.
    assert shown[1].tolist() == [False, True, True, False, False]
    exact = Frame((64, 64), (64, 64), border)
    assert exact.shows(torch.tensor([[[63.4, 63.4], [63.6, 10.0]]]), torch.tensor([0])).tolist() == [[True, False]]


def test_padding_repeats_the_border() -> None:
    images = torch.rand(1, 3, 40, 64)
    padded = pad_to_multiple(images)
    assert padded.shape == (1, 3, 64, 64)
    torch.testing.assert_close(padded[:, :, :40], images)
    torch.testing.assert_close(padded[:, :, 50], images[:, :, -1])
    assert pad_to_multiple(padded) is padded
