# SPDX-License-Identifier: Apache-2.0
"""One rigid motion per cluster of points, without training (the idea of ICP-Flow, Lin and Caesar, CVPR 2024)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scene_flow.classical.cluster_search import ClusterMotions, search_motions
from scene_flow.classical.clusters import cluster, thin
from scene_flow.classical.config import ClusterConfig, IcpConfig
from scene_flow.classical.ego import register
from scene_flow.classical.frames import from_lidar, to_lidar
from scene_flow.classical.groups import Float, Int, Matcher, PointGroups
from scene_flow.problem import Estimate, Problem
from vision3d.geometry.se3 import transform

Bool = NDArray[np.bool_]

RANGE_BINS = 12
MOST_NOISE_M = 0.5


class ClusterIcp:
    """Clusters of both clouds together; each moves as one body, or stands still.

    1. Where the sensor's motion is not undone, the clouds are registered as a whole first.
    2. Points of both clouds that a chain of short steps joins are a cluster.
    3. Displacements that most pairs of a cluster's points agree on are refined by ICP, and so is standing still.
       A cluster that nothing explains is also tried against those of the other scan that nothing explains.
    4. A cluster moves if that explains clearly more of its points, in both scans, than standing still; else exactly 0.

    The order of the points does not matter, and the seed changes nothing.
    """

    deterministic = True

    def __init__(self, config: ClusterConfig, icp: IcpConfig) -> None:
        self.config, self.icp = config, icp

    def estimate(self, problem: Problem) -> Estimate:
        """Flow; confidence is the share of a cluster's points that find a counterpart; ``dynamic`` are the movers."""
        start, target = to_lidar(problem.source, problem.axes), to_lidar(problem.target, problem.axes)
        # In one order, whatever the caller's: sums and evenly thinned points depend on it.
        order, target = np.lexsort(start.T), target[np.lexsort(target.T)]
        start = start[order]
        source, facts = self._registered(start, target, problem)
        planar = self.config.planar == "yes" or (self.config.planar == "auto" and problem.axes == "lidar")
        scene = Scene(source, target, self.config, planar)
        found = search_motions(scene.matcher, scene.extent_m, self.config.max_speed_mps * problem.dt_s, self.config)
        moves = self._believed(found, scene, problem.dt_s)

        motion = np.where(moves[scene.label], scene.label, -1)
        moved, dynamic = source.copy(), motion >= 0
        moved[dynamic] = found.motions(source[dynamic], motion[dynamic])

        back = np.argsort(order)
        return Estimate(
            flow=from_lidar((moved - start)[back], problem.axes).astype(np.float32),
            confidence=scene.explained_share(moved)[back].astype(np.float32),
            dynamic=dynamic[back],
            extra={**facts, "clusters": len(moves), "movers": int(moves.sum())},
        )

    def _registered(self, source: Float, target: Float, problem: Problem) -> tuple[Float, dict[str, Any]]:
        """The source laid onto the target as a whole, where that is to be done first."""
        wanted = self.config.global_first == "yes" or (self.config.global_first == "auto" and not problem.compensated)
        if not wanted:
            return source, {}
        motion = register(source, target, "lidar", self.icp)
        return transform(motion.T_target_source, source), {"global_fitness": round(motion.fitness, 4)}

    def _believed(self, found: ClusterMotions, scene: Scene, dt_s: float) -> Bool:
        """(K,) which clusters move."""
        config = self.config
        every = np.arange(len(found.cost))
        centres = np.nan_to_num(scene.matcher.source.centres())
        shift_m = np.linalg.norm(found.motions(centres, every) - centres, axis=1)
        points = np.minimum(scene.matcher.source.size, scene.matcher.target.size[found.matched])
        gain = found.still - found.cost
        return (
            (found.cost <= config.max_cost * found.still)
            & (gain >= config.min_gain + config.min_gain_points / np.maximum(points, 1))
            & (shift_m >= config.min_speed_mps * dt_s)
            & (shift_m <= SLACK * config.max_speed_mps * dt_s)
        )


SLACK = 1.2


class Scene:
    """Both clouds, clustered.

    Attributes:
        source, target: (N, 3) and (M, 3) metres, x forward, y left, z up.
        label: (N,) the cluster of each source point, 0 to K - 1; K counts clusters with target points only, too.
        extent_m: (K,) length of each cluster on the ground.
        matcher: the thinned points of the clusters.
    """

    def __init__(self, source: Float, target: Float, config: ClusterConfig, planar: bool) -> None:
        self.source, self.target = source, target
        both = np.concatenate([source, target])
        labels = cluster(both, config.radius_m)
        count = int(labels.max()) + 1
        self.label, self._target_label = labels[: len(source)], labels[len(source) :]
        self.extent_m = _extents(both, labels, count)
        (a, a_cell), (b, b_cell) = thin(source, config.thin_m), thin(target, config.thin_m)
        a_label, b_label = np.empty(len(a), np.int64), np.empty(len(b), np.int64)
        a_label[a_cell], b_label[b_cell] = self.label, self._target_label
        self._noise = Noise(a, b, config)
        self._reach_m = config.reach_m
        self.matcher = Matcher(
            source=PointGroups(a, a_label, self._noise(a), count, config.max_points),
            target=PointGroups(b, b_label, self._noise(b), count, config.max_points),
            reach_m=config.reach_m,
            planar=planar,
        )

    def explained_share(self, moved: Float) -> Float:
        """(N,) share of the points of each point's cluster that have a target point where they moved."""
        distance, _ = cKDTree(self.target).query(moved)
        near = distance < self._noise(self.source) + self._reach_m / 2
        return (np.bincount(self.label, near) / np.maximum(np.bincount(self.label), 1))[self.label]


class Noise:
    """By range, the distance between two scans of one surface that means nothing: they do not hit the same spots.

    That is half of the way between points of one scan, taken to the third nearest: the nearest lie on the same scan
    line. Bins of range hold equally many points, and their medians are joined by lines.
    """

    def __init__(self, source: Float, target: Float, config: ClusterConfig) -> None:
        spacing_m = np.concatenate([_third_nearest(source), _third_nearest(target)])
        range_m = np.linalg.norm(np.concatenate([source, target]), axis=1)
        order = np.argsort(range_m, kind="stable")
        bins = [rows for rows in np.array_split(order, RANGE_BINS) if len(rows)]
        self._range_m = np.array([range_m[rows].mean() for rows in bins])
        noise_m = np.array([np.median(spacing_m[rows]) / 2 for rows in bins])
        self._noise_m = np.clip(noise_m, config.noise_m, max(MOST_NOISE_M, config.noise_m))

    def __call__(self, points: Float) -> Float:
        return np.interp(np.linalg.norm(points, axis=1), self._range_m, self._noise_m)


def _third_nearest(points: Float) -> Float:
    """(N,) distance of each point to its third nearest other point; 0 where there are fewer."""
    distance = cKDTree(points).query(points, k=[4])[0][:, 0]
    return np.where(np.isfinite(distance), distance, 0.0)


def _extents(points: Float, labels: Int, count: int) -> Float:
    """(count,) diagonals of the clusters' boxes on the ground."""
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], np.arange(count))
    span = np.maximum.reduceat(points[order, :2], first) - np.minimum.reduceat(points[order, :2], first)
    return np.linalg.norm(span, axis=1)
