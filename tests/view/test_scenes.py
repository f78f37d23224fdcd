# SPDX-License-Identifier: Apache-2.0
"""Views of a scene: true to scale, the same however the world is turned, and not at the mercy of one wild point."""

from __future__ import annotations

import numpy as np
import pytest

from vision3d import canvas
from vision3d.geometry.se3 import from_rt, rotvec_to_rotation, transform
from vision3d.types import Scene
from vision3d.view.scenes import WIDTH, _frame, centres, scene_picture

UP = np.array([0.0, -1.0, 0.0])


def room(n: int = 3000) -> Scene:
    """A box of 6 m x 2.4 m x 4 m (y down) with a camera that walks through it."""
    rng = np.random.default_rng(0)
    points = rng.uniform([-3.0, -1.2, -2.0], [3.0, 1.2, 2.0], (n, 3))
    path = np.array([from_rt(rotvec_to_rotation([0.0, 0.1 * i, 0.0]), [0.1 * i - 1, 0, 0.05 * i]) for i in range(20)])
    return Scene("room", "Room", points, rng.integers(0, 255, (n, 3), dtype=np.uint8), {"true": path}, UP)


def turned(scene: Scene, T: np.ndarray) -> Scene:
    paths = {name: T @ path for name, path in scene.trajectories.items()}
    return Scene(scene.name, scene.title, transform(T, scene.points), scene.colors, paths, T[:3, :3] @ scene.up)


@pytest.mark.parametrize("view", ["top", "side"])
def test_both_axes_have_the_scale_that_the_bar_states(view: str) -> None:
    frame = _frame(room(), view)  # type: ignore[arg-type]
    square = np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 0, 1.0]])
    uv = frame.place(square) / 2  # drawn at twice the size
    lengths = np.linalg.norm(uv[1:] - uv[0], axis=1)
    seen = np.sort(lengths)[1:]
    assert seen == pytest.approx([frame.px_per_m] * 2, rel=0.02)
    assert np.sort(lengths)[0] < 0.1 * frame.px_per_m  # the third axis points at the viewer


