# SPDX-License-Identifier: Apache-2.0
"""One result beside its truth, reduced to the points that are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scene_flow.metrics.points import angle_errors, end_point_errors
from vision3d.errors import UserError
from vision3d.geometry.cameras import Camera
from vision3d.types import FlowResult, FlowTruth

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

# The rate of the field's lidars: thresholds that are stated in metres per frame mean this frame time.
FRAME_S = 0.1
DYNAMIC_M_PER_FRAME = 0.05


@dataclass(frozen=True)
class ScoredPair:
    """The valid points of a pair, V of them, and what is known about each.

    Attributes:
        answered: whether the method gave a flow at all.
        points: (V, 3) metres, x forward, y left, z up.
        flow: (V, 3) metres in the same axes; NaN without an answer.
        true_flow: (V, 3) metres.
        error_m, true_m, angle_rad: (V,) end-point error, length of the true flow, angle error.
        frame_m: (V,) how far the point truly moves against the static world, in metres per 0.1 s; None where the
            sensor's motion is not known.
        dynamic: (V,) points that truly move: as the data set says, else by ``frame_m`` > 0.05; None if unknown.
        ground, classes: (V,) as in FlowTruth.
        said_dynamic: (V,) points that the method calls moving; None where it does not say.
        sampled: (V,) points that the method answered itself; None: all.
        dt_s, camera: the pair's.
    """

    name: str
    answered: bool
    points: Float
    flow: Float
    true_flow: Float
    error_m: Float
    true_m: Float
    angle_rad: Float
    frame_m: Float | None
    dynamic: Bool | None
    ground: Bool | None
    classes: NDArray[np.uint8] | None
    said_dynamic: Bool | None
    sampled: Bool | None
    dt_s: float
    camera: Camera | None

    def __len__(self) -> int:
        return len(self.error_m)


def score_pair(result: FlowResult, truth: FlowTruth) -> ScoredPair:
    """The valid points of ``result`` and ``truth``. A failed result has infinite errors on all of them.

    Raises:
        UserError: the result does not belong to the truth: other number of points or other axes; or a valid point's
            true flow is not finite. The message names the pair.
    """
    _check(result, truth)
    valid = truth.valid
    flow = None if result.flow is None or result.status != "ok" else result.flow[valid].astype(np.float64)
    true_flow = truth.flow[valid].astype(np.float64)
    points = truth.points[valid].astype(np.float64)
    still = None if truth.T_target_source is None else static_flow(points, truth.T_target_source)
    frame_m = None if still is None else np.linalg.norm(true_flow - still, axis=1) * (FRAME_S / truth.dt_s)
    dynamic = _rows(truth.dynamic, valid)
    if dynamic is None and frame_m is not None:
        dynamic = frame_m > DYNAMIC_M_PER_FRAME
    try:
        error_m = end_point_errors(flow, true_flow)
    except ValueError as error:
        raise UserError(f"{result.name}: truth cannot be used: {error}") from None
    answered = flow is not None
    return ScoredPair(
        name=result.name,
        answered=answered,
        points=in_lidar_axes(points, truth.axes),
        flow=in_lidar_axes(np.full_like(true_flow, np.nan) if flow is None else flow, truth.axes),
        true_flow=in_lidar_axes(true_flow, truth.axes),
        error_m=error_m,
        true_m=np.linalg.norm(true_flow, axis=1),
        angle_rad=angle_errors(flow, true_flow, truth.dt_s),
        frame_m=frame_m,
        dynamic=dynamic,
        ground=_rows(truth.ground, valid),
        classes=_rows(truth.classes, valid),
        said_dynamic=_rows(result.dynamic, valid) if answered else None,
        sampled=_rows(result.sampled, valid) if answered else None,
        dt_s=truth.dt_s,
        camera=truth.camera,
    )


def static_flow(points: Float, T_target_source: Float) -> Float:
    """(N, 3) float64 metres: the flow of ``points`` (N, 3) if nothing moved but the sensor."""
    T = np.asarray(T_target_source, dtype=np.float64)
    points = np.asarray(points, dtype=np.float64)
    return points @ T[:3, :3].T + T[:3, 3] - points


def in_lidar_axes(vectors: Float, axes: str) -> Float:
    """(N, 3) ``vectors`` as x forward, y left, z up; ``camera`` is x left, y up, z forward."""
    return vectors if axes == "lidar" else vectors[:, [2, 0, 1]]


def _rows(array: NDArray[Any] | None, valid: Bool) -> NDArray[Any] | None:
    return None if array is None else array[valid]


def _check(result: FlowResult, truth: FlowTruth) -> None:
    n = len(truth.valid)
    for name in ("flow", "points", "dynamic", "ground", "classes"):
        array = getattr(truth, name)
        if array is not None and len(array) != n:
            raise UserError(f"{result.name}: truth has {len(array)} rows of {name} but {n} of valid")
    for name in ("points", "flow", "dynamic", "ground", "sampled"):
        array = getattr(result, name)
        if array is not None and len(array) != n:
            raise UserError(
                f"{result.name}: the result has {len(array)} rows of {name}, but the truth has {n} points: "
                "it was made on other data, so run it anew"
            )
    if result.status == "ok" and result.axes != truth.axes:
        raise UserError(f"{result.name}: the result is in {result.axes} axes, the truth in {truth.axes} axes")
