# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from vision3d.geometry.se3 import from_rt, rotation_angle_deg, rotvec_to_rotation, transform
from vision3d.readers._flow_rigid import fit_rigid, residuals, rigid_motion

T = from_rt(rotvec_to_rotation([0.01, -0.03, 0.02]), [0.4, -0.1, 1.2])


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform(-20, 20, (3000, 3))


def test_exact_motion_from_three_points_and_from_many(points):
    for p in (points, points[:3]):
        np.testing.assert_allclose(rigid_motion(p, transform(T, p)), T, atol=1e-12)


def test_a_mirrored_cloud_gives_a_rotation_still(points):
    assert np.linalg.det(rigid_motion(points, points * [-1, 1, 1])[:3, :3]) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.0, 0.15, 0.22])
def test_movers_do_not_pull_the_motion(points, share):
    rng = np.random.default_rng(1)
    q = transform(T, points) + rng.normal(0, 0.005, points.shape)
    # Three objects, each of them smaller than what stands still; together they may be most of the points.
    objects = np.minimum(np.arange(len(points)) // max(int(share * len(points)), 1), 3) if share else np.full(3000, 3)
    q += np.array([[1.5, 0.3, 0.0], [2.0, 0.0, 0.4], [-0.4, 0.9, 0.1], [0.0, 0.0, 0.0]])[objects]
    movers = objects < 3
    fitted = fit_rigid(points, q, 0.05)
    assert np.linalg.norm(fitted[:3, 3] - T[:3, 3]) < 0.002
    assert rotation_angle_deg(fitted[:3, :3].T @ T[:3, :3]) < 0.01
    np.testing.assert_array_equal(residuals(fitted, points, q) > 0.05, movers)
    np.testing.assert_array_equal(fit_rigid(points, q, 0.05), fitted)


def test_no_common_motion_is_none(points):
    rng = np.random.default_rng(2)
    assert fit_rigid(points, points + rng.uniform(-20, 20, points.shape), 0.05) is None
    assert fit_rigid(points[:9], points[:9], 0.05) is None
