# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from relocalization import fit_adam
from relocalization.fields import fit_fields
from relocalization.fit_adam import Adam, field_loss, variation_gradient, views_per_node
from relocalization.fit_config import FitConfig
from relocalization.fit_rays import RayBatch, batches
from relocalization.fit_ridge import ridge_system, shared_density
from relocalization.synthetic_views import MEDIUM, STRONG, SyntheticLandmarks, random_directions
from vision3d.errors import ConfigError
from vision3d.voxels.marching import Marching
from vision3d.voxels.render import composite, ray_weights, sample_rays


def landmarks(n: int = 4, views: int = 6, patch: int = 0, strength: float = STRONG) -> tuple:
    truth = SyntheticLandmarks.draw(n, 16, strength, 0)
    rays = truth.observe(random_directions(n, views, 1), 2, patch_radius=patch)
    return rays, truth.points, truth.half_sizes


def one_batch(*args: int, **kwargs: int) -> RayBatch:
    (batch,) = batches(*landmarks(*args, **kwargs), 64)
    return batch


def mean_loss(batch: RayBatch, density: torch.Tensor, values: torch.Tensor, config: FitConfig) -> float:
    weights, remaining = ray_weights(density, batch.origins, batch.directions)
    share = batch.weight / batch.weight.sum(1, keepdim=True)
    return float(field_loss(weights, remaining, values, batch.targets, share, config).mean())


def test_adam_is_torchs_adam() -> None:
    start = torch.randn(5, generator=torch.Generator().manual_seed(0))
    mine, theirs = start.clone(), start.clone().requires_grad_()
    reference = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99), eps=1e-8)
    optimiser = Adam(mine, 0.1)
    for _ in range(20):
        optimiser.step(2 * mine - 1)
        theirs.grad = (2 * theirs - 1).detach()
        reference.step()
    assert torch.allclose(mine, theirs, atol=1e-5)


def test_the_loss_by_hand() -> None:
    """One ray, one node, two channels: P = 0.6, T = 0.4."""
    config = FitConfig(cosine_weight=0.2, entropy_weight=0.1)
    weights, values = torch.tensor([[[0.6]]]), torch.tensor([[[1.0, 0.0]]])
    loss = field_loss(weights, torch.tensor([[0.4]]), values, torch.tensor([[[0.6, 0.8]]]), torch.ones(1, 1), config)
    entropy = -(0.4 * np.log(0.4) + 0.6 * np.log(0.6))
    assert loss.item() == pytest.approx((0.0 + 0.64) / 2 + 0.2 * (1 - 0.6) + 0.1 * entropy, rel=1e-5)


def test_closed_form_starts_below_zero_start_and_saves_steps() -> None:
    """Card check 12: the ridge's first loss is below the zero start's, and it needs fewer Adam steps to get as low."""
    config = FitConfig(ridge=0.01, entropy_weight=0.1)
    batch = one_batch(4, 8, patch=1)
    density = shared_density(3, config.density)
    ridge = ridge_system(batch, density, Marching()).solve(config.ridge).float()
    zero_loss = mean_loss(batch, torch.zeros(1, 3, 3, 3), torch.zeros_like(ridge), config)
    ridge_loss = mean_loss(batch, density, ridge, config)
    assert ridge_loss < 0.25 * zero_loss

    samples = sample_rays(batch.origins, batch.directions, 3, Marching())
    share = batch.weight / batch.weight.sum(1, keepdim=True)
    free, values = torch.zeros(4, 3, 3, 3, requires_grad=True), torch.zeros_like(ridge).requires_grad_()
    optimisers = Adam(free, 0.1), Adam(values, 0.01)
    for _ in range(120):
        loss = field_loss(*composite(free, samples), values, batch.targets, share, config)
        for optimiser, gradient in zip(optimisers, torch.autograd.grad(loss.sum(), (free, values))):
            optimiser.step(gradient)
    assert ridge_loss < mean_loss(batch, free.detach(), values.detach(), config), "no step is needed at all"


def test_polish_fits_closer_and_keeps_the_pull_towards_the_mean() -> None:
    rays, points, halves = landmarks(6, 6)
    ridge = fit_fields(rays, points, halves, FitConfig(ridge=0.1))
    config = FitConfig(method="polish", ridge=0.1, steps=40)
    polished = fit_fields(rays, points, halves, config)
    assert polished.grids.density.shape == (6, 3, 3, 3)
    assert polished.cosine.mean() > ridge.cosine.mean()
    tight = fit_fields(rays, points, halves, FitConfig(method="polish", ridge=1e4, steps=40))
    spread = tight.grids.values - tight.grids.values.mean((1, 2, 3), keepdim=True)
    assert spread.abs().max() < 1e-3


def test_polish_treats_landmarks_apart_and_repeats_itself() -> None:
    rays, points, halves = landmarks(3, 4)
    config = FitConfig(method="polish", ridge=0.1, steps=5)
    together = fit_fields(rays, points, halves, config)
    assert torch.equal(together.grids.values, fit_fields(rays, points, halves, config).grids.values)
    apart = fit_fields(rays, points, halves, FitConfig(method="polish", ridge=0.1, steps=5, batch=1))
    assert (together.grids.values - apart.grids.values).abs().max() < 1e-4


def test_the_papers_recipe_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_adam, "PAPER_STEPS", 80)
    rays, points, halves = landmarks(2, 8, patch=1, strength=MEDIUM)
    config = FitConfig(method="paper", rays_per_step=128)
    fields = fit_fields(rays, points, halves, config, seed=3)
    assert (fields.cosine > 0.95).all()
    assert (fields.grids.density == -20).any(), "nodes behind the box's sides are seen by no view"
    assert (fields.grids.density > 0).any()
    assert torch.equal(fields.grids.values, fit_fields(rays, points, halves, config, seed=3).grids.values)
    assert not torch.equal(fields.grids.values, fit_fields(rays, points, halves, config, seed=4).grids.values)


def test_views_of_a_node_are_counted_once_per_view() -> None:
    """Two rays of one view and one of another along z through the middle: three nodes, two views."""
    origins = torch.tensor([[[0.0, 0.0, -3.0], [0.1, 0.0, -3.0], [0.0, 0.1, -3.0], [0.0, 0.0, -3.0]]])
    directions = torch.tensor([0.0, 0.0, 1.0]).expand(1, 4, 3)
    samples = sample_rays(origins, directions, 3, Marching())
    seen = views_per_node(samples, torch.tensor([[0, 0, 1, -1]]))
    expected = torch.zeros(3, 3, 3, dtype=torch.int64)
    expected[1, 1] = 2
    assert torch.equal(seen.reshape(3, 3, 3), expected)


def test_the_variation_gradient_is_that_of_the_huber_variation() -> None:
    grid = (3 * torch.randn(2, 3, 3, 3, 2, generator=torch.Generator().manual_seed(0))).double().requires_grad_()
    strength = torch.tensor([0.5, 2.0], dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for axis in (1, 2, 3):
        d = grid.diff(dim=axis)
        huber = torch.where(d.abs() <= 1, 0.5 * d.square(), d.abs() - 0.5)
        total = total + (huber.sum((1, 2, 3, 4)) * strength).sum()
    (expected,) = torch.autograd.grad(total, grid)
    assert (variation_gradient(grid.detach(), strength) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("bad", [{"resolution": 0}, {"ridge": -1.0}, {"steps": 0}, {"axes": "camera"}, {"method": "x"}])
def test_values_out_of_range_are_named(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"fit.{next(iter(bad))}"):
        FitConfig(**bad)  # type: ignore[arg-type]
