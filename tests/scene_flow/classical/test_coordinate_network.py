# SPDX-License-Identifier: Apache-2.0
"""The fitted network's size and weights, and the loop that fits it: best loss kept, patience, losses gone wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scene_flow.classical import coordinate_network as module
from scene_flow.classical.coordinate_network import CoordinateNetwork, fit


class Scripted:
    """An objective that answers from a list, and whose gradient walks the weight upwards by about 1 a step."""

    def __init__(self, losses: Sequence[float]) -> None:
        self.net = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.net.weight)
        self.losses = losses
        self.calls = 0

    def __call__(self) -> Tensor:
        value = self.losses[min(self.calls, len(self.losses) - 1)]
        self.calls += 1
        weight = self.net.weight.sum()
        return value + weight.detach() - weight


def test_published_size() -> None:
    net = CoordinateNetwork(torch.Generator())
    assert sum(p.numel() for p in net.parameters()) == 116_483
    assert [m.out_features for m in net if isinstance(m, nn.Linear)] == [*[128] * 8, 3]


def test_weights_come_from_the_generator_alone() -> None:
    nets = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        nets.append(CoordinateNetwork(torch.Generator().manual_seed(0)))
        following = torch.rand(1)
        torch.manual_seed(global_seed)
        assert torch.equal(following, torch.rand(1))
    for a, b in zip(nets[0].parameters(), nets[1].parameters()):
        assert torch.equal(a, b)


def test_xavier_has_no_bias_and_its_own_bounds() -> None:
    net = CoordinateNetwork(torch.Generator().manual_seed(0), xavier=True)
    hidden = net[2]
    assert isinstance(hidden, nn.Linear)
    assert 0.99 * math.sqrt(6 / 256) < hidden.weight.abs().max() <= math.sqrt(6 / 256)
    assert not any(layer.bias.any() for layer in net if isinstance(layer, nn.Linear))
    plain = CoordinateNetwork(torch.Generator().manual_seed(0))[2]
    assert isinstance(plain, nn.Linear)
    assert 0.99 / math.sqrt(128) < plain.weight.abs().max() <= 1 / math.sqrt(128) and plain.bias.any()


def test_chunks_answer_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    net = CoordinateNetwork(torch.Generator().manual_seed(0))
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    whole = net.answer(points)
    monkeypatch.setattr(module, "CHUNK", 7)
    np.testing.assert_allclose(net.answer(points), whole, atol=1e-6)
    assert whole.shape == (50, 3) and whole.std() > 0


def test_the_best_loss_is_kept() -> None:
    script = Scripted([3.0, 1.0, 2.0, 5.0])
    done = fit(script, [script.net], learning_rate=1.0, iterations=4, patience=100)
    assert (done.loss, done.iterations) == (1.0, 4)
    # Adam moves by the learning rate: the weight was 1 when the second loss was taken.
    assert script.net.weight.item() == pytest.approx(1.0, abs=1e-4)


def test_patience_counts_from_the_last_gain() -> None:
    script = Scripted([3.0, 2.0, 2.0, 1.0, 1.00005])
    assert fit(script, [script.net], 1.0, 1000, patience=5).iterations == 4 + 5
    # Small gains add up: five of 0.00003 are one of 0.00015.
    steady = Scripted([1 - 3e-5 * k for k in range(50)])
    assert fit(steady, [steady.net], 1e-9, 50, patience=5).iterations == 50


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_gone_wrong_ends_it(bad: float) -> None:
    script = Scripted([3.0, bad, 1.0])
    done = fit(script, [script.net], 1.0, 10, 10)
    assert (done.loss, done.iterations) == (3.0, 2) and script.net.weight.item() == 0
    never = Scripted([bad])
    assert fit(never, [never.net], 1.0, 10, 10).loss == math.inf and never.net.weight.isfinite().all()
