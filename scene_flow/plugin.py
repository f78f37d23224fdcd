# SPDX-License-Identifier: Apache-2.0
"""How scene flow announces itself to the runner: one pipeline under the names of its methods. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scene_flow import config as options
from scene_flow.config import LEARNED, FlowConfig
from vision3d.contracts import Pipeline, PipelineSpec
from vision3d.errors import UserError
from vision3d.weights import VARIABLE, find_weights

BUNDLED = Path(__file__).parent / "models" / "sctn"
EVAL_SEEDS = 3


def _make(config: Any) -> Pipeline:
    from scene_flow.pipeline import FlowPipeline

    return FlowPipeline(config)


def default_model(config: FlowConfig) -> Path | None:
    """The network to use where the user names none: SCTN's lies in the package, FLOT's among the weights.

    Raises:
        UserError: FLOT's published weights are not there.
    """
    if config.method == "flot":
        file = f"flot/model_{8192 if config.network.points == 8192 else 2048}.tar"
        found = find_weights(file)
        if found is None:
            raise UserError(
                f"flot needs --model, or the published weights as {file} in the folder that {VARIABLE} names; "
                "`vision3d fit flot DATA --out MODEL` trains one"
            )
        return found
    return BUNDLED if config.method == "sctn" else None


def _spec(name: str, summary: str, config_type: type) -> PipelineSpec:
    return PipelineSpec(
        name=name,
        summary=summary,
        samples="CloudPair",
        config_type=config_type,
        make=_make,
        has_fit=name in LEARNED,
        default_model=default_model,
        eval_seeds=EVAL_SEEDS,
        eval_baselines=True,
    )


SCTN = _spec("sctn", "scene flow: sparse convolution, attention, optimal transport (AAAI 2022)", options.SctnConfig)
FLOT = _spec("flot", "scene flow: set convolutions and optimal transport (ECCV 2020)", options.FlotConfig)
ZERO_FLOW = _spec("zero-flow", "scene flow: nothing moves but the sensor; the floor to beat", options.ZeroFlowConfig)
NEAREST = _spec("nearest", "scene flow: to the nearest point of the second scan", options.NearestConfig)
ICP = _spec("icp", "scene flow: one rigid motion for all points", options.GlobalIcpConfig)
CLUSTER_ICP = _spec("cluster-icp", "scene flow: one rigid motion per cluster, no training", options.ClusterIcpConfig)
NSFP = _spec("nsfp", "scene flow: a small network fitted to each pair, no training", options.NsfpOptions)
AUTO = _spec("auto", "scene flow: the method that measured best on clouds of this kind", options.AutoConfig)
