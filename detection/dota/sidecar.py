# SPDX-License-Identifier: Apache-2.0
"""Which part of which image a tile shows: ``tiles.json`` beside the tiles, or else the tile's name.

The names of MMRotate's tiles, ``<id>__<window>__<x>___<y>``, and of the DOTA devkit's, ``<id>__<rate>__<x>___<y>``,
look alike but mean different things: MMRotate cuts the image as it is, the devkit scales the image first and counts x
and y in the scaled one. The file says it outright; a name is only taken apart where there is no file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.dota.windows import Window
from vision3d.atomic import whole_file
from vision3d.errors import DataError

SIDECAR = "tiles.json"
SCHEMA = 1
# What stands before may hold double underscores too, so the last three numbers count.
_NAME = re.compile(r"(?P<image>.+)__(?P<second>\d+(?:\.\d+)?)__(?P<x>-?\d+)___(?P<y>-?\d+)")
SMALLEST_WINDOW = 32  # the second field of a name is a window's side from here on, and a rate below


@dataclass(frozen=True)
class Tile:
    """Where a tile's pixels lie: image x = tile x / scale + ``left``, the same in y.

    Attributes:
        image: name of the image.
        scale: pixels of the tile per pixel of the image.
        left: image x of the centre of the tile's first pixel column.
        top: image y of that of the first row.
        rate: the scale that the window stands for.
    """

    image: str
    scale: float = 1.0
    left: float = 0.0
    top: float = 0.0
    rate: float = 1.0

    @classmethod
    def of(cls, image: str, window: Window, scale: float = 1.0) -> Tile:
        """The tile that shows a window, scaled about the outer corner of its first pixel."""
        shift = 0.5 / scale - 0.5
        return cls(image, scale, window.x + shift, window.y + shift, window.rate)

    def to_image(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 5) boxes of the tile -> of the image."""
        out = np.array(boxes, np.float64).reshape(-1, 5)
        out[:, :4] /= self.scale
        out[:, :2] += self.left, self.top
        return out

    def to_tile(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 2) points of the image -> of the tile."""
        return (points - np.array([self.left, self.top])) * self.scale


@dataclass(frozen=True)
class Sidecar:
    """The tiles of a data set.

    Attributes:
        facts: what else the file says: data set, classes, options.
        images: name -> (width, height).
        windows: tile -> (image, window, scale).
    """

    facts: Mapping[str, Any]
    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    windows: dict[str, tuple[str, Window, float]] = field(default_factory=dict)

    def tile(self, name: str) -> Tile | None:
        """Where a tile lies; None for a name that is no tile's."""
        found = self.windows.get(name)
        return None if found is None else Tile.of(*found)

    def text(self) -> str:
        """The file: one line per image and per tile, so that differences can be read."""
        images = {name: json.dumps(list(size)) for name, size in self.images.items()}
        tiles = {
            name: json.dumps({"image": image, "x": w.x, "y": w.y, "window": w.size, "rate": w.rate, "scale": scale})
            for name, (image, w, scale) in self.windows.items()
        }
        head = {"schema": SCHEMA, **self.facts}
        parts = [f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
        for title, lines in (("images", images), ("tiles", tiles)):
            rows = ",\n".join(f"  {json.dumps(name, ensure_ascii=False)}: {line}" for name, line in lines.items())
            parts.append(f' "{title}": {{\n{rows}\n }}')
        return "{\n" + ",\n".join(parts) + "\n}\n"

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with whole_file(path) as file:
            file.write(self.text().encode())


def read_sidecar(path: Path) -> Sidecar:
    """The file, or the one in the folder ``path``.

    Raises:
        DataError: it is missing, damaged, or of a later version.
    """
    path = path / SIDECAR if path.is_dir() else path
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise DataError(path, f"is not valid JSON: {error}") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else None
        raise DataError(path, f"is not a list of tiles of schema {SCHEMA} (schema: {found})")
    try:
        images = {str(name): (int(w), int(h)) for name, (w, h) in data.pop("images").items()}
        windows = {str(name): _window(entry, images) for name, entry in data.pop("tiles").items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(path, f"has an entry that is damaged: {type(error).__name__} {error}") from None
    del data["schema"]
    return Sidecar(data, images, windows)


def _window(entry: Mapping[str, Any], images: Mapping[str, Any]) -> tuple[str, Window, float]:
    image, scale, rate = str(entry["image"]), float(entry["scale"]), float(entry["rate"])
    window = Window(int(entry["x"]), int(entry["y"]), int(entry["window"]), rate)
    if image not in images or window.size < 1 or not (0 < scale < np.inf and 0 < rate < np.inf):
        raise ValueError(f"{entry}")
    return image, window, scale


def tile_of_name(name: str) -> Tile | None:
    """Where a tile lies by its name alone; None for a name that is no tile's.

    A whole number from 32 on is MMRotate's window, in pixels of the image as it is; anything smaller the devkit's rate.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    second, x, y = float(match["second"]), int(match["x"]), int(match["y"])
    if second == 0:
        return None
    if second >= SMALLEST_WINDOW and "." not in match["second"]:
        return Tile(match["image"], 1.0, x, y)
    # The devkit scales labels by the rate itself, without the half pixel by which cv2.resize moves the centres.
    return Tile(match["image"], second, x / second, y / second, second)
