# SPDX-License-Identifier: Apache-2.0
"""Volume rendering: front-to-back compositing of trilinear samples, batched over boxes.

For a fixed density a rendered ray is linear in the node values: ``P(ray) @ V + T_last * background``, with one
weight per node in ``P`` (Polizzi et al., WACV 2025, section 3; opacity of DVGO). So all that depends on the
ray is computed once, without the channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vision3d.voxels.marching import Marching
from vision3d.voxels.rays import clip_to_box
from vision3d.voxels.trilinear import axis_weights

# Counting samples must not hang on the rounding of chord / step: a chord of 30 steps has 30 samples.
_COUNT_SLACK = 1e-4


@dataclass(frozen=True)
class RaySamples:
    """Where K rays meet each of N boxes: all of the rendering that depends neither on density nor on values.

    The trilinear weight of a sample factors into one for (x, y) and one for z, so ``R^2 + R`` numbers per sample
    stand for ``R^3``. A fit samples its rays once and composites many times.

    Attributes:
        points: (N, K, S, 3) box coordinates.
        plane: (N, K, S, R^2) weights of the node columns.
        height: (N, K, S, R) weights along a column.
        length: (N, K, S) length of the sample in voxels; 0 for padding and for rays that miss.
        marching: how the rays were sampled.
    """

    points: Tensor
    plane: Tensor
    height: Tensor
    length: Tensor
    marching: Marching

    @property
    def resolution(self) -> int:
        """R."""
        return self.height.shape[-1]


def ray_weights(
    density: Tensor,
    origins: Tensor,
    directions: Tensor,
    index: Tensor | None = None,
    marching: Marching | None = None,
) -> tuple[Tensor, Tensor]:
    """Weight of every node in every ray, and what is left of the light behind the box.

    Args:
        density: (N, R, R, R) raw densities; N = 1 is shared by all boxes.
        origins, directions: (M, 3) box coordinates, unit directions; or (N, K, 3), K rays for each box.
        index: (M,) the box of each flat ray; without it ray i belongs to box i.
        marching: sampling and opacity; :class:`Marching`'s defaults when None.

    Returns:
        ``P`` (M, R^3) or (N, K, R^3) and ``T_last`` (M,) or (N, K); ``P.sum(-1) + T_last = 1``. A ray that misses
        its box has ``P = 0``, ``T_last = 1``. Exact derivatives with respect to the density through autograd.
    """
    marching = marching or Marching()
    if origins.ndim == 2:
        if index is not None and len(density) > 1:
            density = density[index]
        samples = sample_rays(origins[:, None], directions[:, None], density.shape[-1], marching)
        weights, remaining = composite(density, samples)
        return weights[:, 0], remaining[:, 0]
    return composite(density, sample_rays(origins, directions, density.shape[-1], marching))


def render(
    density: Tensor,
    values: Tensor,
    origins: Tensor,
    directions: Tensor,
    index: Tensor | None = None,
    background: float | Tensor = 0.0,
    marching: Marching | None = None,
) -> Tensor:
    """Rendered values: ``P @ V + T_last * background``.

    Args:
        density, origins, directions, index, marching: as in :func:`ray_weights`.
        values: (N, R, R, R, C) or (N, R^3, C).
        background: what lies behind the box, a number or (C,).

    Returns:
        (M, C) for flat rays, (N, K, C) for K rays per box; differentiable in density and values.
    """
    weights, remaining = ray_weights(density, origins, directions, index, marching)
    flat = values.reshape(len(values), density.shape[-1] ** 3, values.shape[-1])
    if weights.ndim == 2:
        flat = flat if index is None else flat[index]
        out = torch.bmm(weights[:, None], flat.to(weights.dtype).expand(len(weights), -1, -1))[:, 0]
    else:
        out = weights @ flat.to(weights.dtype)
    return out + remaining[..., None] * background


def sample_rays(origins: Tensor, directions: Tensor, resolution: int, marching: Marching) -> RaySamples:
    """Samples on (N, K, 3) rays in box coordinates, in boxes of ``resolution``^3 nodes."""
    entry, leave = clip_to_box(origins, directions)
    chord = leave - entry
    voxel = 2.0 / resolution
    if marching.samples:
        n_samples = marching.samples
        step = chord / n_samples
        inside = (chord > 0)[..., None].expand(*chord.shape, n_samples)
    else:
        step = torch.full_like(chord, marching.step * voxel)
        counts = torch.ceil(chord / step - _COUNT_SLACK)
        n_samples = max(1, math.ceil(float(counts.max()))) if counts.numel() else 1
        inside = torch.arange(n_samples, device=origins.device) < counts[..., None]
    steps = torch.arange(n_samples, dtype=origins.dtype, device=origins.device)
    distance = entry[..., None] + steps * step[..., None]
    points = origins[..., None, :] + distance[..., None] * directions[..., None, :]
    along = axis_weights(points, resolution)
    plane = (along[..., 0, :, None] * along[..., 1, None, :]).flatten(-2)
    return RaySamples(points, plane, along[..., 2, :], (step / voxel)[..., None] * inside, marching)


def composite(density: Tensor, samples: RaySamples) -> tuple[Tensor, Tensor]:
    """:func:`ray_weights` of rays that were sampled before: (N or 1, R, R, R) -> (N, K, R^3) and (N, K)."""
    resolution, marching = samples.resolution, samples.marching
    n_boxes, n_rays, n_samples = samples.length.shape
    columns = density.reshape(len(density), resolution**2, resolution).to(samples.plane.dtype)
    columns = columns.expand(n_boxes, -1, -1)
    plane = samples.plane.reshape(n_boxes, n_rays * n_samples, resolution**2)
    sigma = (torch.bmm(plane, columns).reshape(samples.height.shape) * samples.height).sum(-1)

    # Optical depth: telescoping makes the weights and T_last sum to 1 to rounding.
    depth = torch.nn.functional.softplus(sigma + marching.shift, threshold=80.0) * samples.length
    before = depth.cumsum(-1) - depth
    if marching.early_stop > 0:
        depth = depth * (before <= -math.log(marching.early_stop))
    weights = torch.exp(-before) * -torch.expm1(-depth)
    nodes = samples.plane.transpose(-1, -2) @ (samples.height * weights[..., None])
    return nodes.flatten(-2), torch.exp(-depth.sum(-1))
