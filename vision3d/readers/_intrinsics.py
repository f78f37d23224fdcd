# SPDX-License-Identifier: Apache-2.0
"""Intrinsics that a user gives: a file beside the images, options of the source, or what EXIF says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.errors import DataError
from vision3d.geometry.cameras import Camera
from vision3d.readers._poses import read_matrix, read_text
from vision3d.readers._source import bounded


def _focals(text: str) -> tuple[float, ...]:
    numbers = tuple(float(part) for part in text.split(","))
    if len(numbers) not in (1, 4) or not np.isfinite(numbers).all() or min(numbers) <= 0:
        raise ValueError("give f or fx,fy,cx,cy in pixels")
    return numbers


# Options of a source that has no calibration of its own.
CAMERA_OPTIONS = {"fov_deg": bounded(float, 1, 175), "K": _focals}


def camera_from_options(options: Mapping[str, Any], size: tuple[int, int]) -> Camera | None:
    """From ``fov_deg`` (across the longer side) or ``K`` (``f`` or ``fx,fy,cx,cy``, pixels); None without either.

    The principal point is the image's centre where it is not given.
    """
    width, height = size
    if "K" in options:
        numbers = options["K"]
        f = numbers[0]
        params = numbers if len(numbers) == 4 else (f, f, (width - 1) / 2, (height - 1) / 2)
        return Camera("PINHOLE", width, height, params)
    if "fov_deg" in options:
        f = 0.5 * max(width, height) / float(np.tan(np.radians(options["fov_deg"]) / 2))
        return Camera("PINHOLE", width, height, (f, f, (width - 1) / 2, (height - 1) / 2))
    return None


def camera_beside(folder: Path, size: tuple[int, int]) -> Camera | None:
    """From ``camera.yaml`` or ``K.txt`` in a folder; None when it holds neither.

    Args:
        size: (width, height) of the images: K.txt does not name one, and a camera.yaml must agree with it.
    """
    if (folder / "camera.yaml").is_file():
        return read_camera_yaml(folder / "camera.yaml")
    path = folder / "K.txt"
    if not path.is_file():
        return None
    K = read_matrix(path, (3, 3))
    if not np.isfinite(K).all() or min(K[0, 0], K[1, 1]) <= 0 or abs(K[2] - [0, 0, 1]).max() > 1e-6:
        raise DataError(path, "is no intrinsic matrix [fx 0 cx; 0 fy cy; 0 0 1]")
    if abs(K[0, 1]) > 1e-6 * K[0, 0]:
        raise DataError(path, f"has a skew of {K[0, 1]:g}: cameras with skew are not supported")
    if not (0 <= K[0, 2] <= size[0] and 0 <= K[1, 2] <= size[1]):
        text = f"principal point ({K[0, 2]:g}, {K[1, 2]:g}) lies outside the {size[0]}x{size[1]} image"
        raise DataError(path, f"{text}: is the calibration for another image size?")
    return Camera.pinhole(*size, K)


def read_camera_yaml(path: Path) -> Camera:
    """``model``, ``width``, ``height``, ``params`` as in :class:`Camera`; raises DataError naming the key at fault."""
    import yaml

    try:
        data = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise DataError(path, f"is not YAML{'' if mark is None else f' (line {mark.line + 1})'}") from None
    keys = {"model", "width", "height", "params"}
    if not isinstance(data, dict) or set(data) != keys:
        found = ", ".join(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise DataError(path, f"must hold exactly the keys model, width, height, params; found {found}")
    try:
        params = tuple(float(p) for p in data["params"])
        return Camera(str(data["model"]), int(data["width"]), int(data["height"]), params)
    except (TypeError, ValueError) as error:
        raise DataError(path, str(error)) from None


def exif_focal_px(path: Path, size: tuple[int, int]) -> float | None:
    """Focal length in pixels from EXIF's 35 mm equivalent (36 mm across the longer side), or None."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            mm = image.getexif().get_ifd(0x8769).get(0xA405)
    except (OSError, ValueError, SyntaxError):
        return None
    return None if not mm or not 5 <= float(mm) <= 1000 else float(mm) / 36.0 * max(size)
