# SPDX-License-Identifier: Apache-2.0
"""The query loop of FaVoR (card, step 7): prior -> render -> match -> PnP, repeated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from relocalization.config import LocalizeConfig
from relocalization.describe import Describer
from relocalization.features.base import Extractor, Features
from relocalization.landmark_map import LandmarkMap
from relocalization.matching import guided_nn, mutual_nn
from relocalization.retrieval import RetrievalIndex
from vision3d.geometry import se3
from vision3d.geometry.cameras import Camera
from vision3d.geometry.pnp import PoseEstimate, PoseFailure, estimate_pose
from vision3d.types import Frame, PoseResult

Float = NDArray[np.float64]
Ints = NDArray[np.int64]

# No wrong pose finds this many inliers (chance gives it 7 among 1000 matches): another start need not be tried.
CERTAIN_INLIERS = 50
BORDER_PX = 5.0


@dataclass(frozen=True)
class Attempt:
    """One pass of render, match and PnP."""

    pose: PoseEstimate | PoseFailure
    landmark: Ints  # (M,) matched landmarks
    uv_px: Float  # (M, 2) the pixels they were matched with

    @property
    def n_inliers(self) -> int:
        return self.pose.n_inliers

    @property
    def certain(self) -> bool:
        return self.n_inliers >= CERTAIN_INLIERS


class Stopwatch:
    """Milliseconds by stage, summed over passes."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap on ``stage``."""
        now = time.perf_counter()
        self.ms[stage] = self.ms.get(stage, 0.0) + 1e3 * (now - self._since)
        self._since = now


