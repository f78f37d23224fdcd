# SPDX-License-Identifier: Apache-2.0
"""The code of angles: round trip, no border, squares, gradients."""

from __future__ import annotations

import math

import torch

from detection.fcos import angles

GRID = torch.linspace(-math.pi / 2, math.pi / 2, 1001, dtype=torch.float64)[:-1]


def apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Between axes, radians."""
    return ((a - b + math.pi / 2) % math.pi - math.pi / 2).abs()


def test_round_trip() -> None:
    assert apart(angles.decode(angles.encode(GRID)), GRID).max() < 1e-9
    # A network's code may be too short or too long.
    assert apart(angles.decode(0.2 * angles.encode(GRID)), GRID).max() < 1e-9


def test_codes_have_no_border() -> None:
    codes = angles.encode(GRID)
    steps = (codes.roll(-1, 0) - codes).norm(dim=1)
    assert steps.max() < 1.01 * steps.min() + 1e-3  # the last row is followed by the first
    assert codes.abs().max() <= 1
    torch.testing.assert_close(angles.encode(GRID + math.pi), codes)


def test_the_fine_half_is_the_same_after_a_quarter_turn() -> None:
    codes, turned = angles.encode(GRID), angles.encode(GRID + math.pi / 2)
    torch.testing.assert_close(turned[:, 3:], codes[:, 3:])
    torch.testing.assert_close(turned[:, :3], -codes[:, :3])


def test_coarse_noise_does_not_reach_the_angle() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = angles.encode(GRID)
    noise = torch.rand(codes.shape, generator=generator, dtype=torch.float64) - 0.5
    codes[:, :3] += noise[:, :3]  # enough for errors of 15 degrees
    assert apart(angles.decode(codes), GRID).max() < 1e-9


def test_gradient_turns_towards_the_target_and_stays_finite() -> None:
    codes = angles.encode(GRID).requires_grad_()
    angles.decode(codes).sum().backward()
    step = codes.detach() + 1e-4 * codes.grad
    found = angles.decode(step) - angles.decode(codes.detach())
    assert (found.remainder(math.pi) > 0).all() and (found.remainder(math.pi) < 1e-3).all()
    zero = torch.zeros(3, 6, requires_grad=True)
    angles.decode(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()
