# SPDX-License-Identifier: Apache-2.0
"""The network from position to flow that is fitted to one pair, and how it is fitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Float32 = NDArray[np.float32]

WIDTH, LAYERS = 128, 8
CHUNK = 16_384  # rows answered at once: 8 MB a layer
GAIN = 1e-4  # a fall of the loss by less is no progress


class CoordinateNetwork(nn.Sequential):
    """(N, 3) metres -> (N, 3) metres: eight hidden layers of 128 with ReLU, 116,483 parameters (NSFP, section 3).

    Args:
        generator: draws the weights, so that torch's global seed is left alone.
        xavier: weights uniform by Xavier and biases zero (FastNSF); else both uniform within 1/sqrt(inputs).
    """

    def __init__(self, generator: torch.Generator, xavier: bool = False) -> None:
        sizes = [3, *[WIDTH] * LAYERS, 3]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
            bound = math.sqrt(6 / (inputs + outputs)) if xavier else 1 / math.sqrt(inputs)
            with torch.no_grad():
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
                layer.bias.mul_(0 if xavier else 1)
            layers += [layer, nn.ReLU()]
        super().__init__(*layers[:-1])

    @torch.no_grad()
    def answer(self, points: Float32) -> Float32:
        """(N, 3) float32: the flow of any number of points."""
        flow = np.empty((len(points), 3), dtype=np.float32)
        for start in range(0, len(points), CHUNK):
            rows = slice(start, start + CHUNK)
            flow[rows] = self(torch.from_numpy(points[rows])).numpy()
        return flow


@dataclass(frozen=True)
class Fit:
    """What :func:`fit` did: the least loss, in the objective's unit (inf if it never was a number), and the steps."""

    loss: float
    iterations: int


def fit(
    objective: Callable[[], Tensor], nets: Sequence[nn.Module], learning_rate: float, iterations: int, patience: int
) -> Fit:
    """Adam on the parameters of ``nets`` until the loss stands still; they are left as they were at the least loss.

    A loss that is not finite ends it, too.
    """
    parameters = [p for net in nets for p in net.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    best, kept = math.inf, [p.detach().clone() for p in parameters]
    mark, idle, done = math.inf, 0, 0
    while done < iterations and idle < patience:
        loss = objective()
        done += 1
        value = loss.item()
        if not math.isfinite(value):
            break
        if value < best:
            best, kept = value, [p.detach().clone() for p in parameters]
        mark, idle = (value, 0) if value < mark - GAIN else (mark, idle + 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for parameter, value_kept in zip(parameters, kept):
            parameter.copy_(value_kept)
    return Fit(best, done)
