# SPDX-License-Identifier: Apache-2.0
"""One picture per query: what was matched, what agreed, where the map's landmarks fall, and how sure it is.

Colours are Okabe and Ito's (see :mod:`vision3d.canvas`), and each kind of mark has its own shape as well:
inliers are green discs with a line to the reprojected landmark, outliers vermillion crosses, landmarks of the
map that should be visible faint sky-blue dots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relocalization.evaluate import pose_errors
from vision3d import canvas
from vision3d.canvas import Picture
from vision3d.types import PoseResult

Float = NDArray[np.float64]

INLIER, OUTLIER, LANDMARK = canvas.GREEN, canvas.VERMILLION, canvas.SKY
# More lines than this between two images become a carpet; every k-th is drawn then.
MAX_INLIER_LINES, MAX_OUTLIER_LINES = 60, 25
_GAP_PX = 4
_BAR_PX = 66


def draw_localization(image: NDArray[np.uint8], result: PoseResult, T_true: ArrayLike | None = None) -> Picture:
    """Picture of one localized (or failed) query.

    Args:
        image: (H, W, 3) uint8 RGB, the query.
        result: its ``debug`` may hold, all in pixels and every key optional: ``uv_px`` (M, 2) matched query
            pixels, ``projected_px`` (M, 2) their landmarks under the final pose, ``inlier`` (M,) bool,
            ``landmarks_px`` (L, 2) all visible landmarks, ``map_image`` (h, w, 3) uint8 best map image,
            ``map_uv_px`` (M, 2) where that image saw the landmarks. NaN rows are left out.
        T_true: (4, 4) ``T_world_cam`` to state the error against.

    Returns:
        (H', W', 3) uint8 RGB, 640 to 1280 wide: the query with marks; below it, with a map image, both images
        side by side with lines between the matches; at the bottom a caption.
    """
    picture, factor = canvas.fit_width(image)
    marks = _Marks(result.debug)
    panels = [_query_panel(picture, marks, factor)]
    map_image = result.debug.get("map_image")
    if map_image is not None:
        panels.append(_match_panel(picture, np.asarray(map_image), marks, factor))
    panels.append(_caption(picture.shape[1], result, T_true, marks))
    return np.concatenate(panels)


def describe_error(e_t_m: float, e_R_deg: float) -> str:
    """``0.24 cm, 0.10°``; metres from one metre on; ``not localized`` for a failure."""
    if not np.isfinite(e_t_m):
        return "not localized"
    return f"{_length(e_t_m)}, {e_R_deg:.2f}°"


def one_sigma(covariance: ArrayLike) -> tuple[float, float]:
    """Standard deviation of the camera centre (m) and of the rotation (deg) from a :class:`PoseResult` covariance.

    A left perturbation moves the centre by minus its translation part, so the blocks can be read off directly.
    """
    variance = np.diag(np.asarray(covariance, dtype=np.float64))
    return float(np.sqrt(variance[3:].sum())), float(np.degrees(np.sqrt(variance[:3].sum())))


class _Marks:
    """The debug arrays with every absent one replaced by an empty or neutral one."""

    def __init__(self, debug: Mapping[str, Any]) -> None:
        self.uv = _pixels(debug.get("uv_px"), 0)
        n = len(self.uv)
        self.projected = _pixels(debug.get("projected_px"), n)
        self.map_uv = _pixels(debug.get("map_uv_px"), n)
        self.landmarks = _pixels(debug.get("landmarks_px"), 0)
        inlier = debug.get("inlier")
        self.inlier = np.zeros(n, dtype=bool) if inlier is None else np.asarray(inlier, dtype=bool).reshape(n)


def _pixels(value: Any, n_if_absent: int) -> Float:
    if value is None:
        return np.full((n_if_absent, 2), np.nan)
    return np.asarray(value, dtype=np.float64).reshape(-1, 2)


def _to_view(uv_px: Float, factor: float) -> Float:
    # Pixel centres are integers: scaling acts on pixel areas, half a pixel off.
    return (uv_px + 0.5) * factor - 0.5


def _faded(picture: Picture) -> Picture:
    """Darker and greyer, so that marks stand out on any image."""
    grey = picture.mean(axis=2, keepdims=True)
    return np.clip(0.8 * (0.6 * picture + 0.4 * grey), 0, 255).astype(np.uint8)


def _query_panel(picture: Picture, marks: _Marks, factor: float) -> Picture:
    panel = _faded(picture)
    size = panel.shape[1] / 640.0
    faint = panel.copy()
    canvas.dots(faint, _to_view(marks.landmarks, factor), 1.6 * size, LANDMARK)
    canvas.blend(panel, faint, 0.65)
    uv, projected = _to_view(marks.uv, factor), _to_view(marks.projected, factor)
    bad, good = ~marks.inlier, marks.inlier
    canvas.crosses(panel, uv[bad], 3.6 * size, canvas.INK, max(3, round(3.2 * size)))
    canvas.crosses(panel, uv[bad], 3.4 * size, OUTLIER, max(1, round(1.4 * size)))
    canvas.dots(panel, uv[good], 3.4 * size, canvas.INK)
    canvas.dots(panel, uv[good], 2.5 * size, INLIER)
    canvas.segments(panel, uv[good], projected[good], canvas.PAPER, max(1, round(size)))
    return panel


def _match_panel(picture: Picture, map_image: Picture, marks: _Marks, factor: float) -> Picture:
    """Query left, map image right, equal heights, together as wide as ``picture``."""
    width = picture.shape[1]
    aspects = [im.shape[1] / im.shape[0] for im in (picture, map_image)]
    height = max(1, round((width - _GAP_PX) / sum(aspects)))
    left_w = max(1, round(height * aspects[0]))
    right_w = max(1, width - _GAP_PX - left_w)
    left, right = canvas.resize(picture, (left_w, height)), canvas.resize(map_image, (right_w, height))
    panel = np.full((height + _GAP_PX, width, 3), 255, dtype=np.uint8)
    panel[_GAP_PX:, :left_w], panel[_GAP_PX:, left_w + _GAP_PX :] = _faded(left), _faded(right)

    down = np.array([0.0, _GAP_PX])
    from_px = _to_view(marks.uv, factor * left_w / width) + down
    to_px = _to_view(marks.map_uv, right_w / map_image.shape[1]) + down + [left_w + _GAP_PX, 0.0]
    lines = panel.copy()
    seen = canvas.drawable(from_px, to_px)
    for chosen, color, opacity in (
        (_every(np.flatnonzero(seen & ~marks.inlier), MAX_OUTLIER_LINES), OUTLIER, 0.6),
        (_every(np.flatnonzero(seen & marks.inlier), MAX_INLIER_LINES), INLIER, 0.6),
    ):
        lines[...] = panel
        canvas.segments(lines, from_px[chosen], to_px[chosen], color)
        canvas.blend(panel, lines, opacity)
        for ends in (from_px, to_px):
            canvas.dots(panel, ends[chosen], 1.8, color)
    canvas.put_text(panel, "query", (8, _GAP_PX + 6), 14, canvas.PAPER)
    canvas.put_text(panel, "best map image", (left_w + _GAP_PX + 8, _GAP_PX + 6), 14, canvas.PAPER)
    return panel


def _every(indices: NDArray[np.intp], limit: int) -> NDArray[np.intp]:
    """At most ``limit`` of them, evenly spread."""
    return indices if len(indices) <= limit else indices[np.linspace(0, len(indices) - 1, limit).astype(int)]


def _caption(width: int, result: PoseResult, T_true: ArrayLike | None, marks: _Marks) -> Picture:
    bar = np.full((_BAR_PX, width, 3), 255, dtype=np.uint8)
    ok = result.status == "ok"
    color = INLIER if ok else OUTLIER
    bar[:, :6] = color
    label = {"ok": "localized", "failed": "not localized", "bad_input": "bad input"}[result.status]
    canvas.put_text(bar, label, (18, 10), 18, color)
    x = 18 + canvas.text_width(label, 18) + 14
    canvas.put_text(bar, canvas.fit_text(result.name, width - x - 14, 14), (x, 13), 14, canvas.MUTED)
    canvas.put_text(bar, canvas.fit_text(_facts(result, T_true), width - 32, 15), (18, 38), 15, canvas.INK)
    if len(marks.uv) or len(marks.landmarks):
        _legend(bar, width, x + canvas.text_width(canvas.fit_text(result.name, width - x - 14, 14), 14))
    return bar


def _facts(result: PoseResult, T_true: ArrayLike | None) -> str:
    facts = [] if not result.reason else [result.reason]
    if result.n_matches or result.status == "ok":
        facts.append(f"{result.n_inliers} inliers of {result.n_matches} matches")
    if T_true is not None and result.T_world_cam is not None:
        facts.append("error " + describe_error(*pose_errors(result.T_world_cam, T_true)))
    if result.covariance is not None:
        centre_m, rotation_deg = one_sigma(result.covariance)
        facts.append(f"1 sigma {_length(centre_m)}, {rotation_deg:.2f}°")
    return "  ·  ".join(facts)


def _length(metres: float) -> str:
    return f"{metres * 100:.2f} cm" if metres < 1.0 else f"{metres:.2f} m"


def _legend(bar: Picture, width: int, taken_px: int) -> None:
    """Right end of the first line, where the name leaves room."""
    items = (("inlier", INLIER), ("outlier", OUTLIER), ("landmark", LANDMARK))
    needed = sum(canvas.text_width(text, 13) + 32 for text, _ in items)
    x = width - needed
    if x < taken_px + 16:
        return
    for text, color in items:
        spot = np.array([[x + 6.0, 21.0]])
        if text == "outlier":
            canvas.crosses(bar, spot, 4.0, color, 2)
        else:
            canvas.dots(bar, spot, 4.0 if text == "inlier" else 2.5, color)
        canvas.put_text(bar, text, (x + 16, 13), 13, canvas.MUTED)
        x += canvas.text_width(text, 13) + 32
