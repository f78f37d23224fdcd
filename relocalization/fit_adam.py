# SPDX-License-Identifier: Apache-2.0
"""Descriptor fields by gradient descent: a polish of the closed form, and the recipe of FaVoR's paper.

Both run many landmarks at once. Adam works element by element and losses are summed over landmarks, so the landmarks
of a batch do not influence each other.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from relocalization.fit_config import FitConfig
from relocalization.fit_rays import RayBatch
from relocalization.fit_ridge import RidgeSystem
from vision3d.voxels.render import RaySamples, composite, sample_rays

PAPER_STEPS = 2000
_EMPTY = -20.0  # raw density of a node that lets all light through


class Adam:
    """Adam (0.9, 0.99, 1e-8) with a learning rate for every element, which torch's own does not offer."""

    def __init__(self, parameter: Tensor, rate: float | Tensor) -> None:
        self.parameter, self.rate = parameter, rate
        self._first, self._second = torch.zeros_like(parameter), torch.zeros_like(parameter)
        self._steps = 0

    def step(self, gradient: Tensor) -> None:
        """One update in place."""
        self._steps += 1
        self._first.lerp_(gradient, 0.1)
        self._second.lerp_(gradient.square(), 0.01)
        mean = self._first / (1 - 0.9**self._steps)
        size = (self._second / (1 - 0.99**self._steps)).sqrt() + 1e-8
        with torch.no_grad():
            self.parameter -= self.rate * mean / size


def field_loss(
    weights: Tensor, remaining: Tensor, values: Tensor, targets: Tensor, share: Tensor, config: FitConfig
) -> Tensor:
    """Loss per landmark (B,): mean squared error, cosine and the entropy of the light behind the box.

    Args:
        weights, remaining: P (B, K, R^3) and T_last (B, K).
        values: (B, R^3, C).
        targets: (B, K, C).
        share: (B, K) weight of each ray, summing to 1 per landmark.
    """
    rendered = weights @ values
    loss = (rendered - targets).square().mean(-1)
    if config.cosine_weight > 0:
        cosine = torch.nn.functional.cosine_similarity(rendered, targets, dim=-1)
        loss = loss + config.cosine_weight * (1 - cosine)
    if config.entropy_weight > 0:
        light = remaining.clamp(1e-6, 1 - 1e-6)
        loss = loss - config.entropy_weight * (light * light.log() + (1 - light) * (1 - light).log())
    return (loss * share).sum(-1)


def polish(batch: RayBatch, density: Tensor, config: FitConfig) -> tuple[Tensor, Tensor]:
    """Ridge solution -> Adam on density and values -> values solved again under the density that was found.

    The pull towards the mean that the closed form has stays in the loss, so a landmark with few views cannot drift.

    Args:
        density: (1, R, R, R) where to start.

    Returns:
        density (B, R, R, R) and values (B, R^3, C), float32.
    """
    samples = sample_rays(batch.origins, batch.directions, config.resolution, config.marching)
    with torch.no_grad():
        start = _solve(samples, density, batch, config)
    anchor = start.mean(1, keepdim=True)
    share = batch.weight / batch.weight.sum(1, keepdim=True)
    pull = config.ridge / (batch.n_views * batch.targets.shape[-1])

    density = density.repeat(len(start), 1, 1, 1).to(start.dtype).requires_grad_()
    values = start.clone().requires_grad_()
    optimisers = Adam(density, config.lr_density), Adam(values, config.lr_values)
    for _ in range(config.steps):
        weights, remaining = composite(density, samples)
        loss = field_loss(weights, remaining, values, batch.targets, share, config)
        loss = loss + pull * (values - anchor).square().sum((1, 2))
        gradients = torch.autograd.grad(loss.sum(), (density, values))
        for optimiser, gradient in zip(optimisers, gradients):
            optimiser.step(gradient)
    with torch.no_grad():
        return density.detach().float(), _solve(samples, density, batch, config).float()


