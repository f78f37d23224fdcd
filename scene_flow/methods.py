# SPDX-License-Identifier: Apache-2.0
"""Methods by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scene_flow.config import LEARNED, FlowConfig
from scene_flow.problem import FlowMethod
from vision3d.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def make_method(name: str, config: FlowConfig, net: nn.Module | None = None) -> FlowMethod:
    """The method, configured; each part is imported only when it is used.

    Raises:
        UserError: a learned method without its network, or an unknown name.
    """
    if name in LEARNED:
        from scene_flow.networks.method import LearnedMethod

        if net is None:
            raise UserError(f"method '{name}' needs a network: give --model")
        return LearnedMethod(net, config.network)
    if name == "zero-flow":
        from scene_flow.classical.zero import ZeroFlow

        return ZeroFlow()
    if name == "nearest":
        from scene_flow.classical.nearest import NearestNeighbour

        return NearestNeighbour()
    if name == "icp":
        from scene_flow.classical.icp import GlobalIcp

        return GlobalIcp(config.icp)
    if name == "cluster-icp":
        from scene_flow.classical.cluster_icp import ClusterIcp

        return ClusterIcp(config.cluster, config.icp)
    if name == "nsfp":
        from scene_flow.classical.nsfp import Nsfp

        return Nsfp(config.nsfp)
    raise UserError(f"unknown flow method '{name}'")
