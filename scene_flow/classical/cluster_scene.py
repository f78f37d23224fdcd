# SPDX-License-Identifier: Apache-2.0
"""Two clouds cut into clusters, and how far apart two scans of one surface are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from scene_flow.classical.clusters import cluster, thin
from scene_flow.classical.config import ClusterConfig
from scene_flow.classical.groups import Float, Int, Matcher, PointGroups

RANGE_BINS = 12
MOST_NOISE_M = 0.5


class Noise:
    """By range, the distance between two scans of one surface that means nothing: they do not hit the same spots.

    That is half of the way between points of one scan, taken to the third nearest: the nearest lie on the same scan
    line. Bins of range hold equally many points, and their medians are joined by lines.
    """

    def __init__(self, source: Float, target: Float, least_m: float) -> None:
        spacing_m = np.concatenate([_third_nearest(source), _third_nearest(target)])
        range_m = np.linalg.norm(np.concatenate([source, target]), axis=1)
        order = np.argsort(range_m, kind="stable")
        bins = [rows for rows in np.array_split(order, RANGE_BINS) if len(rows)]
        self._range_m = np.array([range_m[rows].mean() for rows in bins])
        noise_m = np.array([np.median(spacing_m[rows]) / 2 for rows in bins])
        self._noise_m = np.clip(noise_m, least_m, max(MOST_NOISE_M, least_m))

    def __call__(self, points: Float) -> Float:
        """(N,) metres at the points (N, 3)."""
        return np.interp(np.linalg.norm(points, axis=1), self._range_m, self._noise_m)


@dataclass(frozen=True)
class Clusters:
    """Clusters of some points of both clouds; K counts those with points of one cloud only, too.

    Attributes:
        source, target: (N,) and (M,) the cluster of each point, 0 to K - 1.
        extent_m: (K,) diagonal of each cluster's box on the ground.
        matcher: the thinned points of the clusters.
    """

    source: Int
    target: Int
    extent_m: Float
    matcher: Matcher

    @classmethod
    def of(
        cls, source: Float, target: Float, radius_m: float, noise: Noise, planar: bool, config: ClusterConfig
    ) -> Clusters:
        """Clusters of (N, 3) and (M, 3) metres, x forward, y left, z up; N + M at least 1."""
        both = np.concatenate([source, target])
        labels = cluster(both, radius_m)
        count = int(labels.max()) + 1
        ours, theirs = labels[: len(source)], labels[len(source) :]
        matcher = Matcher(
            source=_groups(source, ours, count, noise, config),
            target=_groups(target, theirs, count, noise, config),
            reach_m=config.reach_m,
            planar=planar,
        )
        return cls(ours, theirs, _extents(both, labels, count), matcher)


def _groups(points: Float, labels: Int, count: int, noise: Noise, config: ClusterConfig) -> PointGroups:
    if not len(points):
        return PointGroups(points, labels, np.zeros(0), count, config.max_points)
    thinned, cell = thin(points, config.thin_m)
    group = np.empty(len(thinned), dtype=np.int64)
    group[cell] = labels
    return PointGroups(thinned, group, noise(thinned), count, config.max_points)


def _third_nearest(points: Float) -> Float:
    """(N,) distance of each point to its third nearest other point; 0 where there are fewer."""
    distance = cKDTree(points).query(points, k=[4])[0][:, 0]
    return np.where(np.isfinite(distance), distance, 0.0)


def _extents(points: Float, labels: Int, count: int) -> Float:
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], np.arange(count))
    span = np.maximum.reduceat(points[order, :2], first) - np.minimum.reduceat(points[order, :2], first)
    return np.linalg.norm(span, axis=1)
