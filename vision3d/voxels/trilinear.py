# SPDX-License-Identifier: Apache-2.0
"""Trilinear interpolation on R^3 nodes that fill the box [-1, 1]^3, corner to corner.

Node order everywhere: node (i, j, k) lies at ``-1 + 2 (i, j, k) / (R - 1)`` in (x, y, z) and has the flat
index ``(i R + j) R + k``. A single node (R = 1) stands for a constant field.
"""

from __future__ import annotations

import torch
from torch import Tensor


def node_positions(resolution: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(R^3, 3) box coordinates of the nodes in flat order; the centre for R = 1."""
    if resolution == 1:
        return torch.zeros(1, 3, dtype=dtype)
    line = torch.linspace(-1.0, 1.0, resolution, dtype=dtype)
    return torch.cartesian_prod(line, line, line)


def axis_weights(points: Tensor, resolution: int) -> Tensor:
    """Linear weights of the R nodes of each axis: (..., 3) box coordinates -> (..., 3, R), rows sum to 1.

    Points outside the box take the value at the nearest point of its surface.
    """
    if resolution == 1:
        return torch.ones_like(points)[..., None]
    nodes = torch.arange(resolution, dtype=points.dtype, device=points.device)
    position = ((points.clamp(-1.0, 1.0) + 1.0) * ((resolution - 1) / 2.0))[..., None]
    return (1.0 - (position - nodes).abs()).clamp_min(0.0)


def trilinear_weights(points: Tensor, resolution: int) -> Tensor:
    """(..., 3) box coordinates -> (..., R^3) weights of the nodes in flat order, at most eight of them not zero."""
    weights = axis_weights(points, resolution)
    x, y, z = weights[..., 0, :], weights[..., 1, :], weights[..., 2, :]
    return (x[..., :, None, None] * y[..., None, :, None] * z[..., None, None, :]).flatten(-3)


def interpolate(values: Tensor, points: Tensor) -> Tensor:
    """Values of N fields at K points each.

    Args:
        values: (N, R, R, R, C) node values.
        points: (N, K, 3) box coordinates.

    Returns:
        (N, K, C), differentiable in both arguments.
    """
    resolution = values.shape[1]
    return trilinear_weights(points, resolution) @ values.reshape(len(values), resolution**3, -1)
