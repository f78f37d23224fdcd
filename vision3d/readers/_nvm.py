# SPDX-License-Identifier: Apache-2.0
"""Cameras of a VisualSFM reconstruction (NVM_V3): focal length and radial distortion per image.

VisualSFM undistorts the *measured* point, ``x_u = x_d (1 + k |x_d|^2)`` in units of the focal length, while our models
(like COLMAP's) distort the projected one. The inverse function is approximated by a RADIAL camera, fitted over the
image: for |k| up to 0.2 it is off by less than a tenth of a pixel in the corner of a Cambridge Landmarks image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision3d.errors import DataError
from vision3d.geometry.cameras import Camera
from vision3d.readers._poses import numbers_of


@dataclass(frozen=True)
class NvmCamera:
    """``focal`` in pixels, ``k`` for the measured point."""

    focal: float
    k: float

    def camera(self, width: int, height: int) -> Camera:
        """The camera for an image of this size; the principal point is its centre."""
        center = ((width - 1) / 2, (height - 1) / 2)
        if self.k == 0:
            return Camera("SIMPLE_PINHOLE", width, height, (self.focal, *center))
        k1, k2 = inverse_radial(self.k, 0.5 * float(np.hypot(width, height)) / self.focal)
        return Camera("RADIAL", width, height, (self.focal, *center, k1, k2))


def inverse_radial(k: float, radius: float) -> tuple[float, float]:
    """(k1, k2) such that ``r_d = r_u (1 + k1 r_u^2 + k2 r_u^4)`` inverts ``r_u = r_d (1 + k r_d^2)`` up to ``radius``.

    Least squares over r_d in (0, radius].
    """
    r_d = np.linspace(0, radius, 101)[1:]
    r_u = r_d * (1 + k * r_d**2)
    (k1, k2), *_ = np.linalg.lstsq(np.stack([r_u**3, r_u**5], axis=-1), r_d - r_u, rcond=None)
    return float(k1), float(k2)


def read_nvm_cameras(path: Path) -> dict[str, NvmCamera]:
    """Image name without suffix -> camera. Points, the bulk of the file, are not read.

    Raises:
        DataError: the file is missing, is no NVM_V3 file, or a camera line is damaged.
    """
    try:
        stream = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise DataError(path, "no such file") from None
    cameras: dict[str, NvmCamera] = {}
    with stream:
        lines = ((number, line.split()) for number, line in enumerate(stream, start=1) if line.strip())
        if next(lines, (0, [""]))[1][0] != "NVM_V3":
            raise DataError(path, "does not start with NVM_V3")
        number, fields = next(lines, (0, []))
        if len(fields) != 1 or not fields[0].isdigit():
            raise DataError(path, f"line {number}: expected the number of cameras")
        for _ in range(int(fields[0])):
            number, fields = next(lines, (number, []))
            # Names may hold spaces, so the ten numbers are counted from the end.
            if len(fields) < 11:
                raise DataError(path, f"line {number}: expected 'name f qw qx qy qz cx cy cz k 0'")
            values = numbers_of(fields[-10:], path, number)
            name = Path(" ".join(fields[:-10]).replace("\\", "/")).with_suffix("").as_posix()
            if not values[0] > 0:
                raise DataError(path, f"line {number}: focal length {values[0]:g} is not possible")
            if name in cameras:
                raise DataError(path, f"line {number}: image {name} occurs twice")
            cameras[name] = NvmCamera(values[0], values[8])
    return cameras
