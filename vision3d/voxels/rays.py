# SPDX-License-Identifier: Apache-2.0
"""Rays in box coordinates, where every box is [-1, 1]^3, and their clipping."""

from __future__ import annotations

import torch
from torch import Tensor


def clip_to_box(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays run inside the box: (..., 3) origins and directions -> entry and exit (...,), ``0 <= entry <= exit``.

    Slab method. A ray that misses the box, or only leaves it behind its origin, has ``entry = exit = 0``.
    Components of the direction may be zero; the unit of the result is the length of the direction.
    """
    parallel = directions == 0
    inverse = 1.0 / torch.where(parallel, torch.ones_like(directions), directions)
    near_side = (-directions.sign() - origins) * inverse
    far_side = (directions.sign() - origins) * inverse
    # Along an axis it runs parallel to, a ray lies between the two planes everywhere or nowhere.
    infinity = torch.full_like(origins, torch.inf)
    nowhere = parallel & (origins.abs() > 1.0)
    entry = torch.where(parallel, torch.where(nowhere, infinity, -infinity), near_side).amax(-1).clamp_min(0.0)
    leave = torch.where(parallel, infinity, far_side).amin(-1)
    hit = (leave > entry) & torch.isfinite(leave)
    zero = torch.zeros_like(entry)
    return torch.where(hit, entry, zero), torch.where(hit, leave, zero)


def local_rays(
    origins_world: Tensor,
    directions_world: Tensor,
    centers: Tensor,
    half_sizes: Tensor,
    axes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Rays in the coordinates of their boxes, started where they enter.

    The subtraction of large world coordinates and the walk from a far camera to a small box happen in float64;
    after that float32 is enough, whatever the world's extent.

    Args:
        origins_world, directions_world: (M, 3), metres; directions of any length but zero.
        centers, half_sizes: (M, 3) and (M,), metres, the box of each ray.
        axes: (M, 3, 3) where boxes are turned or stretched: box coordinates are ``axes @ (x - center) / half_size``.

    Returns:
        origins (M, 3) on the box (or inside it, or unchanged where the ray misses) and unit directions (M, 3), float64.
    """
    origins = (origins_world.double() - centers.double()) / half_sizes.double()[..., None]
    directions = directions_world.double()
    if axes is not None:
        origins = (axes.double() @ origins[..., None])[..., 0]
        directions = (axes.double() @ directions[..., None])[..., 0]
    directions = torch.nn.functional.normalize(directions, dim=-1, eps=0.0)
    entry, _ = clip_to_box(origins, directions)
    return origins + entry[..., None] * directions, directions
