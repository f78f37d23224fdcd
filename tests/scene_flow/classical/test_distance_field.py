# SPDX-License-Identifier: Apache-2.0
"""The grid of distances against every distance; between its nodes, outside of it, and when memory is short."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from scene_flow.classical.distance_field import BYTES_PER_CELL, DistanceField


def cloud(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform([-2, 3, 0], [2, 5, 1], (n, 3)).astype(np.float32)


def node_positions(field: DistanceField) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in field.distance_m.shape], indexing="ij"), -1)
    return field.origin + field.cell_m * index.reshape(-1, 3)


def test_nodes_against_every_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scene_flow.classical.distance_field.SLAB_CELLS", 1000)  # several slabs
    target = cloud(0, 60)
    field = DistanceField(target, cloud(1, 60), 0.2)
    rounded = field.origin + np.rint((target - field.origin) / 0.2) * 0.2
    expected = cdist(node_positions(field), rounded).min(axis=1)
    np.testing.assert_allclose(field.distance_m.numpy().ravel(), expected, atol=1e-6)
    assert np.abs(rounded - target).max() <= 0.1 + 1e-6


def test_at_nodes_and_halfway_between_them() -> None:
    field = DistanceField(cloud(0, 20), cloud(1, 20), 0.25)
    at = torch.from_numpy(node_positions(field))
    values = field.distance_m.reshape(-1)
    torch.testing.assert_close(field(at), values, atol=1e-5, rtol=0)
    pairs = field.distance_m
    halfway = at.reshape(*pairs.shape, 3)[:, :, :-1] + torch.tensor([0, 0, 0.125], dtype=torch.float64)
    expected = (pairs[:, :, :-1] + pairs[:, :, 1:]) / 2
    torch.testing.assert_close(field(halfway.reshape(-1, 3)), expected.reshape(-1), atol=1e-5, rtol=0)


def test_close_to_the_true_distance() -> None:
    target, asked = cloud(0, 200), cloud(1, 500)
    found = DistanceField(target, asked, 0.05)(torch.from_numpy(asked)).numpy()
    # Rounding a point and reading between nodes are each off by less than half a cell's diagonal.
    np.testing.assert_allclose(found, cdist(asked, target).min(axis=1), atol=0.05 * np.sqrt(3))


def test_gradient_leads_to_the_cloud_from_inside_and_outside() -> None:
    field = DistanceField(np.zeros((1, 3)), np.ones((1, 3)), 0.1)
    points = torch.tensor([[0.83, 0.0, 0.0], [0.33, 0.44, 0.0], [30.0, 0.5, 0.5]], requires_grad=True)
    value = field(points)
    value.sum().backward()
    assert points.grad is not None
    np.testing.assert_allclose(points.grad[:2].numpy(), np.array([[1, 0, 0], [0.6, 0.8, 0]]), atol=0.12)
    assert points.grad[2, 0] == pytest.approx(1, abs=1e-3)
    # Around by the box's edge: never less than the straight way, and here hardly more.
    straight = float(np.linalg.norm([30.0, 0.5, 0.5]))
    assert straight <= value[2].item() < 1.02 * straight


def test_a_point_at_the_very_edge_has_a_finite_gradient() -> None:
    field = DistanceField(np.zeros((1, 3)), np.ones((1, 3)), 0.5)
    points = torch.tensor(np.stack([field.origin, [0.0, 0.0, 0.0]]), dtype=torch.float32, requires_grad=True)
    field(points).sum().backward()
    assert points.grad is not None and points.grad.isfinite().all()


def test_cells_grow_where_memory_is_short() -> None:
    target = cloud(0, 10)
    source = target + np.float32(1000)
    field = DistanceField(target, source, 0.1, most_mb=2)
    assert field.distance_m.numel() * BYTES_PER_CELL <= 2e6 and 1 < field.cell_m < 100
    assert field(torch.from_numpy(target)).max() < field.cell_m * np.sqrt(3)
    assert DistanceField(target, target, 0.1, most_mb=2).cell_m == 0.1
    assert np.prod(DistanceField(target, source, 0.1, most_mb=1e-6).distance_m.shape) <= 64


def test_a_single_point() -> None:
    field = DistanceField(np.zeros((1, 3)), np.zeros((1, 3)), 0.1)
    assert field(torch.zeros(1, 3)).item() == pytest.approx(0, abs=1e-6)
