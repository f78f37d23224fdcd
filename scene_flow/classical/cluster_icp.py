# SPDX-License-Identifier: Apache-2.0
"""One rigid motion per cluster of points, without training (the idea of ICP-Flow, Lin and Caesar, CVPR 2024)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scene_flow.classical.cluster_scene import Clusters, Noise
from scene_flow.classical.cluster_search import ClusterMotions, search_motions
from scene_flow.classical.clusters import thin
from scene_flow.classical.config import ClusterConfig, IcpConfig
from scene_flow.classical.ego import register
from scene_flow.classical.frames import from_lidar, to_lidar
from scene_flow.classical.groups import Float
from scene_flow.problem import Estimate, Problem
from vision3d.geometry.se3 import transform

Bool = NDArray[np.bool_]

# Registrations that fit worse are left aside, as EgoConfig.min_fitness has it.
MIN_FITNESS = 0.5
# Longest displacement that is believed, in windows of those that are looked for: ICP may leave the window a little.
SLACK = 1.2
# A motion that explains so many points more may leave more unexplained than max_cost says.
SURE_POINTS, SURE_COST = 60, 0.6
# Least gain of the pieces that clusters are cut into. Pieces of walls slide along each other at will; what has to be
# cut loose from others, as a mover beside parked cars, gains far more.
PIECE_GAIN = 0.3


class ClusterIcp:
    """Clusters of both clouds together; each moves as one body, or stands still.

    1. Where the sensor's motion is not undone, the clouds are registered as a whole first.
    2. Points of both clouds that a chain of short steps joins are a cluster.
    3. Displacements that most pairs of a cluster's points agree on are refined by ICP, and so is standing still.
       A cluster that nothing explains is also tried against those of the other scan that nothing explains.
    4. A cluster moves if that explains clearly more of its points, in both scans, than standing still; else exactly 0.
    5. What neither explains may be several bodies that touch: it is cut into clusters by steps half as long, once more.

    The order of the points does not matter, and the seed changes nothing.
    """

    deterministic = True

    def __init__(self, config: ClusterConfig, icp: IcpConfig) -> None:
        self.config, self.icp = config, icp

    def estimate(self, problem: Problem) -> Estimate:
        """Flow; confidence is the share of a cluster's points that find a counterpart; ``dynamic`` are the movers."""
        config = self.config
        start, target = to_lidar(problem.source, problem.axes), to_lidar(problem.target, problem.axes)
        # In one order, whatever the caller's: sums and evenly thinned points depend on it.
        order, target = np.lexsort(start.T), target[np.lexsort(target.T)]
        start = start[order]
        source, facts = self._registered(start, target, problem)
        planar = config.planar == "yes" or (config.planar == "auto" and problem.axes == "lidar")
        noise = Noise(thin(source, config.thin_m)[0], thin(target, config.thin_m)[0], config.noise_m)

        moved, dynamic = source.copy(), np.zeros(len(source), dtype=bool)
        label = np.zeros(len(source), dtype=np.int64)
        ours, theirs = np.arange(len(source)), np.arange(len(target))
        movers, count = 0, 0
        for split in range(config.splits + 1):
            if not len(ours) or not len(theirs):
                break
            clusters = Clusters.of(source[ours], target[theirs], config.radius_m / 2**split, noise, planar, config)
            found = search_motions(clusters.matcher, clusters.extent_m, config.max_speed_mps * problem.dt_s, config)
            moves = self._believed(found, clusters, problem.dt_s, PIECE_GAIN if split else config.min_gain)
            label[ours] = count + clusters.source
            goes = moves[clusters.source]
            moved[ours[goes]] = found.motions(source[ours[goes]], clusters.source[goes])
            dynamic[ours] = goes
            movers, count = movers + int(moves.sum()), count + len(moves)
            mixed = ~moves & ((found.still >= config.min_gain) | (clusters.extent_m > config.max_extent_m))
            ours, theirs = ours[mixed[clusters.source]], theirs[mixed[clusters.target]]

        back = np.argsort(order)
        return Estimate(
            flow=from_lidar((moved - start)[back], problem.axes).astype(np.float32),
            confidence=self._explained(moved, target, label, noise(source))[back],
            dynamic=dynamic[back],
            extra={**facts, "clusters": len(np.unique(label)), "movers": movers},
        )

    def _registered(self, source: Float, target: Float, problem: Problem) -> tuple[Float, dict[str, Any]]:
        """The source laid onto the target as a whole, where that is to be done first."""
        wanted = self.config.global_first == "yes" or (self.config.global_first == "auto" and not problem.compensated)
        if not wanted:
            return source, {}
        motion = register(source, target, "lidar", self.icp)
        facts = {"global_fitness": round(motion.fitness, 4)}
        return (source if motion.fitness < MIN_FITNESS else transform(motion.T_target_source, source)), facts

    def _believed(self, found: ClusterMotions, clusters: Clusters, dt_s: float, min_gain: float) -> Bool:
        """(K,) which clusters move."""
        config, matcher = self.config, clusters.matcher
        centres = np.nan_to_num(matcher.source.centres())
        shift_m = np.linalg.norm(found.motions(centres, np.arange(len(centres))) - centres, axis=1)
        points = np.minimum(matcher.source.size, matcher.target.size[found.matched])
        gain = found.still - found.cost
        # What passes close by shows other sides in each scan, so much of it stays unexplained, but much is explained.
        most = np.where(gain * points >= SURE_POINTS, max(SURE_COST, config.max_cost), config.max_cost)
        return (
            (found.cost <= most * found.still)
            & (gain >= min_gain + config.min_gain_points / np.maximum(points, 1))
            & (shift_m >= config.min_speed_mps * dt_s)
            & (shift_m <= SLACK * config.max_speed_mps * dt_s)
        )

    def _explained(self, moved: Float, target: Float, label: NDArray[np.int64], noise_m: Float) -> NDArray[np.float32]:
        """(N,) share of the points of each point's cluster that have a target point where they moved."""
        distance, _ = cKDTree(target).query(moved)
        near = distance < noise_m + self.config.reach_m / 2
        share = np.bincount(label, near) / np.maximum(np.bincount(label), 1)
        return share[label].astype(np.float32)
