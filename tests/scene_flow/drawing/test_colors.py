# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from scene_flow.drawing.colors import ERROR_STOPS_M, error_bar, error_colors, flow_colors, full_strength, wheel
from vision3d import canvas


def hue_gap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).max())


def test_no_motion_is_nearly_white_and_opposite_directions_differ() -> None:
    still, right, left, far = flow_colors(np.array([[0, 0], [1, 0], [-1, 0], [50, 0]], float), 1.0)
    assert still.min() > 235
    assert hue_gap(right, left) > 150
    assert (far == right).all()  # beyond the full strength nothing changes


def test_length_is_strength() -> None:
    colors = flow_colors(np.array([[x, 0.0] for x in (0, 0.25, 0.5, 1.0)]), 1.0).astype(int)
    washed = colors.min(axis=1)  # the least channel falls as the colour gets stronger
    assert (np.diff(washed) < 0).all()


def test_full_strength_ignores_what_stands_still() -> None:
    flow = np.zeros((1000, 2))
    assert full_strength(flow) == 0.1
    flow[:10] = [2.0, 0]
    assert full_strength(flow) == pytest.approx(2.0)
    assert full_strength(np.zeros((0, 2))) == 0.1


def test_errors_get_their_stops_colours_and_brightness_rises_up_to_a_third_of_a_metre() -> None:
    colors = error_colors(np.array([*ERROR_STOPS_M, np.inf, np.nan]))
    assert (colors[-1] == colors[-2]).all()
    assert (colors[-1] == colors[len(ERROR_STOPS_M) - 1]).all()
    light = colors[:4] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(light) > 20).all()


def test_the_wheel_shows_the_colours_of_its_directions() -> None:
    picture = wheel(101)
    assert (picture[0, 0] == canvas.PAPER).all()
    right, up = flow_colors(np.array([[0.9, 0.0], [0.0, 0.9]]), 1.0)
    assert hue_gap(picture[50, 95], right) < 25
    assert hue_gap(picture[5, 50], up) < 25


def test_the_bar_runs_through_all_stops() -> None:
    bar = error_bar(81, 3)
    assert bar.shape == (3, 81, 3)
    assert (bar[0, ::20] == error_colors(np.array(ERROR_STOPS_M))).all()