class Localizer:
    """Finds the pose of one frame in one map."""

    def __init__(self, landmarks: LandmarkMap, extractor: Extractor, config: LocalizeConfig, seed: int = 0) -> None:
        self.map = landmarks
        self.extractor = extractor
        self.config = config
        self.seed = seed
        self.similarity = config.similarity or extractor.similarity
        self.describer = Describer(landmarks, config.describe, config.cone_deg)
        self.retrieval = RetrievalIndex.from_arrays(landmarks.retrieval)

    def __call__(self, frame: Frame, previous: PoseResult | None = None) -> PoseResult:
        """The pose of ``frame``; ``previous`` is the result of the frame before it in the sequence, if any."""
        clock = Stopwatch()
        features = self.extractor(frame.image)
        clock.lap("features")
        return self.localize(frame, features, previous, clock)

    def localize(
        self, frame: Frame, features: Features, previous: PoseResult | None = None, clock: Stopwatch | None = None
    ) -> PoseResult:
        """As calling the localizer, with features extracted before."""
        clock = clock or Stopwatch()
        camera = frame.camera if self.map.lens is None else self.map.lens.of(frame.camera)
        best: Attempt | None = None
        used = ""
        for start, T_world_cam in self._starts(frame, features, previous, clock):
            attempt = self._attempt(T_world_cam, camera, features, 0.0, clock)
            if best is None or attempt.n_inliers > best.n_inliers:
                best, used = attempt, start
            if best.certain:
                break
        if best is None:
            return self._failed(frame, "no prior pose, and the map has no image to start from", clock)
        counts = [best.n_inliers]
        radius = self.config.radius_px
        for _ in range(1, self.config.iterations):
            if isinstance(best.pose, PoseFailure):
                break
            attempt = self._attempt(best.pose.T_world_cam, camera, features, radius, clock)
            counts.append(attempt.n_inliers)
            if isinstance(attempt.pose, PoseFailure) or 2 * attempt.n_inliers < best.n_inliers:
                break
            best, radius = attempt, radius / 2
        if isinstance(best.pose, PoseFailure):
            return self._failed(frame, best.pose.reason, clock, best)
        return PoseResult(
            name=frame.name,
            T_world_cam=best.pose.T_world_cam,
            status="ok",
            n_inliers=best.n_inliers,
            n_matches=len(best.landmark),
            covariance=best.pose.covariance,
            stamp_ns=frame.stamp_ns,
            camera=camera,
            timing_ms=clock.ms,
            extra={"prior": used, "inliers_per_iteration": counts, "rms_px": round(best.pose.rms_px, 4)},
            debug=self._debug(camera, best.pose, best),
        )

    def _starts(
        self, frame: Frame, features: Features, previous: PoseResult | None, clock: Stopwatch
    ) -> Iterator[tuple[str, Float]]:
        """Poses to start from, most trusted first, each with a name."""
        prior = self.config.prior
        if prior in ("auto", "given") and frame.prior_T_world_cam is not None:
            yield "given", frame.prior_T_world_cam
        if prior == "previous" and previous is not None and previous.T_world_cam is not None:
            yield "previous", previous.T_world_cam
        if prior == "given":
            return
        images, _ = self.retrieval.query(features.descriptors, self.config.candidates)
        clock.lap("retrieval")
        for i in images:
            yield self.map.images.names[i], self.map.images.T_world_cam[i]

    def _attempt(
        self, T_world_cam: Float, camera: Camera, features: Features, radius_px: float, clock: Stopwatch
    ) -> Attempt:
        """Render what is visible from a pose guess, match it, and find the pose of the matches."""
        center = T_world_cam[:3, 3]
        view = self.describer.viewpoint(center)
        uv_px = camera.project(se3.transform(se3.invert(T_world_cam), self.map.points))
        visible = camera.contains(uv_px, BORDER_PX if radius_px else -self._slack_px(camera))
        visible &= view.angle_deg <= self.config.max_angle_deg
        visible &= view.distance_ratio <= self.config.max_distance_ratio
        look = self.describer.appearance(center, np.flatnonzero(visible), view)
        clock.lap("render")
        pairs, similarity = self._match(look.descriptors, uv_px[look.landmark], features, radius_px)
        landmark, keypoint = _best_per_landmark(look.landmark[pairs[:, 0]], pairs[:, 1], similarity)
        clock.lap("match")
        pixels = features.keypoints[keypoint]
        pose = estimate_pose(
            pixels,
            self.map.points[landmark],
            camera,
            self.config.max_error_px,
            min_inliers=self.config.min_inliers,
            seed=self.seed,
            prior_T_world_cam=T_world_cam if radius_px else None,
            point_covariances=self.map.covariance[landmark],
        )
        clock.lap("pnp")
        return Attempt(pose, landmark, pixels)

    def _match(
        self, descriptors: torch.Tensor, uv_px: Float, features: Features, radius_px: float
    ) -> tuple[Ints, NDArray[np.float32]]:
        ratio = self.config.ratio if self.config.ratio < 1 else None
        if radius_px and self.config.radius_px:
            return guided_nn(
                descriptors, uv_px, features.descriptors, features.keypoints, radius_px, self.similarity, ratio
            )
        return mutual_nn(descriptors, features.descriptors, self.similarity, ratio)

    def _slack_px(self, camera: Camera) -> float:
        """How far outside the image a landmark may project for a first guess: that pose is rough, and what
        lies just beyond its frame is likely to be in the query's."""
        return 0.5 * max(camera.width, camera.height)

    def _debug(self, camera: Camera, pose: PoseEstimate, attempt: Attempt) -> dict[str, NDArray[np.generic]]:
        projected = camera.project(se3.transform(se3.invert(pose.T_world_cam), self.map.points))
        view = self.describer.viewpoint(pose.T_world_cam[:3, 3])
        seen = camera.contains(projected) & (view.angle_deg <= self.config.max_angle_deg)
        return {
            "uv_px": attempt.uv_px,
            "projected_px": projected[attempt.landmark],
            "inlier": pose.inliers,
            "landmarks_px": projected[seen],
        }

    def _failed(self, frame: Frame, reason: str, clock: Stopwatch, attempt: Attempt | None = None) -> PoseResult:
        return PoseResult(
            name=frame.name,
            T_world_cam=None,
            status="failed",
            reason=reason,
            n_inliers=0 if attempt is None else attempt.n_inliers,
            n_matches=0 if attempt is None else len(attempt.landmark),
            stamp_ns=frame.stamp_ns,
            camera=frame.camera,
            timing_ms=clock.ms,
            debug={} if attempt is None else {"uv_px": attempt.uv_px},
        )


def _best_per_landmark(landmark: Ints, keypoint: Ints, similarity: NDArray[np.float32]) -> tuple[Ints, Ints]:
    """Of several matches of one landmark (by several of its observations) the surest; landmarks ascending."""
    order = np.lexsort((keypoint, -similarity, landmark))
    landmark, keypoint = landmark[order], keypoint[order]
    first = np.ones(len(landmark), dtype=bool)
    first[1:] = landmark[1:] != landmark[:-1]
    return landmark[first], keypoint[first]
