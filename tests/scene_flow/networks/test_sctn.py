# SPDX-License-Identifier: Apache-2.0
"""SCTN as a whole: its size, what it must not change with, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from moving_boxes import Boxes, moving_boxes
from torch import Tensor, nn

from scene_flow.loss import flow_loss
from scene_flow.networks.config import NetworkConfig, TransportConfig
from scene_flow.networks.encoder import TooFewPoints
from scene_flow.networks.sctn import Sctn

SMALL = NetworkConfig(size="small", voxel_size_m=0.2)


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def network(config: NetworkConfig = SMALL) -> Sctn:
    torch.manual_seed(0)
    return Sctn(config)


def test_full_size_has_the_published_parameters() -> None:
    with torch.device("meta"):
        net = Sctn()
    unet = net.encoder.point_features.unet
    assert parameters(unet.stem, unet.down, unet.encoder) == 3_054_144
    assert parameters(unet.up, unet.decoder, unet.head) == 4_663_616
    assert parameters(net.encoder.transformer) == 14_720
    assert parameters(net.refinement) == 55_747
    assert parameters(net.transport) == 2
    assert parameters(net) == 7_788_229


def test_small_size_fits_in_3_megabytes() -> None:
    assert parameters(network()) <= 700_000
    assert sum(t.numel() * t.element_size() for t in network().state_dict().values()) <= 3e6


def test_batch_of_two_is_two_batches_of_one() -> None:
    net, pairs = network().eval(), moving_boxes(2, 200)
    with torch.no_grad():
        both = net(pairs.source, pairs.target)
        for b in range(2):
            alone = net(pairs.source[b : b + 1], pairs.target[b : b + 1])
            for name in ("flow", "coarse", "features", "confidence"):
                assert (getattr(both, name)[b] - getattr(alone, name)[0]).abs().max() < 1e-5, name
            assert torch.equal(both.matched[b], alone.matched[0])


def test_permuting_the_source_permutes_the_flow_and_permuting_the_target_changes_nothing() -> None:
    net, pairs = network().eval(), moving_boxes(1, 300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        flow = net(pairs.source, pairs.target).flow
        assert (net(pairs.source[:, order], pairs.target).flow - flow[:, order]).abs().max() < 1e-4
        assert (net(pairs.source, pairs.target[:, order]).flow - flow).abs().max() < 1e-4
    assert flow.std() > 1e-2


def test_with_the_first_point_order_matters_only_where_voxels_hold_several() -> None:
    net, pairs = network(replace(SMALL, representative="first")).eval(), moving_boxes(1, 300)
    order = torch.arange(299, -1, -1)
    with torch.no_grad():
        apart = net(pairs.source, pairs.target[:, order]).flow - net(pairs.source, pairs.target).flow
        fine = network(replace(SMALL, representative="first", voxel_size_m=0.005)).eval()
        same = fine(pairs.source, pairs.target[:, order]).flow - fine(pairs.source, pairs.target).flow
    assert apart.abs().max() > 1e-3 and same.abs().max() < 1e-4


def test_clouds_may_differ_in_size() -> None:
    pairs = moving_boxes(1, 300)
    with torch.no_grad():
        found = network().eval()(pairs.source[:, :211], pairs.target)
    assert found.flow.shape == found.coarse.shape == (1, 211, 3)
    assert found.features.shape == (1, 211, 32)
    assert found.confidence.shape == found.matched.shape == (1, 211)


def test_every_parameter_gets_a_gradient() -> None:
    net, pairs = network().train(), moving_boxes(2, 150)
    flow_loss(net(pairs.source, pairs.target).flow, pairs.flow).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if "norm" not in name:  # a bias before a later norm cancels out
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    "change",
    [{"attention": False}, {"features": "setconv"}, {"transport": TransportConfig(iterations=0)}],
    ids=["no attention", "SetConv features", "no transport iteration"],
)
def test_parts_can_be_left_out_to_see_what_they_bring(change: dict[str, object]) -> None:
    pairs = moving_boxes(1, 200)
    with torch.no_grad():
        whole = network().eval()(pairs.source, pairs.target).coarse
        reduced = network(replace(SMALL, **change)).eval()(pairs.source, pairs.target).coarse  # type: ignore[arg-type]
    assert reduced.isfinite().all() and (whole - reduced).abs().max() > 1e-3


def test_candidates_that_cover_the_target_change_nothing() -> None:
    pairs = moving_boxes(1, 250)
    with torch.no_grad():
        dense = network().eval()(pairs.source, pairs.target)
        every = network(replace(SMALL, local="on", cell_m=1e-3, neighbours=500)).eval()(pairs.source, pairs.target)
        fewer = network(replace(SMALL, local="on", cell_m=0.1, neighbours=32)).eval()(pairs.source, pairs.target)
    assert (dense.flow - every.flow).abs().max() < 1e-4
    assert (dense.confidence - every.confidence).abs().max() < 1e-4
    assert (dense.coarse - fewer.coarse).abs().max() > 1e-3


def test_a_cloud_that_is_too_small_is_refused() -> None:
    with pytest.raises(TooFewPoints, match="20 points fill"):
        network()(moving_boxes(1, 20).source, moving_boxes(1, 300).target)


def epe(flow: Tensor, truth: Tensor) -> float:
    return float((flow - truth).norm(dim=-1).mean())


def overfit(pairs: Boxes, steps: int) -> tuple[float, float]:
    """EPE after so many steps on these pairs, as trained, and of zero flow."""
    net = network().train()
    adam = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 5e-3, total_steps=steps)
    for _ in range(steps):
        adam.zero_grad()
        flow_loss(net(pairs.source, pairs.target).flow, pairs.flow).backward()
        adam.step()
        schedule.step()
    with torch.no_grad():
        return epe(net(pairs.source, pairs.target).flow, pairs.flow), epe(torch.zeros_like(pairs.flow), pairs.flow)


def test_learns_two_pairs_within_seconds() -> None:
    found, zero = overfit(moving_boxes(2, 128), 40)
    assert found < 0.5 * zero


@pytest.mark.slow
def test_overfits_four_pairs() -> None:
    found, zero = overfit(moving_boxes(4, 512), 300)
    assert found < 0.1 * zero
