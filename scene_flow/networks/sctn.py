# SPDX-License-Identifier: Apache-2.0
"""SCTN: features of a sparse U-Net and attention, correspondence by optimal transport, refinement on a graph.

Li, Zheng, Giancola, Ghanem, "SCTN: Sparse Convolution-Transformer Network for Scene Flow Estimation", AAAI 2022.
"""

from __future__ import annotations

from torch import Tensor, nn

from scene_flow.networks.config import NetworkConfig
from scene_flow.networks.encoder import NEIGHBOURS, WIDTHS, CloudEncoder
from scene_flow.networks.neighbours import knn_graph
from scene_flow.networks.output import FlowOutput
from scene_flow.networks.scan_transport import ScanTransport
from scene_flow.networks.set_conv import SetConv


class Sctn(nn.Module):
    """Flow of every source point, metres, in the axes of the clouds (``camera``: x left, y up, z forward).

    The full size has 7,788,229 parameters: 7,717,760 in the U-Net, 14,720 in the attention, 55,747 in the refinement
    and 2 in the transport.
    """

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        self.encoder = CloudEncoder(config)
        self.transport = ScanTransport(0.025, -5.0, config)
        self.refinement = Refinement(WIDTHS[config.size].refinement)

    def forward(self, source: Tensor, target: Tensor) -> FlowOutput:
        """The flow from (B, N, 3) to (B, M, 3), float32 metres.

        Raises:
            TooFewPoints: a cloud fills fewer than 32 voxels.
        """
        f = self.encoder(source)  # steps 1 to 6, the same weights for both clouds
        g = self.encoder(target)
        coarse, confidence, matched = self.transport(source, target, f, g)  # step 7
        flow = coarse + self.refinement(source, coarse)  # step 8
        return FlowOutput(flow=flow, coarse=coarse, features=f, confidence=confidence, matched=matched)


class Refinement(nn.Module):
    """Step 8: three SetConv layers on the graph of 32 nearest neighbours, and a linear one, make a correction."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([SetConv(a, b) for a, b in zip((3, *widths), widths)])
        self.last = nn.Linear(widths[-1], 3)

    def forward(self, points: Tensor, flow: Tensor) -> Tensor:
        """(B, N, 3) to be added to the coarse flow (B, N, 3) of the points (B, N, 3)."""
        graph = knn_graph(points, NEIGHBOURS)
        signal = flow
        for layer in self.layers:
            signal = layer(signal, graph)
        correction: Tensor = self.last(signal)
        return correction
