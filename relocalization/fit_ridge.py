# SPDX-License-Identifier: Apache-2.0
"""Descriptor fields in closed form: for a fixed density a rendered descriptor is linear in the node values.

Per landmark and channel, with the weights ``x_i = P_i / sum(P_i)`` of ray i and a free mean m,

    minimise  sum_i w_i (d_i - m - x_i u)^2 + ridge |u|^2,      V = m + u.

A node that no ray reaches keeps the mean m, so with few views the field falls back to the track's mean descriptor
instead of to zero; as ridge grows the field tends to m everywhere, as it falls each view renders to its own descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relocalization.fit_rays import ObservedRays, RayBatch, batches
from vision3d.voxels.marching import Marching
from vision3d.voxels.render import ray_weights

# Candidates of the strength; at the smallest a view renders to itself within a percent, the largest is nearly the mean.
RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_SAMPLE = 512  # landmarks from which the strength is chosen: its optimum is flat


@dataclass(frozen=True, eq=False)
class RidgeSystem:
    """Normal equations of B landmarks, in float64.

    Attributes:
        design: (B, K, 1 + R^3): a column of ones for the mean, then the normalised node weights of each ray.
        weight: (B, K), 0 for padding and for rays that miss the box.
        gram: (B, 1 + R^3, 1 + R^3) without the ridge.
        right: (B, 1 + R^3, C).
    """

    design: Tensor
    weight: Tensor
    gram: Tensor
    right: Tensor

    @classmethod
    def build(cls, node_weights: Tensor, weight: Tensor, targets: Tensor) -> RidgeSystem:
        """From ``P`` (B, K, R^3), ray weights (B, K) and descriptors (B, K, C)."""
        total = node_weights.double().sum(-1)
        design = node_weights.double() / total.clamp_min(1e-9)[..., None]
        design = torch.cat([torch.ones_like(total)[..., None], design], dim=-1)
        weight = weight.double() * (total > 1e-6)
        weighted = (design * weight[..., None]).transpose(1, 2)
        return cls(design, weight, weighted @ design, weighted @ targets.double())

    def factor(self, ridge: float) -> Tensor:
        """Cholesky factor (B, 1 + R^3, 1 + R^3) of the regularised normal equations."""
        penalty = torch.full((self.gram.shape[-1],), ridge, dtype=torch.float64)
        penalty[0] = 1e-9  # the mean is free; this only keeps a landmark without any hit solvable
        return torch.linalg.cholesky(self.gram + torch.diag(penalty))

    def solve(self, ridge: float) -> Tensor:
        """Node values (B, R^3, C) float64."""
        solution = torch.cholesky_solve(self.right, self.factor(ridge))
        return solution[:, :1] + solution[:, 1:]

    def leave_one_out(self, ridge: float, targets: Tensor) -> Tensor:
        """What each ray's descriptor would be, fitted without that ray: (B, K, C), without refitting anything.

        The residual grows by ``1 / (1 - h)``, h the ray's leverage. Meaningful where a view has one ray and
        the landmark has two views or more.
        """
        factor = self.factor(ridge)
        prediction = self.design @ torch.cholesky_solve(self.right, factor)
        half = torch.linalg.solve_triangular(factor, self.design.transpose(1, 2), upper=False)
        leverage = (half.square().sum(1) * self.weight).clamp_max(1 - 1e-9)
        residual = (targets.double() - prediction) / (1 - leverage)[..., None]
        return targets.double() - residual


def shared_density(resolution: int, density: float) -> Tensor:
    """(1, R, R, R) float32 homogeneous raw density that all landmarks share."""
    return torch.full((1, resolution, resolution, resolution), density)


def ridge_system(batch: RayBatch, density: Tensor, marching: Marching) -> RidgeSystem:
    """The normal equations of a batch under a density (1 or B, R, R, R)."""
    weights, _ = ray_weights(density, batch.origins, batch.directions, marching=marching)
    return RidgeSystem.build(weights, batch.weight, batch.targets)


@torch.no_grad()
def choose_ridge(
    rays: ObservedRays,
    centers: np.ndarray,
    half_sizes: np.ndarray,
    density: Tensor,
    marching: Marching,
    axes: Tensor | None = None,
    seed: int = 0,
) -> tuple[float, dict[float, float]]:
    """The ridge under which views that were left out are rendered best, over a sample of the landmarks.

    Descriptors of different networks differ in noise and in how they turn with the view, so the strength is measured
    on the map itself. Needs landmarks with three views or more; without any, a middling 0.1.

    Returns:
        the strength, and the mean cosine to the left-out descriptor for every candidate (empty without data);
        every landmark counts the same, however many views it has.
    """
    first = _first_ray_of_each_view(rays)
    views = np.bincount(first.landmark, minlength=len(centers))
    eligible = np.flatnonzero(views >= 3)
    if not len(eligible):
        return 0.1, {}
    chosen = np.random.default_rng(seed).permutation(eligible)[:_SAMPLE]
    total = dict.fromkeys(RIDGES, 0.0)
    count = 0
    for batch in batches(first, centers, half_sizes, 128, axes, only=np.sort(chosen)):
        system = ridge_system(batch, density, marching)
        for ridge in RIDGES:
            prediction = system.leave_one_out(ridge, batch.targets)
            cosine = torch.nn.functional.cosine_similarity(prediction, batch.targets.double(), dim=-1)
            total[ridge] += float(((cosine * system.weight).sum(1) / system.weight.sum(1).clamp_min(1e-9)).sum())
        count += len(batch.landmarks)
    scores = {ridge: value / count for ridge, value in total.items()}
    return max(scores, key=lambda r: (scores[r], r)), scores


def _first_ray_of_each_view(rays: ObservedRays) -> ObservedRays:
    """One ray per landmark and view: the first in the caller's order, which is the observation's own pixel."""
    _, first = np.unique(np.stack([rays.landmark, rays.view]), axis=1, return_index=True)
    return ObservedRays(
        rays.landmark[first], rays.view[first], rays.origins[first], rays.directions[first], rays.descriptors[first]
    )
