# SPDX-License-Identifier: Apache-2.0
"""The motion of the sensor between two scans, by registering one onto the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import small_gicp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scene_flow.classical.config import EgoConfig, IcpConfig
from scene_flow.classical.frames import motion_from_lidar, to_lidar
from vision3d.geometry.se3 import from_rt, rotvec_to_rotation, transform
from vision3d.types.clouds import Axes

Float = NDArray[np.float64]

NEIGHBOURS = 10  # that a point's covariance is made of
ITERATIONS = 50
COARSE_ITERATIONS = 20  # a start that is right gets there in ten, a wrong one never does
# Radii of the fine clouds, in last radii. Movers pull until they are outside of it, so it shrinks step by step.
NARROWING = (5.0, 2.5, 1.5, 1.0)
FINISHED = 3  # coarse results that are refined when starting from no motion fits badly


@dataclass(frozen=True)
class EgoMotion:
    """A rigid motion between two clouds.

    Attributes:
        T_target_source: (4, 4) takes what stands still from the source's frame to the target's.
        fitness: share of the thinned source's points that have a target point within ``IcpConfig.voxel_m`` then.
            Scans of one place that are registered right have 0.7 and more, wrong ones 0.3 and less; what only one scan
            sees and what moves lowers it.
        rmse_m: root mean square distance of those points; inf where there are none.
    """

    T_target_source: Float
    fitness: float
    rmse_m: float


def estimate_ego(
    source: NDArray[np.floating], target: NDArray[np.floating], axes: Axes, config: EgoConfig
) -> EgoMotion:
    """The sensor's motion, from (N, 3) and (M, 3) metres, ground included: it holds height, pitch and roll.

    Whether to trust it is the caller's business: compare ``fitness`` with ``config.min_fitness``.
    """
    return register(source, target, axes, config.icp)


def register(source: NDArray[np.floating], target: NDArray[np.floating], axes: Axes, config: IcpConfig) -> EgoMotion:
    """The rigid motion that lays most of the source onto the target, by small_gicp's GICP.

    Coarse clouds with a wide radius first, then fine ones with a radius so narrow that movers no longer count. If that
    fits badly, it is tried again from turns about the vertical. The same input gives the same bytes with one thread.

    Args:
        source, target: (N, 3) and (M, 3) finite metres. Too few points to register (under 10) give no motion.
    """
    source, target = to_lidar(source, axes), to_lidar(target, axes)
    coarse = _Level(source, target, config.coarse_voxel_m, config.threads)
    fine = _Level(source, target, config.voxel_m, config.threads)
    wide = [config.coarse_radius_m, config.coarse_radius_m / 2]

    def finish(T: Float) -> tuple[Float, float, float]:
        T = fine.align(T, [factor * config.radius_m for factor in NARROWING])
        return (T, *fine.fit(T, config.voxel_m))

    found = [finish(coarse.align(np.eye(4), wide, COARSE_ITERATIONS))]
    if found[0][1] < config.good_fitness and coarse.enough:
        starts = [_yaw(2 * np.pi * k / config.yaw_starts) for k in range(1, config.yaw_starts)]
        turned = [coarse.align(start, wide, COARSE_ITERATIONS) for start in starts]
        turned.sort(key=lambda T: -coarse.fit(T, config.coarse_voxel_m)[0])
        found += [finish(T) for T in turned[:FINISHED]]
    # No motion at all is a candidate, too: registration of what has no common shape can only make things worse.
    found.append((np.eye(4), *fine.fit(np.eye(4), config.voxel_m)))
    T, fitness, rmse_m = max(found, key=lambda f: f[1])
    return EgoMotion(motion_from_lidar(T, axes), fitness, rmse_m)


class _Level:
    """Both clouds with one point per cell, and what GICP needs to know of them."""

    def __init__(self, source: Float, target: Float, voxel_m: float, threads: int) -> None:
        self.threads = threads
        self.source = small_gicp.preprocess_points(source, voxel_m, NEIGHBOURS, threads)[0]
        self.target, self.tree = small_gicp.preprocess_points(target, voxel_m, NEIGHBOURS, threads)
        self._points: Float = np.asarray(self.source.points())[:, :3]
        self._search = cKDTree(np.asarray(self.target.points())[:, :3])

    @property
    def enough(self) -> bool:
        """Whether there is anything to refine: else a turn that happens to fit would be kept as it is."""
        return min(self.source.size(), self.target.size()) >= NEIGHBOURS

    def align(self, T: Float, radii_m: list[float], iterations: int = ITERATIONS) -> Float:
        """(4, 4) refined at each radius in turn; what is not a motion is thrown away."""
        if not self.enough:
            return T
        for radius_m in radii_m:
            result: Any = small_gicp.align(
                self.target,
                self.source,
                self.tree,
                T,
                registration_type="GICP",
                max_correspondence_distance=radius_m,
                num_threads=self.threads,
                max_iterations=iterations,
                rotation_epsilon=1e-5,
                translation_epsilon=1e-5,
            )
            if result.num_inliers < NEIGHBOURS or not np.isfinite(result.T_target_source).all():
                break
            T = np.array(result.T_target_source)
        return T

    def fit(self, T: Float, radius_m: float) -> tuple[float, float]:
        """Share of the source's points with a target point within the radius, and their root mean square distance."""
        distance, _ = self._search.query(transform(T, self._points), distance_upper_bound=radius_m)
        near = distance[np.isfinite(distance)]
        return len(near) / len(distance), float(np.sqrt(np.mean(near**2))) if len(near) else float("inf")


def _yaw(angle: float) -> Float:
    return from_rt(rotvec_to_rotation([0.0, 0.0, angle]), np.zeros(3))
