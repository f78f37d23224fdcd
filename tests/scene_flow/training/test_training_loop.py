# SPDX-License-Identifier: Apache-2.0
"""The loop: what it reaches, what it survives, what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import QUICK, Drawn, Folder, Slow, TinyNet, fresh, same, weights
from torch import nn

from scene_flow.training import loop
from scene_flow.training.config import TrainConfig
from scene_flow.training.loop import DivergedError, train_network
from scene_flow.training.scenes import Scene, scene_as_known
from scene_flow.training.state import TrainState
from vision3d.errors import UserError
from vision3d.types import FlowTruth

HERE = Path(__file__).parent


def trained(folder: Path, config: TrainConfig = QUICK, **options: Any) -> tuple[TinyNet, dict[str, Any], Folder]:
    context = Folder(folder, options.pop("seed", 0))
    net = options.pop("net", None) or fresh()
    facts = train_network(net, options.pop("train", None) or Drawn(), config, context, **options)
    return net, facts, context


def test_it_learns_and_reports(tmp_path: Path) -> None:
    config = replace(QUICK, steps=200, checkpoint_every=20, validate_every=50)
    net, facts, context = trained(tmp_path, config)
    assert facts["steps"] == 200
    assert facts["pairs"] == 10
    assert facts["pairs_held_out"] == 2
    assert facts["epochs"] == 40.0
    assert facts["loss_m"] == facts["losses"][-1][1] < 0.5 * facts["losses"][0][1]
    assert facts["held_out_epe3d_m"] < 0.5 * facts["held_out_zero_flow_epe3d_m"]
    assert [row[0] for row in facts["validations"]] == [50, 100, 150, 200]
    assert not net.training
    assert context.lines[-1].startswith("step 200 of 200: loss ")
    assert "held-out EPE" in context.lines[-1]


def test_validation_is_the_mean_error_over_pairs(tmp_path: Path) -> None:
    net, facts, _ = trained(tmp_path)
    errors, zeros = [], []
    for i in (0, 11):
        pair, truth = Drawn()[i], Drawn().truth(i)
        rng = np.random.default_rng([0, 3, i])
        rows, others = (rng.choice(60, 40, replace=False) for _ in range(2))
        with torch.no_grad():
            found = net(torch.from_numpy(pair.source[None, rows]), torch.from_numpy(pair.target[None, others])).flow[0]
        errors.append(np.linalg.norm(found.numpy() - truth.flow[rows], axis=1).mean())  # type: ignore[union-attr]
        zeros.append(np.linalg.norm(truth.flow[rows], axis=1).mean())  # type: ignore[union-attr]
    assert facts["held_out_epe3d_m"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert facts["held_out_zero_flow_epe3d_m"] == pytest.approx(np.mean(zeros), rel=1e-5)


def test_one_step_is_adam_on_the_l1_loss(tmp_path: Path) -> None:
    """Against torch's own Adam on the same batches, with the late consistency loss and the lower rate by hand."""
    config = replace(QUICK, steps=3, fsc_weight=0.0, validate=0, workers=0)
    net, _, _ = trained(tmp_path, config)
    by_hand = fresh()
    adam = torch.optim.Adam(by_hand.parameters(), lr=1e-2)
    with loop.Batches(Drawn(), config, 0, scene_as_known, print) as batches:
        for step, batch in enumerate(batches.steps(0, 3)):
            adam.param_groups[0]["lr"] = 1e-3 if step == 2 else 1e-2  # 5/6 of 3 steps, kept within the run
            adam.zero_grad()
            (by_hand(batch.source, batch.target).flow - batch.flow).abs().mean().backward()
            adam.step()
    for name, array in weights(by_hand).items():
        np.testing.assert_allclose(weights(net)[name], array, rtol=1e-5, atol=1e-7)


