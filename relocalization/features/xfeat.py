# SPDX-License-Identifier: Apache-2.0
"""XFeat (Potje et al., CVPR 2024) on kornia's network, with weights from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from relocalization.features.alike import padded_input, torch_device
from relocalization.features.base import Features, check_image
from relocalization.features.config import FeatureConfig
from relocalization.features.detect import detect
from relocalization.features.sampling import GridField, bilinear_taps, blend
from vision3d.weights import fingerprint, load_weights

CELL = 8


class XFeatExtractor:
    """See :class:`relocalization.features.base.Extractor`."""

    name = "xfeat"
    channels = 64
    similarity = 0.82
    has_dense = True

    def __init__(self, config: FeatureConfig, weights: Path) -> None:
        """Args: weights, the file of XFeat's weights.

        Raises:
            DataError: the file is damaged or of another network.
        """
        from kornia.feature.xfeat import XFeatModel

        self.fingerprint = fingerprint(weights)
        self._config = config
        self._device = torch_device(config.device)
        net = XFeatModel()
        load_weights(net, weights, self.name)
        self._net = net.eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def __call__(self, image: NDArray[np.uint8], *, dense: bool = False) -> Features:
        image = check_image(image)
        height, width = image.shape[:2]
        cells, logits, reliability = self._net(padded_input(image, self._device))
        # 64 logits are the pixels of a cell in reading order, the 65th says "none of them"
        heat = logits.softmax(dim=1)[:, : CELL * CELL]
        heat = torch.nn.functional.pixel_shuffle(heat, CELL)[0, 0, :height, :width]
        uv, scores = detect(
            heat,
            radius=self._config.nms_radius,
            threshold=0.05 if self._config.score_threshold is None else self._config.score_threshold,
            border=self._config.border,
            top_k=heat.numel(),
        )
        # how far a place can be trusted weighs in the ranking, not in where the maxima lie
        taps = bilinear_taps((uv + 0.5) / CELL - 0.5, *reliability.shape[2:])
        scores = scores * blend(reliability.reshape(-1, 1), *taps)[:, 0]
        order = torch.sort(scores, descending=True, stable=True).indices[: self._config.max_keypoints]
        uv, scores = uv[order], scores[order]
        field = GridField(cells[0], CELL)
        return Features(
            keypoints=uv.cpu().numpy(),
            scores=scores.cpu().numpy(),
            descriptors=field.sample(uv).cpu().numpy(),
            size=(height, width),
            field=field if dense else None,
        )
