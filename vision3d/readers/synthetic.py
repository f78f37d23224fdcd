# SPDX-License-Identifier: Apache-2.0
"""``synthetic:room``: frames of a room that is computed, with exact poses and depth. Needs no file.

``synthetic:room?frames=60&seed=0&width=640&height=480&fov_deg=62.7&noise=2``; every option may be left out.
Splits: ``train`` holds the even frames, ``test`` the odd ones. Frame k is the same whatever the number of frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.contracts import DataConfig, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.geometry.cameras import Camera
from vision3d.geometry.se3 import from_rt
from vision3d.readers._common import FrameReader, Record
from vision3d.readers._source import bounded, parse_source
from vision3d.types import Float

FRAME_NS = 1_000_000_000 // 30
DEGREES_PER_FRAME = 3.6  # a full turn in 100 frames

OPTIONS = {
    "frames": bounded(int, 1, 1_000_000),
    "seed": bounded(int, 0, 2**32 - 1),
    "width": bounded(int, 16, 4096),
    "height": bounded(int, 16, 4096),
    "fov_deg": bounded(float, 10, 120),
    "noise": bounded(float, 0, 100),
}
# 62.7 degrees across 640 pixels is a focal length of 525 pixels, that of common RGB-D cameras.
DEFAULTS: dict[str, Any] = {"frames": 60, "seed": 0, "width": 640, "height": 480, "fov_deg": 62.7, "noise": 2.0}


class RoomReader(FrameReader):
    """Frames rendered on demand from :class:`vision3d.readers._room.Room`."""

    def __init__(self, source: str, config: DataConfig) -> None:
        path, given = parse_source(source, OPTIONS)
        if path != "synthetic:room":
            raise DataError(path, "there is one synthetic scene: synthetic:room")
        if config.split not in ("all", "train", "test"):
            raise ConfigError(f"synthetic:room has the splits all, train and test, not '{config.split}'")
        self.options = DEFAULTS | given
        width, height = self.options["width"], self.options["height"]
        focal = float(0.5 * width / np.tan(np.radians(self.options["fov_deg"]) / 2))
        camera = Camera("PINHOLE", width, height, (focal, focal, (width - 1) / 2, (height - 1) / 2))
        numbers = range({"all": 0, "train": 0, "test": 1}[config.split], self.options["frames"])
        step = 1 if config.split == "all" else 2
        poses = trajectory(self.options["frames"], self.options["seed"])
        records = [Record(f"frame-{i:06d}", Path(), camera, poses[i], i * FRAME_NS) for i in numbers[::step]]
        super().__init__("synthetic-room", records, config)
        self._room: Any = None
        self._last: tuple[int, NDArray[np.uint8], NDArray[np.float32]] | None = None

    def _render(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if self._room is None:
            from vision3d.readers._room import room

            self._room = room(self.options["seed"])
        if self._last is None or self._last[0] != index:
            record = self.records[index]
            image, depth_m = self._room.render(record.camera, record.T_world_cam)
            if self.options["noise"]:
                rng = np.random.default_rng([self.options["seed"], record.stamp_ns])
                noisy = image + rng.normal(0, self.options["noise"], image.shape)
                image = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
            self._last = (index, image, depth_m)
        return self._last[1], self._last[2]

    def _image(self, index: int) -> NDArray[np.uint8]:
        return self._render(index)[0]

    def _depth(self, index: int) -> NDArray[np.float32] | None:
        return self._render(index)[1]


def trajectory(frames: int, seed: int) -> Float:
    """(frames, 4, 4) ``T_world_cam``: a walk around the middle of the room that looks across it at the walls.

    The speed is constant, so that a longer run shows more of the room rather than the same more densely.
    """
    phase = np.random.default_rng([seed, 1]).uniform(0, 2 * np.pi, 6)
    angle = np.radians(DEGREES_PER_FRAME) * np.arange(frames) + phase[0]
    # Incommensurate frequencies: later rounds see the same walls from other places.
    radius = 0.75 + 0.2 * np.sin(0.37 * angle + phase[1])
    height = 1.45 + 0.25 * np.sin(0.83 * angle + phase[2])
    center = np.stack([-1.5 * radius * np.cos(angle), -0.9 * radius * np.sin(angle), height], axis=-1)
    yaw = angle + 0.25 * np.sin(0.61 * angle + phase[3])
    pitch = 0.12 * np.sin(1.27 * angle + phase[4]) - 0.05
    roll = 0.08 * np.sin(1.71 * angle + phase[5])
    poses = np.empty((frames, 4, 4))
    for i in range(frames):
        forward = np.array(
            [np.cos(yaw[i]) * np.cos(pitch[i]), np.sin(yaw[i]) * np.cos(pitch[i]), np.sin(pitch[i])],
        )
        right = np.array([np.sin(yaw[i]), -np.cos(yaw[i]), 0.0])
        down = np.cross(forward, right)
        c, s = np.cos(roll[i]), np.sin(roll[i])
        poses[i] = from_rt(np.stack([c * right + s * down, c * down - s * right, forward], axis=1), center[i])
    return poses


def match(source: str) -> float:
    return 1.0 if source.startswith("synthetic:") else 0.0


def check(source: str) -> list[str]:
    try:
        RoomReader(source, DataConfig())
    except (DataError, ConfigError) as error:
        return [str(error)]
    return []


SPEC = ReaderSpec(
    name="synthetic",
    summary="synthetic:room?frames=60&seed=0, a computed room with exact poses and depth",
    samples="Frame",
    match=match,
    open=RoomReader,
    card="synthetic-room",
    check=check,
)
