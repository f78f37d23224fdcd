# SPDX-License-Identifier: Apache-2.0
"""A room of made-up landmarks: two walls facing each other, cameras that look at one of them, descriptors that turn
with the direction of view. No image is rendered, so everything about it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from relocalization.features.base import Features
from relocalization.fields import fit_fields
from relocalization.fit_config import FitConfig
from relocalization.fit_rays import ObservedRays
from relocalization.landmark_map import LandmarkMap, MapImages
from relocalization.retrieval import RetrievalIndex
from relocalization.tracks import Tracks
from vision3d.geometry import se3
from vision3d.geometry.cameras import Camera

T = TypeVar("T")
Float = NDArray[np.float64]

CAMERA = Camera("PINHOLE", 320, 240, (260.0, 262.0, 158.3, 121.4))
CHANNELS = 32


@dataclass
class Context:
    """A FitContext in memory; ``store`` may be shared, ``lines`` is the log."""

    seed: int = 0
    store: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def cached(self, key: str, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        if key not in self.store:
            self.store[key] = make()
        return self.store[key]

    def progress(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        return iter(items)

    def log(self, message: str) -> None:
        self.lines.append(message)


def looking_at(center: Float, target: Float) -> Float:
    """(4, 4) pose of an upright camera; the world's y points down."""
    forward = (target - center) / np.linalg.norm(target - center)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    return se3.from_rt(np.stack([right, np.cross(forward, right), forward], axis=1), center)


def nudged(T_world_cam: Float, metres: float, degrees: float, seed: int = 0) -> Float:
    """The pose moved and turned by exactly so much, in a random direction."""
    rng = np.random.default_rng(seed)
    move, axis = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    out = T_world_cam.copy()
    out[:3, :3] = out[:3, :3] @ se3.rotvec_to_rotation(np.radians(degrees) * axis)
    out[:3, 3] += metres * move
    return out


