# SPDX-License-Identifier: Apache-2.0
"""The feature pyramid: shapes, and how far information travels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vision3d.nn.feature_pyramid import FeaturePyramid


def stages(batch: int = 2, side: int = 32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(batch, c, side >> i, side >> i, generator=generator) for i, c in enumerate((4, 8, 16))]


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_levels_keep_their_grids(norm: str) -> None:
    pyramid = FeaturePyramid((4, 8, 16), 12, norm)  # type: ignore[arg-type]
    assert [tuple(level.shape) for level in pyramid(stages())] == [(2, 12, 32 >> i, 32 >> i) for i in range(3)]


def test_top_down_sum_by_hand() -> None:
    """With identity layers a level is the sum of itself and of the coarser ones, each repeated over its cells."""
    pyramid = FeaturePyramid((4, 4), 4)
    for module in pyramid.modules():
        if isinstance(module, nn.Sequential):
            module[0] = nn.Identity()
            module[1] = nn.Identity()
    fine, coarse = torch.rand(1, 4, 4, 6), torch.rand(1, 4, 2, 3)
    found = pyramid([fine, coarse])
    assert torch.equal(found[1], coarse)
    assert torch.equal(found[0], fine + coarse.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_coarse_features_reach_fine_levels_but_not_the_other_way() -> None:
    pyramid = FeaturePyramid((4, 8, 16), 12)
    inputs = [stage.requires_grad_() for stage in stages()]
    levels = pyramid(inputs)
    reaches = [
        [g is not None for g in torch.autograd.grad(level.sum(), inputs, retain_graph=True, allow_unused=True)]
        for level in levels
    ]
    assert reaches == [[True, True, True], [False, True, True], [False, False, True]]


def test_a_stage_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        FeaturePyramid((4, 8, 16), 12)(stages()[:2])
