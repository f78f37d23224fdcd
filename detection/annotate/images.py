# SPDX-License-Identifier: Apache-2.0
"""Images that are too large for a page, cut into tiles that are not."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from detection.problem import Image
from vision3d.errors import DataError

KEPT = 2  # decoded images in memory: the one that is looked at, and the one before or after
JPEG_QUALITY = 95
LARGEST_TILE = 4096


class ImageSet:
    """Named images that are read when they are asked for; safe to ask from several threads.

    Args:
        names: unique, without a suffix; a points file is named after each.
        read: position -> (H, W, 3) uint8 RGB; raises DataError for an image that cannot be read.

    Raises:
        DataError: there is no image, or a name occurs twice or cannot be that of a file.
    """

    def __init__(self, names: Sequence[str], read: Callable[[int], Image]) -> None:
        if not names:
            raise DataError("the data", "holds no images")
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise DataError(name, "more than one image has this name: points files would be mixed up")
            seen.add(name)
            parts = name.split("/")
            if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
                raise DataError(name, "an image of this name cannot have a points file named after it")
        self.names = tuple(names)
        self._read = read
        self._kept: OrderedDict[int, Image] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.names)

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width = self._image(index).shape[:2]
        return width, height

    def tile(self, index: int, x: int, y: int, width: int, height: int) -> bytes:
        """A JPEG of the part of the image that starts at column x and row y; cut off at the image's border.

        Raises:
            ValueError: the part lies outside of the image, is empty or is larger than 4096 pixels.
        """
        image = self._image(index)
        if not (0 <= x < image.shape[1] and 0 <= y < image.shape[0]):
            raise ValueError("the tile lies outside of the image")
        if not (0 < width <= LARGEST_TILE and 0 < height <= LARGEST_TILE):
            raise ValueError(f"a tile has 1 to {LARGEST_TILE} pixels on a side")
        part = cv2.cvtColor(np.ascontiguousarray(image[y : y + height, x : x + width]), cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        return data.tobytes()

    def _image(self, index: int) -> Image:
        # One at a time: two threads that decode the same large image would double the memory.
        with self._lock:
            if index not in self._kept:
                self._kept[index] = self._read(index)
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(index)
            return self._kept[index]
