# SPDX-License-Identifier: Apache-2.0
"""Voxel grids that are globally sparse and locally dense: N small boxes anywhere in space, R^3 nodes in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision3d.voxels.center_rays import center_rays
from vision3d.voxels.marching import Marching
from vision3d.voxels.rays import local_rays
from vision3d.voxels.render import render


def box_half_sizes(nearest_m: Tensor, focal_px: Tensor | float, side_px: float) -> Tensor:
    """Half sides of boxes whose image at the nearest camera is ``side_px`` wide.

    Args:
        nearest_m: (N,) Euclidean distance from each centre to the nearest camera that saw it, metres.
        focal_px: (N,) or one focal length in pixels.
        side_px: width of the box in pixels (FaVoR: 7 in the paper, 12 in the published code).
    """
    return 0.5 * side_px * nearest_m.double() / torch.as_tensor(focal_px, dtype=torch.float64)


@dataclass(frozen=True)
class VoxelGrids:
    """N boxes, each with a grid of R^3 nodes of density and C values (radiance, descriptors, ...).

    Node (i, j, k) has the box coordinates ``-1 + 2 (i, j, k) / (R - 1)``; a point x of the world has
    ``axes @ (x - center) / half_size``, with the world's own axes where ``axes`` is None. All rendering happens in box
    coordinates computed in float64, so nothing is lost far from the world's origin.

    Attributes:
        centers: (N, 3) float64, metres.
        half_sizes: (N,) float64, half of the side, metres.
        density: (N, R, R, R) raw density (see :class:`Marching`), float32 or float16; (1, R, R, R) is shared by all.
        values: (N, R, R, R, C) float32 or float16.
        axes: None, or (N, 3, 3) float32 of boxes that are turned (a rotation) or stretched (divided along an axis).
    """

    centers: Tensor
    half_sizes: Tensor
    density: Tensor
    values: Tensor
    axes: Tensor | None = None

    def __post_init__(self) -> None:
        n, resolution = self.values.shape[0], self.values.shape[1]
        cube = (resolution, resolution, resolution)
        if self.values.ndim != 5 or self.values.shape[1:4] != cube:
            raise ValueError(f"values must be (N, R, R, R, C), got {tuple(self.values.shape)}")
        if self.density.shape not in ((n, *cube), (1, *cube)):
            raise ValueError(f"density must be {(n, *cube)} or {(1, *cube)}, got {tuple(self.density.shape)}")
        if self.centers.shape != (n, 3) or self.half_sizes.shape != (n,):
            raise ValueError(f"need {n} centers and half_sizes, got {len(self.centers)} and {len(self.half_sizes)}")
        if self.axes is not None and self.axes.shape != (n, 3, 3):
            raise ValueError(f"axes must be {(n, 3, 3)}, got {tuple(self.axes.shape)}")
        if self.centers.dtype != torch.float64 or self.half_sizes.dtype != torch.float64:
            raise ValueError("centers and half_sizes must be float64: world coordinates do not fit float32")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def resolution(self) -> int:
        """R, nodes along one side."""
        return self.values.shape[1]

    @property
    def channels(self) -> int:
        """C."""
        return self.values.shape[-1]

    def subset(self, index: Tensor) -> VoxelGrids:
        """The boxes at ``index``, integers (M,) or a mask (N,)."""
        density = self.density if len(self.density) == 1 else self.density[index]
        axes = None if self.axes is None else self.axes[index]
        return VoxelGrids(self.centers[index], self.half_sizes[index], density, self.values[index], axes)

    def rays_from(self, camera_world: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rays from one point through the centres of boxes, in box coordinates.

        Args:
            camera_world: (3,) float64, metres.
            index: (M,) boxes; all when None.

        Returns:
            origins and unit directions, (M, 3) float32.
        """
        centers = self.centers if index is None else self.centers[index]
        halves = self.half_sizes if index is None else self.half_sizes[index]
        axes = self.axes if self.axes is None or index is None else self.axes[index]
        camera = camera_world.double().expand_as(centers)
        origins, directions = local_rays(camera, centers - camera, centers, halves, axes)
        return origins.float(), directions.float()

    @torch.no_grad()
    def render_from(
        self,
        camera_world: Tensor | NDArray[np.float64],
        index: Tensor | None = None,
        marching: Marching | None = None,
        chunk: int = 512,
    ) -> Tensor:
        """What one camera sees of each box along the ray through its centre; for inference.

        Args:
            camera_world: (3,) camera centre, metres.
            index: (M,) boxes; all when None.
            chunk: boxes at a time, small enough for the processor's cache.

        Returns:
            (M, C) float32, not normalised, background 0.
        """
        camera = torch.as_tensor(camera_world, dtype=torch.float64)
        if len(self.density) == 1:
            return self._render_shared(camera, index, marching or Marching(), chunk)
        origins, directions = self.rays_from(camera, index)
        out = torch.empty(len(origins), self.channels)
        for start in range(0, len(origins), chunk):
            part = slice(start, start + chunk)
            boxes = part if index is None else index[part]
            density = self.density if len(self.density) == 1 else self.density[boxes]
            rays = origins[part], directions[part]
            out[part] = render(density.float(), self.values[boxes], *rays, marching=marching)
        return out

    def _render_shared(self, camera: Tensor, index: Tensor | None, marching: Marching, chunk: int) -> Tensor:
        """:meth:`render_from` for boxes of one density: weights by direction from a table, then one product."""
        centers = self.centers if index is None else self.centers[index]
        directions = centers - camera
        if self.axes is not None:
            axes = self.axes if index is None else self.axes[index]
            directions = (axes.double() @ directions[..., None])[..., 0]
        weights = center_rays(self.density, marching).weights(directions)
        flat = self.values.flatten(1, 3)
        out = torch.empty(len(centers), self.channels)
        for start in range(0, len(centers), chunk):
            part = slice(start, start + chunk)
            nodes = flat[part] if index is None else flat[index[part]]
            out[part] = torch.bmm(weights[part, None], nodes.float())[:, 0]
        return out
