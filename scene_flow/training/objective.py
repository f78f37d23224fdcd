# SPDX-License-Identifier: Apache-2.0
"""What training makes small: the flow's error, and late in the run the disagreement of alike neighbours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scene_flow.loss import flow_loss, fsc_loss, smoothness_loss
from scene_flow.networks.neighbours import knn_graph
from scene_flow.networks.output import FlowOutput
from scene_flow.training.batches import Batch
from scene_flow.training.config import TrainConfig


class Loss(NamedTuple):
    """Scalars. ``total`` carries the gradient; the parts are for the record.

    Attributes:
        total: supervised + weight * consistency.
        supervised: metres, mean |flow - truth| over valid points and the three axes.
        consistency: metres, not yet weighted; zero before it counts.
    """

    total: Tensor
    supervised: Tensor
    consistency: Tensor


def loss_of(output: FlowOutput, batch: Batch, config: TrainConfig, with_consistency: bool) -> Loss:
    """The loss of SCTN (Li et al., AAAI 2022): L1 plus 0.30 times the consistency of neighbours, in float32.

    A batch without a single valid point has loss zero.
    """
    flow = output.flow.float()
    supervised = flow_loss(flow, batch.flow, batch.valid)
    consistency = supervised.new_zeros(())
    if with_consistency and config.fsc_weight > 0:
        rows = _nearest(batch.source, config.fsc_neighbours)
        if config.consistency == "uniform":
            consistency = smoothness_loss(flow, rows, batch.valid)
        else:
            features = output.features.float()
            consistency = fsc_loss(flow, features, rows, batch.valid, config.tau, config.fsc_clamp)
    return Loss(supervised + config.fsc_weight * consistency, supervised.detach(), consistency.detach())


@torch.no_grad()
def _nearest(points: Tensor, k: int) -> Tensor:
    """(B, N, k) rows of the nearest points of every point, itself included."""
    return knn_graph(points, min(k, points.shape[1])).rows
