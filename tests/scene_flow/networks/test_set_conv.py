# SPDX-License-Identifier: Apache-2.0
"""SetConv against its definition in plain torch, in value and gradient; its chunks; what it keeps in memory."""

from __future__ import annotations

import pytest
import torch
from largest import LargestTensor
from torch import Tensor
from torch.nn import functional

from scene_flow.networks.neighbours import Graph, knn_graph
from scene_flow.networks.set_conv import SetConv


def as_defined(layer: SetConv, signal: Tensor, graph: Graph) -> Tensor:
    """The card's step 8, with torch's 1 x 1 convolution and instance norm."""
    batch, points, k = graph.rows.shape
    sample = torch.arange(batch)[:, None, None]
    x = torch.cat([signal[sample, graph.rows], graph.offsets], 3).permute(0, 3, 1, 2)
    for fc, bn in ((layer.fc1, layer.bn1), (layer.fc2, layer.bn2), (layer.fc3, layer.bn3)):
        x = functional.conv2d(x, fc.weight[:, :, None, None])
        x = functional.leaky_relu(functional.instance_norm(x, weight=bn.weight, bias=bn.bias), 0.1)
    return x.amax(3).transpose(1, 2)


def example(points: int = 40, k: int = 6, tile: int | None = None) -> tuple[SetConv, Tensor, Graph]:
    """A layer of 5 to 8 channels whose norms scale by numbers of both signs, a signal and a graph; float64."""
    torch.manual_seed(0)
    layer = SetConv(5, 8, tile).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    cloud = torch.randn(2, points, 3, dtype=torch.float64)
    return layer, torch.randn(2, points, 5, dtype=torch.float64), knn_graph(cloud, k)


@pytest.mark.parametrize("tile", [None, 1, 8 * 6 * 7])
def test_is_what_the_definition_says(tile: int | None) -> None:
    layer, signal, graph = example(tile=tile)
    expected = as_defined(layer, signal, graph)
    assert (layer(signal, graph) - expected).abs().max() < 1e-12
    with torch.no_grad():
        assert (layer(signal, graph) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("tile", [None, 8 * 6 * 7])
def test_gradients_are_those_of_the_definition(tile: int | None) -> None:
    layer, signal, graph = example(tile=tile)
    graph = Graph(graph.rows, graph.offsets.requires_grad_())
    inputs = (signal.requires_grad_(), graph.offsets, *layer.parameters())
    weights = torch.randn(2, 40, 8, dtype=torch.float64)
    mine = torch.autograd.grad((layer(signal, graph) * weights).sum(), inputs)
    expected = torch.autograd.grad((as_defined(layer, signal, graph) * weights).sum(), inputs)
    for a, b in zip(mine, expected):
        assert (a - b).abs().max() < 1e-11 * (1 + b.abs().max())


def test_gradients_by_finite_differences() -> None:
    layer, signal, graph = example(points=12, tile=8 * 6 * 7)
    assert torch.autograd.gradcheck(lambda s: layer(s, graph), signal.requires_grad_())


def test_chunks_change_nothing_in_single_precision() -> None:
    """Far from the origin too, where a variance as mean of squares minus square of the mean would cancel."""
    torch.manual_seed(1)
    cloud = torch.rand(1, 3000, 3) * 20
    graph = knn_graph(cloud, 16)
    whole, chunked = SetConv(3, 32, 2**30), SetConv(3, 32, 2**12)
    chunked.load_state_dict(whole.state_dict())
    for signal in (cloud, cloud + 1000):
        with torch.no_grad():
            one, other = whole(signal, graph), chunked(signal, graph)
        double = as_defined(whole.double(), signal.double(), Graph(graph.rows, graph.offsets.double()))
        whole.float()
        assert (one - other).abs().max() < (1e-5 if signal is cloud else 1e-3)
        assert (other - double).abs().max() < (1e-5 if signal is cloud else 2e-3)


def test_without_gradients_nothing_grows_with_points_times_neighbours() -> None:
    layer = SetConv(3, 32, tile=2**14)
    cloud = torch.rand(1, 4000, 3)
    graph = knn_graph(cloud, 32)
    with torch.no_grad(), LargestTensor() as largest:
        layer(cloud, graph)
    assert largest.numbers <= max(4000 * 32, graph.offsets.numel())
    assert largest.numbers < 4000 * 32 * 32


def test_with_gradients_two_of_them_are_kept() -> None:
    layer = SetConv(3, 32, tile=2**14)
    cloud = torch.rand(1, 1000, 3)
    graph = knn_graph(cloud, 32)
    out = layer(cloud.requires_grad_(), graph)
    saved = [x for x in out.grad_fn.next_functions[0][0].saved_tensors if x.numel() == 1000 * 32 * 32]  # type: ignore[union-attr]
    assert len(saved) == 1


def test_autocast_does_not_reach_it() -> None:
    torch.manual_seed(2)
    layer, cloud = SetConv(3, 16), torch.rand(1, 100, 3)
    graph = knn_graph(cloud, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer(cloud, graph)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, layer(cloud, graph))
    assert torch.isfinite(layer(cloud.bfloat16(), graph)).all()


def test_a_signal_that_does_not_fit() -> None:
    layer, signal, graph = example()
    with pytest.raises(ValueError, match=r"signal must be \(2, 40, 5\).*not \(2, 40, 4\)"):
        layer(signal[..., :4], graph)
