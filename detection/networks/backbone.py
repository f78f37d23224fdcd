# SPDX-License-Identifier: Apache-2.0
"""The backbone that labellers and detectors share: a residual encoder and a feature pyramid."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from detection.networks.config import BackboneConfig
from vision3d.errors import DataError
from vision3d.nn.feature_pyramid import FeaturePyramid
from vision3d.nn.image_encoder import ImageEncoder
from vision3d.weights import read_weights

# Of ImageNet's RGB images in [0, 1]: what published encoders were trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Images -> a pyramid of features. Weights of ``config.weights`` are not loaded here: see :func:`build_backbone`.

    Attributes:
        strides: pixels per cell of each level.
        channels: of every level.
        encoder: the :class:`~vision3d.nn.image_encoder.ImageEncoder`.
        pyramid: the :class:`~vision3d.nn.feature_pyramid.FeaturePyramid` over its stages.
    """

    strides = (4, 8, 16, 32)
    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = config.channels
        self.encoder = ImageEncoder(config.depth, config.width, config.norm)
        self.pyramid = FeaturePyramid(self.encoder.num_features, config.channels, config.norm)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        for module in self._frozen():
            module.requires_grad_(False)
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float32 RGB in [0, 1], H and W multiples of 32 -> (B, channels, H / s, W / s) per stride s."""
        return self.pyramid(self.encoder((images - self.mean) / self.std))

    def train(self, mode: bool = True) -> Backbone:
        """As usual, but frozen stages stay in eval mode, so that their statistics do not change either."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        count = self.config.frozen_stages
        return self.encoder.stem + self.encoder.stages[:count] if count else []


def build_backbone(config: BackboneConfig) -> Backbone:
    """The backbone, its encoder filled from ``config.weights`` where that is given.

    Raises:
        DataError: the file cannot be read, or belongs to another encoder.
    """
    backbone = Backbone(config)
    if config.weights is not None:
        load_encoder(backbone.encoder, config.weights, config)
    return backbone


def load_encoder(encoder: ImageEncoder, path: Path, config: BackboneConfig) -> None:
    """Fill the encoder from a file with torchvision's names, alone or below a prefix (``encoder.``, ``backbone.``).

    A classifier and other parts of the file are left out.

    Raises:
        DataError: the file holds no residual encoder, or one of another depth, width or norm.
    """
    state = read_weights(path)
    stems = sorted((name for name in state if name.split(".")[-2:] == ["conv1", "weight"]), key=len)
    if not stems:
        raise DataError(path, "holds no residual encoder: there is no 'conv1.weight' in it")
    prefix = stems[0].removesuffix("conv1.weight")
    wanted = encoder.state_dict()
    found = {name: state[prefix + name] for name in wanted if prefix + name in state}
    asked = f"backbone.depth={config.depth}, width={config.width}, norm={config.norm}"
    # A counter that old files lack and nothing reads.
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    shapes = [name for name in found if found[name].shape != wanted[name].shape]
    deeper = [name for name in state if name.startswith(f"{prefix}layer") and name.removeprefix(prefix) not in wanted]
    statistics = [name for name in deeper if name.endswith(".running_mean")]
    if statistics and config.norm == "group":
        raise DataError(path, f"holds batch norms ('{statistics[0]}'), not {asked}; set backbone.norm=batch")
    if shapes:
        name = shapes[0]
        problem = f"'{prefix}{name}' is {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
    elif missing:
        problem = f"'{prefix}{missing[0]}' is missing"
    elif deeper:
        problem = f"'{deeper[0]}' is not part of it"
    else:
        encoder.load_state_dict({**wanted, **found})
        return
    count = len(missing) + len(shapes) + len(deeper)
    raise DataError(path, f"holds weights of another encoder than {asked}: {problem} ({count} differences)")
