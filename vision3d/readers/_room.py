# SPDX-License-Identifier: Apache-2.0
"""A textured box room and an exact renderer for it: planes only, so every pixel's colour and depth is known.

On a plane ``n . X = n . o`` the inverse depth of pixel p = (u, v, 1) is linear, ``1/z = a . p`` with
``a = (R K^-1)^T n / (n . (o - c))``, and a plane coordinate is ``(c - o) . e + (b . p) / (a . p)`` with
``b = (R K^-1)^T e``. Colours come from one atlas of all textures in all mip levels, blended between the two
levels nearest to the pixel's footprint (trilinear), with 2x2 samples per pixel.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vision3d.errors import DataError
from vision3d.geometry.cameras import Camera
from vision3d.readers._images import resize_image
from vision3d.types import Float

Array = NDArray[Any]

SIZE_M = np.array([6.0, 4.0, 3.0])
TEXELS_PER_M = 256.0  # as fine as a 640-pixel image from two metres away
MIP_LEVELS = 6
ATLAS_WIDTH = 8192
STRIP_ROWS = 32
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


@lru_cache(maxsize=1)
def room(seed: int) -> Room:
    """The room of a seed; the last one is kept, since readers of its splits share it (1 s, 90 MB)."""
    return Room(seed)


class Room:
    """Six walls and three blocks that carry photographs; everything follows from ``seed``.

    World: metres, z up, origin in the middle of the floor; x spans 6 m, y 4 m, z 3 m.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.quads = [*_walls(), *_blocks(rng)]
        self._pyramid, self._level_row, self._corner = _pack(_textures(self.quads, rng))

    def render(self, camera: Camera, T_world_cam: Float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Image (H, W, 3) uint8 RGB and depth (H, W) float32 metres along z, exact at pixel centres.

        ``camera`` must be without distortion.
        """
        import cv2

        height, width = camera.height, camera.width
        image = np.empty((height, width, 3), dtype=np.uint8)
        fine = camera.resized(2 * width, 2 * height)
        planes = self._planes(fine, T_world_cam, np.float32)
        # Strips of rows keep every intermediate array in the processor's cache: three times as fast.
        for top in range(0, height, STRIP_ROWS):
            bottom = min(top + STRIP_ROWS, height)
            samples = self._strip(planes, 2 * top, 2 * bottom, 2 * width)
            strip = cv2.resize(samples, (width, bottom - top), interpolation=cv2.INTER_AREA)
            image[top:bottom] = np.rint(strip)
        exact = self._planes(camera, T_world_cam, np.float64)
        inverse, _ = self._cast(exact, np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)[:, None])
        return image, (1.0 / inverse).astype(np.float32)

    def _planes(self, camera: Camera, T_world_cam: Float, dtype: DTypeLike) -> dict[int, _Plane]:
        """The quads that face the camera, walls first."""
        center = T_world_cam[:3, 3]
        back = np.linalg.inv(camera.K).T @ T_world_cam[:3, :3].T  # (R K^-1)^T
        planes = {}
        for index, quad in enumerate(self.quads):
            distance = float(quad.normal @ (quad.origin - center))
            if distance < 0:
                a, right, down = back @ quad.normal / distance, back @ quad.right, back @ quad.down
                shift = center - quad.origin
                planes[index] = _Plane(
                    rows=np.stack([a, right, down]).astype(dtype),
                    shift=np.array([shift @ quad.right, shift @ quad.down], dtype=dtype),
                    size=(quad.width, quad.height),
                    bounded=index >= N_WALLS,
                    # The map pixel -> plane is a homography: its Jacobian's determinant is det / (a . p)^3.
                    log2_texels=0.5 * float(np.log2(abs(np.linalg.det([a, right, down])) * TEXELS_PER_M**2)),
                )
        return planes

    def _cast(self, planes: dict[int, _Plane], u: Array, v: Array) -> tuple[Array, NDArray[np.int32]]:
        """Largest inverse depth and the quad there, both (rows, columns)."""
        best = np.zeros((v.shape[0], u.shape[0]), dtype=u.dtype)
        which = np.zeros(best.shape, dtype=np.int32)
        for index, plane in planes.items():
            inverse = _linear(plane.rows[0], u, v)
            nearer = inverse > best
            if plane.bounded and nearer.any():
                # Walls of a convex room need no bounds: the nearest plane in front is the one that is hit.
                cols = _span(nearer)
                x, y = plane.coordinates(u[cols], v, 1 / np.where(nearer, inverse, 1)[:, cols])
                nearer[:, cols] &= (x >= 0) & (x <= plane.size[0]) & (y >= 0) & (y <= plane.size[1])
            np.copyto(best, inverse, where=nearer)
            np.copyto(which, index, where=nearer)
        return best, which

    def _strip(self, planes: dict[int, _Plane], top: int, bottom: int, width: int) -> NDArray[np.float32]:
        """Colours (bottom - top, width, 3) of rows of samples."""
        import cv2

        u, v = np.arange(width, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)[:, None]
        best, which = self._cast(planes, u, v)
        depth = 1 / best
        level = 1.5 * np.log2(depth)
        x, y = np.empty_like(depth), np.empty_like(depth)
        for index, plane in planes.items():
            mask = which == index
            if mask.any():
                cols = _span(mask)
                here = mask[:, cols]
                quad_x, quad_y = plane.coordinates(u[cols], v, depth[:, cols])
                corner = self._corner[index]
                np.copyto(x[:, cols], quad_x * np.float32(TEXELS_PER_M) + corner[0], where=here)
                np.copyto(y[:, cols], quad_y * np.float32(TEXELS_PER_M) + corner[1], where=here)
                np.add(level[:, cols], np.float32(plane.log2_texels), out=level[:, cols], where=here)
        np.clip(level, 0, MIP_LEVELS - 1, out=level)
        low = np.minimum(level.astype(np.int32), MIP_LEVELS - 2)
        colours = []
        for chosen in (low, low + 1):
            shrink = np.take(np.exp2(-np.arange(MIP_LEVELS, dtype=np.float32)), chosen)
            map_y = y * shrink + np.take(self._level_row, chosen)
            colours.append(cv2.remap(self._pyramid, x * shrink - np.float32(0.5), map_y, cv2.INTER_LINEAR))
        fine, coarse = (colour.astype(np.float32) for colour in colours)
        fine += (coarse - fine) * (level - low).astype(np.float32)[..., None]
        return fine


@dataclass(frozen=True)
class _Plane:
    """A quad as one camera sees it: rows (3, 3) whose products with p give the inverse depth and both coordinates."""

    rows: Array
    shift: Array
    size: tuple[float, float]
    bounded: bool
    log2_texels: float

    def coordinates(self, u: Array, v: Array, depth: Array) -> tuple[Array, Array]:
        """Metres to the right and down from the quad's corner, of pixels (u, v) at that depth."""
        return (
            _linear(self.rows[1], u, v) * depth + self.shift[0],
            _linear(self.rows[2], u, v) * depth + self.shift[1],
        )


def _linear(row: Array, u: Array, v: Array) -> Array:
    return row[0] * u + (row[1] * v + row[2])


def _span(mask: NDArray[np.bool_]) -> slice:
    """The columns in which ``mask`` has anything."""
    cols = np.flatnonzero(mask.any(axis=0))
    return slice(int(cols[0]), int(cols[-1]) + 1)


def _walls() -> list[Quad]:
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


def _blocks(rng: np.random.Generator) -> list[Quad]:
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


def _textures(quads: list[Quad], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
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


def _pack(
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
