# SPDX-License-Identifier: Apache-2.0
"""Options of the backbone that labeller and detector share. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vision3d.errors import check_ranges


@dataclass(frozen=True)
class BackboneConfig:
    """A residual encoder and a feature pyramid over its stages.

    Attributes:
        depth: residual layers: 14, 18, 34 or 50.
        width: channels of the stem; stage i has ``width * 2 ** i`` (times 4 with depth 50).
        channels: of every level of the pyramid.
        norm: group (any batch size) or batch.
        weights: safetensors or PyTorch file to start from: torchvision's names or ours (what SparK writes). None starts
            from random weights.
        frozen_stages: first stages whose weights never change; 1 freezes the stem too, and it is then in eval mode.
    """

    depth: Literal[14, 18, 34, 50] = 14
    width: int = 16
    channels: int = 64
    norm: Literal["group", "batch"] = "group"
    weights: Path | None = None
    frozen_stages: int = 0

    def __post_init__(self) -> None:
        check_ranges("backbone", self, width=(8, 256), channels=(8, 1024), frozen_stages=(0, 4))
