# SPDX-License-Identifier: Apache-2.0
"""The tiles of one image, written as files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.dota.config import SplitConfig
from detection.dota.inference import resized
from detection.dota.sidecar import Tile
from detection.dota.windows import Share, Window, share_out, split_windows
from vision3d.atomic import whole_file
from vision3d.errors import DataError
from vision3d.types.images import BoxTruth, LabeledImage

PADDING = (124, 116, 104)  # RGB: the mean of ImageNet, as in MMRotate, which writes it the other way round
COMPRESSION = 3  # of PNG, 0 to 9: a third of the time of 9 and a few per cent more bytes
CUT_DIFFICULT = 2  # the flag of an object that a tile's border cuts


@dataclass
class Cut:
    """What became of an image; JSON-able.

    Attributes:
        image: its name.
        size: (width, height).
        classes: of its data set.
        tiles: name, x, y, window, rate and scale of each tile.
        objects: labels written.
        points: points written.
        forced: objects that no window holds well enough.
        outside: objects that touch no window.
        reason: why there are no tiles; empty when there are.
    """

    image: str
    size: Sequence[int] = (0, 0)
    classes: Sequence[str] = ()
    tiles: list[Any] = field(default_factory=list)
    objects: int = 0
    points: int = 0
    forced: int = 0
    outside: int = 0
    reason: str = ""


def file_name(name: str) -> str:
    """An image's name as that of a file: parts of a path are joined by ``_``.

    Raises:
        DataError: nothing is left of the name.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts:
        raise DataError(name or "(empty)", "cannot be a file's name")
    return "_".join(parts)


def one_word_each(name: str, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes with dashes for blanks, which divide the fields of a label file.

    Raises:
        DataError: two of them become the same.
    """
    words = tuple("-".join(label.split()) for label in classes)
    if len(set(words)) < len(words) or not all(words):
        raise DataError(name, f"its classes cannot be told apart in a label file: {', '.join(classes)}")
    return words


def cut_image(
    sample: LabeledImage,
    truth: BoxTruth | None,
    name: str,
    folder: Path,
    config: SplitConfig,
    pool: ThreadPoolExecutor,
) -> Cut:
    """Write the tiles of an image into ``images/``, ``labelTxt/`` and ``points/`` of ``folder``, which exist.

    Args:
        name: what the names of the tiles start with.
        pool: where tiles are written, several at once.

    Raises:
        DataError: two classes differ by blanks only.
    """
    classes = one_word_each(sample.name, sample.classes)
    height, width = sample.image.shape[:2]
    windows = split_windows(width, height, config)
    scales = [config.window / w.size if config.resize else 1.0 for w in windows]
    names = [f"{name}__{w.size}__{w.x}___{w.y}" for w in windows]
    tiles = [Tile.of(sample.name, w, scale) for w, scale in zip(windows, scales, strict=True)]
    jobs = [
        pool.submit(_write_image, folder / "images" / f"{tile_name}.png", sample.image, window, scale)
        for tile_name, window, scale in zip(names, windows, scales, strict=True)
    ]
    cut = Cut(sample.name, (width, height), classes)
    cut.tiles = [[n, w.x, w.y, w.size, w.rate, s] for n, w, s in zip(names, windows, scales, strict=True)]
    if truth is not None:
        shares = share_out(truth.quads, windows, (width, height), config.keep)
        cut.forced, cut.outside = _counts(shares, len(truth.quads))
        for tile_name, tile, share in zip(names, tiles, shares, strict=True):
            _write(folder / "labelTxt" / f"{tile_name}.txt", _labels(truth, classes, share, tile, sample.gsd_m))
            cut.objects += len(share.rows)
    if sample.points is not None and sample.labels is not None and (truth is None or config.points):
        inside = np.zeros(len(sample.points), bool)
        for tile_name, tile, window in zip(names, tiles, windows, strict=True):
            rows = _points_in(sample.points, window)
            lines = _point_lines(tile.to_tile(sample.points[rows]), sample.labels[rows], classes)
            _write(folder / "points" / f"{tile_name}.txt", lines)
            inside[rows] = True
            cut.points += len(rows)
        if truth is None:
            cut.outside = int((~inside).sum())
    for job in jobs:
        job.result()
    return cut


def window_pixels(image: NDArray[np.uint8], window: Window, scale: float = 1.0) -> NDArray[np.uint8]:
    """(side, side, 3): a window of an image, padded at the right and bottom where the image ends, and scaled."""
    pixels = image[window.y : window.y + window.size, window.x : window.x + window.size]
    if pixels.shape[:2] != (window.size, window.size):
        padded = np.full((window.size, window.size, 3), PADDING, np.uint8)
        padded[: pixels.shape[0], : pixels.shape[1]] = pixels
        pixels = padded
    return resized(pixels, scale)


def _write_image(path: Path, image: NDArray[np.uint8], window: Window, scale: float) -> None:
    pixels = window_pixels(image, window, scale)
    fine, data = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, COMPRESSION])
    if not fine:
        raise DataError(path, "cannot be encoded as PNG")
    with whole_file(path) as file:
        file.write(data.tobytes())


def _write(path: Path, lines: list[str]) -> None:
    with whole_file(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def _labels(truth: BoxTruth, classes: tuple[str, ...], share: Share, tile: Tile, gsd_m: float | None) -> list[str]:
    """The lines of a label file. An object keeps its whole outline, even where it leaves the tile."""
    lines = [f"imagesource:{tile.image}", f"gsd:{'null' if gsd_m is None else repr(gsd_m / tile.scale)}"]
    quads = tile.to_tile(truth.quads[share.rows]).reshape(-1, 8).tolist()
    difficult = np.where(share.cut, CUT_DIFFICULT, truth.difficult[share.rows])
    for corners, label, flag in zip(quads, truth.labels[share.rows], difficult, strict=True):
        lines.append(f"{' '.join(map(repr, corners))} {classes[label]} {flag}")
    return lines


def _counts(shares: list[Share], objects: int) -> tuple[int, int]:
    """How many objects no window holds well enough, and how many are in none."""
    held = np.zeros(objects, bool)
    for share in shares:
        held[share.rows] = True
    return int(sum(share.forced.sum() for share in shares)), int((~held).sum())


def _points_in(points: NDArray[np.float64], window: Window) -> NDArray[np.int64]:
    left, top, right, bottom = window.bounds
    x, y = points.T
    return np.flatnonzero((x >= left) & (x < right) & (y >= top) & (y < bottom))


def _point_lines(points: NDArray[np.float64], labels: NDArray[np.int64], classes: tuple[str, ...]) -> list[str]:
    return [f"{x!r} {y!r} {classes[label]}" for (x, y), label in zip(points.tolist(), labels, strict=True)]
