# SPDX-License-Identifier: Apache-2.0
"""The sensor's share of the flow: which points are ground, how the sensor moved, and undoing that motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scene_flow.classical.config import EgoConfig, GroundConfig
from scene_flow.config import FlowConfig
from vision3d.types import CloudPair, Float

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class SensorMotion:
    """How the sensor moved between the scans.

    Attributes:
        T: (4, 4) ``T_target_source``, or None when it is neither known nor estimated.
        compensates: whether it is undone before the method looks; else it only gives the ground its flow.
        facts: where it comes from, and how well an estimate fits.
    """

    T: Float | None
    compensates: bool
    facts: Mapping[str, Any] = field(default_factory=dict)


def find_ground(pair: CloudPair, config: GroundConfig) -> tuple[Bool | None, Bool | None]:
    """(N,) and (M,) ground points of source and target; None where none are taken away.

    ``auto`` takes the data's own masks where it has them, estimates them on lidar axes, and leaves camera clouds alone:
    these are prepared data sets, whose ground is already gone.
    """
    if config.mode == "none" or (config.mode == "auto" and pair.axes == "camera" and pair.source_ground is None):
        return None, None
    return (
        _one_ground(pair.source, pair.source_ground, pair, config),
        _one_ground(pair.target, pair.target_ground, pair, config),
    )


def _one_ground(points: Float32, given: Bool | None, pair: CloudPair, config: GroundConfig) -> Bool | None:
    if config.mode != "estimate" and given is not None:
        return given
    if config.mode == "given":
        return None
    from scene_flow.classical.ground import ground_mask

    return ground_mask(points, pair.axes, config)


def sensor_motion(
    pair: CloudPair, source_ground: Bool | None, target_ground: Bool | None, config: FlowConfig
) -> SensorMotion:
    """The motion that the data knows, else one estimated by ICP, as ``config.ego`` says.

    ``auto`` undoes a motion that is given, estimates one on lidar axes, and leaves prepared camera clouds alone. Where
    ground was taken away and nothing is undone, the motion is still estimated: the ground's flow is made of it. An
    estimate that fits less than ``min_fitness`` of the points is not used at all.
    """
    mode = config.ego.mode
    if mode in ("auto", "given") and pair.T_target_source is not None:
        return SensorMotion(pair.T_target_source, True, {"ego": "given"})
    wanted = mode == "icp" or (mode == "auto" and pair.axes == "lidar")
    if not wanted and source_ground is None:
        return SensorMotion(None, False, {"ego": "none"})
    estimate = _estimated(pair, config.ego)
    return SensorMotion(estimate.T, wanted and estimate.compensates, estimate.facts)


def _estimated(pair: CloudPair, config: EgoConfig) -> SensorMotion:
    from scene_flow.classical.ego import estimate_ego

    found = estimate_ego(pair.source, pair.target, pair.axes, config)
    trusted = found.fitness >= config.min_fitness
    facts = {
        "ego": "icp" if trusted else "icp, not trusted: it fits too few points",
        "ego_fitness": round(float(found.fitness), 4),
        "ego_rmse_m": round(float(found.rmse_m), 4),
    }
    return SensorMotion(found.T_target_source if trusted else None, trusted, facts)


def transformed(points: Float32, T: Float | None) -> Float32:
    """(N, 3) float32 points moved by (4, 4) ``T``; a copy, unmoved for None. In double precision, then rounded."""
    if T is None:
        return np.array(points, dtype=np.float32, order="C")
    return np.ascontiguousarray(points.astype(np.float64) @ T[:3, :3].T + T[:3, 3], dtype=np.float32)
