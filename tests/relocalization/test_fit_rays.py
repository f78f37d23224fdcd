# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from relocalization.fit_rays import ObservedRays, batches, view_axes


def random_rays(counts: list[int], per_view: int = 1, seed: int = 0) -> tuple[ObservedRays, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    landmark = np.repeat(np.arange(len(counts)), counts)
    n = len(landmark)
    points = rng.normal(size=(len(counts), 3))
    view = np.concatenate([np.arange(c) // per_view * 3 + 1 for c in counts]).astype(np.int64)
    origins = points[landmark] + 5 * rng.normal(size=(n, 3))
    rays = ObservedRays(landmark, view, origins, points[landmark] - origins, rng.normal(size=(n, 4)).astype(np.float32))
    return rays, points, np.full(len(counts), 0.02)


def test_batches_hold_every_ray_once_in_box_coordinates() -> None:
    counts = [3, 0, 7, 1, 200, 4, 2]
    rays, points, halves = random_rays(counts)
    seen: list[int] = []
    for batch in batches(rays, points, halves, 3, dtype=torch.float64):
        for row, landmark in enumerate(batch.landmarks.tolist()):
            real = batch.weight[row] > 0
            assert int(real.sum()) == counts[landmark]
            mine = rays.landmark == landmark
            assert np.allclose(batch.targets[row, real].numpy(), rays.descriptors[mine])
            unit = rays.directions[mine] / np.linalg.norm(rays.directions[mine], axis=1, keepdims=True)
            assert np.allclose(batch.directions[row, real].numpy(), unit)
            assert batch.origins[row].abs().max() <= 1 + 1e-9
            seen.append(landmark)
    assert sorted(seen) == [0, 2, 3, 4, 5, 6]
    chosen = [b.landmarks.tolist() for b in batches(rays, points, halves, 3, only=np.array([1, 2, 6]))]
    assert sorted(i for part in chosen for i in part) == [2, 6]


@pytest.mark.parametrize("count", [18, 900])  # both ways of counting
def test_rays_of_one_view_weigh_as_one(count: int) -> None:
    rays, points, halves = random_rays([count, 9], per_view=9)
    for batch in batches(rays, points, halves, 1):
        assert batch.weight.sum().item() == pytest.approx(int(batch.n_views[0]))
        assert torch.allclose(batch.weight, torch.full_like(batch.weight, 1 / 9))


def test_axes_face_the_views() -> None:
    rays, _, _ = random_rays([6, 5, 0, 1])
    axes = view_axes(rays, 4, 8.0).double()
    assert torch.allclose(torch.linalg.det(axes), torch.full((4,), 1 / 8.0, dtype=torch.float64), atol=1e-6)
    gram = axes @ axes.transpose(1, 2)
    assert torch.allclose(gram, torch.diag(torch.tensor([1.0, 1.0, 1 / 64.0])).double().expand(4, 3, 3), atol=1e-6)
    unit = rays.directions / np.linalg.norm(rays.directions, axis=1, keepdims=True)
    mean = unit[:6].mean(0)
    assert np.allclose(axes[0, 2].numpy() * 8, mean / np.linalg.norm(mean), atol=1e-6)
    assert torch.equal(axes[2], torch.diag(torch.tensor([1.0, 1.0, 1 / 8.0])).double()), "no views: the world's axes"


def test_views_all_around_keep_the_worlds_axes() -> None:
    directions = np.concatenate([np.eye(3), -np.eye(3)])
    n = np.zeros(6, np.int64)
    rays = ObservedRays(n, np.arange(6), -directions, directions, np.zeros((6, 2), np.float32))
    assert torch.allclose(view_axes(rays, 1, 2.0)[0], torch.diag(torch.tensor([1.0, 1.0, 0.5])))


def test_wrong_shapes_are_named() -> None:
    rays, _, _ = random_rays([2])
    with pytest.raises(ValueError, match="directions"):
        ObservedRays(rays.landmark, rays.view, rays.origins, rays.directions[:1], rays.descriptors)
    with pytest.raises(ValueError, match="descriptors"):
        ObservedRays(rays.landmark, rays.view, rays.origins, rays.directions, rays.descriptors[:1])


def test_rays_through_the_centers() -> None:
    points, cameras = np.array([[0.0, 0, 5], [1.0, 0, 5]]), np.array([[0.0, 0, 0], [1.0, 0, 0]])
    landmark, view = np.array([0, 1, 1]), np.array([0, 0, 1])
    rays = ObservedRays.through_centers(landmark, view, points, cameras, np.zeros((3, 2), np.float32))
    assert rays.directions.tolist() == [[0, 0, 5], [1, 0, 5], [0, 0, 5]]
