# SPDX-License-Identifier: Apache-2.0
"""The backbone of detectors and labellers: shapes, normalisation, frozen stages, weights from files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detection.networks.backbone import MEAN, build_backbone
from detection.networks.config import BackboneConfig
from vision3d.errors import ConfigError, DataError
from vision3d.nn.image_encoder import ImageEncoder

SMALL = BackboneConfig(width=8, channels=16)
BATCH = replace(SMALL, depth=18, norm="batch")


def test_levels() -> None:
    backbone = build_backbone(SMALL)
    levels = backbone(torch.rand(2, 3, 64, 96))
    assert [tuple(level.shape) for level in levels] == [(2, 16, 64 // s, 96 // s) for s in backbone.strides]
    assert backbone.channels == 16


def test_the_mean_colour_of_imagenet_is_the_origin() -> None:
    backbone = build_backbone(SMALL)
    seen = []
    backbone.encoder.conv1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    backbone(torch.tensor(MEAN).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 32, 32))


def test_frozen_stages_do_not_change() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(replace(BATCH, frozen_stages=1)).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], 0.1)
    sum((level * torch.randn_like(level)).sum() for level in backbone(torch.rand(2, 3, 64, 64))).backward()
    optimizer.step()
    for name, value in backbone.state_dict().items():
        frozen = name.startswith(("encoder.conv1", "encoder.bn1", "encoder.layer1"))
        assert torch.equal(before[name], value) == frozen, name


@pytest.mark.parametrize("prefix", ["", "encoder.", "net.backbone.encoder."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file_with_torchvision_names(tmp_path: Path, prefix: str, suffix: str) -> None:
    torch.manual_seed(1)
    encoder = ImageEncoder(18, 8, "batch")
    state = {prefix + name: value for name, value in encoder.state_dict().items() if "num_batches" not in name}
    state["fc.weight"] = torch.zeros(10, 64)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    found = build_backbone(replace(BATCH, weights=path)).encoder
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("encoder", "config", "message"),
    [
        (ImageEncoder(34, 8, "batch"), BATCH, r"'layer1\.2\..*' is not part of it"),
        (ImageEncoder(14, 8, "batch"), BATCH, r"'layer1.1.conv1.weight' is missing"),
        (ImageEncoder(18, 16, "batch"), BATCH, r"'conv1.weight' is \(16, 3, 7, 7\) instead of \(8, 3, 7, 7\)"),
        (ImageEncoder(18, 8, "group"), BATCH, r"'bn1.running_mean' is missing"),
        (ImageEncoder(18, 8, "batch"), replace(BATCH, norm="group"), r"set backbone.norm=batch"),
    ],
)
def test_weights_of_another_encoder(
    tmp_path: Path, encoder: ImageEncoder, config: BackboneConfig, message: str
) -> None:
    path = tmp_path / "other.safetensors"
    save_file(encoder.state_dict(), path)
    with pytest.raises(DataError, match=message):
        build_backbone(replace(config, weights=path))


def test_weights_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "linear.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(DataError, match=r"linear.safetensors: holds no residual encoder"):
        build_backbone(replace(SMALL, weights=path))
    with pytest.raises(DataError, match="no such file"):
        build_backbone(replace(SMALL, weights=tmp_path / "none.pth"))


def test_ranges() -> None:
    with pytest.raises(ConfigError, match=r"backbone\.width is 4"):
        BackboneConfig(width=4)
