# SPDX-License-Identifier: Apache-2.0
"""Errors in pixels: the card's projection, what is behind the camera, strict limits, both kinds of axes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scored_flow import result_of, truth_of, values

from scene_flow.metrics.pair import in_lidar_axes
from scene_flow.metrics.pixels import is_accurate, pixel_errors, project
from scene_flow.metrics.table import score_flow
from vision3d.geometry.cameras import Camera

CAMERA = Camera("PINHOLE", 960, 540, (1050.0, 1000.0, 479.5, 269.5))


def test_projection_is_the_cards_in_camera_axes() -> None:
    x, y, z = 1.2, -0.4, 8.0  # left, up, forward
    uv = project(in_lidar_axes(np.array([[x, y, z]]), "camera"), CAMERA)
    assert uv[0] == pytest.approx([479.5 - 1050 * x / z, 269.5 - 1000 * y / z])


def test_behind_the_camera_there_is_no_pixel() -> None:
    assert np.isnan(project(np.array([[-1.0, 0, 0], [0.0, 0, 0]]), CAMERA)).all()
    points = np.array([[5.0, 0, 0], [5.0, 0, 0], [-5.0, 0, 0], [5.0, 0, 0]])
    true_flow = np.array([[0.0, 1, 0], [0.0, 1, 0], [0.0, 0, 0], [-9.0, 0, 0]])
    flow = np.array([[0.0, 1, 0], [-6.0, 0, 0], [0.0, 0, 0], [0.0, 0, 0]])
    error, true = pixel_errors(points, flow, true_flow, CAMERA)
    # Points 2 and 3 truly are, or go, behind: left out. Point 1 is led there: infinitely wrong.
    assert error.tolist() == [0.0, math.inf]
    assert true == pytest.approx([210.0, 210.0])


@pytest.mark.parametrize(
    ("error", "true", "accurate"),
    [
        (2.99, 0, True),
        (3.0, 0, False),
        (3.0, 59.9, False),
        (3.0, 60.1, True),
        (5.0, 100 - 1e-5, False),
        (np.inf, 9, False),
    ],
)
def test_strict_limits(error: float, true: float, accurate: bool) -> None:
    assert is_accurate(np.array([error]), np.array([true]))[0] == accurate


def test_table_averages_pairs_in_both_axes() -> None:
    points = np.array([[10.0, 0, 0]])
    good = truth_of([[0.0, 1, 0]], points=points, camera=CAMERA)
    wrong = truth_of([[1.0, 0, 0]], points=points[:, [1, 2, 0]], camera=CAMERA, axes="camera")
    blind = truth_of([[1.0, 0, 0]], points=points)
    results = [result_of(good.flow), result_of([[0.0, 0, 0]], axes="camera"), result_of(blind.flow)]
    found = values(score_flow(results, [good, wrong, blind]))
    assert found["epe2d"] == pytest.approx((0 + 105.0) / 2)  # one metre to the left at 10 m
    assert found["acc2d"] == 0.5
    assert "epe2d" not in values(score_flow(results[2:], [blind]))
