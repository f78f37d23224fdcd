# SPDX-License-Identifier: Apache-2.0
"""Where tiles lie: the file beside them and the names of MMRotate and the devkit."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from detection.dota.sidecar import Sidecar, Tile, read_sidecar, tile_of_name
from detection.dota.windows import Window
from vision3d.errors import DataError


def test_names_of_mmrotate_and_of_the_devkit_mean_different_things() -> None:
    assert tile_of_name("P1142__1024__0___824") == Tile("P1142", 1.0, 0, 824)
    assert tile_of_name("P1161__2048__3296___1648") == Tile("P1161", 1.0, 3296, 1648)
    assert tile_of_name("P0770__0.5__0___412") == Tile("P0770", 0.5, 0, 824, 0.5)
    assert tile_of_name("P0004__1__0___1024") == Tile("P0004", 1.0, 0, 1024)
    assert tile_of_name("P0004__1.0__8___1024") == Tile("P0004", 1.0, 8, 1024)
    assert tile_of_name("a__b__512__3___4") == Tile("a__b", 1.0, 3, 4)
    assert tile_of_name("P1__1024__0___824__512__7___9") == Tile("P1__1024__0___824", 1.0, 7, 9)
    for name in ("P0706", "P0706__1024", "__1024__0___0", "P__0__1___2", "P__x__1___2", "P__1024__1__2"):
        assert tile_of_name(name) is None


def test_there_and_back() -> None:
    tile = Tile.of("a", Window(100, 50, 2048, 0.5), 0.5)
    # The outer corner of the window's first pixel is that of the tile's.
    assert tile.to_tile(np.array([99.5, 49.5])) == pytest.approx([-0.5, -0.5])
    assert tile.to_tile(np.array([99.5 + 2048, 49.5])) == pytest.approx([1023.5, -0.5])
    boxes = np.array([[300.25, 400.5, 60, 20, 0.3]])
    there = np.concatenate([tile.to_tile(boxes[:, :2]), boxes[:, 2:4] * 0.5, boxes[:, 4:]], 1)
    assert tile.to_image(there) == pytest.approx(boxes, abs=1e-12)


def test_a_scaled_tile_lies_where_opencv_puts_it() -> None:
    """A blob's centre of mass in the image and in the tile."""
    image = np.zeros((400, 400), np.float64)
    image[150:170, 200:210] = 1
    window = Window(80, 100, 200, 0.5)
    for scale in (0.5, 2.0, 1024 / 683):
        part = image[100:300, 80:280]
        tile = cv2.resize(
            part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )
        rows, columns = np.nonzero(tile)
        weights = tile[rows, columns]
        found = np.array([[np.average(columns, weights=weights), np.average(rows, weights=weights), 1, 1, 0]])
        moved = Tile.of("a", window, scale).to_image(found)
        assert moved[0, :2] == pytest.approx([204.5, 159.5], abs=0.05)


def test_the_file_is_read_back(tmp_path: Path) -> None:
    sidecar = Sidecar({"classes": ["plane", "größe"]}, {"a__b": (4000, 3000), "c": (20, 30)})
    sidecar.windows["a__b__1024__0___824"] = "a__b", Window(0, 824, 1024), 1.0
    sidecar.windows["a__b__683__5___6"] = "a__b", Window(5, 6, 683, 1.5), 1024 / 683
    sidecar.write(tmp_path / "tiles.json")
    for path in (tmp_path, tmp_path / "tiles.json"):
        found = read_sidecar(path)
        assert (found.facts, found.images, found.windows) == (sidecar.facts, sidecar.images, sidecar.windows)
    tile = found.tile("a__b__683__5___6")
    assert tile == Tile.of("a__b", Window(5, 6, 683, 1.5), 1024 / 683)
    assert found.tile("c") is None
    empty = Sidecar({})
    empty.write(tmp_path / "none.json")
    assert read_sidecar(tmp_path / "none.json").windows == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not a list of tiles of schema 1"),
        ('{"schema": 2}', "(schema: 2)"),
        ('{"schema": 1}', "damaged: KeyError"),
        ('{"schema": 1, "images": {"a": [1]}, "tiles": {}}', "damaged"),
        (json.dumps({"schema": 1, "images": {}, "tiles": {"t": {"image": "a"}}}), "damaged: KeyError"),
        (
            json.dumps(
                {
                    "schema": 1,
                    "images": {"a": [9, 9]},
                    "tiles": {"t": {"image": "a", "x": 0, "y": 0, "window": 9, "rate": 1, "scale": 0}},
                }
            ),
            "damaged: ValueError",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tiles.json"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_sidecar(tmp_path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_sidecar(tmp_path)
