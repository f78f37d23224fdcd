# SPDX-License-Identifier: Apache-2.0
"""The interface of local features: image -> key points, descriptors and, where asked for, a descriptor anywhere.

Pixel coordinates are (x, y) with pixel centres at integers. All descriptors have unit norm and are
compared by their dot product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relocalization.features.config import FeatureConfig, require_weights, resolve

if TYPE_CHECKING:
    from torch import Tensor

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class DenseField(Protocol):
    """A descriptor at every pixel of one image, kept in whatever form is smallest."""

    stride: int

    def sample(self, uv_px: Tensor) -> Tensor:
        """(M, 2) float64 pixels -> (M, C) float32 unit norm, on the field's device."""
        ...

    def full(self) -> Tensor | None:
        """(C, h, w) float32, unit norm per cell of ``stride`` pixels; None where there is no such map."""
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """The local features of one image, strongest first.

    Attributes:
        keypoints: (N, 2) float64 pixels.
        scores: (N,) float32, larger is stronger; comparable only within one extractor.
        descriptors: (N, C) float32, unit norm.
        size: (H, W) of the image, pixels.
        field: descriptors at any pixel; None unless extracted with ``dense=True``.
        scales: (N,) float32 key point diameter in pixels, None where the extractor has none.
        angles: (N,) float32 orientation in radians, from +x towards +y; None where the extractor has none.
    """

    keypoints: Float64
    scores: Float32
    descriptors: Float32
    size: tuple[int, int]
    field: DenseField | None = None
    scales: Float32 | None = None
    angles: Float32 | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def dense_stride(self) -> int:
        """Pixels per cell of the descriptor map; 0 without a map."""
        return 0 if self.field is None else self.field.stride

    @property
    def dense(self) -> Tensor | None:
        """(C, h, w) float32, the whole descriptor map, unit norm per cell. Built anew at every call, and large."""
        return None if self.field is None else self.field.full()

    def sample(self, uv_px: ArrayLike) -> Float32:
        """Descriptors at any pixels: (M, 2) -> (M, C) float32, unit norm.

        Maps are interpolated between pixels (ALIKE bilinearly, XFeat's coarse map bicubically) and the result is
        re-normalised; pixels outside the image take the nearest inside.

        Raises:
            ValueError: the features were extracted without ``dense=True``, or ``uv_px`` is not (M, 2) and finite.
        """
        import torch

        if self.field is None:
            raise ValueError("these features hold no descriptor field: extract them with dense=True")
        uv = np.asarray(uv_px, dtype=np.float64)
        if uv.ndim != 2 or uv.shape[1] != 2 or not np.isfinite(uv).all():
            raise ValueError(f"pixels must be (M, 2) and finite, got {uv.shape}")
        upper = np.array([self.size[1] - 1, self.size[0] - 1], dtype=np.float64)
        with torch.inference_mode():
            return self.field.sample(torch.from_numpy(np.clip(uv, 0.0, upper))).cpu().numpy()


class Extractor(Protocol):
    """Extracts the local features of an image.

    Attributes:
        name: as in :class:`FeatureConfig`, never ``auto``.
        channels: C, length of a descriptor.
        similarity: the dot product from which two mutual nearest neighbours count as a match.
        has_dense: whether ``dense=True`` is possible, i.e. descriptors can be sampled at any pixel.
        fingerprint: identifies the weights; descriptors of different fingerprints must not be compared.
    """

    name: str
    channels: int
    similarity: float
    has_dense: bool
    fingerprint: str

    def __call__(self, image: NDArray[np.uint8], *, dense: bool = False) -> Features:
        """(H, W, 3) uint8 RGB -> features.

        Raises:
            ValueError: the image has another shape or type, or ``dense`` is asked of an extractor without it.
        """
        ...


def make_extractor(config: FeatureConfig) -> Extractor:
    """The extractor that the configuration names, with its weights loaded.

    Raises:
        DataError: its weights are missing or damaged.
        ConfigError: a value is out of range or the device does not exist.
    """
    name, _ = resolve(config.name)
    if name == "sift":
        from relocalization.features.sift import SiftExtractor

        return SiftExtractor(config)
    path = require_weights(name)
    if name == "xfeat":
        from relocalization.features.xfeat import XFeatExtractor

        return XFeatExtractor(config, path)
    if name.startswith("aliked-"):
        from relocalization.features.aliked import AlikedExtractor

        return AlikedExtractor(name, config, path)
    from relocalization.features.alike import AlikeExtractor

    return AlikeExtractor(name, config, path)


def check_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image itself, contiguous, if it is (H, W, 3) uint8 of at least 32 x 32 pixels.

    Raises:
        ValueError: it is not.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
    if min(image.shape[:2]) < 32:
        raise ValueError(f"an image must be at least 32 x 32 pixels, got {image.shape[1]} x {image.shape[0]}")
    return np.ascontiguousarray(image)
