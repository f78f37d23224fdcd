# SPDX-License-Identifier: Apache-2.0
"""ALIKE t, s, n, l: key points and descriptors, and a descriptor field that is evaluated where it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from relocalization.features.alike_net import WIDTHS, AlikeNet
from relocalization.features.base import Features, check_image
from relocalization.features.config import FeatureConfig
from relocalization.features.detect import detect
from relocalization.features.sampling import bilinear_taps, blend
from vision3d.errors import ConfigError
from vision3d.weights import fingerprint, load_weights

# pixels whose descriptors are computed at once: 16384 x 128 floats are 8 MB
CHUNK = 16384
# The card's 0.2 keeps a quarter of the key points that match at 0.02, at nearly the same precision (measured on
# 7-Scenes: docs/RESULTS.md); maps of few images live on their number.
DEFAULT_THRESHOLD = 0.02


def torch_device(name: str) -> torch.device:
    """The device, after trying it.

    Raises:
        ConfigError: torch has no such device here.
    """
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"features.device: '{name}' is not usable here; use cpu") from error


def padded_input(image: NDArray[np.uint8], device: torch.device, multiple: int = 32) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H', W') float32 in [0, 1]; the last row and column are repeated up to a multiple."""
    height, width = image.shape[:2]
    x = torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float().div_(255)
    pad = (0, -width % multiple, 0, -height % multiple)
    return F.pad(x, pad, mode="replicate") if any(pad) else x


class AlikeField:
    """The descriptor map of one image in the form of the four levels it is made from (a fifth of its size).

    Reading it at integer pixels gives exactly the full-size map's vectors, because the levels are enlarged
    bilinearly; between pixels, the four unit vectors around are blended as anywhere else.
    """

    stride = 1

    def __init__(self, net: AlikeNet, levels: list[Tensor], size: tuple[int, int]) -> None:
        """Args: :meth:`AlikeNet.levels` of the padded image, and (H, W) of the image itself."""
        self._net = net
        self._size = size
        self._shapes = [(int(level.shape[0]), int(level.shape[1])) for level in levels]
        self._tables = [level.flatten(0, 1) for level in levels]

    def sample(self, uv_px: Tensor) -> Tensor:
        """(M, 2) float64 pixels -> (M, C) float32 unit norm."""
        height, width = self._size
        index, weight = bilinear_taps(uv_px.to(self._tables[0].device), height, width)
        # patches overlap and share their corners: each pixel's vector is computed once
        used = weight > 0
        pixels, place = torch.unique(index[used], return_inverse=True)
        vectors = self._at_pixels(pixels)
        rows = torch.zeros_like(index)
        rows[used] = place
        return F.normalize(blend(vectors, rows, weight), dim=1)

    def full(self) -> Tensor:
        """(C, H, W) float32, unit norm per pixel."""
        height, width = self._size
        vectors = self._at_pixels(torch.arange(height * width, device=self._tables[0].device))
        return vectors.T.reshape(-1, height, width)

    def _at_pixels(self, pixels: Tensor) -> Tensor:
        """(P,) indices into the flattened image -> (P, C) unit vectors."""
        out = self._tables[0].new_empty(len(pixels), self._net.channels)
        for start in range(0, len(pixels), CHUNK):
            part = pixels[start : start + CHUNK]
            out[start : start + CHUNK] = self._net.head(self._stack(part % self._size[1], part // self._size[1]))
        return out

    def _stack(self, x: Tensor, y: Tensor) -> Tensor:
        """(P,) columns and rows -> (P, C) levels at these pixels."""
        uv = torch.stack([x, y], dim=1).double()
        full_height, full_width = self._shapes[0]
        stacked = [self._net.first(self._tables[0][y * full_width + x])]
        for table, (height, width) in zip(self._tables[1:], self._shapes[1:]):
            # corner pixels are aligned, so the factor is not quite the stride
            ratio = uv.new_tensor([(width - 1) / (full_width - 1), (height - 1) / (full_height - 1)])
            stacked.append(blend(table, *bilinear_taps(uv * ratio, height, width)))
        return torch.cat(stacked, dim=1)


class AlikeExtractor:
    """See :class:`relocalization.features.base.Extractor`."""

    similarity = 0.7
    has_dense = True

    def __init__(self, name: str, config: FeatureConfig, weights: Path) -> None:
        """Args: name, ``alike-t``, ``-s``, ``-n`` or ``-l``; weights, its file.

        Raises:
            DataError: the file is damaged or of another network.
        """
        self.name = name
        self.channels = WIDTHS[name].channels
        self.fingerprint = fingerprint(weights)
        self._config = config
        self._device = torch_device(config.device)
        net = AlikeNet(WIDTHS[name])
        load_weights(net, weights, name)
        # with channels last, reading one pixel's channels is one stretch of memory
        self._net = net.fuse().requires_grad_(False).to(self._device)
        for parameter in self._net.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8], *, dense: bool = False) -> Features:
        image = check_image(image)
        height, width = image.shape[:2]
        x = padded_input(image, self._device).to(memory_format=torch.channels_last)
        levels = self._net.levels(x)
        uv, scores = detect(
            self._net.score(levels)[:height, :width],
            radius=self._config.nms_radius,
            threshold=DEFAULT_THRESHOLD if self._config.score_threshold is None else self._config.score_threshold,
            border=self._config.border,
            top_k=self._config.max_keypoints,
        )
        field = AlikeField(self._net, levels, (height, width))
        return Features(
            keypoints=uv.cpu().numpy(),
            scores=scores.cpu().numpy(),
            descriptors=field.sample(uv).cpu().numpy(),
            size=(height, width),
            field=field if dense else None,
        )