def test_seed_decides(tmp_path: Path) -> None:
    a, b, c = (trained(tmp_path / name, seed=seed)[0] for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert same(weights(a), weights(b))
    assert not same(weights(a), weights(c))


@pytest.mark.parametrize("options", [{}, {"norm": True}, {"dropout": 0.3}])
@pytest.mark.parametrize("broken_at", [1, 3, 8, 11])
def test_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int, options: dict[str, Any]
) -> None:
    """Card: a resumed run goes on up to the total, and not further."""
    whole, facts, _ = trained(tmp_path / "whole", net=fresh(**options))
    steps: list[int] = []
    breaking = [broken_at]
    plain = loop._Training._step

    def breaks(self: Any, batch: Any) -> None:
        if self.state.step in breaking:
            breaking.clear()
            raise KeyboardInterrupt
        steps.append(self.state.step)
        plain(self, batch)

    monkeypatch.setattr(loop._Training, "_step", breaks)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "broken", net=fresh(**options))
    again, resumed, context = trained(tmp_path / "broken", net=fresh(**options))
    kept = broken_at // 3 * 3
    assert steps == [*range(broken_at), *range(kept, 12)]
    assert any(line == f"training goes on from step {kept} of 12" for line in context.lines) == (kept > 0)
    assert same(weights(whole), weights(again))
    timing = ("seconds", "steps_per_second")
    assert {k: v for k, v in facts.items() if k not in timing} == {k: v for k, v in resumed.items() if k not in timing}


def test_a_finished_training_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, _, _ = trained(tmp_path)
    monkeypatch.setattr(loop._Training, "_step", None)
    again, facts, _ = trained(tmp_path, net=fresh(7))
    assert same(weights(net), weights(again))
    assert facts["steps"] == 12


def test_only_the_last_checkpoint_stays(tmp_path: Path) -> None:
    _, _, context = trained(tmp_path)
    assert context.made == [f"training step {step:06d}" for step in (3, 6, 9, 12)]
    assert context.keys() == ["training-step-000012"]
    assert (context.ticks, context.bars) == (12, 1)
    # killed after one was written and before the older went: both are there
    (tmp_path / "training-step-000006.npz").write_bytes((tmp_path / "training-step-000012.npz").read_bytes())
    _, _, context = trained(tmp_path)
    assert context.keys() == ["training-step-000012"]


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + 60
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_kill_9_and_again(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[2]), str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    command = [
        sys.executable,
        str(HERE / "tiny_training.py"),
        str(tmp_path / "cache"),
        str(tmp_path / "killed"),
        "2",
        "0.2",
    ]
    process = subprocess.Popen(command, env=environment)
    until((tmp_path / "cache" / "training-step-000006.npz").exists, process)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert not (tmp_path / "killed.0.npz").exists()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = Slow(0)
    context = Folder(tmp_path / "cache")
    assert 2 <= len(context.keys()) < 4
    train_network(net, Drawn(), QUICK, context)
    assert "training goes on from step" in context.lines[0]
    torch.manual_seed(0)
    whole, _, _ = trained(tmp_path / "whole", net=Slow(0))
    assert same(weights(net), weights(whole))


def test_consistency_and_lower_rate_come_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    plain = loop._Training._step

    def watched(self: Any, batch: Any) -> None:
        plain(self, batch)
        rates.append(self.state.adam.param_groups[0]["lr"])

    monkeypatch.setattr(loop._Training, "_step", watched)
    _, facts, context = trained(tmp_path, replace(QUICK, checkpoint_every=1))
    assert [row[0] for row in facts["losses"]] == list(range(1, 13))
    assert [row[2] != 0 for row in facts["losses"]] == [False] * 8 + [True] * 4
    assert rates == [1e-2] * 10 + [pytest.approx(1e-3)] * 2
    assert "consistency" in context.lines[-1]


def test_points_without_truth_do_not_matter(tmp_path: Path) -> None:
    class Partly(Drawn):
        fill = 0.0

        def truth(self, index: int) -> FlowTruth | None:
            truth = super().truth(index)
            assert truth is not None
            valid = np.arange(self.points) % 3 > 0
            return replace(truth, valid=valid, flow=np.where(valid[:, None], truth.flow, np.float32(self.fill)))

    zero, wild = Partly(), Partly()
    wild.fill = np.nan
    a, b = trained(tmp_path / "a", train=zero)[0], trained(tmp_path / "b", train=wild)[0]
    assert same(weights(a), weights(b))
    assert not same(weights(a), weights(trained(tmp_path / "c")[0]))


