# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from vision3d.voxels.rays import clip_to_box, local_rays


def ray(origin: list[float], direction: list[float]) -> tuple[float, float]:
    d = torch.tensor([direction], dtype=torch.float64)
    entry, leave = clip_to_box(torch.tensor([origin], dtype=torch.float64), d / d.norm())
    return float(entry), float(leave)


@pytest.mark.parametrize(
    ("origin", "direction", "expected"),
    [
        ([-3.0, 0.0, 0.0], [1.0, 0.0, 0.0], (2.0, 4.0)),
        ([0.5, -0.25, 3.0], [0.0, 0.0, -1.0], (2.0, 4.0)),
        ([-2.0, -2.0, -2.0], [1.0, 1.0, 1.0], (math.sqrt(3), 3 * math.sqrt(3))),
        ([-2.0, -2.0, 0.3], [1.0, 1.0, 0.0], (math.sqrt(2), 3 * math.sqrt(2))),
        ([0.0, 0.0, 0.0], [0.0, 1.0, 0.0], (0.0, 1.0)),  # from inside: starts at the origin
        ([1.0, 0.0, -2.0], [0.0, 0.0, 1.0], (1.0, 3.0)),  # along a face
        ([3.0, 0.0, 0.0], [1.0, 0.0, 0.0], (0.0, 0.0)),  # box behind
        ([-3.0, 1.5, 0.0], [1.0, 0.0, 0.0], (0.0, 0.0)),  # parallel, beside
        ([-3.0, 0.0, 0.0], [1.0, 1.0, 0.0], (0.0, 0.0)),  # passes by
        ([-0.0, 0.0, -2.0], [-0.0, 0.0, 1.0], (1.0, 3.0)),  # negative zeros
    ],
)
def test_analytic_entry_and_exit(origin: list[float], direction: list[float], expected: tuple[float, float]) -> None:
    assert ray(origin, direction) == pytest.approx(expected, abs=1e-12)


def test_clipping_equals_dense_sampling() -> None:
    generator = torch.Generator().manual_seed(1)
    origins = torch.randn(300, 3, generator=generator, dtype=torch.float64) * 1.5
    directions = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator, dtype=torch.float64), dim=-1)
    entry, leave = clip_to_box(origins, directions)
    t = torch.linspace(0, 12, 6001, dtype=torch.float64)
    inside = ((origins[:, None] + t[:, None] * directions[:, None]).abs() <= 1).all(-1)
    length = inside.sum(-1) * 0.002
    assert ((leave - entry) - length).abs().max() < 0.005
    assert (leave > entry).sum() > 50
    assert (leave == entry).sum() > 50


def test_far_from_the_origin_nothing_is_lost() -> None:
    """The same 5 cm boxes seen from the same side, at the origin and 1 km away, give the same rays."""
    generator = torch.Generator().manual_seed(2)
    centers = torch.randn(1000, 3, generator=generator, dtype=torch.float64)
    cameras = centers + 4 * torch.randn(1000, 3, generator=generator, dtype=torch.float64)
    shift = torch.tensor([1000.0, -1000.0, 512.0], dtype=torch.float64)
    half = torch.full((1000,), 0.025, dtype=torch.float64)
    here = local_rays(cameras, centers - cameras, centers, half)
    there = local_rays(cameras + shift, centers - cameras, centers + shift, half)
    assert (here[0] - there[0]).abs().max() < 1e-10
    entry, leave = clip_to_box(there[0].float(), there[1].float())
    assert entry.max() < 1e-6, "rays start where they enter"
    chord = 2 / here[1].abs().amax(-1)
    assert (leave - entry - chord.float()).abs().max() < 1e-5
