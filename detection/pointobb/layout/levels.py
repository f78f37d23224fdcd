# SPDX-License-Identifier: Apache-2.0
"""Which level of the pyramid answers for an object (progressive level assignment, Point2RBox-v3, ICLR 2026)."""

from __future__ import annotations

import torch
from torch import Tensor

UNIT = 6.0  # strides in the root of the area of a level's middle object: 24 px at stride 4


def level_of(boxes: Tensor, strides: tuple[int, ...]) -> Tensor:
    """(N,) the level whose middle object is nearest in size to each of (N, 5) boxes; strides double per level."""
    area = (boxes[:, 2] * boxes[:, 3]).clamp_min(1e-6)
    level = torch.log2(area) / 2 - torch.log2(torch.tensor(UNIT * strides[0], dtype=area.dtype))
    return level.round().long().clamp(0, len(strides) - 1)


def assign_levels(basins: Tensor, valid: Tensor, own: Tensor, progress: float, own_from: float) -> Tensor:
    """Levels of N objects: basins decide first, the network's own boxes from ``own_from`` on.

    Args:
        basins: (N,) levels of the basins' boxes.
        valid: (N,) whether there is a basin; without one the network decides from the start.
        own: (N,) levels of the network's boxes.
        progress: part of the run that is done.

    Returns:
        (N,) levels.
    """
    return own if progress >= own_from else torch.where(valid, basins, own)
