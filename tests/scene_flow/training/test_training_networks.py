# SPDX-License-Identifier: Apache-2.0
"""The networks themselves, trained a little on generated scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import Folder, same, weights
from torch import nn

from scene_flow.networks.config import NetworkConfig
from scene_flow.networks.store import build_network
from scene_flow.training import loop
from scene_flow.training.config import TrainConfig
from scene_flow.training.loop import train_network
from vision3d.contracts import DataConfig, Reader
from vision3d.errors import UserError
from vision3d.readers.bodies import SPEC

SMALL = NetworkConfig(size="small", voxel_size_m=0.2, points=96)
FEW = TrainConfig(steps=3, batch=2, points=96, checkpoint_every=1, validate=2, fsc_neighbours=8)


def bodies(preset: str = "boxes", scenes: int = 8, points: int = 300) -> Reader:
    return SPEC.open(f"bodies:{preset}?scenes={scenes}&points={points}", DataConfig(split="train"))


def fresh(method: str, config: NetworkConfig = SMALL) -> nn.Module:
    torch.manual_seed(0)
    return build_network(method, config)


@pytest.mark.parametrize(("method", "preset"), [("sctn", "boxes"), ("sctn", "street"), ("flot", "boxes")])
def test_every_parameter_learns_and_a_broken_run_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, preset: str
) -> None:
    reader = bodies(preset, points=300 if preset == "boxes" else 3000)
    first, net = weights(fresh(method)), fresh(method)
    facts = train_network(net, reader, FEW, Folder(tmp_path / "whole"))
    assert np.isfinite([facts["loss_m"], facts["held_out_epe3d_m"]]).all()
    assert facts["consistency_m"] != 0
    still = [name for name, parameter in net.named_parameters() if (first[name] == parameter.detach().numpy()).all()]
    assert still == []
    plain = loop._Training._step

    def breaks(self: Any, batch: Any) -> None:
        if self.state.step == 2:
            raise KeyboardInterrupt
        plain(self, batch)

    monkeypatch.setattr(loop._Training, "_step", breaks)
    with pytest.raises(KeyboardInterrupt):
        train_network(fresh(method), reader, FEW, Folder(tmp_path / "broken"))
    monkeypatch.undo()
    again = fresh(method)
    train_network(again, reader, FEW, Folder(tmp_path / "broken"))
    assert same(weights(net), weights(again))


@pytest.mark.parametrize("method", ["sctn", "flot"])
def test_half_precision_stays_close(tmp_path: Path, method: str) -> None:
    """SCTN in bfloat16: the same loss but for a few per cent. Nothing in FLOT may be halved."""
    config = replace(FEW, steps=1, validate=0)
    single = train_network(fresh(method), bodies(), config, Folder(tmp_path / "single"))
    half = train_network(fresh(method), bodies(), replace(config, precision="bfloat16"), Folder(tmp_path / "half"))
    assert (half["loss_m"] == single["loss_m"]) == (method == "flot")
    assert half["loss_m"] == pytest.approx(single["loss_m"], rel=0.05)


def test_scenes_with_too_few_voxels_do_not_end_a_training(tmp_path: Path) -> None:
    """Voxels of 1.6 m are too large for some of these scenes, ten are for all."""
    context = Folder(tmp_path / "some")
    train_network(fresh("sctn", replace(SMALL, voxel_size_m=1.6)), bodies(), FEW, context)
    assert "fills fewer than 32 voxels of 1.6 m: the next pair takes its place" in " ".join(context.lines)
    with pytest.raises(UserError, match=r"bodies-boxes: no pair has enough points"):
        train_network(fresh("sctn", replace(SMALL, voxel_size_m=10.0)), bodies(), FEW, Folder(tmp_path / "all"))
