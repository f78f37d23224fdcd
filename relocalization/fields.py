# SPDX-License-Identifier: Apache-2.0
"""Descriptor fields of landmarks: what a landmark looks like from a direction, fitted to the views that saw it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relocalization.fit_adam import paper, polish
from relocalization.fit_config import FitConfig
from relocalization.fit_rays import ObservedRays, RayBatch, batches, view_axes
from relocalization.fit_ridge import choose_ridge, ridge_system, shared_density
from vision3d.voxels.grids import VoxelGrids
from vision3d.voxels.render import ray_weights

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fields:
    """Fitted fields of M landmarks and how well they render what was observed.

    Attributes:
        grids: boxes with density (1 or M, R, R, R) and descriptors (M, R, R, R, C), float32.
        cosine: (M,) mean over the views of the cosine between rendered and observed descriptor; 0 without rays.
        psnr_db: (M,) of the rendered descriptors, peak-to-peak 2; 0 without rays.
        ridge: the strength that was used; 0 with ``paper``.
        ridge_scores: strength -> mean cosine to left-out views, where it was chosen by that.
    """

    grids: VoxelGrids
    cosine: Tensor
    psnr_db: Tensor
    ridge: float
    ridge_scores: dict[float, float]


def fit_fields(
    rays: ObservedRays, centers: Float, half_sizes: Float, config: FitConfig | None = None, seed: int = 0
) -> Fields:
    """Fit one field per landmark; landmarks are independent but for the strength of the ridge.

    To add landmarks to a map, or to fit them in pieces, pass the first piece's ``ridge`` on in ``config.ridge``.

    Args:
        rays: what was observed. A landmark without rays gets zeros, which no matcher accepts.
        centers, half_sizes: (M, 3) and (M,) boxes, world, metres.
        config: see :class:`FitConfig`.
        seed: of the sample for the ridge's strength and of ``paper``'s rays.
    """
    config = config or FitConfig()
    resolution, channels, count = config.resolution, rays.descriptors.shape[1], len(centers)
    common = shared_density(resolution, config.density)
    axes = view_axes(rays, count, config.stretch) if config.axes == "view" else None
    ridge, scores = config.ridge, dict[float, float]()
    if ridge == 0.0 and config.method != "paper":
        ridge, scores = choose_ridge(rays, centers, half_sizes, common, config.marching, axes, seed)
    config = replace(config, ridge=ridge)

    values = torch.zeros(count, resolution**3, channels)
    density = common if config.method == "ridge" else common.repeat(count, 1, 1, 1)
    cosine, psnr = torch.zeros(count), torch.zeros(count)
    for batch in batches(rays, centers, half_sizes, config.batch, axes):
        batch_density, batch_values = _fit_batch(batch, common, config, seed)
        values[batch.landmarks] = batch_values
        if config.method != "ridge":
            density[batch.landmarks] = batch_density
        cosine[batch.landmarks], psnr[batch.landmarks] = _quality(batch, batch_density, batch_values, config)
    grids = VoxelGrids(
        centers=torch.as_tensor(centers, dtype=torch.float64),
        half_sizes=torch.as_tensor(half_sizes, dtype=torch.float64),
        density=density,
        values=values.reshape(count, resolution, resolution, resolution, channels),
        axes=axes,
    )
    return Fields(grids, cosine, psnr, ridge, scores)


def _fit_batch(batch: RayBatch, common: Tensor, config: FitConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Density (1 or B, R, R, R) and values (B, R^3, C) of one batch."""
    if config.method == "polish":
        return polish(batch, common, config)
    if config.method == "paper":
        return paper(batch, config, seed)
    with torch.no_grad():
        return common, ridge_system(batch, common, config.marching).solve(config.ridge).float()


@torch.no_grad()
def _quality(batch: RayBatch, density: Tensor, values: Tensor, config: FitConfig) -> tuple[Tensor, Tensor]:
    """Mean cosine and PSNR (B,) of a batch, each view weighing the same."""
    weights, _ = ray_weights(density, batch.origins, batch.directions, marching=config.marching)
    rendered = weights @ values
    total = batch.weight.sum(1)
    cosine = torch.nn.functional.cosine_similarity(rendered, batch.targets, dim=-1)
    error = ((rendered - batch.targets).square().mean(-1) * batch.weight).sum(1) / total
    return (cosine * batch.weight).sum(1) / total, 10 * torch.log10(4.0 / error.clamp_min(1e-10))
