# SPDX-License-Identifier: Apache-2.0
"""Options of cutting large images into windows, and of finding objects in them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vision3d.errors import ConfigError, check_ranges

View = Literal["plain", "flip-x", "flip-y", "turn-90", "turn-180", "turn-270"]
VIEWS: tuple[View, ...] = ("plain", "flip-x", "flip-y", "turn-90", "turn-180", "turn-270")


@dataclass(frozen=True)
class WindowConfig:
    """Square windows that cover an image.

    Attributes:
        window: side of a window in pixels at rate 1.
        gap: overlap of neighbouring windows in pixels at rate 1; more than the longest object loses nothing at borders.
        rates: scales at which the image is seen: at rate 0.5 the window covers twice as many pixels, in x and in y.
    """

    window: int = 1024
    gap: int = 200
    rates: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        check_ranges("tiles", self, window=(32, 32768), gap=(0, 32767))
        if not self.rates or len(set(self.rates)) != len(self.rates) or any(not 0.05 <= r <= 20 for r in self.rates):
            raise ConfigError(f"tiles.rates is {self.rates}: must be different numbers between 0.05 and 20")
        for size, gap in self.sizes:
            if gap >= size or size < 16:
                raise ConfigError(f"tiles.gap is {self.gap}: must be less than the window, {self.window}, at all rates")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(window, gap) in pixels of the image, per rate."""
        return [(round(self.window / rate), round(self.gap / rate)) for rate in self.rates]


@dataclass(frozen=True)
class SplitConfig(WindowConfig):
    """Cutting a data set into tiles, laid out as MMRotate's splitter does.

    Attributes:
        min_filled: a window is left out when no more than this part of it lies on the image; where that leaves none,
            those that are filled most stay.
        keep: an object belongs to a window that holds at least this part of its area.
        points: write the points too where the true boxes are known: worth it where a person clicked them, as a reader
            draws others from the boxes of a tile. Without true boxes they are always written.
        resize: scale the tiles of every rate to the window's side, as a detector will see them. Otherwise tiles of
            rate 0.5 have twice the side, which is what MMRotate's own configurations expect.
    """

    min_filled: float = 0.6
    keep: float = 0.7
    points: bool = False
    resize: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges("tiles", self, min_filled=(0, 1), keep=(0.01, 1))
        if len({size for size, _ in self.sizes}) != len(self.sizes):
            raise ConfigError(f"tiles.rates is {self.rates}: two of them give windows of the same side")


@dataclass(frozen=True)
class TileConfig(WindowConfig):
    """Finding objects in images of any size: windows, views of each window, and merging.

    An image that is not larger than a window goes in whole.

    Attributes:
        batch: windows that the detector gets at once.
        merge_iou: of two boxes of one class that overlap by more than this, the one of lower score goes.
        margin: boxes with their centre this near to a window's border, in pixels of the image, go where another window
            of the same rate holds them whole and further inside. 0 leaves all of them to the overlap.
        views: ways in which each window is shown to the detector; boxes are turned back and merged.
    """

    batch: int = 4
    merge_iou: float = 0.1
    margin: int = 0
    views: tuple[View, ...] = ("plain",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges("tiles", self, batch=(1, 1024), merge_iou=(0, 1), margin=(0, 4096))
        if not self.views or len(set(self.views)) != len(self.views) or any(v not in VIEWS for v in self.views):
            raise ConfigError(f"tiles.views is {self.views}: must be different ones of {', '.join(VIEWS)}")
