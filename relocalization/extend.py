# SPDX-License-Identifier: Apache-2.0
"""Adding images to a map. Landmarks are independent of each other, so only those that gain a view are fitted anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from relocalization.build import MapBuilder, TrainingImages, box_sizes
from relocalization.config import FavorConfig
from relocalization.describe import Describer
from relocalization.features.base import Extractor
from relocalization.fields import fit_fields
from relocalization.fit_config import FitConfig
from relocalization.fit_rays import ObservedRays
from relocalization.landmark_map import LandmarkMap, MapImages
from relocalization.lens import with_lens
from relocalization.mapping import TriangulatedTracks, normalized
from relocalization.match_images import ImageFeatures
from relocalization.matching import guided_nn
from relocalization.retrieval import RetrievalIndex
from relocalization.tracks import Tracks
from vision3d.contracts import FitContext, Reader
from vision3d.errors import UserError
from vision3d.geometry import se3
from vision3d.geometry.triangulation import TriangulationConfig, triangulate
from vision3d.voxels.grids import VoxelGrids

Ints = NDArray[np.int64]

# Known poses put a landmark within a few pixels of where it is seen.
SEARCH_PX = 4.0


def extend_map(
    old: LandmarkMap, train: Reader, config: FavorConfig, extractor: Extractor, context: FitContext
) -> LandmarkMap:
    """``old`` with the frames of ``train``: known landmarks gain observations, unknown points become landmarks.

    Raises:
        UserError: a frame is in the map already.
    """
    config = replace(config, fit=_fit_of(old, config.fit))
    builder = MapBuilder(config, extractor, context)
    fresh = builder.extract(train)
    if old.lens is not None:
        fresh = replace(fresh, images=with_lens(fresh.images, old.lens))
    known = sorted(set(fresh.images.names) & set(old.images.names))
    if known:
        raise UserError(f"{known[0]}: is in the map already ({len(known)} of {len(fresh.images)} frames are)")
    images = MapImages(
        old.images.names + fresh.images.names,
        old.images.cameras + fresh.images.cameras,
        np.concatenate([old.images.T_world_cam, fresh.images.T_world_cam]),
    )
    seen = [_observe(old, fresh, k, builder.similarity, config) for k in range(len(fresh.images))]
    tracks, descriptors, changed = _with_observations(old, fresh, seen)
    grown = _refit(old, images, tracks, descriptors, changed, config, context.seed)
    context.log(f"{int(changed.sum())} of {len(old)} landmarks gained views")
    added = _new_landmarks(builder, fresh, seen, train)
    if added is not None:
        grown = _concatenate(grown, added, len(old.images))
        context.log(f"{len(added)} new landmarks")
    index = RetrievalIndex.from_arrays(old.retrieval).extended([f.descriptors for f in fresh.features])
    return replace(grown, retrieval=index.to_arrays())


def _fit_of(old: LandmarkMap, fit: FitConfig) -> FitConfig:
    """How the map's own fields were fitted: all of a map are rendered alike, whatever is configured now."""
    grids = old.grids
    fit = replace(
        fit,
        ridge=float(old.facts.get("ridge", 0.0)),
        marching=old.marching,
        resolution=grids.resolution,
        axes="world" if grids.axes is None else "view",
    )
    if len(grids.density) > 1:
        return fit
    return replace(fit, method="ridge", density=float(grids.density.flatten()[0]))


def _observe(
    old: LandmarkMap, fresh: TrainingImages, image: int, similarity: float, config: FavorConfig
) -> tuple[Ints, Ints]:
    """(landmarks, key points) that one new image sees of the old map."""
    camera, T = fresh.images.cameras[image], fresh.images.T_world_cam[image]
    describer = Describer(old, "voxel", config.localize.cone_deg)
    view = describer.viewpoint(T[:3, 3])
    uv_px = camera.project(se3.transform(se3.invert(T), old.points))
    visible = np.flatnonzero(camera.contains(uv_px) & (view.angle_deg <= config.localize.max_angle_deg))
    look = describer.appearance(T[:3, 3], visible, view)
    features = fresh.features[image]
    pairs, _ = guided_nn(
        look.descriptors, uv_px[visible], features.descriptors, features.keypoints, SEARCH_PX, similarity
    )
    return visible[pairs[:, 0]], pairs[:, 1]


def _with_observations(
    old: LandmarkMap, fresh: TrainingImages, seen: list[tuple[Ints, Ints]]
) -> tuple[Tracks, NDArray[np.float16], NDArray[np.bool_]]:
    """The old tracks with the new observations, their descriptors, and which landmarks (N,) gained any."""
    track, image = [old.tracks.track], [old.tracks.image]
    keypoint, uv, descriptors = [old.tracks.keypoint], [old.tracks.uv_px], [old.descriptors]
    for k, (landmark, found) in enumerate(seen):
        track.append(landmark)
        image.append(np.full(len(landmark), len(old.images) + k, np.int64))
        keypoint.append(found)
        uv.append(fresh.features[k].keypoints[found])
        descriptors.append(fresh.features[k].descriptors[found].astype(np.float16))
    owner = np.concatenate(track)
    order = np.argsort(owner, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(old)))]).astype(np.int64)
    tracks = Tracks(start, np.concatenate(image)[order], np.concatenate(keypoint)[order], np.concatenate(uv)[order])
    return tracks, np.concatenate(descriptors)[order], tracks.lengths > old.tracks.lengths


