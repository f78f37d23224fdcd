# SPDX-License-Identifier: Apache-2.0
"""Every option of scene flow. Imports no torch, so that `--help` and config files stay quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from scene_flow.classical.config import ClusterConfig, EgoConfig, GroundConfig, IcpConfig, NsfpConfig
from scene_flow.networks.config import NetworkConfig
from scene_flow.training.config import TrainConfig
from vision3d.errors import ConfigError

Method = Literal["sctn", "flot", "zero-flow", "nearest", "icp", "cluster-icp", "nsfp", "auto"]
Format = Literal["npz", "npy", "ply", "feather", "av2-v1", "av2-v2"]
METHODS: tuple[Method, ...] = ("sctn", "flot", "zero-flow", "nearest", "icp", "cluster-icp", "nsfp", "auto")
LEARNED: tuple[Method, ...] = ("sctn", "flot")
# Printed beside every method by `eval`. NSFP is not among them: it takes a minute a pair.
BASELINES: tuple[Method, ...] = ("zero-flow", "nearest", "icp", "cluster-icp")


@dataclass(frozen=True)
class FlowConfig:
    """Scene flow between two scans.

    Attributes:
        method: how the motion is found; ``auto`` picks by the kind of cloud and says what it picked.
        baseline_methods: what `eval` prints beside this method.
        write: files written per pair in `flow/`; ``av2-v1`` and ``av2-v2`` are Argoverse 2 submissions.
        checks: refuse pairs that look wrong: not in metres, scans in different frames, other axes than stated.
        ground: which points are ground. Their flow is the sensor's motion.
        ego: the sensor's motion, undone before the method looks and added to what it finds.
    """

    method: Method = "auto"
    baseline_methods: tuple[Method, ...] = BASELINES
    write: tuple[Format, ...] = ("npz",)
    checks: bool = True
    ground: GroundConfig = field(default_factory=GroundConfig)
    ego: EgoConfig = field(default_factory=EgoConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    icp: IcpConfig = field(default_factory=IcpConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    nsfp: NsfpConfig = field(default_factory=NsfpConfig)

    def __post_init__(self) -> None:
        for name in self.baseline_methods:
            if name in LEARNED or name == "auto":
                raise ConfigError(f"baseline_methods: '{name}' needs a model or picks one; take others")


@dataclass(frozen=True)
class SctnConfig(FlowConfig):
    """SCTN: sparse convolution, attention and optimal transport (Li et al., AAAI 2022)."""

    method: Method = "sctn"


@dataclass(frozen=True)
class FlotConfig(FlowConfig):
    """FLOT: set convolutions and optimal transport (Puy et al., ECCV 2020)."""

    method: Method = "flot"
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(points=2048))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(points=2048, fsc_weight=0.0))


@dataclass(frozen=True)
class ZeroFlowConfig(FlowConfig):
    """Nothing moves but the sensor."""

    method: Method = "zero-flow"


@dataclass(frozen=True)
class NearestConfig(FlowConfig):
    """Every point goes to the nearest point of the second scan."""

    method: Method = "nearest"


@dataclass(frozen=True)
class GlobalIcpConfig(FlowConfig):
    """One rigid motion for all points."""

    method: Method = "icp"


@dataclass(frozen=True)
class ClusterIcpConfig(FlowConfig):
    """One rigid motion per cluster (the idea of ICP-Flow, Lin and Caesar, CVPR 2024)."""

    method: Method = "cluster-icp"


@dataclass(frozen=True)
class NsfpOptions(FlowConfig):
    """A network fitted to each pair (NSFP, Li et al., NeurIPS 2021; FastNSF, Li et al., ICCV 2023)."""

    method: Method = "nsfp"


@dataclass(frozen=True)
class AutoConfig(FlowConfig):
    """The method that measured best on real clouds of this kind, which is cluster-icp today; the result says why."""
