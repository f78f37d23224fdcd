# SPDX-License-Identifier: Apache-2.0
"""FLOT: scene flow by point features, optimal transport and a learned refinement (Puy, Boulch, Marlet, ECCV 2020)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from scene_flow.networks.config import NetworkConfig
from scene_flow.networks.neighbours import Graph, knn_graph
from scene_flow.networks.output import FlowOutput
from scene_flow.networks.scan_transport import ScanTransport
from scene_flow.networks.set_conv import SetConv
from vision3d.errors import DataError
from vision3d.weights import read_weights

NEIGHBOURS = 32
WIDTHS = (3, 32, 64, 128)


class Flot(nn.Module):
    """The whole network, 111,109 parameters.

    1. Features: three SetConv on the 32 nearest neighbours, of each cloud alone; the first signal is xyz.
    2. Transport of features with eps = exp(0) + 0.03 at the start, T = 1; coarse flow.
    3. Refinement: three SetConv on the source's graph, whose first signal is the coarse flow, and a linear layer; its
       answer is added to the coarse flow.

    Args:
        config: ``transport``, and ``local`` with what belongs to it; the rest is SCTN's. None: the published network.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        self.feat_conv1, self.feat_conv2, self.feat_conv3 = (SetConv(*ends) for ends in pairwise(WIDTHS))
        self.transport = ScanTransport(0.03, 0.0, config)
        self.refinement = Refinement()

    @classmethod
    def from_weights(cls, path: Path, config: NetworkConfig | None = None) -> Flot:
        """A published model (``model_2048.tar``, ``model_8192.tar``: the points that it was trained with).

        Both were trained with one Sinkhorn iteration.

        Raises:
            DataError: the file cannot be read or is not FLOT's.
        """
        net = cls(config)
        state = {_own_name(name): tensor for name, tensor in read_weights(path).items()}
        wanted = net.state_dict()
        state = {name: x.flatten(1) if x.shape[2:] == (1, 1) else x for name, x in state.items()}
        differ = [f"'{name}' is missing" for name in wanted if name not in state]
        differ += [f"'{name}' is not part of it" for name in state if name not in wanted]
        for name in wanted:
            if name in state and wanted[name].shape != state[name].shape:
                differ.append(f"'{name}' is {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}")
        if differ:
            raise DataError(
                path, f"holds weights of another network than FLOT: {differ[0]} ({len(differ)} differences)"
            )
        net.load_state_dict(state)
        return net

    def forward(self, source: Tensor, target: Tensor) -> FlowOutput:
        """Flow of every source point.

        Args:
            source: (B, N, 3) metres, axes of the training data: x left, y up, z forward.
            target: (B, M, 3) metres.

        Raises:
            ValueError: fewer than 32 points, a coordinate that is not finite, or shapes that do not fit.
        """
        for name, cloud in (("source", source), ("target", target)):
            if cloud.ndim == 3 and cloud.shape[1] < NEIGHBOURS:
                raise ValueError(f"FLOT needs at least {NEIGHBOURS} points in a cloud; the {name} has {cloud.shape[1]}")
        graph = knn_graph(source, NEIGHBOURS)
        features = self._features(source, graph)
        other = self._features(target, knn_graph(target, NEIGHBOURS))
        found = self.transport(source, target, features, other)
        flow = found.flow + self.refinement(found.flow, graph)
        return FlowOutput(flow, found.flow, features, found.confidence, found.matched)

    def _features(self, points: Tensor, graph: Graph) -> Tensor:
        """(B, N, 128)."""
        signal = points
        for layer in (self.feat_conv1, self.feat_conv2, self.feat_conv3):
            signal = layer(signal, graph)
        return signal


class Refinement(nn.Module):
    """Corrections to a coarse flow from that of the neighbours, 55,747 parameters; FLOT and SCTN share it."""

    def __init__(self) -> None:
        super().__init__()
        self.ref_conv1, self.ref_conv2, self.ref_conv3 = (SetConv(*ends) for ends in pairwise(WIDTHS))
        self.fc = nn.Linear(WIDTHS[-1], 3)

    def forward(self, flow: Tensor, graph: Graph) -> Tensor:
        """(B, N, 3) coarse flow in metres to (B, N, 3) what is to be added to it."""
        signal = flow
        for layer in (self.ref_conv1, self.ref_conv2, self.ref_conv3):
            signal = layer(signal, graph)
        with torch.autocast(signal.device.type, enabled=False):
            return nn.functional.linear(signal, self.fc.weight.to(signal.dtype), self.fc.bias.to(signal.dtype))


def _own_name(name: str) -> str:
    """A published parameter's name here."""
    if name in ("gamma", "epsilon"):
        return f"transport.{name}"
    return f"refinement.{name}" if name.startswith(("ref_conv", "fc.")) else name
