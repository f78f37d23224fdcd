# SPDX-License-Identifier: Apache-2.0
"""ALIKED t16, n16, n32 (Zhao et al. 2023) on kornia's network, with our detector and weights from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relocalization.features.alike import padded_input, torch_device
from relocalization.features.base import Features, check_image
from relocalization.features.config import FeatureConfig
from relocalization.features.detect import detect
from vision3d.weights import fingerprint, load_weights

# pixels described at once; each reads 16 or 32 places of C channels
CHUNK = 2048
CHANNELS = {"aliked-t16": 64, "aliked-n16": 128, "aliked-n32": 128}


class AlikedField:
    """ALIKED's descriptor at any pixel. There is no map behind it: every pixel is described by itself.

    The deformable head looks around a pixel at places that it chooses, so a descriptor costs about 40 times
    one of ALIKE.
    """

    stride = 1

    def __init__(self, head: torch.nn.Module, maps: Tensor) -> None:
        """Args: the descriptor head, and the (1, C, H, W) map it reads."""
        self._head = head
        self._maps = maps

    def sample(self, uv_px: Tensor) -> Tensor:
        """(M, 2) float64 pixels -> (M, C) float32 unit norm."""
        last = torch.tensor([self._maps.shape[3] - 1, self._maps.shape[2] - 1], dtype=torch.float64)
        # the head cuts positions down to whole pixels: keep 100 from becoming 99.999999 on the way through [-1, 1]
        grid = ((uv_px.cpu() + 1e-6) / last * 2 - 1).to(self._maps.device)
        parts = [self._head(self._maps, [part])[0][0] for part in grid.split(CHUNK)]
        return torch.cat(parts) if parts else self._maps.new_zeros(0, self._maps.shape[1])

    def full(self) -> None:
        """There is no map."""
        return None


class AlikedExtractor:
    """See :class:`relocalization.features.base.Extractor`."""

    similarity = 0.6
    has_dense = True

    def __init__(self, name: str, config: FeatureConfig, weights: Path) -> None:
        """Args: name, ``aliked-t16``, ``-n16`` or ``-n32``; weights, its file.

        Raises:
            DataError: the file is damaged or of another network.
        """
        from kornia.feature import ALIKED

        self.name = name
        self.channels = CHANNELS[name]
        self.fingerprint = fingerprint(weights)
        self._config = config
        self._device = torch_device(config.device)
        net = ALIKED(model_name=name)
        load_weights(net, weights, name, own=("dkd.hw_grid",))
        self._net = net.eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8], *, dense: bool = False) -> Features:
        image = check_image(image)
        height, width = image.shape[:2]
        maps, scores_map = self._net.extract_dense_map(padded_input(image, self._device))
        uv, scores = detect(
            scores_map[0, 0, :height, :width],
            radius=self._config.nms_radius,
            threshold=0.2 if self._config.score_threshold is None else self._config.score_threshold,
            border=self._config.border,
            top_k=self._config.max_keypoints,
        )
        field = AlikedField(self._net.desc_head, maps[:, :, :height, :width].contiguous())
        return Features(
            keypoints=uv.cpu().numpy(),
            scores=scores.cpu().numpy(),
            descriptors=field.sample(uv).cpu().numpy(),
            size=(height, width),
            field=field if dense else None,
        )
