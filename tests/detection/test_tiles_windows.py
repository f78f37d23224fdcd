# SPDX-License-Identifier: Apache-2.0
"""Windows cover every pixel, and every object is in one of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.dota.config import SplitConfig, TileConfig, WindowConfig
from detection.dota.windows import Window, grid, parts_inside, share_out, split_windows, starts
from vision3d.errors import ConfigError
from vision3d.geometry import rotated


def test_the_last_window_is_shifted_back_to_the_border() -> None:
    assert starts(1024, 1024, 200) == [0]
    assert starts(1025, 1024, 200) == [0, 1]
    assert starts(2672, 1024, 200) == [0, 824, 1648]
    assert starts(2673, 1024, 200) == [0, 824, 1648, 1649]
    assert starts(500, 1024, 200) == [0]


def test_the_window_is_scaled_not_the_image() -> None:
    config = SplitConfig(rates=(0.5, 1.0, 1.5), gap=500)
    assert config.sizes == [(2048, 1000), (1024, 500), (683, 333)]
    windows = split_windows(3000, 2048, config)
    assert {(w.size, w.rate) for w in windows} == {(2048, 0.5), (1024, 1.0), (683, 1.5)}
    assert [(w.x, w.y) for w in windows if w.rate == 0.5] == [(0, 0), (952, 0)]


def test_windows_that_are_mostly_empty_are_left_out_and_the_fullest_stays() -> None:
    config = SplitConfig(rates=(0.5, 1.0))
    assert {w.rate for w in split_windows(1300, 1300, config)} == {1.0}  # 40 % of a window of 2048
    assert {w.rate for w in split_windows(1600, 1600, config)} == {0.5, 1.0}  # 61 %
    assert split_windows(500, 300, config) == [Window(0, 0, 1024, 1.0)]
    assert [w.x for w in split_windows(2000, 500, SplitConfig())] == [0, 824, 976]  # all alike: none is lost


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(32, 90),
    st.integers(0, 31),
    st.sampled_from([(1.0,), (0.5, 1.5)]),
)
def test_every_pixel_is_in_a_window(width: int, height: int, window: int, gap: int, rates: tuple[float, ...]) -> None:
    config = SplitConfig(window, gap, rates)
    for windows in (grid(width, height, config), split_windows(width, height, config)):
        seen = np.zeros((height, width), bool)
        for w in windows:
            assert w.x >= 0 and w.y >= 0
            assert w.x + w.size <= max(width, w.size)
            seen[w.y : w.y + w.size, w.x : w.x + w.size] = True
        assert seen.all()
        assert len(set(windows)) == len(windows)


def test_parts_of_quadrilaterals_against_shapely() -> None:
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(0)
    boxes = np.column_stack(
        [rng.uniform(0, 100, (60, 2)), rng.uniform(0.1, 50, (60, 2)), rng.uniform(-np.pi / 2, np.pi / 2, 60)]
    )
    boxes[:10, 4] = 0  # edges along the window's
    quads = rotated.corners(boxes)
    quads[20:40] += rng.normal(scale=0.02, size=(20, 4, 2)) * boxes[20:40, None, 2:4]  # as in real files
    low = np.concatenate([rng.uniform(-20, 80, (50, 2)), quads[:10, 0]])
    bounds = np.concatenate([low, low + rng.uniform(1, 80, (60, 2))], 1)
    shapes, windows = shapely.polygons(quads), shapely.box(*bounds.T)
    expected = shapely.area(shapely.intersection(shapes[:, None], windows[None])) / shapely.area(shapes)[:, None]
    assert np.abs(parts_inside(quads, bounds) - expected).max() < 1e-9
    far = 1e6  # a corner of a mosaic
    assert np.abs(parts_inside(quads + far, bounds + far) - expected).max() < 1e-6


def test_parts_do_not_depend_on_order_and_nothing_has_no_part() -> None:
    quad = np.array([[0.0, 0], [4, 0], [4, 2], [0, 2]])
    half = np.array([[2.0, -5, 9, 9]])
    for shift, way in itertools.product(range(4), (1, -1)):
        assert parts_inside(np.roll(quad, shift, 0)[::way][None], half) == pytest.approx(0.5)
    assert parts_inside(np.zeros((1, 4, 2)), np.array([[-1.0, -1, 1, 1]])) == 0
    assert parts_inside(quad[None], np.array([[4.0, 0, 8, 8]])) == 0  # touching
    assert parts_inside(np.zeros((0, 4, 2)), half).shape == (0, 1)


def test_an_object_belongs_to_windows_that_hold_seven_tenths() -> None:
    config = WindowConfig(100, 20)
    windows = grid(180, 100, config)  # at x 0 and 80
    boxes = np.array(
        [
            [94.5, 50, 10, 4, 0],  # ends where the first window ends, in both
            [99.5, 50, 10, 4, 0],  # half in the first
            [97.5, 50, 10, 4, 0],  # exactly 0.7 in the first
            [97.6, 50, 10, 4, 0],
            [0.0, 50, 10, 4, 0],  # leaves the image: the window cuts nothing
        ]
    )
    first, second = share_out(rotated.corners(boxes), windows, (180, 100), 0.7)
    assert first.rows.tolist() == [0, 2, 4]
    assert first.cut.tolist() == [False, True, False]
    assert second.rows.tolist() == [0, 1, 2, 3]
    assert not second.cut.any()
    assert first.forced.tolist() == [False, False, True]


def test_an_object_that_no_window_holds_goes_to_the_one_that_holds_most() -> None:
    windows = grid(300, 100, WindowConfig(100, 0))
    boxes = np.array([[210.0, 50, 150, 10, 0], [-40.0, 50, 20, 4, 0]])  # and one that is not in the image
    shares = share_out(rotated.corners(boxes), windows, (300, 100), 0.7)
    assert [share.rows.tolist() for share in shares] == [[], [], [0]]
    assert (shares[2].cut.tolist(), shares[2].forced.tolist()) == ([True], [True])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_object_is_lost(seed: int) -> None:
    """Whole in a window if smaller than the overlap, else in the one that holds most."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(50, 700)), int(rng.integers(50, 700))
    config = SplitConfig(128, 40, min_filled=0.6)
    windows = split_windows(*size, config)
    boxes = np.column_stack(
        [rng.uniform(0, 1, (30, 2)) * size - 0.5, rng.uniform(4, 90, (30, 2)), rng.uniform(-1.5, 1.5, 30)]
    )
    boxes[:15, 2:4] = rng.uniform(4, 28, (15, 2))  # hull at most 40
    inner = rotated.hulls(boxes)
    inside = (inner[:, :2] > -0.5).all(1) & (inner[:, 2:] < np.array(size) - 0.5).all(1)
    shares = share_out(rotated.corners(boxes), windows, size, config.keep)
    whole, held = np.zeros(30, bool), np.zeros(30, bool)
    for share in shares:
        held[share.rows] = True
        whole[share.rows[~share.cut]] = True
    assert held.all()
    assert whole[:15][inside[:15]].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 31}, "window is 31"),
        ({"gap": 1024}, "gap is 1024: must be less than the window"),
        ({"rates": ()}, "rates is ()"),
        ({"rates": (1.0, 1.0)}, "must be different"),
        ({"rates": (0.0,)}, "between 0.05 and 20"),
        ({"rates": (20.0,), "window": 64}, "must be less than the window"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SplitConfig(**options)
    assert message in str(error.value)


def test_more_options_out_of_range() -> None:
    with pytest.raises(ConfigError, match="two of them give windows of the same side"):
        SplitConfig(rates=(1.0, 1.0001))
    with pytest.raises(ConfigError, match="views"):
        TileConfig(views=("upside-down",))
    with pytest.raises(ConfigError, match="keep"):
        SplitConfig(keep=0)
    with pytest.raises(ConfigError, match="merge_iou"):
        TileConfig(merge_iou=1.5)
