# SPDX-License-Identifier: Apache-2.0
"""Axes with round numbers, curves that lie where their numbers say, a legend that covers nothing."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision3d import canvas
from vision3d.types import Chart
from vision3d.view.charts import HEIGHT, WIDTH, chart_picture, chart_svg
from vision3d.view.ticks import linear_ticks, log_ticks, nice_step, tick_label

SVG = "{http://www.w3.org/2000/svg}"


def chart(series: dict, x_log: bool = False, title: str = "Title") -> Chart:
    arrays = {k: (np.asarray(x, dtype=float), np.asarray(y, dtype=float)) for k, (x, y) in series.items()}
    return Chart("name", title, "x (m)", "y (cm)", arrays, x_log)


def curves(svg: str) -> list[np.ndarray]:
    """Corner points of the thick lines, bottom one first."""
    found = []
    for line in ElementTree.fromstring(svg).iter(f"{SVG}polyline"):
        if "stroke-width:2" in line.get("style", ""):
            found.append(np.array([[float(v) for v in p.split(",")] for p in line.get("points", "").split()]))
    return found


def labels(svg: str) -> dict[str, tuple[float, float]]:
    texts = ElementTree.fromstring(svg).iter(f"{SVG}text")
    return {t.text or "": (float(t.get("x", 0)), float(t.get("y", 0))) for t in texts}


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 10))
@settings(max_examples=80, deadline=None)
def test_linear_ticks_are_few_round_and_enclose_the_data(low: float, span: float, target: int) -> None:
    ticks = linear_ticks(low, low + span, target)
    step = nice_step(span, target)
    assert ticks[0] <= low + 1e-6 * step + np.spacing(abs(low))  # a span may be few steps of the number itself
    assert ticks[-1] >= low + span - 1e-6 * step - 1e-9 * abs(low)
    assert 2 <= len(ticks) <= 2 * target + 3
    mantissa = step / 10.0 ** np.floor(np.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-6


@given(st.floats(-8, 8), st.floats(0.01, 10))
@settings(max_examples=80, deadline=None)
def test_log_ticks_stay_inside_and_never_crowd(exponent: float, decades: float) -> None:
    low, high = 10.0**exponent, 10.0 ** (exponent + decades)
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(ticks)
    assert ticks[0] >= low * (1 - 1e-6)
    assert ticks[-1] <= high * (1 + 1e-6)


@pytest.mark.parametrize(
    ("value", "text"), [(0.30000000000000004, "0.3"), (-0.0, "0"), (1e6, "1e6"), (2e-7, "2e-7"), (100.0, "100")]
)
def test_tick_labels_are_short(value: float, text: str) -> None:
    assert tick_label(value) == text


def test_constant_data_still_has_an_axis() -> None:
    assert linear_ticks(3.0, 3.0)[0] < 3.0 < linear_ticks(3.0, 3.0)[-1]
    assert len(curves(chart_svg(chart({"a": ([0, 1], [2, 2])})))) == 1
    assert len(curves(chart_svg(chart({"a": ([5, 5], [1, 2])})))) == 1


def test_points_lie_where_the_axis_labels_say() -> None:
    svg = chart_svg(chart({"a": ([0, 4, 10], [0, 20, 40])}))
    where, (line,) = labels(svg), curves(svg)
    for point, x, y in zip(line, ("0", "4", "10"), (None, "20", "40"), strict=True):
        if x != "0":  # "0" is a label of both axes
            assert point[0] == pytest.approx(where[x][0], abs=0.2)
        if y is not None:
            assert point[1] == pytest.approx(where[y][1] - 4.0, abs=0.2)


def test_a_logarithmic_axis_spaces_decades_evenly_and_drops_what_it_cannot_show() -> None:
    (line,) = curves(chart_svg(chart({"a": ([0, -1, 0.1, 1, 10, 100], [9, 9, 0, 1, 2, 3])}, x_log=True)))
    assert len(line) == 4
    assert np.diff(line[:, 0]) == pytest.approx(np.full(3, np.diff(line[:, 0])[0]), abs=0.2)


def test_missing_and_infinite_values_are_gaps_not_zeros() -> None:
    svg = chart_svg(chart({"a": (np.arange(30), [1.0] * 10 + [np.nan] + [1.0] * 9 + [np.inf] + [1.0] * 9)}))
    assert [len(line) for line in curves(svg)] == [10, 9, 9]


def test_a_lone_value_between_gaps_is_seen() -> None:
    svg = chart_svg(chart({"a": (np.arange(40), [np.nan] * 20 + [1.0] + [np.nan] * 19)}))
    assert svg.count("<circle") == 1


@pytest.mark.parametrize("n", [1, 4, 12])
def test_the_legend_lies_above_every_curve_and_inside_the_sheet(n: int) -> None:
    names = [f"method number {i}" for i in range(n)]
    svg = chart_svg(chart({name: ([0, 1], [0, 1]) for name in names}))
    where = labels(svg)
    lowest = max(where[name][1] for name in names)
    assert lowest < min(line[:, 1].min() for line in curves(svg))
    for name in names:
        assert where[name][0] + canvas.text_width(name, 13) < WIDTH


def test_the_first_series_is_drawn_on_top() -> None:
    svg = chart_svg(chart({"ours": ([0, 1], [0, 1]), "other": ([0, 1], [0, 1])}))
    order = re.findall(r"stroke:var\(--series-(\d)[^;]*;stroke-width:2", svg)
    assert order == ["1", "0"]


def test_names_are_data_and_never_markup() -> None:
    evil = "<script>alert('&\"')</script>"
    svg = chart_svg(Chart("n", evil, evil, evil, {evil: (np.arange(3.0), np.arange(3.0))}))
    root = ElementTree.fromstring(svg)
    assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {"svg", "rect", "polyline", "circle", "text"}
    assert [t.text for t in root.iter(f"{SVG}text")].count(evil) == 4
    assert root.get("aria-label") == evil


@pytest.mark.parametrize("series", [{}, {"a": ([], [])}, {"a": ([1.0], [np.nan])}])
def test_a_chart_without_data_says_so(series: dict) -> None:
    assert "no data" in chart_svg(chart(series))
    assert chart_picture(chart(series)).shape == (2 * HEIGHT, 2 * WIDTH, 3)


def test_the_picture_shows_the_same_curve_in_the_same_place() -> None:
    c = chart({"a": (np.linspace(0, 10, 50), np.linspace(0, 40, 50))})
    (line,) = curves(chart_svg(c))
    picture = chart_picture(c, scale=2)
    for u, v in line[5:45:8]:
        patch = picture[int(2 * v) - 3 : int(2 * v) + 4, int(2 * u) - 3 : int(2 * u) + 4].reshape(-1, 3).astype(int)
        assert np.abs(patch - canvas.SERIES[0]).max(axis=1).min() < 20
