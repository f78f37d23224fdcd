# SPDX-License-Identifier: Apache-2.0
"""Rays through the pixels around a landmark's observations, with the dense descriptors seen there (card, step 6)."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from relocalization.features.base import Extractor
from relocalization.fit_config import FitConfig
from relocalization.fit_rays import ObservedRays
from relocalization.landmark_map import MapImages
from relocalization.mapping import TriangulatedTracks
from vision3d.contracts import FitContext, Reader
from vision3d.errors import UserError
from vision3d.geometry import se3


def patch_rays(
    landmarks: TriangulatedTracks,
    images: MapImages,
    train: Reader,
    extractor: Extractor,
    config: FitConfig,
    context: FitContext,
) -> ObservedRays:
    """All rays of all patches. Observations are replaced by the reprojections of their landmark, as the paper does.

    Raises:
        UserError: the extractor has no dense descriptor map.
    """
    if not extractor.has_dense:
        raise UserError(
            f"fit.patch_radius is {config.patch_radius}, but {extractor.name} has no dense descriptor map; "
            "use 0, or one of the alike networks"
        )
    reach = np.arange(-config.patch_radius, config.patch_radius + 1, config.patch_stride)
    offsets = np.stack(np.meshgrid(reach, reach), axis=-1).reshape(-1, 2).astype(np.float64)
    tracks = landmarks.tracks
    owner = tracks.track
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]] = []
    descriptors = []
    for i in context.progress(range(len(images)), len(images), "patches"):
        rows = np.flatnonzero(tracks.image == i)
        camera, T = images.cameras[i], images.T_world_cam[i]
        uv_px = camera.project(se3.transform(se3.invert(T), landmarks.points[owner[rows]]))
        pixels = (uv_px[:, None] + offsets).reshape(-1, 2)
        inside = camera.contains(pixels)
        pixels = pixels[inside]
        arrays = context.cached(f"patches/{i:06d}", partial(_sample, train, i, extractor, pixels))
        landmark = np.repeat(owner[rows], len(offsets))[inside]
        directions = camera.rays(pixels) @ T[:3, :3].T
        origins = np.broadcast_to(T[:3, 3], directions.shape)
        parts.append((landmark, np.full(len(landmark), i, np.int64), origins, directions))
        descriptors.append(arrays["descriptors"])
    columns = [np.concatenate(column) for column in zip(*parts)]
    return ObservedRays(columns[0], columns[1], columns[2], columns[3], np.concatenate(descriptors))


def _sample(train: Reader, i: int, extractor: Extractor, pixels: NDArray[np.float64]) -> dict[str, NDArray[np.float16]]:
    return {"descriptors": extractor(train[i].image, dense=True).sample(pixels).astype(np.float16)}
