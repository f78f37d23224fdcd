# SPDX-License-Identifier: Apache-2.0
"""SetConv: a point's features from those of its neighbours and where they lie (FLOT, Puy et al., ECCV 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scene_flow.networks.neighbours import Graph
from scene_flow.networks.set_conv_function import SetConvFunction


class SetConv(nn.Module):
    """Three shared layers over all pairs (point, neighbour), then the largest value over the neighbours.

    The input of a pair is (neighbour's signal, neighbour minus centre). A layer is a product without bias, instance
    norm over the sample's N k pairs (affine, no running statistics) and LeakyReLU of slope 0.1. The statistics are the
    whole cloud's, in training and in use: a part of a cloud gives other numbers than the cloud.

    Computes in float32 whatever autocast says (float64 for float64 input): half precision loses the statistics.

    Args:
        in_channels: C of the signal.
        out_channels: O, of all three layers.
        tile: how many numbers of a layer's (pairs, O) are held at once; None: 2^19 on a CPU, where 2 MiB stay in its
            cache, 2^25 elsewhere. It changes speed and memory, and the result by rounding only.
    """

    def __init__(self, in_channels: int, out_channels: int, tile: int | None = None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.tile = tile
        self.fc1 = nn.Linear(in_channels + 3, out_channels, bias=False)
        self.bn1 = Affine(out_channels)
        self.fc2 = nn.Linear(out_channels, out_channels, bias=False)
        self.bn2 = Affine(out_channels)
        self.fc3 = nn.Linear(out_channels, out_channels, bias=False)
        self.bn3 = Affine(out_channels)

    def forward(self, signal: Tensor, graph: Graph) -> Tensor:
        """(B, N, C) to (B, N, O).

        Raises:
            ValueError: the shapes of signal, graph and layer do not fit each other.
        """
        batch, points, k = graph.rows.shape
        if signal.shape != (batch, points, self.in_channels):
            wanted = (batch, points, self.in_channels)
            raise ValueError(f"signal must be {wanted} for this graph and layer, not {tuple(signal.shape)}")
        tile = self.tile or (2**19 if signal.device.type == "cpu" else 2**25)
        chunk = max(1, tile // (k * self.fc1.out_features))
        with torch.autocast(signal.device.type, enabled=False):
            kind = torch.promote_types(signal.dtype, torch.float32)
            of_signal, of_offset = self.fc1.weight.to(kind).split([self.in_channels, 3], 1)
            # The first product is linear: a neighbour's part is computed once per point, not once per pair.
            pointwise = nn.functional.linear(signal.to(kind), of_signal)
            layers = [x.to(kind) for fc, bn in self._rest() for x in (fc.weight, bn.weight, bn.bias)]
            first = (self.bn1.weight.to(kind), self.bn1.bias.to(kind))
            inputs = (pointwise, graph.offsets, of_offset, *first, *layers)
            keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
            out = [
                SetConvFunction.apply(of_point, rows, offsets.to(kind), of_offset, *first, *layers, chunk, keep)
                for of_point, rows, offsets in zip(pointwise, *graph)
            ]
        return torch.stack(out) if out else signal.new_zeros(0, points, self.fc1.out_features)

    def _rest(self) -> tuple[tuple[nn.Linear, Affine], ...]:
        return (self.fc2, self.bn2), (self.fc3, self.bn3)


class Affine(nn.Module):
    """Scale and shift of an instance norm, a number each per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