def test_from_the_side_up_is_up_and_from_above_what_is_higher_covers_what_is_lower() -> None:
    frame = _frame(room(), "side")
    low, high = frame.place([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    assert high[1] < low[1]
    column = np.array([[0.0, 0.5, 0.0], [0.0, -0.5, 0.0]] + [[x, 0.0, z] for x in (-3.0, 3.0) for z in (-2.0, 2.0)])
    red_low_green_high = np.array([[200, 0, 0], [0, 200, 0]] + [[0, 0, 0]] * 4, dtype=np.uint8)
    for order in ([0, 1], [1, 0]):
        pick = [*order, 2, 3, 4, 5]
        picture = scene_picture(Scene("c", "C", column[pick], red_low_green_high[pick], {}, UP), "top")
        colours = picture.reshape(-1, 3).astype(int)
        assert (np.abs(colours - [0, 200, 0]).max(axis=1) < 40).any()
        assert not (np.abs(colours - [200, 0, 0]).max(axis=1) < 40).any()


def test_views_are_right_handed() -> None:
    for view in ("top", "side"):
        axes = _frame(room(), view).axes  # type: ignore[arg-type]
        assert axes @ axes.T == pytest.approx(np.eye(3), abs=1e-9)
        assert np.linalg.det(axes) == pytest.approx(1.0)


@pytest.mark.parametrize("view", ["top", "side"])
def test_the_view_follows_the_world_when_it_is_turned_and_moved(view: str) -> None:
    scene = room()
    T = from_rt(rotvec_to_rotation([0.5, -1.0, 0.3]), [10.0, -4.0, 7.0])
    here, there = _frame(scene, view), _frame(turned(scene, T), view)  # type: ignore[arg-type]
    assert there.px_per_m == pytest.approx(here.px_per_m, rel=1e-6)
    uv_here = here.place(scene.points) - here.place(scene.points).mean(axis=0)
    uv_there = there.place(transform(T, scene.points))
    uv_there = uv_there - uv_there.mean(axis=0)
    # The horizontal axis may point either way: its sign is a free choice.
    flip = np.sign((uv_here[:, 0] * uv_there[:, 0]).sum())
    expected = uv_there * ([flip, flip] if view == "top" else [flip, 1.0])
    assert expected == pytest.approx(uv_here, abs=1e-3)


def test_a_few_wild_points_and_poses_neither_shrink_the_room_nor_vanish_in_silence() -> None:
    scene = room()
    clean = _frame(scene, "top")
    wild = np.concatenate([scene.points, np.random.default_rng(1).normal(0, 500, (15, 3))])
    path = np.repeat(scene.trajectories["true"], 10, axis=0)
    path[3, :3, 3] = [400.0, 0.0, -900.0]
    spoilt = Scene("s", "S", wild, None, {"estimated": path}, UP)
    frame = _frame(spoilt, "top")
    assert frame.px_per_m > 0.8 * clean.px_per_m
    hidden = wild.shape[0] - frame.inside(frame.place(wild)).sum()
    assert 14 <= hidden <= 15
    assert not frame.inside(frame.place(centres(path)))[3]
    # The count is written into the foot of the picture.
    foot, clean_foot = (scene_picture(s, "top")[-40:, 400:] for s in (spoilt, scene))
    assert (foot < 150).sum() > 1.5 * (clean_foot < 150).sum()


def test_trajectories_appear_in_their_colours_with_a_legend() -> None:
    scene = room()
    both = Scene("r", "R", scene.points[:50], None, {"a": scene.trajectories["true"], "b": np.eye(4)[None]}, UP)
    picture = scene_picture(both, "top")
    for color in canvas.SERIES[:2]:
        hits = np.abs(picture.astype(int) - color).max(axis=2) < 25
        assert hits[:44].any()  # legend
        assert hits[44:-40].any()  # drawing


def test_no_line_is_drawn_across_a_jump() -> None:
    near = np.array([from_rt(np.eye(3), [0.02 * i, 0.0, 0.0]) for i in range(10)])
    far = near + 0.0
    far[:, 0, 3] += 4.0
    corners = np.array([[-1.0, 0, -1], [5, 0, -1], [5, 0, 1], [-1, 0, 1]])
    picture = scene_picture(Scene("j", "J", corners, None, {"a": np.concatenate([near, far])}, UP), "top")
    frame = _frame(Scene("j", "J", corners, None, {"a": np.concatenate([near, far])}, UP), "top")
    u, v = frame.place([[2.0, 0.0, 0.0]])[0] / 2
    patch = picture[round(v) - 6 : round(v) + 7, round(u) - 6 : round(u) + 7].astype(int)
    assert np.abs(patch - canvas.SERIES[0]).max(axis=2).min() > 60


@pytest.mark.parametrize("view", ["top", "side"])
@pytest.mark.parametrize(
    ("points", "poses"),
    [
        (np.zeros((0, 3)), np.zeros((0, 4, 4))),
        (np.zeros((1, 3)), np.zeros((0, 4, 4))),
        (np.zeros((0, 3)), np.eye(4)[None]),
        (np.full((5, 3), np.nan), np.eye(4)[None]),
        (np.ones((9, 3)), np.full((2, 4, 4), np.nan)),
        (np.outer(np.arange(9.0), [0.0, 1.0, 0.0]), np.eye(4)[None]),
    ],
)
def test_degenerate_scenes_still_give_a_picture(view: str, points: np.ndarray, poses: np.ndarray) -> None:
    picture = scene_picture(Scene("d", "D", points, None, {"p": poses}, UP), view)  # type: ignore[arg-type]
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (WIDTH, 3)


def test_equal_scenes_give_equal_bytes() -> None:
    assert (scene_picture(room(), "top") == scene_picture(room(), "top")).all()
