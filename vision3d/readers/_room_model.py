# SPDX-License-Identifier: Apache-2.0
"""What the synthetic room consists of: rectangles, the photographs on them, and one image that holds them all."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError
from vision3d.readers._images import resize_image
from vision3d.types import Float

SIZE_M = np.array([6.0, 4.0, 3.0])
TEXELS_PER_M = 256.0  # as fine as a 640-pixel image from two metres away
MIP_LEVELS = 6
ATLAS_WIDTH = 8192
N_WALLS = 6
CEILING = 5
# Photographs inside scikit-image's wheel (no download); two of the same thing would confuse matching.
PHOTOS = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "camera.png",
    "coins.png",
    "brick.png",
    "ihc.png",
    "page.png",
    "gravel.png",
    "grass.png",
)


@dataclass(frozen=True)
class Quad:
    """A rectangle: corner ``origin`` (3,), unit axes ``right``, ``down`` (3,) as a viewer sees it, size in metres."""

    origin: Float
    right: Float
    down: Float
    width: float
    height: float

    @cached_property
    def normal(self) -> Float:
        """(3,) unit vector towards the viewer."""
        return -np.cross(self.right, self.down)


def walls() -> list[Quad]:
    X, Y, Z = SIZE_M
    up = np.array([0.0, 0.0, 1.0])
    quads = []
    for normal, width in (((1, 0, 0), Y), ((-1, 0, 0), Y), ((0, 1, 0), X), ((0, -1, 0), X)):
        n = np.array(normal, dtype=np.float64)
        right = np.cross(up, n)
        corner = -n * SIZE_M / 2 - right * width / 2
        corner[2] = Z
        quads.append(Quad(corner, right, -up, float(width), float(Z)))
    ex, ey = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    quads.append(Quad(np.array([-X / 2, Y / 2, 0]), ex, -ey, float(X), float(Y)))
    quads.append(Quad(np.array([-X / 2, -Y / 2, Z]), ex, ey, float(X), float(Y)))
    return quads


def blocks(rng: np.random.Generator) -> list[Quad]:
    """Three blocks that stand near the walls, below the camera: top and four sides each."""
    X, Y, _ = SIZE_M
    up = np.array([0.0, 0.0, 1.0])
    quads = []
    for cx, cy in ((-X / 2 + 0.75, -Y / 2 + 0.65), (X / 2 - 0.7, Y / 2 - 0.6), (0.4, Y / 2 - 0.5)):
        # Eighths of a metre are whole texels at every mip level.
        w, d, h = (rng.integers(low, high) / 8 for low, high in ((5, 8), (4, 7), (4, 7)))
        half = np.array([w, d, 0.0]) / 2
        center = np.array([cx, cy, 0.0])
        for normal, width in (((1, 0, 0), d), ((-1, 0, 0), d), ((0, 1, 0), w), ((0, -1, 0), w)):
            n = np.array(normal, dtype=np.float64)
            right = np.cross(up, n)
            corner = center + n * half - right * width / 2
            corner[2] = h
            quads.append(Quad(corner, right, -up, float(width), float(h)))
        top = center + [-w / 2, d / 2, h]
        quads.append(Quad(top, np.array([1.0, 0, 0]), np.array([0, -1.0, 0]), float(w), float(d)))
    return quads


def textures(quads: list[Quad], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """One texture per quad: paint, and on it a mosaic of photographs about 1.6 m wide, none used twice."""
    import cv2

    photos = iter(_photos(rng))
    textures = []
    for index, quad in enumerate(quads):
        width, height = round(quad.width * TEXELS_PER_M), round(quad.height * TEXELS_PER_M)
        paint = rng.uniform(120, 225, 3) + rng.normal(0, 6, (height, width, 1))
        texture = np.clip(paint, 0, 255).astype(np.uint8)
        n_cols, n_rows = max(round(quad.width / 1.6), 1), max(round(quad.height / 1.4), 1)
        for cell in range(0 if index == CEILING else n_cols * n_rows):
            row, col = divmod(cell, n_cols)
            gap = rng.integers(5, 24, 4)
            x0, x1 = width * col // n_cols + gap[0], width * (col + 1) // n_cols - gap[1]
            y0, y1 = height * row // n_rows + gap[2], height * (row + 1) // n_rows - gap[3]
            photo = _cropped(next(photos), (x1 - x0) / (y1 - y0))
            method = cv2.INTER_AREA if photo.shape[1] > x1 - x0 else cv2.INTER_CUBIC
            texture[y0:y1, x0:x1] = cv2.resize(photo, (int(x1 - x0), int(y1 - y0)), interpolation=method)
        textures.append(texture)
    return textures


def _photos(rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Every photograph in four looks that local features tell apart: as is, mirrored, negative, both."""
    from PIL import Image

    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("scikit-image", "is not installed: its photographs cover the synthetic room's walls")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    originals = []
    for name in PHOTOS:
        try:
            with Image.open(folder / name) as image:
                originals.append(np.asarray(image.convert("RGB")))
        except OSError:
            raise DataError(
                folder / name, "photograph for the synthetic room is missing; reinstall scikit-image"
            ) from None
    looks = []
    # Walls come first and take the plain looks, so that what the camera sees most is natural.
    for look in (lambda im: im, lambda im: im[:, ::-1], lambda im: 255 - im, lambda im: 255 - im[:, ::-1]):
        looks += [look(originals[i]) for i in rng.permutation(len(originals))]
    return looks


