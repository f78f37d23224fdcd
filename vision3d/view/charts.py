# SPDX-License-Identifier: Apache-2.0
"""Line charts as SVG text or as a picture, from one layout."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from vision3d import canvas
from vision3d.canvas import Picture, Rgb
from vision3d.types import Chart
from vision3d.view.ticks import linear_ticks, log_ticks, tick_label

Float = NDArray[np.float64]

WIDTH, HEIGHT = 720, 420
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
_LEFT, _RIGHT, _BOTTOM = 64, 18, 52
# Series of this many points or fewer also get a dot per point: each was measured, the line only leads the eye.
_MAX_DOTS = 24
# A theme may override these names; a lone SVG file falls back to the light colours.
_ROLE = {canvas.INK: "--ink", canvas.MUTED: "--muted", canvas.GRID: "--grid"}


@dataclass
class _Layout:
    """What is to be drawn, in pixels of a WIDTH x HEIGHT sheet, back to front."""

    lines: list[tuple[Float, Rgb, float]] = field(default_factory=list)
    dots: list[tuple[Float, Rgb]] = field(default_factory=list)
    texts: list[tuple[str, float, float, int, Rgb, str]] = field(default_factory=list)


def chart_svg(chart: Chart) -> str:
    """The chart as an ``<svg>`` element with a view box of 720 x 420; also a valid file of its own.

    Colours are CSS variables (``--sheet``, ``--ink``, ``--muted``, ``--grid``, ``--series-0`` ...) with light
    fallbacks, so that a page may give the same element a dark theme.
    """
    layout = _lay_out(chart)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(chart.title)}" style="font-family:{escape(FONT)}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" style="fill:var(--sheet,{canvas.hex_color(canvas.PAPER)})"/>',
    ]
    for points, color, width in layout.lines:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{path}" style="fill:none;stroke:{_css(color)};stroke-width:{width:g};'
            'stroke-linejoin:round;stroke-linecap:round"/>'
        )
    for points, color in layout.dots:
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" style="fill:{_css(color)}"/>' for x, y in points]
    for text, x, y, size, color, anchor in layout.texts:
        turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if anchor == "up" else ""
        where = "middle" if anchor == "up" else anchor
        weight = ";font-weight:600" if size >= 16 else ""
        parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{where}"{turned} '
            f'style="font-size:{size}px;fill:{_css(color)}{weight}">{escape(text)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def chart_picture(chart: Chart, scale: int = 2) -> Picture:
    """The chart as (420 * scale, 720 * scale, 3) uint8 RGB, for places that show no SVG."""
    layout = _lay_out(chart)
    picture = np.full((HEIGHT * scale, WIDTH * scale, 3), 255, dtype=np.uint8)
    for points, color, width in layout.lines:
        corners = points * scale
        canvas.segments(picture, corners[:-1], corners[1:], color, max(1, round(width * scale)))
    for points, color in layout.dots:
        canvas.dots(picture, points * scale, 3.0 * scale, color)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for text, x, y, size, color, anchor in layout.texts:
        if anchor == "up":
            _put_turned(picture, text, (round(x * scale), round(y * scale)), size * scale, color)
        else:
            canvas.put_text(picture, text, (round(x * scale), round(y * scale)), size * scale, color, anchors[anchor])
    return picture


def _lay_out(chart: Chart) -> _Layout:
    out = _Layout()
    series = {name: _clean(*xy, chart.x_log) for name, xy in chart.series.items()}
    out.texts.append((chart.title, _LEFT, 26.0, 16, canvas.INK, "start"))
    top = _legend(out, list(series)) + 16.0
    xs = np.concatenate([runs[:, 0] for parts in series.values() for runs in parts] or [np.zeros(0)])
    ys = np.concatenate([runs[:, 1] for parts in series.values() for runs in parts] or [np.zeros(0)])
    if not len(xs):
        out.texts.append(("no data", WIDTH / 2, (top + HEIGHT - _BOTTOM) / 2, 13, canvas.MUTED, "middle"))
        return out
    x_ticks, x_range = _x_axis(float(xs.min()), float(xs.max()), chart.x_log)
    y_ticks = linear_ticks(_baseline(float(ys.min()), float(ys.max())), float(ys.max()), 5)

    def place(points: Float) -> Float:
        x = np.log10(points[:, 0]) if chart.x_log else points[:, 0]
        low, high = (math.log10(v) for v in x_range) if chart.x_log else x_range
        u = _LEFT + (x - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)
        v = HEIGHT - _BOTTOM - (points[:, 1] - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - _BOTTOM - top)
        return np.stack([u, v], axis=1)

    for tick in y_ticks:
        ends = place(np.array([[x_range[0], tick], [x_range[1], tick]]))
        zero = tick == y_ticks[0]
        out.lines.append((ends, canvas.MUTED if zero else canvas.GRID, 1.0))
        out.texts.append((tick_label(tick), _LEFT - 8.0, ends[0, 1] + 4.0, 12, canvas.MUTED, "end"))
    for tick in x_ticks:
        u, v = place(np.array([[tick, y_ticks[0]]]))[0]
        out.lines.append((np.array([[u, v], [u, v + 4.0]]), canvas.MUTED, 1.0))
        out.texts.append((tick_label(tick), u, v + 18.0, 12, canvas.MUTED, "middle"))
    # The first series is the one the chart is about: it is drawn last, on top.
    for i, parts in reversed(list(enumerate(series.values()))):
        color = canvas.SERIES[i % len(canvas.SERIES)]
        for run in parts:
            points = place(run)
            if len(points) > 1:
                out.lines.append((points, color, 2.0))
            if sum(map(len, parts)) <= _MAX_DOTS or len(points) == 1:
                out.dots.append((points, color))
    out.texts.append((chart.x_label, (_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 12.0, 13, canvas.INK, "middle"))
    out.texts.append((chart.y_label, 18.0, (top + HEIGHT - _BOTTOM) / 2, 13, canvas.INK, "up"))
    return out


def _legend(out: _Layout, names: list[str]) -> float:
    """Rows of line samples with names between title and plot: they can never lie on data. Returns the lower edge."""
    x, y = float(_LEFT), 50.0
    for i, name in enumerate(names):
        # The reader's own font may be wider than ours.
        width = 26.0 + 1.1 * canvas.text_width(name, 13) + 18.0
        if x + width > WIDTH - _RIGHT and x > _LEFT:
            x, y = float(_LEFT), y + 20.0
        color = canvas.SERIES[i % len(canvas.SERIES)]
        out.lines.append((np.array([[x, y - 4.5], [x + 18.0, y - 4.5]]), color, 3.0))
        out.texts.append((name, x + 25.0, y, 13, canvas.INK, "start"))
        x += width
    return y if names else 30.0


def _clean(x: Float, y: Float, x_log: bool) -> list[Float]:
    """Runs of drawable points (N, 2); a value that is not finite, or not positive on a log axis, ends a run."""
    points = np.stack([np.asarray(x, dtype=np.float64).ravel(), np.asarray(y, dtype=np.float64).ravel()], axis=1)
    ok = np.isfinite(points).all(axis=1) & ((points[:, 0] > 0) | (not x_log))
    breaks = np.flatnonzero(np.diff(ok.astype(np.int8))) + 1
    return [run for run, keep in zip(np.split(points, breaks), np.split(ok, breaks), strict=True) if keep.any()]


def _x_axis(low: float, high: float, log: bool) -> tuple[list[float], tuple[float, float]]:
    """Ticks inside the data's range; the axis ends where the data ends."""
    if log:
        if high / low < 1.01:
            low, high = low / 2, high * 2
        return log_ticks(low, high), (low, high)
    if high - low < 1e-12 * max(abs(high), 1e-300):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    slack = 1e-9 * (high - low)
    return [t for t in linear_ticks(low, high, 7) if low - slack <= t <= high + slack], (low, high)


def _baseline(low: float, high: float) -> float:
    """Start at zero unless that would flatten the curve: lengths above zero are read as amounts."""
    return 0.0 if 0 <= low <= 0.6 * high else low


def _css(color: Rgb) -> str:
    role = _ROLE.get(color)
    if color in canvas.SERIES and role is None:
        role = f"--series-{canvas.SERIES.index(color)}"
    return f"var({role},{canvas.hex_color(color)})" if role else canvas.hex_color(color)


def _put_turned(picture: Picture, text: str, centre: tuple[int, int], size_px: int, color: Rgb) -> None:
    """One line reading upwards, centred on ``centre``; the sheet behind it is white."""
    w, h = canvas.text_width(text, size_px) + 4, 2 * size_px
    patch = np.full((h, w, 3), 255, dtype=np.uint8)
    canvas.put_text(patch, text, (2, h // 2), size_px, color, "lm")
    patch = np.asarray(cv2.rotate(patch, cv2.ROTATE_90_COUNTERCLOCKWISE))
    top, left = max(0, centre[1] - patch.shape[0] // 2), max(0, centre[0] - patch.shape[1] // 2)
    patch = patch[: picture.shape[0] - top, : picture.shape[1] - left]
    picture[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