def _refit(
    old: LandmarkMap,
    images: MapImages,
    tracks: Tracks,
    descriptors: NDArray[np.float16],
    changed: NDArray[np.bool_],
    config: FavorConfig,
    seed: int,
) -> LandmarkMap:
    """Points and fields of the landmarks that gained views; the others keep theirs bit for bit."""
    rows = np.flatnonzero(changed)
    grown = tracks.subset(changed)
    gates = TriangulationConfig(
        min_parallax_deg=config.landmarks.min_parallax_deg, max_reprojection_px=config.landmarks.max_error_px
    )
    focal = np.array([c.focal for c in images.cameras])
    moved = triangulate(
        normalized(grown, images), grown.image, grown.track, images.T_world_cam, focal, len(rows), gates
    )
    points, covariance = old.points.copy(), old.covariance.copy()
    # A landmark whose views no longer agree keeps its old point: its new observations were the odd ones.
    points[rows[moved.ok]], covariance[rows[moved.ok]] = moved.points_world[moved.ok], moved.covariance[moved.ok]
    everything = TriangulatedTracks(tracks, points, covariance, np.zeros(len(points)), {})
    half_sizes = old.grids.half_sizes.numpy().copy()
    half_sizes[rows] = box_sizes(everything, images, config.landmarks.box_px)[rows]
    chosen = changed[tracks.track]
    local = np.cumsum(changed) - 1
    rays = ObservedRays.through_centers(
        local[tracks.track[chosen]],
        tracks.image[chosen],
        points[rows],
        images.T_world_cam[:, :3, 3],
        descriptors[chosen].astype(np.float32),
    )
    fields = fit_fields(rays, points[rows], half_sizes[rows], config.fit, seed)
    values, density, axes = old.grids.values.clone(), old.grids.density, old.grids.axes
    if axes is not None and fields.grids.axes is not None:
        axes = axes.clone()
        axes[torch.from_numpy(rows)] = fields.grids.axes.to(axes.dtype)
    values[torch.from_numpy(rows)] = fields.grids.values.to(values.dtype)
    if len(density) > 1:
        density = density.clone()
        density[torch.from_numpy(rows)] = fields.grids.density.expand(len(rows), -1, -1, -1).to(density.dtype)
    grids = VoxelGrids(torch.from_numpy(points), torch.from_numpy(half_sizes), density, values, axes)
    return replace(
        old, points=points, covariance=covariance, grids=grids, tracks=tracks, descriptors=descriptors, images=images
    )


def _new_landmarks(
    builder: MapBuilder, fresh: TrainingImages, seen: list[tuple[Ints, Ints]], train: Reader
) -> LandmarkMap | None:
    """Landmarks from the key points of the new images that no old landmark explains; None if there are none."""
    unexplained, position = [], []
    for features, (_, used) in zip(fresh.features, seen):
        free = np.ones(len(features.keypoints), bool)
        free[used] = False
        position.append(np.flatnonzero(free))
        unexplained.append(ImageFeatures(features.keypoints[free], features.descriptors[free]))
    rest = TrainingImages(fresh.images, tuple(unexplained))
    try:
        added = builder.map_of(builder.landmarks(builder.tracks(train, rest), rest), rest, train)
    except UserError:
        return None
    tracks = added.tracks
    start = np.concatenate([[0], np.cumsum([len(p) for p in position])])
    keypoint = np.concatenate(position)[start[tracks.image] + tracks.keypoint]
    return replace(added, tracks=replace(tracks, keypoint=keypoint))


def _concatenate(old: LandmarkMap, new: LandmarkMap, image_offset: int) -> LandmarkMap:
    """Two sets of landmarks in one map; the images of ``new`` follow those of ``old``."""
    tracks = Tracks(
        np.concatenate([old.tracks.start, new.tracks.start[1:] + old.tracks.start[-1]]),
        np.concatenate([old.tracks.image, new.tracks.image + image_offset]),
        np.concatenate([old.tracks.keypoint, new.tracks.keypoint]),
        np.concatenate([old.tracks.uv_px, new.tracks.uv_px]),
    )
    a, b = old.grids, new.grids
    shared = len(a.density) == len(b.density) == 1 and bool((a.density == b.density).all())
    density = (
        a.density if shared else torch.cat([g.density.expand(len(g), -1, -1, -1).to(a.density.dtype) for g in (a, b)])
    )
    grids = VoxelGrids(
        torch.cat([a.centers, b.centers]),
        torch.cat([a.half_sizes, b.half_sizes]),
        density,
        torch.cat([a.values, b.values.to(a.values.dtype)]),
        None if a.axes is None or b.axes is None else torch.cat([a.axes, b.axes.to(a.axes.dtype)]),
    )
    return replace(
        old,
        points=np.concatenate([old.points, new.points]),
        covariance=np.concatenate([old.covariance, new.covariance]),
        grids=grids,
        tracks=tracks,
        descriptors=np.concatenate([old.descriptors, new.descriptors]),
    )
