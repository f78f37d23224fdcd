# SPDX-License-Identifier: Apache-2.0
"""The loss is put together as the card says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_training import QUICK

from scene_flow.loss import flow_loss, fsc_loss, smoothness_loss
from scene_flow.networks.output import FlowOutput
from scene_flow.training.batches import Batch
from scene_flow.training.objective import Loss, loss_of


def case() -> tuple[FlowOutput, Batch, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def drawn(channels: int) -> torch.Tensor:
        return torch.randn(2, 30, channels, generator=generator)

    source, flow = drawn(3), drawn(3).requires_grad_()
    ones = torch.ones(2, 30)
    output = FlowOutput(flow, flow, drawn(8), ones, ones > 0)
    batch = Batch(source, drawn(3), drawn(3), torch.rand(2, 30, generator=generator) > 0.3)
    rows = torch.cdist(source.double(), source.double()).argsort(dim=2)[..., :4]
    return output, batch, rows


def test_parts_and_their_weights() -> None:
    output, batch, rows = case()
    l1 = flow_loss(output.flow, batch.flow, batch.valid)
    fsc = fsc_loss(output.flow, output.features, rows, batch.valid)
    before = loss_of(output, batch, QUICK, with_consistency=False)
    assert before.total == before.supervised == l1
    assert before.consistency == 0
    after = loss_of(output, batch, QUICK, with_consistency=True)
    assert after.supervised == l1
    torch.testing.assert_close(after.consistency, fsc.detach())
    torch.testing.assert_close(after.total, l1 + 0.30 * fsc)
    assert not after.supervised.requires_grad
    assert not after.consistency.requires_grad


@pytest.mark.parametrize(
    "change", [{"fsc_clamp": True}, {"tau": 0.2}, {"consistency": "uniform"}, {"fsc_neighbours": 6}]
)
def test_options_of_the_consistency(change: dict[str, object]) -> None:
    output, batch, rows = case()
    changed = loss_of(output, batch, replace(QUICK, **change), True).consistency  # type: ignore[arg-type]
    assert changed != loss_of(output, batch, QUICK, True).consistency
    if "consistency" in change:
        torch.testing.assert_close(changed, smoothness_loss(output.flow, rows, batch.valid).detach())


def test_no_weight_no_consistency_and_few_points_no_trouble() -> None:
    output, batch, _ = case()
    assert loss_of(output, batch, replace(QUICK, fsc_weight=0.0), True).consistency == 0
    assert loss_of(output, batch, replace(QUICK, fsc_neighbours=100), True).consistency != 0


def test_a_batch_without_valid_points_teaches_nothing() -> None:
    output, batch, _ = case()
    loss: Loss = loss_of(output, batch._replace(valid=torch.zeros(2, 30, dtype=torch.bool)), QUICK, True)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert loss.total == 0
    assert output.flow.grad is not None
    assert (output.flow.grad == 0).all()


def test_half_precision_outputs_are_compared_in_single() -> None:
    output, batch, _ = case()
    half = output._replace(flow=output.flow.detach().bfloat16(), features=output.features.bfloat16())
    loss = loss_of(half, batch, QUICK, True)
    assert loss.total.dtype == torch.float32
    torch.testing.assert_close(loss.total, loss_of(output, batch, QUICK, True).total.detach(), rtol=0.02, atol=0.02)
