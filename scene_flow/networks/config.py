# SPDX-License-Identifier: Apache-2.0
"""Options of the flow networks. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from vision3d.errors import ConfigError, check_ranges

Size = Literal["full", "small"]
Representative = Literal["mean", "first"]
PointFeatures = Literal["unet", "setconv"]
Local = Literal["auto", "on", "off"]

# 32,768 x 32,768: beyond it "auto" compares a point with candidates only, which is faster from there on.
DENSE_PAIRS = 2**30


@dataclass(frozen=True)
class TransportConfig:
    """How the features of two clouds become a coarse flow.

    Attributes:
        iterations: Sinkhorn iterations; 0 is plain attention over the target (FLOT_0).
        radius_m: farthest that a point moves between the clouds. 10 m suits 10 Hz; take more for fewer clouds a second.
        log_domain: compute with logarithms: slower, and safe where the learned eps is tiny or iterations are many.
        fallback: a point that finds nothing within the radius stands still. Off, it jumps to the origin of the
            coordinates, as in the published code.
    """

    iterations: int = 1
    radius_m: float = 10.0
    log_domain: bool = False
    fallback: bool = True

    def __post_init__(self) -> None:
        check_ranges("network.transport", self, iterations=(0, 1000), radius_m=(0.01, 1000))


@dataclass(frozen=True)
class NetworkConfig:
    """A flow network. What fixes the meaning of weights comes from the model, where there is one.

    Attributes:
        size: ``full`` is the published network, 7,788,229 parameters; ``small`` has every part of it in 2.6 MB and
            trains on one core. FLOT has one size.
        voxel_size_m: edge of a voxel of the U-Net. Sparse clouds want larger ones: of 1024 points on a street, hardly
            two share 0.07 m.
        corner: distances to voxels are taken to their lower corners, as in the published code, not to their centres.
        representative: a voxel is described by the ``mean`` of its points, so that their order does not matter, or by
            the ``first`` one, as in the published code.
        features: the sparse ``unet`` of SCTN, or the ``setconv`` layers of FLOT in its place.
        attention: let every point of a cloud see every other one.
        points: points drawn from each cloud; the flow of the others is interpolated. 0 takes all of them. Norms are
            over whole clouds: best is the number that the network was trained with (8192 in the paper).
        range_m: points farther than this from the sensor are not shown to the network: their flow is zero (the sensor's
            motion, where that is undone) and their confidence 0. 0: no limit. The published training data end at 35 m.
        local: ``on`` compares a point with candidates instead of the whole target, so that clouds of LiDAR size fit:
            first with far ones on a coarse grid, then with those near where these say that it goes, and near where
            it is. ``auto`` does so beyond 2^30 pairs (32,768 x 32,768), and never while training.
        cell_m: ``local`` keeps one target point per cell of this edge, and of 8 times this edge for the first look.
        neighbours: ... and takes this many of them. On a street 256 reach 7 m at the first look, 1 m at the second.
        max_keys: a cloud of more points attends to this many cells of it instead of to every point. 0: no limit.
        transport: from features to flow.
    """

    size: Size = "full"
    voxel_size_m: float = 0.07
    corner: bool = False
    representative: Representative = "mean"
    features: PointFeatures = "unet"
    attention: bool = True
    points: int = 8192
    range_m: float = 0.0
    local: Local = "auto"
    cell_m: float = 0.1
    neighbours: int = 256
    max_keys: int = 8192
    transport: TransportConfig = field(default_factory=TransportConfig)

    def __post_init__(self) -> None:
        check_ranges(
            "network", self, voxel_size_m=(0.001, 10), points=(0, 10**7), range_m=(0, 10**5), cell_m=(0.001, 100)
        )
        check_ranges("network", self, neighbours=(1, 10_000), max_keys=(0, 10**7))
        object.__setattr__(self, "voxel_size_m", float(self.voxel_size_m))
        for name, choices in (
            ("size", Size),
            ("representative", Representative),
            ("features", PointFeatures),
            ("local", Local),
        ):
            _check_choice("network", self, name, get_args(choices))
        if 0 < self.points < 32:
            raise ConfigError(f"network.points is {self.points}: must be 0 (all) or at least 32")
        if 0 < self.max_keys < 8:
            raise ConfigError(f"network.max_keys is {self.max_keys}: must be 0 (no limit) or at least 8")

    def compares_locally(self, n: int, m: int) -> bool:
        """Whether clouds of n and m points are compared by candidates (outside of training)."""
        return self.local == "on" or (self.local == "auto" and n * m > DENSE_PAIRS)


# Fields without which weights mean something else. The others may change from run to run.
ARCHITECTURE = ("size", "voxel_size_m", "corner", "representative", "features", "attention")


def architecture_of(config: NetworkConfig) -> dict[str, Any]:
    """JSON-able: what a stored network must remember. :func:`with_architecture` reads it."""
    return {**{name: getattr(config, name) for name in ARCHITECTURE}, "iterations": config.transport.iterations}


def with_architecture(config: NetworkConfig, architecture: Mapping[str, Any]) -> NetworkConfig:
    """``config`` with what a stored network remembers in place of its own.

    Raises:
        ConfigError: an entry is missing, unknown, of the wrong type or out of range.
    """
    known = architecture_of(config)
    odd = sorted(set(architecture) ^ set(known))
    if odd:
        raise ConfigError(f"a network is described by {', '.join(known)}; {odd[0]!r} is missing or too many")
    for name, value in known.items():
        if type(architecture[name]) is not type(value):
            raise ConfigError(f"network.{name} is {architecture[name]!r}: must be of type {type(value).__name__}")
    own = dict(architecture)
    return replace(config, transport=replace(config.transport, iterations=own.pop("iterations")), **own)


def _check_choice(section: str, config: object, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in choices:
        raise ConfigError(f"{section}.{name} is {value!r}: must be one of {', '.join(choices)}")