def paper(batch: RayBatch, config: FitConfig, seed: int) -> tuple[Tensor, Tensor]:
    """FaVoR's own recipe: 2000 Adam steps on rays drawn at random, where the card says "follow the paper".

    That is: no background, nodes start at the track's mean descriptor, density at 0 and learns at a rate that grows
    with the views that see a node; nodes seen by two views or fewer are emptied for good; total variation at the end.

    Returns:
        density (B, R, R, R) and values (B, R^3, C), float32.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + int(batch.landmarks[0]))
    resolution, channels = config.resolution, batch.targets.shape[-1]
    samples = sample_rays(batch.origins, batch.directions, resolution, config.marching)
    seen = views_per_node(samples, batch.view)
    # The paper keeps tracks of more than five views; below that, only nodes that no view sees are emptied.
    fewest = torch.where(batch.n_views > 5, 2, 0)
    unseen = (seen <= fewest[:, None]).reshape(len(seen), resolution, resolution, resolution)

    share = batch.weight / batch.weight.sum(1, keepdim=True)
    mean = (batch.targets * share[..., None]).sum(1, keepdim=True)
    density = torch.where(unseen, _EMPTY, 0.0).to(mean.dtype).requires_grad_()
    values = mean.repeat(1, resolution**3, 1).requires_grad_()
    rate = seen.clamp_max(100).to(mean.dtype)
    rate = (rate / rate.amax(1, keepdim=True).clamp_min(1)).reshape(density.shape) * ~unseen
    optimisers = Adam(density, config.lr_density * rate), Adam(values, config.lr_values)
    smooth = config.tv_weight / batch.n_views * resolution / channels / 6

    early = replace(config, cosine_weight=0.0)
    drawable = (batch.view >= 0).to(mean.dtype)
    for step in range(PAPER_STEPS):
        drawn = torch.multinomial(drawable, config.rays_per_step, replacement=True, generator=generator)
        # Rays drawn with replacement weigh by how often they were drawn: the same loss, each rendered once.
        share = torch.zeros_like(drawable).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=mean.dtype))
        terms = config if step >= 2 else early
        weights, remaining = composite(density, samples)
        loss = field_loss(weights, remaining, values, batch.targets, share / config.rays_per_step, terms)
        gradients = list(torch.autograd.grad(loss.sum(), (density, values)))
        if 4 * step >= 3 * PAPER_STEPS and config.tv_weight > 0:
            gradients[0] = gradients[0] + variation_gradient(density.detach()[..., None], smooth)[..., 0]
            cube = values.detach().reshape(*density.shape, channels)
            gradients[1] = gradients[1] + variation_gradient(cube, smooth).flatten(1, 3)
        for optimiser, gradient in zip(optimisers, gradients):
            optimiser.step(gradient)
    return density.detach().float(), values.detach().float()


def views_per_node(samples: RaySamples, view: Tensor) -> Tensor:
    """How many views have a sample whose nearest node this is: (B, R^3) int64, from view (B, K), -1 for padding."""
    resolution = samples.resolution
    if resolution == 1:
        nearest = torch.zeros(samples.length.shape, dtype=torch.int64)
    else:
        cell = ((samples.points.clamp(-1, 1) + 1) * ((resolution - 1) / 2)).round().long()
        nearest = (cell[..., 0] * resolution + cell[..., 1]) * resolution + cell[..., 2]
    n_views = int(view.max()) + 1
    valid = (samples.length > 0) & (view >= 0)[..., None]
    slot = (view.clamp_min(0)[..., None] * resolution**3 + nearest).flatten(1)
    counts = torch.zeros(len(view), n_views * resolution**3, dtype=torch.int64)
    counts.scatter_add_(1, slot, valid.flatten(1).long())
    return (counts > 0).reshape(len(view), n_views, -1).sum(1)


def variation_gradient(grid: Tensor, strength: Tensor) -> Tensor:
    """Gradient of a Huber total variation: differences of neighbours, clamped to [-1, 1], times ``strength`` (B,).

    Args:
        grid: (B, R, R, R, C).
    """
    out = torch.zeros_like(grid)
    for axis in (1, 2, 3):
        step = grid.diff(dim=axis).clamp(-1, 1)
        size = step.shape[axis]
        out.narrow(axis, 1, size).add_(step)
        out.narrow(axis, 0, size).sub_(step)
    return out * strength.reshape(-1, 1, 1, 1, 1)


def _solve(samples: RaySamples, density: Tensor, batch: RayBatch, config: FitConfig) -> Tensor:
    weights, _ = composite(density, samples)
    return RidgeSystem.build(weights, batch.weight, batch.targets).solve(config.ridge).to(weights.dtype)
