# SPDX-License-Identifier: Apache-2.0
"""Camera models with COLMAP's names and parameter order; pixel centres at integer coordinates.

COLMAP puts the centre of the first pixel at (0.5, 0.5), we (like OpenCV) at (0, 0). The half pixel is
added by :meth:`Camera.to_colmap` and removed by :meth:`Camera.from_colmap`, nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

# model -> (number of focal parameters, number of distortion parameters)
MODELS = {
    "SIMPLE_PINHOLE": (1, 0),
    "PINHOLE": (2, 0),
    "SIMPLE_RADIAL": (1, 1),
    "RADIAL": (1, 2),
    "OPENCV": (2, 4),
    "FULL_OPENCV": (2, 8),
}


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one image size.

    Attributes:
        model: a key of :data:`MODELS`.
        width, height: pixels.
        params: COLMAP's order: focal length(s), cx, cy, distortion; cx, cy in our pixel convention.
    """

    model: str
    width: int
    height: int
    params: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"camera model '{self.model}' is not one of {', '.join(MODELS)}")
        n_focal, n_dist = MODELS[self.model]
        if len(self.params) != n_focal + 2 + n_dist:
            raise ValueError(f"{self.model} takes {n_focal + 2 + n_dist} parameters, got {len(self.params)}")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"image size {self.width}x{self.height} is empty")
        if not np.isfinite(self.params).all() or min(self.params[:n_focal]) <= 0:
            raise ValueError("focal lengths must be positive and all parameters finite")

    @classmethod
    def pinhole(cls, width: int, height: int, K: ArrayLike) -> Camera:
        """From a (3, 3) intrinsic matrix without skew."""
        K = np.asarray(K, dtype=np.float64)
        return cls("PINHOLE", width, height, (float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])))

    @property
    def fx(self) -> float:
        return self.params[0]

    @property
    def fy(self) -> float:
        return self.params[MODELS[self.model][0] - 1]

    @property
    def cx(self) -> float:
        return self.params[MODELS[self.model][0]]

    @property
    def cy(self) -> float:
        return self.params[MODELS[self.model][0] + 1]

    @property
    def distortion(self) -> tuple[float, ...]:
        """OpenCV's coefficients (k1, k2, p1, p2, k3, k4, k5, k6), zero where the model has none."""
        d = self.params[MODELS[self.model][0] + 2 :]
        return (*d, *([0.0] * (8 - len(d))))

    @property
    def K(self) -> Float:
        """(3, 3) intrinsic matrix."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def focal(self) -> float:
        """Geometric mean of the focal lengths, pixels."""
        return float(np.sqrt(self.fx * self.fy))

    def project(self, points_cam: ArrayLike) -> Float:
        """Pixels (..., 2) of points (..., 3) in the camera frame; NaN where z <= 0."""
        p = np.asarray(points_cam, dtype=np.float64)
        z = np.where(p[..., 2] > 0, p[..., 2], np.nan)
        xy = self._distort(p[..., :2] / z[..., None])
        return xy * [self.fx, self.fy] + [self.cx, self.cy]

    def normalize(self, uv_px: ArrayLike) -> Float:
        """Undistorted normalised coordinates (..., 2), z = 1, of pixels (..., 2)."""
        uv = np.asarray(uv_px, dtype=np.float64)
        target = (uv - [self.cx, self.cy]) / [self.fx, self.fy]
        if not any(self.distortion):
            return target
        # Newton with a finite-difference Jacobian: the models are smooth and two-dimensional,
        # and a fixed-point iteration diverges for strong distortion near the image corner.
        xy, eps = target.copy(), 1e-6
        for _ in range(20):
            f = self._distort(xy)
            residual = f - target
            if np.nanmax(np.abs(residual), initial=0.0) < 1e-13:
                break
            jx = (self._distort(xy + [eps, 0.0]) - f) / eps
            jy = (self._distort(xy + [0.0, eps]) - f) / eps
            det = jx[..., 0] * jy[..., 1] - jx[..., 1] * jy[..., 0]
            det = np.where(np.abs(det) < 1e-12, 1e-12, det)
            dx = (residual[..., 0] * jy[..., 1] - residual[..., 1] * jy[..., 0]) / det
            dy = (jx[..., 0] * residual[..., 1] - jx[..., 1] * residual[..., 0]) / det
            xy = xy - np.stack([dx, dy], axis=-1)
        return xy

    def rays(self, uv_px: ArrayLike) -> Float:
        """Unit viewing directions (..., 3) in the camera frame of pixels (..., 2)."""
        xy = self.normalize(uv_px)
        d = np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1)
        return d / np.linalg.norm(d, axis=-1, keepdims=True)

    def contains(self, uv_px: ArrayLike, border: float = 0.0) -> NDArray[np.bool_]:
        """Whether pixels (..., 2) lie inside the image by at least ``border`` pixels; NaN is outside."""
        uv = np.asarray(uv_px, dtype=np.float64)
        limit = np.array([self.width - 1, self.height - 1]) - border
        with np.errstate(invalid="ignore"):
            return np.all((uv >= border) & (uv <= limit), axis=-1)

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same view at another image size (pixel areas, not centres, are scaled)."""
        sx, sy = width / self.width, height / self.height
        n_focal, _ = MODELS[self.model]
        model, params = self.model, self.params
        if n_focal == 1 and abs(sx - sy) > 1e-3 * sx:
            # An anisotropic resize needs two focal lengths: move to the smallest model that has them.
            d = self.distortion
            if any(d):
                model, params = "FULL_OPENCV", (self.fx, self.fy, self.cx, self.cy, *d)
            else:
                model, params = "PINHOLE", (self.fx, self.fy, self.cx, self.cy)
            n_focal = 2
        focal = (params[0] * sx, params[1] * sy) if n_focal == 2 else (params[0] * 0.5 * (sx + sy),)
        cx = (params[n_focal] + 0.5) * sx - 0.5
        cy = (params[n_focal + 1] + 0.5) * sy - 0.5
        return replace(
            self,
            model=model,
            width=width,
            height=height,
            params=(*focal, cx, cy, *params[n_focal + 2 :]),
        )

    def to_colmap(self) -> Any:
        """The same camera as a ``pycolmap.Camera`` (principal point moved by half a pixel)."""
        import pycolmap

        n_focal, _ = MODELS[self.model]
        params = list(self.params)
        params[n_focal] += 0.5
        params[n_focal + 1] += 0.5
        return pycolmap.Camera(model=self.model, width=self.width, height=self.height, params=params)

    @classmethod
    def from_colmap(cls, camera: Any) -> Camera:
        """From a ``pycolmap.Camera``; raises ValueError for models that are not in :data:`MODELS`."""
        model = camera.model.name
        if model not in MODELS:
            raise ValueError(f"camera model '{model}' is not one of {', '.join(MODELS)}")
        params = [float(p) for p in camera.params]
        n_focal, _ = MODELS[model]
        params[n_focal] -= 0.5
        params[n_focal + 1] -= 0.5
        return cls(model, int(camera.width), int(camera.height), tuple(params))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict from which :meth:`from_json` restores the camera exactly."""
        return {"model": self.model, "width": self.width, "height": self.height, "params": list(self.params)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Camera:
        """The inverse of :meth:`to_json`; raises KeyError or ValueError on anything else."""
        return cls(data["model"], data["width"], data["height"], tuple(data["params"]))

    def _distort(self, xy: Float) -> Float:
        k1, k2, p1, p2, k3, k4, k5, k6 = self.distortion
        if not any(self.distortion):
            return xy
        x, y = xy[..., 0], xy[..., 1]
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        return np.stack([x * radial + dx, y * radial + dy], axis=-1)
