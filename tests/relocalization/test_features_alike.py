# SPDX-License-Identifier: Apache-2.0
"""ALIKE with random weights: the short cuts against the network as the paper draws it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relocalization.features.alike import AlikeExtractor, padded_input
from relocalization.features.alike_net import WIDTHS, AlikeNet
from relocalization.features.config import FeatureConfig
from vision3d.errors import DataError


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Other test processes run beside this one: more threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_net(name: str) -> AlikeNet:
    torch.manual_seed(1)
    net = AlikeNet(WIDTHS[name])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def as_drawn(net: AlikeNet, image: Tensor) -> tuple[Tensor, Tensor]:
    """Descriptor map (C, H, W) and scores (H, W), every layer at full size."""
    x1 = net.block1(image)
    x2 = net.block2(F.max_pool2d(x1, 2))
    x3 = net.block3(F.max_pool2d(x2, 4))
    x4 = net.block4(F.max_pool2d(x3, 4))
    maps = []
    for conv, x in ((net.conv1, x1), (net.conv2, x2), (net.conv3, x3), (net.conv4, x4)):
        x = F.relu(conv(x))
        maps.append(F.interpolate(x, size=image.shape[2:], mode="bilinear", align_corners=True))
    x = torch.cat(maps, dim=1)
    if net.convhead1 is not None:
        x = F.relu(net.convhead1(x))
    x = net.convhead2(x)
    return F.normalize(x[0, :-1], dim=0), torch.sigmoid(x[0, -1])


@pytest.fixture(params=["alike-t", "alike-l"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[AlikeNet, AlikeExtractor]:
    net = random_net(request.param)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    config = FeatureConfig(name=request.param, score_threshold=0.0)
    return net, AlikeExtractor(request.param, config, tmp_path / "net.pth")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(75, 110, 3))
    return np.clip(128 + 60 * noise, 0, 255).astype(np.uint8)


@torch.inference_mode()
def test_scores_and_lazy_field_equal_the_full_network(case: tuple[AlikeNet, AlikeExtractor], image: np.ndarray) -> None:
    net, extractor = case
    descriptors, scores = as_drawn(net, padded_input(image, torch.device("cpu")))
    descriptors, scores = descriptors[:, :75, :110], scores[:75, :110]
    features = extractor(image, dense=True)
    assert features.dense is not None
    np.testing.assert_allclose(features.dense.numpy(), descriptors.numpy(), atol=2e-5)

    whole = np.stack(np.meshgrid(np.arange(110), np.arange(75)), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(features.sample(whole).T.reshape(-1, 75, 110), features.dense.numpy(), atol=1e-6)

    uv = np.random.default_rng(1).uniform(0, [109, 74], (50, 2))
    grid = torch.from_numpy(uv / [109, 74] * 2 - 1).float()[None, None]
    read = F.grid_sample(descriptors[None], grid, mode="bilinear", align_corners=True)[0, :, 0]
    np.testing.assert_allclose(features.sample(uv), F.normalize(read, dim=0).T.numpy(), atol=5e-5)

    strong = np.rint(features.keypoints[:1]).astype(int)[0]
    window = scores[strong[1] - 2 : strong[1] + 3, strong[0] - 2 : strong[0] + 3]
    assert features.scores[0] == pytest.approx(window.max().item(), abs=1e-5)
    assert features.scores[0] == pytest.approx(scores[10:-10, 10:-10].max().item(), abs=1e-5)


def test_field_does_not_keep_the_full_map(case: tuple[AlikeNet, AlikeExtractor], image: np.ndarray) -> None:
    net, extractor = case
    with torch.inference_mode():
        levels = extractor._net.levels(padded_input(image, torch.device("cpu")))
    full = net.channels * 96 * 128
    assert sum(level.numel() for level in levels) < full / 2


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    torch.save(random_net("alike-s").state_dict(), tmp_path / "net.pth")
    with pytest.raises(DataError, match="another architecture than alike-t"):
        AlikeExtractor("alike-t", FeatureConfig(), tmp_path / "net.pth")


def test_odd_sizes_are_padded_by_repetition() -> None:
    image = np.arange(33 * 40 * 3, dtype=np.uint8).reshape(33, 40, 3)
    x = padded_input(image, torch.device("cpu"))
    assert x.shape == (1, 3, 64, 64)
    np.testing.assert_allclose(x[0, :, :33, :40].permute(1, 2, 0).numpy() * 255, image, atol=1e-4)
    assert torch.equal(x[:, :, 33:, :40], x[:, :, 32:33, :40].expand(-1, -1, 31, -1))
    assert torch.equal(x[:, :, :, 40:], x[:, :, :, 39:40].expand(-1, -1, -1, 24))
