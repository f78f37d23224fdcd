# SPDX-License-Identifier: Apache-2.0
"""Large clouds are compared by candidates: who decides it, what it reaches, and what it costs in accuracy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scene_flow.networks.config import NetworkConfig, TransportConfig
from scene_flow.networks.scan_transport import ScanTransport

ON = NetworkConfig(local="on")


def transport(config: NetworkConfig = ON) -> ScanTransport:
    return ScanTransport(0.025, -5.0, config).eval()


def street(n: int = 3000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(1, n, 3) points of a wall and a floor, 40 m long, and (1, n, 32) features that tell their places apart."""
    rng = torch.Generator().manual_seed(seed)
    points = torch.rand(n, 3, generator=rng) * torch.tensor([4.0, 4.0, 40.0])
    points[: n // 2, 0] = 0.0
    points[n // 2 :, 1] = 0.0
    waves = torch.randn(3, 32, generator=torch.Generator().manual_seed(9))
    phase = torch.rand(32, generator=torch.Generator().manual_seed(8)) * 6.28
    return points[None], torch.cos(points @ waves * 1.5 + phase)[None]


def moved(metres: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Source, target, their features, and the flow: the street drawn twice, the second further on."""
    (source, f), (target, g) = street(seed=1), street(seed=2)
    flow = torch.tensor([0.0, 0.0, metres])
    return source, target + flow, f, g, flow.expand_as(source)


def epe(flow: Tensor, truth: Tensor) -> float:
    return float((flow - truth).norm(dim=-1).mean())


@pytest.mark.parametrize("metres", [0.0, 2.0, 7.0])
def test_what_moves_fast_is_found_as_well_as_with_all_pairs(metres: float) -> None:
    *pair, truth = moved(metres)
    with torch.no_grad():
        dense = epe(transport(replace(ON, local="off"))(*pair).flow, truth)
        found = epe(transport()(*pair).flow, truth)
    assert found < 1.15 * dense + 0.01 and dense < 0.3


def test_candidates_around_the_point_alone_would_not_do() -> None:
    """What the first look is for."""
    from scene_flow.networks.local_support import transport_candidates

    *pair, truth = moved(7.0)
    with torch.no_grad():
        net = transport()
        near = net(*pair, support=transport_candidates(pair[0], pair[1], 0.1, 256, 10.0))
        assert epe(near.flow, truth) > 5 * epe(net(*pair).flow, truth)


def test_candidates_are_few_distinct_and_of_the_target() -> None:
    source, target, f, g, _ = moved(2.0)
    rows = transport(replace(ON, neighbours=40)).candidates(source, target, f, g)[0]
    assert rows.shape == (3000, 40) and int(rows.max()) < 3000
    for row in rows[::100]:
        known = row[row >= 0]
        assert 20 <= len(known) == len(known.unique())


def test_it_is_used_where_the_configuration_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target, f, g, _ = moved(1.0)
    asked: list[int] = []
    whole = ScanTransport.candidates

    def spy(self: ScanTransport, *pair: Tensor) -> Tensor:
        asked.append(pair[0].shape[1])
        return whole(self, *pair)

    monkeypatch.setattr(ScanTransport, "candidates", spy)
    monkeypatch.setattr("scene_flow.networks.config.DENSE_PAIRS", 3000 * 2999)
    with torch.no_grad():
        for local, training, used in (
            ("on", False, True),
            ("on", True, True),
            ("off", False, False),
            ("auto", False, True),
            ("auto", True, False),
        ):
            asked.clear()
            transport(replace(ON, local=local)).train(training)(source, target, f, g)  # type: ignore[arg-type]
            assert bool(asked) is used, (local, training)
        asked.clear()
        transport(replace(ON, local="auto"))(source[:, 1:], target[:, 1:], f[:, 1:], g[:, 1:])
        assert not asked


def test_order_of_the_target_does_not_matter() -> None:
    source, target, f, g, _ = moved(2.0)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, other = transport()(source, target, f, g), transport()(source, target[:, order], f, g[:, order])
    assert (found.flow - other.flow).abs().max() < 1e-3


def test_a_point_without_candidates_stands_still() -> None:
    source, target, f, g, _ = moved(1.0)
    source = torch.cat([source, torch.tensor([[[500.0, 0.0, 0.0]]])], 1)
    f = torch.cat([f, f[:, :1]], 1)
    with torch.no_grad():
        found = transport()(source, target, f, g)
    assert not found.matched[0, -1] and found.flow[0, -1].tolist() == [0, 0, 0] and found.confidence[0, -1] == 0
    assert found.matched[0, :-1].float().mean() > 0.99


def test_gradient_reaches_features_and_parameters() -> None:
    source, target, f, g, truth = moved(1.0)
    net = transport().train()
    f.requires_grad_()
    g.requires_grad_()
    (net(source, target, f, g).flow - truth).abs().mean().backward()
    for tensor in (f, g, net.epsilon, net.gamma):
        assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.abs().max() > 0


def test_options_reach_the_transport() -> None:
    config = replace(ON, transport=TransportConfig(3, 5.0, True, False))
    made = transport(config)
    assert (made.iterations, made.radius_m, made.log_domain, made.fallback) == (3, 5.0, True, False)
