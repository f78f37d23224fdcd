# SPDX-License-Identifier: Apache-2.0
"""The motion of every cluster: within the cluster, and where that explains little, to a cluster of the other scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scene_flow.classical.config import ClusterConfig
from scene_flow.classical.displacements import displacement_seeds
from scene_flow.classical.groups import Float, Int, Matcher, Motions

Bool = NDArray[np.bool_]

# Radii of counterparts in ICP, from what the bins of the displacements leave open to what scan lines do.
RADII_M = (0.6, 0.5, 0.4, 0.3, 0.3, 0.3, 0.2, 0.2)
TURN_RADII_M = RADII_M[2:]
TURN_GAIN = 0.005  # share of points that a rotation must explain more: half of what is seen of a body turns it at will
VOTERS = 300  # points of a cluster and scan whose pairs vote for displacements
POOR = 0.15  # a cluster that its best motion explains worse than this looks for its target elsewhere
ALIKE = 0.25  # clusters of two scans that differ more in their number of points are not of the same body


@dataclass(frozen=True)
class ClusterMotions:
    """What was found for each of K clusters.

    Attributes:
        motions: of each cluster's source points.
        still: (K,) share of its points that standing still leaves unexplained, in both scans.
        cost: (K,) the share that the motion leaves unexplained.
        matched: (K,) the cluster whose target points it was matched with: mostly its own.
    """

    motions: Motions
    still: Float
    cost: Float
    matched: Int


def search_motions(matcher: Matcher, extent_m: Float, window_m: float, config: ClusterConfig) -> ClusterMotions:
    """The best motion of every cluster, whether or not it is good enough to be believed.

    Args:
        extent_m: (K,) length of each cluster on the ground, both scans together.
        window_m: displacements up to this on every axis.
    """
    n_source, n_target = matcher.source.size, matcher.target.size
    every = np.arange(len(n_source))
    source_still, target_still = matcher.cost(every, every, Motions.shifts(np.zeros((len(every), 3))))
    still = (source_still + target_still) / 2
    found = ClusterMotions(Motions.shifts(np.zeros((len(every), 3))), still.copy(), still.copy(), every.copy())
    few = max(config.min_points // 4, 1)
    small = extent_m <= config.max_extent_m

    both = (n_source + n_target >= config.min_points) & (n_source >= few) & (n_target >= few)
    own = np.flatnonzero(both & small & (still >= config.min_gain))
    _, motions, cost = _search(matcher, own, own, window_m, config)
    found.motions.put(own, motions)
    found.cost[own] = cost

    half = max(config.min_points // 2, 1)
    lost = small & (n_source >= half) & (source_still > 0.5) & ((found.cost > POOR) | (n_target < few))
    new = small & (n_target >= half) & (target_still > 0.5)
    a, b = _near_pairs(matcher, np.flatnonzero(lost), np.flatnonzero(new), window_m)
    a, motions, cost, b = _best_targets(matcher, a, b, window_m, config)
    before = (source_still[a] + target_still[b]) / 2
    better = (cost * found.still[a] < found.cost[a] * before) | (n_target[a] < few)
    a, b = a[better], b[better]
    found.motions.put(a, motions[better])
    found.cost[a], found.still[a], found.matched[a] = cost[better], before[better], b
    return found


def _search(matcher: Matcher, a: Int, b: Int, window_m: float, config: ClusterConfig) -> tuple[Int, Motions, Float]:
    """The best motion of each pair of groups (rows 0 to P - 1, motions, costs).

    Seeds from the displacements; the cheapest and standing still are refined by ICP without rotation; the best of them
    may then turn, if that explains more.
    """
    seeds = [_seeds(matcher, i, j, window_m, config) for i, j in zip(a, b)]
    which = np.repeat(np.arange(len(a)), [len(s) for s in seeds])
    motions = Motions.shifts(np.concatenate(seeds) if seeds else np.zeros((0, 3)))
    which, motions = _cheapest(which, motions, _mean_cost(matcher, a, b, which, motions), config.refined)

    own = np.flatnonzero(a == b)
    which, motions = np.r_[which, own], motions.join(Motions.shifts(np.zeros((len(own), 3))))
    motions = matcher.refine(a[which], b[which], motions, RADII_M, turn=False)
    which, motions = _cheapest(which, motions, _mean_cost(matcher, a, b, which, motions), 1)
    cost = _mean_cost(matcher, a, b, which, motions)

    turned = matcher.refine(a[which], b[which], motions, TURN_RADII_M, turn=True)
    turned_cost = _mean_cost(matcher, a, b, which, turned)
    better = turned_cost < cost - TURN_GAIN
    motions.put(better, turned[better])
    return which, motions, np.where(better, turned_cost, cost)


def _seeds(matcher: Matcher, a: int, b: int, window_m: float, config: ClusterConfig) -> Float:
    source, target = matcher.source.of(a, VOTERS), matcher.target.of(b, VOTERS)
    return displacement_seeds(source, target, window_m, config.seeds, matcher.planar)


def _mean_cost(matcher: Matcher, a: Int, b: Int, which: Int, motions: Motions) -> Float:
    forth, back = matcher.cost(a[which], b[which], motions)
    return (forth + back) / 2


def _cheapest(which: Int, motions: Motions, cost: Float, most: int) -> tuple[Int, Motions]:
    """At most ``most`` hypotheses of each pair, the cheapest; of equals the first."""
    order = np.lexsort((cost, which))
    first = np.searchsorted(which[order], which[order])
    kept = order[np.arange(len(order)) - first < most]
    return which[kept], motions[kept]


def _near_pairs(matcher: Matcher, a: Int, b: Int, window_m: float) -> tuple[Int, Int]:
    """Pairs of different clusters, alike in size, whose centres a motion in the window may join."""
    if not len(a) or not len(b):
        return a[:0], b[:0]
    # What is seen of a body changes as it passes: its centre moves a little otherwise than the body.
    reach_m = 1.3 * window_m + 0.5
    near = cKDTree(matcher.target.centres()[b]).query_ball_point(
        matcher.source.centres()[a], reach_m, return_sorted=True
    )
    first = np.repeat(a, [len(rows) for rows in near])
    second = b[np.concatenate([np.asarray(rows, dtype=np.int64) for rows in near])]
    n, m = matcher.source.size[first], matcher.target.size[second]
    alike = (first != second) & (np.minimum(n, m) > ALIKE * np.maximum(n, m))
    return first[alike], second[alike]


def _best_targets(
    matcher: Matcher, a: Int, b: Int, window_m: float, config: ClusterConfig
) -> tuple[Int, Motions, Float, Int]:
    """Source clusters, each once, with the motion to the target cluster that fits best."""
    which, motions, cost = _search(matcher, a, b, window_m, config)
    order = np.lexsort((cost, a[which]))
    first = order[np.r_[True, np.diff(a[which][order]) != 0]] if len(order) else order
    return a[which][first], motions[first], cost[first], b[which][first]
