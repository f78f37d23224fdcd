# SPDX-License-Identifier: Apache-2.0
"""Points and camera trajectories from above and from the side, at one scale for both axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vision3d import canvas
from vision3d.canvas import Picture, Rgb
from vision3d.types import Scene
from vision3d.view.ticks import nice_step, tick_label

Float = NDArray[np.float64]
View = Literal["top", "side"]

WIDTH = 1000
_MIN_HEIGHT, _MAX_HEIGHT = 260, 820
_MARGIN, _HEAD, _FOOT = 28, 44, 40
_PAPER: Rgb = (246, 247, 249)
_POINT: Rgb = (140, 149, 159)
_OVERSAMPLING = 2
_MAX_FRUSTA = 16


def scene_picture(scene: Scene, view: View) -> Picture:
    """(H, 1000, 3) uint8 RGB of the scene seen from above (``top``) or horizontally (``side``).

    Both views share their horizontal axis: the direction in which the cameras and points spread most. What lies
    far outside the bulk of the points (beyond the 1st and 99th percentile by a fifth of their span) is left out
    and counted in the picture, as are camera positions that no frame of sensible size could hold.
    """
    frame = _frame(scene, view)
    picture = np.full((frame.height * _OVERSAMPLING, WIDTH * _OVERSAMPLING, 3), _PAPER, dtype=np.uint8)
    hidden_points = _draw_points(picture, scene, frame)
    hidden_cameras = 0
    for i, T_world_cam in reversed(list(enumerate(scene.trajectories.values()))):
        hidden_cameras += _draw_trajectory(picture, np.asarray(T_world_cam), frame, _color(i))
    picture = canvas.resize(picture, (WIDTH, frame.height))
    _annotate(picture, scene, view, frame, hidden_points, hidden_cameras)
    return picture


@dataclass(frozen=True)
class _Frame:
    """Where the world falls on the sheet: ``axes`` (3, 3) rows right, up, towards the viewer."""

    axes: Float
    centre: Float
    px_per_m: float
    height: int

    def place(self, points: ArrayLike) -> Float:
        """Pixels (N, 2) on the oversampled sheet of world points (N, 3)."""
        uv = np.asarray(points, dtype=np.float64).reshape(-1, 3) @ self.axes[:2].T - self.centre
        middle = np.array([WIDTH / 2, _HEAD + (self.height - _HEAD - _FOOT) / 2])
        return (middle + uv * [self.px_per_m, -self.px_per_m]) * _OVERSAMPLING

    def inside(self, uv_px: Float) -> NDArray[np.bool_]:
        """(N,) whether pixels of the oversampled sheet lie between its head and its foot."""
        low, high = np.array([0, _HEAD]), np.array([WIDTH, self.height - _FOOT])
        within = np.greater_equal(uv_px, low * _OVERSAMPLING) & np.less(uv_px, high * _OVERSAMPLING)
        return np.asarray(within.all(axis=1))


def _frame(scene: Scene, view: View) -> _Frame:
    points = _finite(scene.points)
    cameras = _finite(np.concatenate([np.zeros((0, 3)), *(centres(T) for T in scene.trajectories.values())]))
    axes = _axes(scene, points, cameras, view)
    spans = [_span(group @ axes[:2].T) for group in (points, cameras) if len(group)]
    low = np.min([s[0] for s in spans] or [np.full(2, -1.0)], axis=0)
    high = np.max([s[1] for s in spans] or [np.full(2, 1.0)], axis=0)
    size = np.maximum(high - low, 1e-3 * max(float((high - low).max()), 1e-6))
    room = np.array([WIDTH, _MAX_HEIGHT - _HEAD - _FOOT]) - 2 * _MARGIN
    px_per_m = float((room / size).min())
    drawn = size[1] * px_per_m + 2 * _MARGIN + _HEAD + _FOOT
    return _Frame(axes, (low + high) / 2, px_per_m, round(min(max(drawn, _MIN_HEIGHT), _MAX_HEIGHT)))


def _axes(scene: Scene, points: Float, cameras: Float, view: View) -> Float:
    up = np.asarray(scene.up, dtype=np.float64)
    up = up / np.linalg.norm(up)
    cloud = points if len(points) > 2 else cameras
    flat = cloud - np.outer(cloud @ up, up)
    for _ in range(3):  # trimmed around the mean: unlike a median per axis it turns with the world
        if len(flat):
            flat = flat - flat.mean(axis=0)
            reach = np.linalg.norm(flat, axis=1)
            flat = flat[reach <= np.quantile(reach, 0.95)]
    values, vectors = np.linalg.eigh(flat.T @ flat)
    right = vectors[:, -1] if values[-1] > 1e-12 else np.cross(up, np.roll(up, 1) + [1e-3, 0.0, 0.0])
    right = right - (right @ up) * up
    right = right / np.linalg.norm(right)
    # Eigenvectors have no sign; choose it, so that equal scenes give equal pictures.
    right = right * (1.0 if right[np.argmax(np.abs(right))] > 0 else -1.0)
    away = np.cross(up, right)
    return np.stack([right, away, up] if view == "top" else [right, up, -away])


def _span(uv: Float) -> tuple[Float, Float]:
    """Corners around what belongs together; a few wild estimates must not shrink everything else to a dot."""
    low, high = np.percentile(uv, [1.0, 99.0], axis=0)
    slack = 0.2 * np.maximum(high - low, 1e-9)
    kept = uv[np.all((uv >= low - slack) & (uv <= high + slack), axis=1)]
    return (kept.min(axis=0), kept.max(axis=0)) if len(kept) else (low, high)


def _draw_points(picture: Picture, scene: Scene, frame: _Frame) -> int:
    points = np.asarray(scene.points, dtype=np.float64).reshape(-1, 3)
    colors = np.array([_POINT] * len(points) if scene.colors is None else scene.colors).reshape(-1, 3)
    finite = np.asarray(np.isfinite(points).all(axis=1))
    uv = frame.place(np.where(finite[:, None], points, 0.0))
    shown = np.logical_and(finite, frame.inside(uv))
    order = np.argsort(points[shown] @ frame.axes[2], kind="stable")  # nearest to the viewer last, on top
    columns, rows = np.floor(uv[shown][order]).astype(np.int64).T
    # A white wall on white paper would vanish: darken what is very light.
    ink = np.minimum(colors[shown][order], 205).astype(np.uint8)
    radius = 3 if len(order) < 12_000 else 2 if len(order) < 60_000 else 1
    h, w = picture.shape[:2]
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dx * dx + dy * dy <= radius * radius + 0.5:
                picture[np.clip(rows + dy, 0, h - 1), np.clip(columns + dx, 0, w - 1)] = ink
    return int(len(points) - shown.sum())


def _draw_trajectory(picture: Picture, T_world_cam: Float, frame: _Frame, color: Rgb) -> int:
    """Path, frusta and a dot per camera; returns how many cameras fell outside."""
    T = T_world_cam.reshape(-1, 4, 4)
    T = T[np.isfinite(T).all(axis=(1, 2))]
    uv = frame.place(T[:, :3, 3])
    shown = frame.inside(uv)
    if len(T) > 1:
        step = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1)
        # No line across a jump (another sequence, a wrong estimate): it would claim a motion nobody made.
        joined = (step <= 8.0 * max(float(np.median(step)), 1e-9)) & shown[1:] & shown[:-1]
        canvas.segments(picture, uv[:-1][joined], uv[1:][joined], color, _OVERSAMPLING)
    size_m = 0.03 * WIDTH / frame.px_per_m
    seen, frusta = np.flatnonzero(shown), picture.copy()
    for i in seen[np.unique(np.linspace(0, len(seen) - 1, min(len(seen), _MAX_FRUSTA)).astype(int))]:
        _draw_frustum(frusta, T[i], frame, size_m, color)
    canvas.blend(picture, frusta, 0.7)
    canvas.dots(picture, uv[shown], 1.6 * _OVERSAMPLING, color)
    return int(len(T_world_cam.reshape(-1, 4, 4)) - shown.sum())


def _draw_frustum(picture: Picture, T_world_cam: Float, frame: _Frame, size_m: float, color: Rgb) -> None:
    corners = np.array([[-0.6, -0.45, 1], [0.6, -0.45, 1], [0.6, 0.45, 1], [-0.6, 0.45, 1]]) * size_m
    rim = frame.place(corners @ T_world_cam[:3, :3].T + T_world_cam[:3, 3])
    apex = np.repeat(frame.place(T_world_cam[:3, 3]), 4, axis=0)
    canvas.segments(picture, apex, rim, color)
    canvas.segments(picture, rim, np.roll(rim, -1, axis=0), color)


def _annotate(
    picture: Picture, scene: Scene, view: View, frame: _Frame, hidden_points: int, hidden_cameras: int
) -> None:
    picture[:_HEAD], picture[frame.height - _FOOT :] = canvas.PAPER, canvas.PAPER
    middle = _HEAD // 2
    title = f"{scene.title}, from {'above' if view == 'top' else 'the side'}"
    x = float(WIDTH - 16)
    for i, (name, T) in reversed(list(enumerate(scene.trajectories.items()))):
        label = f"{name} ({len(T)})"
        x -= canvas.text_width(label, 14)
        canvas.put_text(picture, label, (round(x), middle), 14, canvas.INK, "lm")
        canvas.dots(picture, np.array([[x - 12.0, middle]]), 5.0, _color(i))
        x -= 34.0
    canvas.put_text(picture, canvas.fit_text(title, round(x) - 32, 17), (16, middle), 17, canvas.INK, "lm")

    foot = frame.height - _FOOT // 2
    length_m = nice_step(WIDTH / frame.px_per_m, 6)
    end = 16 + length_m * frame.px_per_m
    bar = np.array([[16.0, foot], [16.0, foot - 5], [end, foot - 5]])
    canvas.segments(picture, bar, np.array([[end, foot], [16.0, foot + 5], [end, foot + 5]]), canvas.INK, 2)
    canvas.put_text(picture, f"{tick_label(length_m)} m", (round(end) + 12, foot), 14, canvas.INK, "lm")
    shown = len(scene.points) - hidden_points
    note = f"{shown} points"
    if hidden_points:
        note += f" ({hidden_points} outside the picture)"
    if hidden_cameras:
        note += f" · {hidden_cameras} camera{'s' if hidden_cameras > 1 else ''} outside the picture"
    canvas.put_text(picture, note, (WIDTH - 16, foot), 14, canvas.MUTED, "rm")


def centres(T_world_cam: ArrayLike) -> Float:
    """Camera centres (M, 3) of poses (M, 4, 4)."""
    return np.asarray(T_world_cam, dtype=np.float64).reshape(-1, 4, 4)[:, :3, 3]


def _finite(points: ArrayLike) -> Float:
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    return points[np.isfinite(points).all(axis=1)]


def _color(i: int) -> Rgb:
    return canvas.SERIES[i % len(canvas.SERIES)]