def test_prepare_replaces_what_the_pair_knows(tmp_path: Path) -> None:
    def nothing_moves(pair: Any, truth: Any) -> Scene:
        scene = scene_as_known(pair, truth)
        return replace(scene, flow=np.zeros_like(scene.flow))

    _, facts, _ = trained(tmp_path, prepare=nothing_moves)
    assert facts["held_out_zero_flow_epe3d_m"] == 0


@pytest.mark.parametrize(
    "change", [{"clip": 0.01}, {"batch": 3}, {"points": 30}, {"augment": "turn"}, {"drop_factor": 1.0}, {"lr": 2e-2}]
)
def test_options_change_the_result(tmp_path: Path, change: dict[str, Any]) -> None:
    a, _, _ = trained(tmp_path / "a")
    b, _, _ = trained(tmp_path / "b", replace(QUICK, **change))
    assert not same(weights(a), weights(b))


def test_clipping_limits_the_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    plain = TrainState.arrays

    def watched(self: TrainState) -> Any:
        norms.append(float(torch.cat([p.grad.flatten() for p in self.net.parameters() if p.grad is not None]).norm()))
        return plain(self)

    monkeypatch.setattr(TrainState, "arrays", watched)
    trained(tmp_path / "a", replace(QUICK, clip=0.01, checkpoint_every=1))
    assert max(norms) == pytest.approx(0.01, rel=1e-3)
    norms.clear()
    trained(tmp_path / "b", replace(QUICK, checkpoint_every=1))
    assert max(norms) > 0.05


def test_divergence_is_named_and_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    class Explodes(TinyNet):
        calls = 0

        def forward(self, source: torch.Tensor, target: torch.Tensor) -> Any:
            self.calls += self.training
            output = super().forward(source, target)
            return output if self.calls < 6 else output._replace(flow=output.flow * torch.inf)

    context = Folder(tmp_path)
    with pytest.raises(
        DivergedError, match=r"diverged at step 5: loss (inf|nan).* with train.lr 0.01; lower --train.lr"
    ):
        train_network(Explodes(), Drawn(), QUICK, context)
    assert context.keys() == ["training-step-000003"]
    assert (context.ticks, context.bars) == (5, 1)
    assert issubclass(DivergedError, UserError)
    assert issubclass(DivergedError, ArithmeticError)


def test_bad_gradients_are_refused_although_the_loss_is_finite(tmp_path: Path) -> None:
    class Root(nn.Module):
        """Square root at zero: value 0, slope infinite."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.zero = TinyNet(), nn.Parameter(torch.zeros(1))

        def forward(self, source: torch.Tensor, target: torch.Tensor) -> Any:
            output = self.net(source, target)
            return output._replace(flow=output.flow + self.zero.sqrt())

    with pytest.raises(DivergedError, match=r"gradient (inf|nan)"):
        train_network(Root(), Drawn(), QUICK, Folder(tmp_path))


def test_half_precision_says_that_it_brings_nothing_on_a_cpu(tmp_path: Path) -> None:
    a, facts, context = trained(tmp_path / "a", replace(QUICK, precision="bfloat16"))
    assert facts["precision"] == "bfloat16"
    assert "brings no speed on a CPU" in context.lines[0]
    assert all(array.dtype == np.float32 for array in weights(a).values())
    b, _, _ = trained(tmp_path / "b")
    assert not same(weights(a), weights(b))
    for name, array in weights(b).items():
        np.testing.assert_allclose(weights(a)[name], array, atol=0.1)


def test_state_goes_through_arrays(tmp_path: Path) -> None:
    """An unused parameter has no moments in Adam, before and after."""

    class Partial(TinyNet):
        def __init__(self) -> None:
            super().__init__(norm=True)
            self.unused = nn.Parameter(torch.ones(2))

    net = Partial()
    trained(tmp_path, net=net)
    state, other = TrainState(net, 0.1), TrainState(Partial(), 0.1)
    with np.load(tmp_path / "training-step-000012.npz") as file:
        arrays = dict(file)
    assert "adam/exp_avg/unused" not in arrays
    other.restore(arrays)
    assert same(other.arrays(), arrays)
    assert same(weights(other.net), weights(net))
    assert state.step == 0
    assert other.step == 12
    assert int(arrays["adam/step/last.bias"]) == 12
