# SPDX-License-Identifier: Apache-2.0
"""The losses against the method card's numbers, a double loop, and what they must not change with."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scene_flow.loss import flow_loss, fsc_loss, smoothness_loss


def cloud(n: int = 64, k: int = 8, channels: int = 5, batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Flow, features, rows with every point itself first, and a mask."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, n, (batch, n, k), generator=generator)
    rows[:, :, 0] = torch.arange(n)
    return (
        torch.randn(batch, n, 3, generator=generator),
        torch.randn(batch, n, channels, generator=generator),
        rows,
        torch.rand(batch, n, generator=generator) < 0.7,
    )


def pair_with(cosine: float) -> tuple[Tensor, Tensor, Tensor]:
    """Two points, a metre apart in flow, whose features have this cosine."""
    flow = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    features = torch.tensor([[[2.0, 0.0], [3 * cosine, 3 * math.sqrt(1 - cosine**2)]]])
    return flow, features, torch.tensor([[[0, 1], [1, 0]]])


@pytest.mark.parametrize(
    ("cosine", "weight"), [(1, 0.8916), (0.8, 0.8310), (0.5, 0.6708), (0, 0), (-0.2, -0.560), (-1, -8.228)]
)
def test_weights_are_those_of_the_card(cosine: float, weight: float) -> None:
    assert float(fsc_loss(*pair_with(cosine))) == pytest.approx(weight, abs=5e-4)
    assert float(fsc_loss(*pair_with(cosine), clamp=True)) == pytest.approx(max(weight, 0), abs=5e-4)


def test_tau_is_the_temperature() -> None:
    assert float(fsc_loss(*pair_with(0.5), tau=0.9)) == pytest.approx(1 - math.exp(-0.5 / 0.9), abs=1e-6)


@pytest.mark.parametrize("clamp", [False, True])
def test_equals_a_double_loop(clamp: bool) -> None:
    flow, features, rows, valid = (x.double() if x.is_floating_point() else x for x in cloud())
    total, count = 0.0, 0
    for b in range(flow.shape[0]):
        for i in range(flow.shape[1]):
            if not valid[b, i]:
                continue
            count += 1
            for n in rows[b, i].tolist():
                a, c = features[b, i], features[b, n]
                weight = 1 - math.exp(-float(a @ c / (a.norm() * c.norm())) / 0.45)
                weight = max(weight, 0.0) if clamp else weight
                total += weight * float((flow[b, n] - flow[b, i]).norm()) / (rows.shape[2] - 1)
    assert float(fsc_loss(flow, features, rows, valid, clamp=clamp)) == pytest.approx(total / count, abs=1e-10)


def test_only_differences_of_flow_count() -> None:
    flow, features, rows, valid = cloud()
    constant = torch.tensor([1.0, -2.0, 3.0]).expand_as(flow)
    assert float(fsc_loss(constant, features, rows, valid)) == 0
    moved = fsc_loss(flow + constant, features, rows, valid)
    assert float(moved) == pytest.approx(float(fsc_loss(flow, features, rows, valid)), abs=1e-5)


def test_features_get_no_gradient_and_the_flow_a_finite_one() -> None:
    flow, features, rows, valid = cloud()
    flow[0, :10] = 0.5  # equal flows: where a length has no derivative
    flow.requires_grad_()
    features.requires_grad_()
    fsc_loss(flow, features, rows, valid).backward()
    assert features.grad is None
    assert flow.grad is not None and flow.grad.isfinite().all() and flow.grad.abs().max() > 0


def test_one_weight_for_all_is_plain_smoothness() -> None:
    flow, features, rows, valid = cloud()
    alike = torch.ones_like(features)
    ratio = fsc_loss(flow, alike, rows, valid) / smoothness_loss(flow, rows, valid)
    assert float(ratio) == pytest.approx(0.8916, abs=1e-4)


def test_flow_loss_is_the_mean_over_valid_points_and_axes() -> None:
    flow = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [7.0, 7.0, 7.0]]], requires_grad=True)
    truth = torch.tensor([[[0.0, 0.0, -2.0], [0.0, 3.0, 0.0], [float("nan")] * 3]])
    valid = torch.tensor([[True, True, False]])
    loss = flow_loss(flow, truth, valid)
    assert float(loss.detach()) == pytest.approx((1 + 2 + 3) / 6)
    loss.backward()
    assert flow.grad is not None and flow.grad.isfinite().all() and not flow.grad[0, 2].any()
    assert float(flow_loss(torch.ones(1, 2, 3), torch.zeros(1, 2, 3))) == 1


def test_no_valid_point_is_no_loss() -> None:
    flow, features, rows, valid = cloud()
    nothing = torch.zeros_like(valid)
    flow.requires_grad_()
    for loss in (fsc_loss(flow, features, rows, nothing), flow_loss(flow, torch.zeros_like(flow), nothing)):
        assert float(loss.detach()) == 0
        loss.backward()
    assert flow.grad is not None and not flow.grad.any()


def test_arguments_that_do_not_fit_are_named() -> None:
    flow, features, rows, valid = cloud()
    with pytest.raises(ValueError, match="k at least 2"):
        fsc_loss(flow, features, rows[:, :, :1], valid)
    with pytest.raises(ValueError, match="rows must be"):
        fsc_loss(flow[:, :9], features[:, :9], rows, valid)
    with pytest.raises(ValueError, match="tau must be positive"):
        fsc_loss(flow, features, rows, valid, tau=0)
    with pytest.raises(ValueError, match="the truth"):
        flow_loss(flow, flow[:, :9])
