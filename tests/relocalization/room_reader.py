# SPDX-License-Identifier: Apache-2.0
"""Readers over the synthetic room for tests: a part of it, or all of it moved elsewhere in the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simulated_map import Context

from relocalization.build import MapBuilder
from relocalization.config import FavorConfig
from relocalization.features.base import make_extractor
from relocalization.features.config import FeatureConfig
from relocalization.landmark_map import LandmarkMap
from vision3d.contracts import DataConfig, Reader
from vision3d.readers.synthetic import RoomReader
from vision3d.types import Frame, FrameTruth

SIFT = FavorConfig(features=FeatureConfig(name="sift"))
SOURCE = "synthetic:room?frames={}&width=320&height=240"


class Part:
    """Chosen frames of a reader, their poses scaled and then moved."""

    samples: type = Frame
    bad: Mapping[int, str] = {}

    def __init__(
        self, reader: Reader, index: Sequence[int], motion: NDArray[np.float64] | None = None, scale: float = 1.0
    ) -> None:
        self.reader, self.index, self.scale = reader, list(index), scale
        self.motion = np.eye(4) if motion is None else motion
        self.name = reader.name

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Any:
        return self.reader[self.index[index]]

    def key(self, index: int) -> str:
        return self.reader.key(self.index[index])

    def truth(self, index: int) -> FrameTruth:
        pose = self.reader.truth(self.index[index]).T_world_cam.copy()  # type: ignore[union-attr]
        pose[:3, 3] *= self.scale
        return FrameTruth(self.motion @ pose)


def room(frames: int, split: str = "all") -> RoomReader:
    return RoomReader(SOURCE.format(frames), DataConfig(split=split))


def build_map(reader: Any, config: FavorConfig = SIFT, context: Context | None = None) -> LandmarkMap:
    return MapBuilder(config, make_extractor(config.features), context or Context()).build(reader)