def _cropped(photo: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    """The largest central part of that aspect ratio (width over height)."""
    height, width = photo.shape[:2]
    w, h = (round(height * aspect), height) if width > height * aspect else (width, round(width / aspect))
    x, y = (width - w) // 2, (height - h) // 2
    return np.ascontiguousarray(photo[y : y + h, x : x + w])


def pack(
    textures: list[NDArray[np.uint8]],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """All textures in one image with its mip levels below one another.

    Returns:
        The image (H, W, 3); per level the row to add to ``y / 2^level``, half-pixel included; per texture its
        corner (x, y). Corners lie at multiples of the coarsest texel, so that one division serves all levels.
    """
    import cv2

    unit = 2 ** (MIP_LEVELS - 1)
    pad = 2 * unit  # repeated border: two texels at the coarsest level, one more than interpolation reaches
    x = y = shelf = 0
    places: dict[int, tuple[int, int]] = {}
    # Shelves of falling height waste little and keep the layout reproducible.
    for index in sorted(range(len(textures)), key=lambda i: -textures[i].shape[0]):
        h, w = textures[index].shape[0] + 2 * pad, textures[index].shape[1] + 2 * pad
        if x + w > ATLAS_WIDTH:
            x, y, shelf = 0, y + shelf, 0
        places[index] = (x, y)
        x, shelf = x + w, max(shelf, h)
    levels = [np.zeros((y + shelf, ATLAS_WIDTH, 3), dtype=np.uint8)]
    for index, (x, y) in places.items():
        padded = cv2.copyMakeBorder(textures[index], pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        levels[0][y : y + padded.shape[0], x : x + padded.shape[1]] = padded
    for _ in range(1, MIP_LEVELS):
        h, w = levels[-1].shape[:2]
        levels.append(resize_image(levels[-1], w // 2, h // 2))
    rows = np.cumsum([0, *(level.shape[0] for level in levels[:-1])]).astype(np.float32) - 0.5
    pyramid = np.zeros((sum(level.shape[0] for level in levels), ATLAS_WIDTH, 3), dtype=np.uint8)
    for row, level in zip(rows, levels):
        top = int(row + 0.5)
        pyramid[top : top + level.shape[0], : level.shape[1]] = level
    corners = np.array([places[i] for i in range(len(textures))], dtype=np.float32) + pad
    return pyramid, rows.astype(np.float32), corners
