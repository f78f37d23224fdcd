# SPDX-License-Identifier: Apache-2.0
"""FaVoR as a pipeline of the runner: fit a map, localize frames in it, score the poses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relocalization.build import MapBuilder
from relocalization.colmap_export import map_to_colmap, poses_to_colmap
from relocalization.config import Description, FavorConfig
from relocalization.draw import draw_localization
from relocalization.evaluate import error_columns, errors, recall_chart, summarize
from relocalization.extend import extend_map
from relocalization.features.base import Extractor, Features, make_extractor
from relocalization.features.config import resolve
from relocalization.landmark_map import LandmarkMap
from relocalization.localize import Localizer, Stopwatch
from vision3d.contracts import FitContext, Reader
from vision3d.errors import DataError
from vision3d.geometry.trajectory import write_tum_trajectory
from vision3d.types import Exhibit, Frame, FrameTruth, PoseResult, Scene

BASELINES: tuple[Description, ...] = ("median", "nearest", "all")


class FavorPipeline:
    """Features via voxel rendering (Polizzi et al., WACV 2025)."""

    samples: type = Frame
    result_type: type = PoseResult

    def __init__(self, config: FavorConfig, shared: _Features | None = None) -> None:
        self.config = config
        self._shared = shared or _Features(config)
        self._localizer: tuple[LandmarkMap, Localizer] | None = None

    def fit(self, train: Reader, out: Path, context: FitContext) -> None:
        """Build a map of all frames of ``train`` (card, steps 1 to 6) in the folder ``out``."""
        context.log(resolve(self.config.features.name)[1])
        MapBuilder(self.config, make_extractor(self.config.features), context).build(train).save(out)

    def extend(self, model: Path, train: Reader, out: Path, context: FitContext) -> None:
        """The map in ``model`` with the frames of ``train`` added, written to ``out``."""
        landmarks = LandmarkMap.load(model)
        extractor = self._shared.extractor_of(landmarks)
        extend_map(landmarks, train, self.config, extractor, context).save(out)

    def load(self, model: Path) -> LandmarkMap:
        """The map that :meth:`fit` wrote.

        Raises:
            DataError: the folder holds no map, or one made with features that are not to be had here.
        """
        landmarks = LandmarkMap.load(model)
        self._shared.extractor_of(landmarks)
        return landmarks

    def step(self, model: LandmarkMap, sample: Frame, previous: PoseResult | None = None) -> PoseResult:
        """The pose of one frame (card, step 7)."""
        localizer = self._localizer_of(model)
        clock = Stopwatch()
        features = self._shared.features(model, sample)
        clock.lap("features")
        return localizer.localize(sample, features, previous, clock)

    def failure(self, name: str, reason: str) -> PoseResult:
        """The result of a frame that could not be read, or whose step raised."""
        return PoseResult(name=name, T_world_cam=None, status="bad_input", reason=reason)

    def score(self, results: Sequence[PoseResult], truths: Sequence[FrameTruth]) -> list[Any]:
        """Recalls and medians over all frames; failures are infinitely wrong."""
        return summarize(*_errors(results, truths))

    def draw(
        self, model: LandmarkMap, sample: Frame, result: PoseResult, truth: FrameTruth | None = None
    ) -> NDArray[np.uint8]:
        """The query with its matches, inliers and reprojected landmarks, and the error where the truth is known."""
        return draw_localization(sample.image, result, None if truth is None else truth.T_world_cam)

    def baselines(self) -> Mapping[str, FavorPipeline]:
        """The same map, matcher and PnP with descriptors that are observed instead of rendered."""
        return {
            name: FavorPipeline(
                replace(self.config, localize=replace(self.config.localize, describe=name)), self._shared
            )
            for name in BASELINES
        }

    def export(self, results: Sequence[PoseResult], folder: Path) -> None:
        """Write ``trajectory_tum.txt`` and a COLMAP model of the localized frames into ``folder``."""
        found = [r for r in results if r.T_world_cam is not None and r.camera is not None]
        poses = np.stack([r.T_world_cam for r in found if r.T_world_cam is not None]) if found else np.zeros((0, 4, 4))
        write_tum_trajectory(folder / "trajectory_tum.txt", [r.stamp_ns for r in found], poses)
        poses_to_colmap(found, [r.camera for r in found if r.camera is not None], folder / "colmap")

    def export_model(self, model: LandmarkMap, folder: Path) -> list[Path]:
        """Write the map as a COLMAP text model."""
        return map_to_colmap(model, folder)

    def exhibit(self, model: LandmarkMap, results: Sequence[PoseResult], truths: Sequence[FrameTruth]) -> Exhibit:
        """Recall curves, and the map with both trajectories from above and from the side."""
        found = [r.T_world_cam for r in results if r.T_world_cam is not None]
        trajectories = {"estimated": np.stack(found)} if found else {}
        if truths:
            trajectories["true"] = np.stack([t.T_world_cam for t in truths])
        trajectories["map images"] = model.images.T_world_cam
        # Cameras are held upright more often than not: the mean of their y axes points down.
        down = model.images.T_world_cam[:, :3, 1].mean(axis=0)
        scene = Scene(
            name="map",
            title="Landmarks and cameras",
            points=model.points,
            colors=None,
            trajectories=trajectories,
            up=-down / max(float(np.linalg.norm(down)), 1e-12),
        )
        if not truths:
            return Exhibit(scenes=(scene,))
        e_t, e_R = _errors(results, truths)
        return Exhibit(
            charts=(recall_chart({"favor": (e_t, e_R)}),),
            scenes=(scene,),
            per_sample=error_columns([r.name for r in results], e_t, e_R),
        )

    def describe(self, model: LandmarkMap) -> Mapping[str, Any]:
        """Facts about a map for ``vision3d inspect``."""
        lengths, extent = model.tracks.lengths, np.percentile(model.points, [2, 98], axis=0)
        return {
            "landmarks": len(model),
            "images": len(model.images),
            "features": model.feature_name,
            "channels": model.channels,
            "resolution": model.grids.resolution,
            "dtype": str(model.grids.values.dtype).removeprefix("torch."),
            "views_per_landmark_mean": round(float(lengths.mean()), 2),
            "views_per_landmark_max": int(lengths.max()),
            "extent_m": [round(float(x), 2) for x in extent[1] - extent[0]],
            "point_sigma_mm_median": round(
                1e3 * float(np.median(np.sqrt(np.trace(model.covariance, axis1=1, axis2=2)))), 2
            ),
            **model.facts,
        }

    def _localizer_of(self, model: LandmarkMap) -> Localizer:
        if self._localizer is None or self._localizer[0] is not model:
            self._localizer = (model, Localizer(model, self._shared.extractor_of(model), self.config.localize))
        return self._localizer[1]


class _Features:
    """One extractor for a pipeline and its baselines, which all see the same frames: each is extracted once."""

    def __init__(self, config: FavorConfig) -> None:
        self._config = config.features
        self._extractor: Extractor | None = None
        self._last: tuple[Frame, Features] | None = None

    def extractor_of(self, model: LandmarkMap) -> Extractor:
        """The extractor that the map was made with.

        Raises:
            DataError: it is not to be had here, or its weights or options differ.
        """
        if self._extractor is None:
            name: Any = model.feature_name
            self._extractor = make_extractor(replace(self._config, name=name))
        if self._extractor.fingerprint != model.extractor:
            raise DataError(
                "map",
                f"was made with features '{model.extractor}', here they would be '{self._extractor.fingerprint}': "
                "use the weights and --features options of the map",
            )
        return self._extractor

    def features(self, model: LandmarkMap, frame: Frame) -> Features:
        """The frame's features, from memory when it is the last one again."""
        if self._last is None or self._last[0] is not frame:
            self._last = (frame, self.extractor_of(model)(frame.image))
        return self._last[1]


def _errors(results: Sequence[PoseResult], truths: Sequence[FrameTruth]) -> tuple[Any, Any]:
    return errors([r.T_world_cam for r in results], [t.T_world_cam for t in truths])
