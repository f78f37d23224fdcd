# SPDX-License-Identifier: Apache-2.0
"""Two clouds cut into clusters: noise from the points' own spacing, sizes on the ground, clusters of one cloud only."""

from __future__ import annotations

import numpy as np

from scene_flow.classical.cluster_scene import MOST_NOISE_M, Clusters, Noise
from scene_flow.classical.config import ClusterConfig


def test_noise_is_half_the_spacing_within_its_bounds() -> None:
    """Of a square grid, the third nearest is one step away."""
    grid = np.stack(np.meshgrid(np.arange(40.0), np.arange(40.0), [0.0]), axis=-1).reshape(-1, 3)
    for step_m, expected in ((0.3, 0.15), (0.02, 0.05), (5.0, MOST_NOISE_M)):
        noise = Noise(step_m * grid, step_m * grid, 0.05)
        np.testing.assert_allclose(noise(step_m * grid), expected, atol=1e-9)


def test_noise_grows_with_the_range() -> None:
    """A fan of rays: points spread in proportion to the range."""
    r, angle = np.meshgrid(np.geomspace(5, 50, 120), np.linspace(-0.5, 0.5, 51))
    fan = np.stack([r * np.cos(angle), r * np.sin(angle), np.zeros_like(r)], axis=-1).reshape(-1, 3)
    near, far = Noise(fan, fan, 0.01)(np.array([[10.0, 0, 0], [30.0, 0, 0]]))
    np.testing.assert_allclose([near, far], [0.1, 0.3], rtol=0.15)


def test_clusters_of_both_clouds_and_of_one() -> None:
    """An L of both clouds, and one cluster that only the source has; heights do not count for the extent."""
    x = np.arange(0, 3.01, 0.25)
    corner = np.concatenate([np.column_stack([x, 0 * x, x]), np.column_stack([0 * x, x * 4 / 3, 0 * x])])
    alone = np.array([[20.0, 0, 0], [20.3, 0, 0]])
    source, target = np.concatenate([corner, alone]), corner[::-1]
    found = Clusters.of(source, target, 0.5, Noise(source, target, 0.05), True, ClusterConfig())
    both, one = found.source[0], found.source[-1]
    assert both != one and (found.source[:-2] == both).all() and (found.target == both).all()
    np.testing.assert_allclose(found.extent_m[[both, one]], [5.0, 0.3])
    assert found.matcher.source.size[one] == 2 and found.matcher.target.size[one] == 0
    assert found.matcher.reach_m == ClusterConfig().reach_m and found.matcher.planar
