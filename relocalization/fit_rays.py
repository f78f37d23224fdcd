# SPDX-License-Identifier: Apache-2.0
"""What the views of landmarks observed, as rays: flat for the caller, padded batches for the solvers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision3d.voxels.rays import local_rays

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ObservedRays:
    """O rays through the boxes of M landmarks, each with the unit descriptor that was seen along it.

    Attributes:
        landmark: (O,) int64 in [0, M), in any order.
        view: (O,) int64, the image of the ray; the rays of one view count as one observation together.
        origins: (O, 3) world, metres, the camera's centre.
        directions: (O, 3) world, of any length.
        descriptors: (O, C) float32 or float16.
    """

    landmark: NDArray[np.int64]
    view: NDArray[np.int64]
    origins: Float
    directions: Float
    descriptors: NDArray[np.float32] | NDArray[np.float16]

    def __post_init__(self) -> None:
        n = len(self.landmark)
        shapes = {"view": (n,), "origins": (n, 3), "directions": (n, 3)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must be {shape}, got {getattr(self, name).shape}")
        if self.descriptors.ndim != 2 or len(self.descriptors) != n:
            raise ValueError(f"descriptors must be ({n}, C), got {self.descriptors.shape}")

    @classmethod
    def through_centers(
        cls,
        landmark: NDArray[np.int64],
        view: NDArray[np.int64],
        points: Float,
        cameras: Float,
        descriptors: NDArray[np.float32] | NDArray[np.float16],
    ) -> ObservedRays:
        """One ray per observation, from the camera through the landmark itself: the ray that a query renders.

        Args:
            landmark, view: (O,) which landmark was seen in which image.
            points: (M, 3) landmarks, world, metres.
            cameras: (I, 3) camera centres of the images.
            descriptors: (O, C) what was observed.
        """
        origins = cameras[view]
        return cls(landmark, view, origins, points[landmark] - origins, descriptors)


@dataclass(frozen=True, eq=False)
class RayBatch:
    """Padded rays of B landmarks in box coordinates.

    Attributes:
        landmarks: (B,) int64 which landmarks these are.
        origins, directions: (B, K, 3) float32 or float64 box coordinates.
        targets: (B, K, C) of the same type.
        weight: (B, K) 1 / (rays of the same view), so that each view weighs 1; 0 is padding.
        view: (B, K) int64, 0, 1, ... within the landmark; -1 is padding.
    """

    landmarks: Tensor
    origins: Tensor
    directions: Tensor
    targets: Tensor
    weight: Tensor
    view: Tensor

    @property
    def n_views(self) -> Tensor:
        """(B,) number of views."""
        return self.view.amax(1) + 1


def batches(
    rays: ObservedRays,
    centers: Float,
    half_sizes: Float,
    size: int,
    axes: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    only: NDArray[np.int64] | None = None,
) -> Iterator[RayBatch]:
    """Landmarks in batches of similar ray counts, so that little is padded. Landmarks without rays are left out.

    Args:
        rays: what was observed.
        centers, half_sizes: (M, 3) and (M,) boxes, metres.
        size: landmarks in a batch; fewer where they have many rays.
        axes: (M, 3, 3) of the boxes, see :class:`vision3d.voxels.grids.VoxelGrids`.
        dtype: of the batch.
        only: the landmarks to visit, all when None.
    """
    order = np.lexsort((np.arange(len(rays.landmark)), rays.view, rays.landmark))
    counts = np.bincount(rays.landmark, minlength=len(centers))
    start = np.concatenate([[0], np.cumsum(counts)])
    wanted = np.flatnonzero(counts) if only is None else only[counts[only] > 0]
    wanted = wanted[np.argsort(counts[wanted], kind="stable")]
    position = 0
    while position < len(wanted):
        # A batch is cut where its padded rays would outgrow what `size` landmarks of 64 rays need.
        longest = counts[wanted[position : position + size]]
        fits = np.arange(1, len(longest) + 1) * longest <= 64 * size
        take = max(1, int(fits.sum()))
        chosen = wanted[position : position + take]
        position += take
        yield _pad(rays, order, start, chosen, centers, half_sizes, axes, dtype)


def _pad(
    rays: ObservedRays,
    order: NDArray[np.int64],
    start: NDArray[np.int64],
    chosen: NDArray[np.int64],
    centers: Float,
    half_sizes: Float,
    axes: Tensor | None,
    dtype: torch.dtype,
) -> RayBatch:
    lengths = start[chosen + 1] - start[chosen]
    longest = int(lengths.max())
    column = np.arange(longest)
    real = column < lengths[:, None]
    # Padding repeats the landmark's first ray, with no weight: its geometry stays harmless.
    row = order[start[chosen][:, None] + np.where(real, column, 0)]
    image = rays.view[row]
    new_view = np.ones_like(real)
    new_view[:, 1:] = image[:, 1:] != image[:, :-1]
    view = np.where(real, np.cumsum(new_view & real, axis=1) - 1, -1)
    same = (view[:, :, None] == view[:, None, :]).sum(-1) if longest <= 512 else _count_same(view)
    weight = np.where(real, 1.0 / same, 0.0)
    flat = row.reshape(-1)
    box = np.repeat(chosen, longest)
    origins, directions = local_rays(
        torch.from_numpy(rays.origins[flat]),
        torch.from_numpy(rays.directions[flat]),
        torch.from_numpy(centers[box]),
        torch.from_numpy(half_sizes[box]),
        None if axes is None else axes[box],
    )
    shape = (len(chosen), longest, 3)
    return RayBatch(
        landmarks=torch.from_numpy(chosen),
        origins=origins.to(dtype).reshape(shape),
        directions=directions.to(dtype).reshape(shape),
        targets=torch.from_numpy(rays.descriptors[row]).to(dtype),
        weight=torch.from_numpy(weight).to(dtype),
        view=torch.from_numpy(view),
    )


def _count_same(view: NDArray[np.int64]) -> NDArray[np.int64]:
    counts = [np.bincount(v[v >= 0]) for v in view]
    return np.stack([np.where(v >= 0, c[np.maximum(v, 0)], 1) for v, c in zip(view, counts)])


def view_axes(rays: ObservedRays, n_landmarks: int, stretch: float) -> Tensor:
    """Axes of boxes that face the views: z along the mean viewing direction, x where the views spread most.

    They follow the cameras, so the fields do not change when the world frame is turned.

    Args:
        stretch: length over width of the boxes.

    Returns:
        (M, 3, 3) float32, a rotation whose last row is divided by ``stretch``; of the world's axes where the views
        surround the landmark or are missing.
    """
    unit = rays.directions / np.linalg.norm(rays.directions, axis=1, keepdims=True)
    total = np.zeros((n_landmarks, 3))
    np.add.at(total, rays.landmark, unit)
    length = np.linalg.norm(total, axis=1)
    count = np.bincount(rays.landmark, minlength=n_landmarks)
    known = length > 1e-3 * np.maximum(count, 1)
    z = np.where(known[:, None], total / np.maximum(length, 1e-12)[:, None], [0.0, 0.0, 1.0])
    # Spread around the mean direction; the direction itself is made the least spread of all.
    aside = unit - z[rays.landmark] * np.sum(unit * z[rays.landmark], axis=1, keepdims=True)
    scatter = np.zeros((n_landmarks, 3, 3))
    np.add.at(scatter, rays.landmark, aside[:, :, None] * aside[:, None, :])
    scatter -= (1.0 + count[:, None, None]) * z[:, :, None] * z[:, None, :]
    x = np.linalg.eigh(scatter)[1][:, :, 2]
    y = np.cross(z, x)
    axes = np.stack([x, y, z / stretch], axis=1)
    axes[~known] = np.diag([1.0, 1.0, 1.0 / stretch])
    return torch.from_numpy(axes).float()
