# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from relocalization.synthetic_views import (
    MEDIUM,
    NONE,
    STRONG,
    SyntheticLandmarks,
    directions_of,
    median_and_nearest,
    random_directions,
)

# What the published experiment on view dependence gives for its own two baselines at 0, 25, 40, 55 degrees.
PUBLISHED = {
    MEDIUM: ([0.987, 0.937, 0.880, 0.827], [0.986, 0.989, 0.975, 0.953]),
    STRONG: ([0.961, 0.811, 0.688, 0.600], [0.969, 0.979, 0.951, 0.916]),
}


@pytest.mark.parametrize("strength", [MEDIUM, STRONG])
def test_baselines_do_as_well_as_in_the_published_experiment(strength: float) -> None:
    truth = SyntheticLandmarks.draw(400, 32, strength, 0)
    seen_from = random_directions(400, 12, 1)
    observed = truth.observe(seen_from, 2, patch_radius=0).descriptors.reshape(400, 12, 32).astype(np.float64)
    asked = np.broadcast_to(directions_of(np.array([0.0, 25, 40, 55]), np.zeros(4)), (400, 4, 3))
    for answer, expected in zip(median_and_nearest(seen_from, observed, asked), PUBLISHED[strength]):
        cosine = (answer * truth.descriptors(asked)).sum(-1).mean(0)
        assert np.abs(cosine - expected).max() < 0.02


def test_without_view_dependence_only_noise_is_left() -> None:
    truth = SyntheticLandmarks.draw(50, 32, NONE, 0)
    rays = truth.observe(random_directions(50, 4, 1), 2)
    mean = truth.mean / np.linalg.norm(truth.mean, axis=1, keepdims=True)
    assert (rays.descriptors * mean[rays.landmark]).sum(1).mean() == pytest.approx(0.994, abs=0.001)


@pytest.mark.parametrize("turned", [False, True])
def test_rays_come_from_the_cameras_through_a_patch_of_pixels(turned: bool) -> None:
    truth = SyntheticLandmarks.draw(5, 8, STRONG, 3, turned)
    directions = random_directions(5, 4, 4)
    rays = truth.observe(directions, 5, patch_radius=1)
    assert len(rays.landmark) == 5 * 4 * 9
    distance = np.linalg.norm(rays.origins - truth.points[rays.landmark], axis=1)
    assert np.allclose(distance, 2.0)
    unit = rays.directions / np.linalg.norm(rays.directions, axis=1, keepdims=True)
    to_center = truth.points[rays.landmark] - rays.origins
    sine = np.linalg.norm(np.cross(unit, to_center / 2.0), axis=1).reshape(20, 9)
    assert np.allclose(sine[:, 0], 0, atol=1e-7), "the central pixel first"
    assert np.allclose(np.sort(sine[:, 1:] * 525, axis=1), [1] * 4 + [2**0.5] * 4, rtol=1e-4)
    assert np.allclose(np.linalg.det(truth.turn), 1)
