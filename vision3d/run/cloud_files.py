# SPDX-License-Identifier: Apache-2.0
"""Point clouds to be turned around in the report, one file per sample."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision3d.errors import DataError
from vision3d.run.arrays import Arrays, read_arrays, write_arrays
from vision3d.types import CloudLayer, CloudView

# A browser without a graphics card still turns this many points of a layer smoothly.
MAX_POINTS = 60_000
_PART = re.compile(r"layer(\d{3})/(name|points|colors)")


def write_cloud_view(path: Path, view: CloudView, max_points: int = MAX_POINTS) -> None:
    """Write a view; layers of more than ``max_points`` points are thinned at random, alike each time.

    The file is an .npz (:mod:`vision3d.run.arrays`) of ``title`` (uint8, UTF-8), ``up`` (3,) float64, and per layer
    ``layer000/name`` (uint8, UTF-8), ``layer000/points`` (N, 3) float32 metres, ``layer000/colors`` (N, 3) or (3,)
    uint8 RGB. Points that are not finite are left out.

    Raises:
        ValueError: the view's arrays are not of these shapes.
    """
    arrays: Arrays = {"title": _bytes(view.title), "up": np.asarray(view.up, dtype=np.float64)}
    for number, layer in enumerate(view.layers):
        points, colors = np.asarray(layer.points, dtype=np.float32), np.asarray(layer.colors)
        _require_layer(layer.name, points, colors)
        kept = np.flatnonzero(np.isfinite(points).all(axis=1))
        if len(kept) > max_points:
            # A generator of its own: a picture must not change the random numbers of the next sample.
            kept = np.sort(np.random.default_rng(0).choice(kept, max_points, replace=False))
        arrays[f"layer{number:03d}/name"] = _bytes(layer.name)
        arrays[f"layer{number:03d}/points"] = points[kept]
        arrays[f"layer{number:03d}/colors"] = colors if colors.ndim == 1 else colors[kept]
    if arrays["up"].shape != (3,) or not np.isfinite(arrays["up"]).all():
        raise ValueError("up must be three finite numbers")
    write_arrays(path, arrays)


def read_cloud_view(path: Path) -> CloudView:
    """The view that :func:`write_cloud_view` wrote.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    arrays = read_arrays(path)
    try:
        title, up = _text(arrays.pop("title")), arrays.pop("up")
        if up.shape != (3,) or up.dtype != np.float64 or not np.isfinite(up).all():
            raise ValueError("up must be three finite numbers")
        parts: dict[int, Arrays] = {}
        for name, array in arrays.items():
            match = _PART.fullmatch(name)
            if match is None:
                raise ValueError(f"unexpected array {name}")
            parts.setdefault(int(match[1]), {})[match[2]] = array
        layers = tuple(_layer(parts[number]) for number in range(len(parts)))
    except KeyError as error:
        raise DataError(path, f"is no cloud view (it lacks {error})") from None
    except ValueError as error:
        raise DataError(path, f"is no cloud view ({error})") from None
    return CloudView(title, layers, up)


def _layer(parts: Arrays) -> CloudLayer:
    name, points, colors = _text(parts["name"]), parts["points"], parts["colors"]
    if points.dtype != np.float32:
        raise ValueError(f"points of layer '{name}' must be float32")
    _require_layer(name, points, colors)
    if not np.isfinite(points).all():
        raise ValueError(f"points of layer '{name}' must be finite")
    return CloudLayer(name, points, colors)


def _require_layer(name: str, points: NDArray[np.float32], colors: NDArray[np.uint8]) -> None:
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points of layer '{name}' must be (N, 3), got {points.shape}")
    if colors.dtype != np.uint8 or colors.shape not in ((3,), points.shape):
        raise ValueError(f"colors of layer '{name}' must be (N, 3) or (3,) uint8, got {colors.shape} {colors.dtype}")


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)


def _text(array: NDArray[np.uint8]) -> str:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError("a name must be bytes")
    return array.tobytes().decode("utf-8")  # UnicodeDecodeError is a ValueError