@dataclass(frozen=True, eq=False)
class Room:
    """N landmarks, the first ``n_front`` of them on the wall that the first ``n_front_images`` images look at."""

    points: Float
    base: NDArray[np.float32]
    turn: NDArray[np.float32]
    images: MapImages
    n_front: int
    n_front_images: int

    @classmethod
    def build(
        cls, seed: int = 0, per_wall: int = 150, per_side: int = 8, camera: Camera = CAMERA, repeats: int = 1
    ) -> Room:
        """Of landmarks that look alike there are ``repeats`` each, on both walls."""
        rng = np.random.default_rng(seed)
        wall = rng.uniform([-2.5, -1.8, 3.6], [2.5, 1.8, 4.4], (2, per_wall, 3))
        points = np.concatenate([wall[0], wall[1] * [1, 1, -1]])
        poses = []
        for side in (1.0, -1.0):
            for x in np.linspace(-1.2, 1.2, per_side):
                center = np.array([x, rng.uniform(-0.4, 0.4), rng.uniform(-0.3, 0.3)])
                poses.append(looking_at(center, np.array([rng.uniform(-0.3, 0.3), 0.0, 4.0 * side])))
        names = tuple(f"map-{i:03d}" for i in range(len(poses)))
        base = rng.normal(size=(2 * per_wall, CHANNELS)).astype(np.float32)
        turn = 0.6 * rng.normal(size=(2 * per_wall, CHANNELS, 3)).astype(np.float32)
        if repeats > 1:
            twin = rng.permutation(np.arange(len(base)) % (len(base) // repeats))
            base, turn = base[twin], turn[twin]
        images = MapImages(names, (camera,) * len(poses), np.stack(poses))
        return cls(points, base, turn, images, per_wall, per_side)

    def descriptors(self, landmark: NDArray[np.int64], center_world: Float) -> NDArray[np.float32]:
        """(K, C) unit norm: what the landmarks look like from a point."""
        ray = self.points[landmark] - center_world
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        out = self.base[landmark] + np.einsum("kcd,kd->kc", self.turn[landmark], ray.astype(np.float32))
        return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(np.float32)

    def project(self, camera: Camera, T_world_cam: Float) -> tuple[NDArray[np.int64], Float]:
        """Landmarks in the image, and their pixels; extractors find nothing close to the border."""
        uv_px = camera.project(se3.transform(se3.invert(T_world_cam), self.points))
        seen = np.flatnonzero(camera.contains(uv_px, 8.0))
        return seen, uv_px[seen]

    def tracks(self, noise_px: float = 0.0, seed: int = 0) -> Tracks:
        """What the map images see of every landmark; the key point of a landmark is its index.

        Landmarks that fewer than two images see have no observation at all, but keep their (empty) track.
        """
        rng = np.random.default_rng(seed)
        landmark, image, uv = [], [], []
        for i, (camera, pose) in enumerate(zip(self.images.cameras, self.images.T_world_cam)):
            seen, pixels = self.project(camera, pose)
            landmark.append(seen)
            image.append(np.full(len(seen), i))
            uv.append(pixels + noise_px * rng.normal(size=pixels.shape))
        owner = np.concatenate(landmark)
        order = np.argsort(owner, kind="stable")
        lengths = np.bincount(owner, minlength=len(self.points))
        start = np.concatenate([[0], np.cumsum(lengths)])
        all_tracks = Tracks(start, np.concatenate(image)[order], owner[order], np.concatenate(uv)[order])
        return all_tracks.subset(np.ones(len(lengths), bool), lengths[owner[order]] >= 2)

    def look(
        self,
        T_world_cam: Float,
        seed: int = 0,
        noise_px: float = 0.0,
        clutter: int = 0,
        camera: Camera = CAMERA,
        noise: float = 0.0,
    ) -> Features:
        """The features of an image taken from a pose: landmarks in random order, and key points of nothing.

        ``noise`` is the length of what is added to a descriptor of length 1.
        """
        rng = np.random.default_rng(seed)
        seen, uv_px = self.project(camera, T_world_cam)
        uv_px = uv_px + noise_px * rng.normal(size=uv_px.shape)
        d = self.descriptors(seen, T_world_cam[:3, 3])
        d = d + noise / np.sqrt(CHANNELS) * rng.normal(size=d.shape).astype(np.float32)
        d /= np.linalg.norm(d, axis=1, keepdims=True)
        if clutter:
            other = rng.normal(size=(clutter, CHANNELS)).astype(np.float32)
            d = np.concatenate([d, other / np.linalg.norm(other, axis=1, keepdims=True)])
            uv_px = np.concatenate([uv_px, rng.uniform(0, [camera.width - 1, camera.height - 1], (clutter, 2))])
        order = rng.permutation(len(d))
        scores = np.linspace(1, 0.1, len(d)).astype(np.float32)
        return Features(uv_px[order], scores, d[order], (camera.height, camera.width))

    def landmark_map(self, fit: FitConfig | None = None) -> LandmarkMap:
        """The map of the landmarks that at least two images see, at their true points."""
        every = self.tracks()
        kept = every.lengths >= 2
        tracks, ids = every.subset(kept), np.flatnonzero(kept)
        centers = self.images.T_world_cam[:, :3, 3]
        parts = [self.descriptors(ids[[t]], centers[i]) for t, i in zip(tracks.track, tracks.image)]
        descriptors = np.concatenate(parts).astype(np.float16)
        points = self.points[ids]
        distance = np.linalg.norm(points[tracks.track] - centers[tracks.image], axis=1)
        half = 6.0 * np.minimum.reduceat(distance, tracks.start[:-1]) / CAMERA.focal
        rays = ObservedRays.through_centers(tracks.track, tracks.image, points, centers, descriptors.astype(np.float32))
        fields = fit_fields(rays, points, half, fit or FitConfig())
        per_image = [self.look(T).descriptors for T in self.images.T_world_cam]
        return LandmarkMap(
            points=points,
            covariance=np.tile(1e-6 * np.eye(3), (len(points), 1, 1)),
            grids=fields.grids,
            tracks=tracks,
            descriptors=descriptors,
            images=self.images,
            extractor="made-up",
            feature_name="sift",
            retrieval=RetrievalIndex.build(per_image, n_words=16).to_arrays(),
            marching=(fit or FitConfig()).marching,
            facts={"ridge": fields.ridge},
        )
