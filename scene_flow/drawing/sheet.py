# SPDX-License-Identifier: Apache-2.0
"""One sheet per pair: both clouds before and after the flow, the flow in colours, and where it is wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scene_flow.drawing import panels
from scene_flow.drawing.colors import ERROR_STOPS_M, error_bar, error_colors, flow_colors, full_strength, wheel
from scene_flow.drawing.panels import FrontView, TopView, splat, titled, upright
from vision3d import canvas
from vision3d.canvas import Picture, Rgb
from vision3d.types import CloudPair, FlowResult, FlowTruth

Float = NDArray[np.float64]

SOURCE: Rgb = canvas.BLUE
TARGET: Rgb = (190, 190, 190)
WARPED: Rgb = canvas.VERMILLION
_LEGEND_PX = 84


def flow_sheet(sample: CloudPair, result: FlowResult, truth: FlowTruth | None = None) -> Picture:
    """(H, W, 3) uint8 RGB: from above and as the sensor sees it, in columns: before, after, flow, errors.

    The flow is drawn against the static world where the sensor's motion is known: what stands still is white.
    """
    source, target = upright(sample.source, sample.axes), upright(sample.target, sample.axes)
    if result.flow is None:
        return _failed_sheet(sample, result, source, target)
    warped = upright(sample.source + result.flow, sample.axes)
    motion, against = own_motion(sample, result)
    horizontal = upright(motion, sample.axes)[:, :2]
    full_m = full_strength(horizontal)
    error = None if truth is None else flow_error(result.flow, truth)
    columns: list[tuple[str, list[tuple[Float, NDArray[np.uint8]]]]] = [
        ("first scan (blue) and second (grey)", [(target, _ink(TARGET)), (source, _ink(SOURCE))]),
        ("first scan moved by its flow (red)", [(target, _ink(TARGET)), (warped, _ink(WARPED))]),
        (f"flow against {against}", [(source, flow_colors(horizontal, full_m))]),
    ]
    if error is not None:
        known = np.isfinite(error)
        columns.append(("error", [(source[known], error_colors(error[known]))]))
    rows = []
    for where, view in (("above", TopView.around(source)), ("the sensor", FrontView.around(source))):
        row = [_panel(view, layers, f"{title}, from {where}") for title, layers in columns]
        rows.append(np.concatenate(row, axis=1))
    width = rows[0].shape[1]
    return np.concatenate([_head(sample, result, error, width), *rows, _legend(full_m, width, error)])


def own_motion(sample: CloudPair, result: FlowResult) -> tuple[NDArray[np.float32], str]:
    """(N, 3) flow without the sensor's share, and what it is measured against."""
    assert result.flow is not None
    T = result.T_target_source
    if T is None:
        return result.flow, "the sensor"
    still = sample.source.astype(np.float64) @ T[:3, :3].T + T[:3, 3] - sample.source
    return (result.flow - still).astype(np.float32), "the static world"


def flow_error(flow: NDArray[np.float32], truth: FlowTruth) -> Float:
    """(N,) metres; NaN for points that are not scored."""
    error = np.linalg.norm(flow.astype(np.float64) - truth.flow, axis=1)
    return np.where(truth.valid, error, np.nan)


def _ink(color: Rgb) -> NDArray[np.uint8]:
    return np.array(color, dtype=np.uint8)


def _panel(view: TopView | FrontView, layers: list[tuple[Float, NDArray[np.uint8]]], title: str) -> Picture:
    # White is no motion and needs a dark ground. All layers are drawn in one go, or the last would hide the others.
    picture = panels.blank(panels.DARK if title.startswith("flow") else panels.PAPER)
    points = np.concatenate([points for points, _ in layers])
    colors = np.concatenate([np.broadcast_to(colors, points.shape) for points, colors in layers])
    splat(picture, view, points, colors)
    return titled(picture, title)


def _head(sample: CloudPair, result: FlowResult, error: Float | None, width: int) -> Picture:
    head = np.full((34, width, 3), canvas.PAPER, dtype=np.uint8)
    facts = [f"{len(sample.source)} and {len(sample.target)} points"]
    if result.dynamic is not None:
        facts.append(f"{100 * result.dynamic.mean():.1f} % moving")
    if error is not None and np.isfinite(error).any():
        facts.append(f"mean error {np.nanmean(error):.3f} m")
    method = result.extra.get("picked", result.extra.get("method", ""))
    title = f"{sample.name} · {str(method).partition(':')[0]} · " + " · ".join(facts)
    canvas.put_text(head, canvas.fit_text(title, width - 24, 18), (10, 17), 18, canvas.INK, "lm")
    return head


def _legend(full_m: float, width: int, error: Float | None) -> Picture:
    foot = np.full((_LEGEND_PX + 12, width, 3), canvas.PAPER, dtype=np.uint8)
    x = 2 * panels.WIDTH + 8
    foot[6 : 6 + _LEGEND_PX, x : x + _LEGEND_PX] = wheel(_LEGEND_PX)
    text = f"hue: direction, up is forward; full colour: {full_m:.2f} m"
    canvas.put_text(foot, text, (x + _LEGEND_PX + 10, 6 + _LEGEND_PX // 2), 14, canvas.MUTED, "lm")
    if error is not None:
        x, bar_px = 3 * panels.WIDTH + 24, panels.WIDTH - 60
        foot[28:44, x : x + bar_px] = error_bar(bar_px, 16)
        for i, stop in enumerate(ERROR_STOPS_M):
            at = x + round(i * (bar_px - 1) / (len(ERROR_STOPS_M) - 1))
            label = f"{stop:g}" + (" m and more" if i == len(ERROR_STOPS_M) - 1 else "")
            last = i == len(ERROR_STOPS_M) - 1
            canvas.put_text(foot, label, (at, 58), 13, canvas.MUTED, "rm" if last else "mm")
    return foot


def _failed_sheet(sample: CloudPair, result: FlowResult, source: Float, target: Float) -> Picture:
    view = TopView.around(source)
    layers = [(target, _ink(TARGET)), (source, _ink(SOURCE))]
    panel = _panel(view, layers, "first scan (blue) and second (grey), from above")
    head = np.full((60, panel.shape[1], 3), canvas.PAPER, dtype=np.uint8)
    canvas.put_text(head, f"{sample.name}: no flow", (8, 18), 16, canvas.INK, "lm")
    canvas.put_text(head, canvas.fit_text(result.reason, panel.shape[1] - 16, 13), (8, 42), 13, canvas.VERMILLION, "lm")
    return np.concatenate([head, panel])
