# SPDX-License-Identifier: Apache-2.0
"""Building a map: features -> matches -> tracks -> landmarks -> descriptor fields (card, steps 1 to 6)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from relocalization.config import FavorConfig
from relocalization.features.base import Extractor
from relocalization.fields import fit_fields
from relocalization.fit_rays import ObservedRays
from relocalization.imported import imported_tracks
from relocalization.landmark_map import LandmarkMap, MapImages
from relocalization.lens import fit_lens, with_lens
from relocalization.mapping import TriangulatedTracks, choose_landmarks, merge_duplicates, triangulate_landmarks
from relocalization.match_images import ImageFeatures, match_pairs, pairs_to_match
from relocalization.patches import patch_rays
from relocalization.retrieval import RetrievalIndex
from relocalization.tracks import Tracks, median_descriptors, tracks_from_matches
from vision3d.contracts import FitContext, Reader
from vision3d.errors import DataError, UserError
from vision3d.geometry.cameras import Camera
from vision3d.voxels.grids import VoxelGrids, box_half_sizes

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The map images with their features."""

    images: MapImages
    features: tuple[ImageFeatures, ...]


class MapBuilder:
    """The steps from a reader to a map, each resumable through the context's cache."""

    def __init__(self, config: FavorConfig, extractor: Extractor, context: FitContext) -> None:
        self.config = config
        self.extractor = extractor
        self.context = context
        self.similarity = config.tracks.similarity or extractor.similarity

    def build(self, train: Reader) -> LandmarkMap:
        """The map of all frames of ``train``.

        Raises:
            UserError: fewer than two frames, or no track could be triangulated.
            DataError: a frame has no pose.
        """
        if len(train) < 2:
            raise UserError(f"{train.name}: a map needs at least 2 images with poses, found {len(train)}")
        training = self.extract(train)
        tracks = self.tracks(train, training)
        fitted = fit_lens(training.images, tracks) if self.config.landmarks.calibrate else None
        if fitted is not None:
            self.context.log(fitted.summary())
            training = replace(training, images=with_lens(training.images, fitted.lens))
            # Epipolar lines were bent: with the right lens more matches lie on them, and fewer wrong ones.
            tracks = self.tracks(train, training, "rematches")
        landmarks = self.landmarks(tracks, training)
        built = self.map_of(landmarks, training, train)
        if fitted is None:
            return built
        return replace(built, lens=fitted.lens, facts={**built.facts, "lens": fitted.facts()})

    def extract(self, train: Reader) -> TrainingImages:
        """Step 1: key points and descriptors of every image."""
        names, cameras, poses, features = [], [], [], []
        for i in self.context.progress(range(len(train)), len(train), "features"):
            truth = train.truth(i)
            if truth is None:
                raise DataError(train.key(i), "has no pose; a map needs one for every image (--truth, --skip-bad)")
            arrays = self.context.cached(f"features/{i:06d}", partial(self._extract_one, train, i))
            names.append(train.key(i))
            cameras.append(Camera.from_json(json.loads(arrays["camera"].tobytes())))
            poses.append(truth.T_world_cam)
            features.append(ImageFeatures(arrays["keypoints"], arrays["descriptors"]))
        return TrainingImages(MapImages(tuple(names), tuple(cameras), np.stack(poses)), tuple(features))

    def tracks(self, train: Reader, training: TrainingImages, key: str = "matches") -> Tracks:
        """Step 2: which key points are the same point of the world."""
        if self.config.tracks.source == "imported":
            return imported_tracks(train, training.images.names, [f.keypoints for f in training.features])
        pairs = pairs_to_match(training.images, self.config.tracks)
        matches = []
        # One cache entry per stretch of pairs: few enough files, and little lost to a kill.
        stretch = 64
        for start in self.context.progress(range(0, len(pairs), stretch), -(-len(pairs) // stretch), "matching"):
            part = pairs[start : start + stretch]
            arrays = self.context.cached(f"{key}/{start:06d}", partial(self._match, training, part))
            cuts = np.cumsum(arrays["counts"])[:-1]
            for (a, b), found, score in zip(
                part.tolist(), np.split(arrays["pairs"], cuts), np.split(arrays["similarity"], cuts)
            ):
                matches.append((a, b, found, score))
        return tracks_from_matches(matches, [f.keypoints for f in training.features])

    def landmarks(self, tracks: Tracks, training: TrainingImages) -> TriangulatedTracks:
        """Steps 3 and 4: points of the world, duplicates merged, the best of them chosen."""
        config = self.config.landmarks
        found = triangulate_landmarks(tracks, training.images, config)
        self.context.log(f"{len(tracks)} tracks, {len(found)} triangulated; rejected: {_counts(found.rejected)}")
        if self.config.tracks.merge_similarity < 1 and len(found):
            medians = median_descriptors(found.tracks, descriptors_of(found.tracks, training.features))
            merged, absorbed = merge_duplicates(found, medians, self.config.tracks.merge_similarity)
            if absorbed:
                found = replace(triangulate_landmarks(merged, training.images, config), rejected=found.rejected)
                self.context.log(f"{absorbed} tracks merged into others that show the same point")
        chosen = choose_landmarks(found, config.max_landmarks)
        if len(chosen) < len(found):
            self.context.log(f"{len(chosen)} of {len(found)} landmarks kept (landmarks.max_landmarks)")
        if not len(chosen):
            raise UserError(
                "no point could be triangulated: do the images overlap, and do poses and intrinsics belong to them?"
            )
        return chosen

    def map_of(self, landmarks: TriangulatedTracks, training: TrainingImages, train: Reader) -> LandmarkMap:
        """Steps 5 and 6: a box around every landmark and a field fitted in it."""
        images, tracks = training.images, landmarks.tracks
        descriptors = descriptors_of(tracks, training.features)
        half_sizes = box_sizes(landmarks, images, self.config.landmarks.box_px)
        rays = self._rays(landmarks, training, train, descriptors)
        arrays = self.context.cached("fields", lambda: self._fit(rays, landmarks.points, half_sizes))
        grids = VoxelGrids(
            torch.from_numpy(landmarks.points),
            torch.from_numpy(half_sizes),
            torch.from_numpy(arrays["density"]),
            torch.from_numpy(arrays["values"]),
            torch.from_numpy(arrays["axes"]) if "axes" in arrays else None,
        )
        retrieval = self.context.cached(
            "retrieval",
            lambda: RetrievalIndex.build([f.descriptors for f in training.features], self.context.seed).to_arrays(),
        )
        self.context.log(
            f"{len(landmarks)} landmarks, {tracks.lengths.mean():.2f} views each; "
            f"the fields render their own views with a mean cosine of {arrays['cosine'].mean():.3f}"
        )
        return LandmarkMap(
            points=landmarks.points,
            covariance=landmarks.covariance,
            grids=grids,
            tracks=tracks,
            descriptors=descriptors.astype(np.float16),
            images=images,
            extractor=self.extractor.fingerprint,
            feature_name=self.extractor.name,
            retrieval=retrieval,
            marching=self.config.fit.marching,
            facts={
                "ridge": float(arrays["ridge"][0]),
                "field_cosine": round(float(arrays["cosine"].mean()), 4),
                "rejected_tracks": landmarks.rejected,
            },
        )

    def _extract_one(self, train: Reader, i: int) -> dict[str, NDArray[Any]]:
        frame = train[i]
        features = self.extractor(frame.image)
        camera = np.frombuffer(json.dumps(frame.camera.to_json()).encode(), dtype=np.uint8)
        return {"keypoints": features.keypoints, "descriptors": features.descriptors, "camera": camera}

    def _match(self, training: TrainingImages, pairs: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        found = list(
            match_pairs(
                training.images, training.features, pairs, self.config.tracks, self.similarity, self.context.seed
            )
        )
        return {
            "counts": np.array([len(m.pairs) for m in found], dtype=np.int64),
            "pairs": np.concatenate([m.pairs for m in found]),
            "similarity": np.concatenate([m.similarity for m in found]),
        }

    def _rays(
        self, landmarks: TriangulatedTracks, training: TrainingImages, train: Reader, descriptors: NDArray[np.float32]
    ) -> ObservedRays:
        if self.config.fit.patch_radius:
            return patch_rays(landmarks, training.images, train, self.extractor, self.config.fit, self.context)
        tracks, centers = landmarks.tracks, training.images.T_world_cam[:, :3, 3]
        return ObservedRays.through_centers(tracks.track, tracks.image, landmarks.points, centers, descriptors)

    def _fit(self, rays: ObservedRays, points: Float, half_sizes: Float) -> dict[str, NDArray[Any]]:
        fields = fit_fields(rays, points, half_sizes, self.config.fit, self.context.seed)
        return {
            "density": fields.grids.density.numpy().astype(self.config.landmarks.dtype),
            "values": fields.grids.values.numpy().astype(self.config.landmarks.dtype),
            "cosine": fields.cosine.numpy(),
            "ridge": np.array([fields.ridge]),
            **({} if fields.grids.axes is None else {"axes": fields.grids.axes.numpy()}),
        }


def descriptors_of(tracks: Tracks, features: Sequence[ImageFeatures]) -> NDArray[np.float32]:
    """(M, C) the descriptor of every observation."""
    offsets = np.concatenate([[0], np.cumsum([len(f.keypoints) for f in features])])
    table = np.concatenate([f.descriptors for f in features])
    return table[offsets[tracks.image] + tracks.keypoint]


def box_sizes(landmarks: TriangulatedTracks, images: MapImages, box_px: float) -> Float:
    """(N,) half sides of the boxes, metres: ``box_px`` pixels wide in the nearest view (step 5)."""
    tracks = landmarks.tracks
    distance = np.linalg.norm(landmarks.points[tracks.track] - images.T_world_cam[tracks.image, :3, 3], axis=1)
    focal = np.array([c.focal for c in images.cameras])[tracks.image]
    # The footprint of a pixel, smallest over the views: images of different focal lengths may be mixed.
    footprint = np.minimum.reduceat(distance / focal, tracks.start[:-1])
    return box_half_sizes(torch.from_numpy(footprint), 1.0, box_px).numpy()


def _counts(reasons: dict[str, int]) -> str:
    return ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in reasons.items() if n) or "none"
