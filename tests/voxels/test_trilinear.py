# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from vision3d.voxels.trilinear import axis_weights, interpolate, node_positions, trilinear_weights


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("resolution", [1, 2, 3, 5])
def test_values_are_exact_at_the_nodes(resolution: int) -> None:
    values = uniform(4, resolution, resolution, resolution, 6)
    nodes = node_positions(resolution).expand(4, -1, -1)
    assert torch.equal(interpolate(values, nodes), values.reshape(4, -1, 6))


def test_node_order_is_x_then_y_then_z() -> None:
    nodes = node_positions(3)
    assert nodes[(2 * 3 + 0) * 3 + 1].tolist() == [1.0, -1.0, 0.0]


@pytest.mark.parametrize("resolution", [2, 3, 5])
def test_an_affine_field_is_reproduced_anywhere_in_the_box(resolution: int) -> None:
    slope, offset = uniform(3, 4, seed=1), uniform(4, seed=2)
    values = (node_positions(resolution) @ slope + offset).reshape(1, resolution, resolution, resolution, 4)
    points = uniform(1, 200, 3, seed=3)
    assert (interpolate(values, points) - (points @ slope + offset)).abs().max() < 1e-12


def test_weights_equal_the_eight_corner_formula() -> None:
    points = uniform(50, 3, seed=4)
    expected = torch.zeros(50, 27, dtype=torch.float64)
    for row, point in enumerate(points.tolist()):
        cell = [min(int(p + 1.0), 1) for p in point]
        part = [p + 1.0 - c for p, c in zip(point, cell)]
        for corner in range(8):
            bits = [corner >> a & 1 for a in range(3)]
            weight = 1.0
            for bit, fraction in zip(bits, part):
                weight *= fraction if bit else 1.0 - fraction
            i, j, k = (c + b for c, b in zip(cell, bits))
            expected[row, (i * 3 + j) * 3 + k] += weight
    assert (trilinear_weights(points, 3) - expected).abs().max() < 1e-14


def test_weights_sum_to_one_outside_too() -> None:
    assert torch.allclose(axis_weights(3 * uniform(100, 3), 3).sum(-1), torch.ones(100, 3, dtype=torch.float64))


def test_gradients_are_those_of_finite_differences() -> None:
    values = uniform(2, 3, 3, 3, 2, seed=5).requires_grad_()
    points = (0.9 * uniform(2, 5, 3, seed=6)).requires_grad_()
    assert torch.autograd.gradcheck(interpolate, (values, points), rtol=1e-5)
