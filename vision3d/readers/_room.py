# SPDX-License-Identifier: Apache-2.0
"""A textured box room and an exact renderer for it: planes only, so every pixel's colour and depth is known.

On a plane ``n . X = n . o`` the inverse depth of pixel p = (u, v, 1) is linear, ``1/z = a . p`` with
``a = (R K^-1)^T n / (n . (o - c))``, and a plane coordinate is ``(c - o) . e + (b . p) / (a . p)`` with
``b = (R K^-1)^T e``. Colours come from one atlas of all textures in all mip levels, blended between the two
levels nearest to the pixel's footprint (trilinear), with 2x2 samples per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vision3d.geometry.cameras import Camera
from vision3d.readers._room_model import MIP_LEVELS, N_WALLS, TEXELS_PER_M, blocks, pack, textures, walls
from vision3d.types import Float

Array = NDArray[Any]
STRIP_ROWS = 32


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
        self.quads = [*walls(), *blocks(rng)]
        self._pyramid, self._level_row, self._corner = pack(textures(self.quads, rng))

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
