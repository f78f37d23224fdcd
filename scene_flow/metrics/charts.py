# SPDX-License-Identifier: Apache-2.0
"""What a run shows of its errors: how they are spread, by distance, by speed, and a row per pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scene_flow.metrics.buckets import Buckets
from scene_flow.metrics.pair import FRAME_S, ScoredPair
from scene_flow.metrics.points import score_points
from scene_flow.metrics.ranges import RangeErrors
from scene_flow.metrics.table import scored_pairs
from vision3d.types import Chart, Exhibit, FlowResult, FlowTruth

Float = NDArray[np.float64]

LIMITS_M = np.geomspace(1e-3, 10.0, 121)
# Fine enough for a curve near the sensor; the last bins are SSF's.
CHART_EDGES_M = (*range(0, 50, 5), 50.0, 60.0, 75.0, 100.0, np.inf)
ALL = "all points"


class ErrorCurve:
    """Share of points with an error below each of LIMITS_M, per pair and then averaged over pairs, like Acc3DS."""

    def __init__(self) -> None:
        self._sum = np.zeros(len(LIMITS_M))
        self._pairs = 0

    def add(self, error_m: Float) -> None:
        """Count a pair's points (V,), V > 0."""
        self._sum += np.searchsorted(np.sort(error_m), LIMITS_M, side="left") / len(error_m)
        self._pairs += 1

    def curve(self) -> tuple[Float, Float]:
        """(121,) limits in metres and (121,) shares 0 to 1."""
        return LIMITS_M, self._sum / max(self._pairs, 1)


class SpeedErrors:
    """Normalised error by true speed (:mod:`scene_flow.metrics.buckets`), by class where there are classes."""

    def __init__(self) -> None:
        self._by_class = Buckets()
        self._all = Buckets(classes=(ALL,), still=())

    def add(self, pair: ScoredPair) -> None:
        """Count a pair; left out where the sensor's true motion is not known."""
        self._by_class.add(pair)
        self._all.add_as(pair, np.zeros(len(pair), dtype=np.uint8))

    def curves(self) -> dict[str, tuple[Float, Float]]:
        """Name -> (K,) m/s and (K,) error / speed. One curve per class, else one for all points."""
        found = {name: self._by_class.by_speed(name) for name in self._by_class.dynamic()}
        if not found and self._all.dynamic():
            found = {ALL: self._all.by_speed(ALL)}
        return {name.lower().replace("_", " "): xy for name, xy in found.items()}


def flow_exhibit(
    results: Sequence[FlowResult],
    truths: Sequence[FlowTruth],
    method: str = "flow",
    others: Mapping[str, Sequence[FlowResult]] | None = None,
) -> Exhibit:
    """Charts and a row per pair of one method; ``others`` are drawn beside it in the chart of errors.

    The curve ``no motion`` needs no method: every point moves with the sensor, where the truth knows how that moved,
    and else not at all. Whatever lies below it is worse than doing nothing.

    Raises:
        UserError, ValueError: as :func:`scene_flow.metrics.table.score_flow`.
    """
    if not len(truths):
        return Exhibit()
    spread = {method: ErrorCurve(), **{name: ErrorCurve() for name in others or {}}, "no motion": ErrorCurve()}
    distance, speed = RangeErrors(CHART_EDGES_M), SpeedErrors()
    per_sample: dict[str, dict[str, float]] = {}
    for pair in scored_pairs(results, truths):
        if not len(pair):
            continue
        spread[method].add(pair.error_m)
        spread["no motion"].add(_without_motion(pair))
        distance.add(pair)
        speed.add(pair)
        per_sample[pair.name] = pair_columns(pair)
    for name, other in (others or {}).items():
        for pair in scored_pairs(other, truths):
            if len(pair):
                spread[name].add(pair.error_m)
    return Exhibit(charts=tuple(_charts(spread, distance, speed)), per_sample=per_sample)


def pair_columns(pair: ScoredPair) -> dict[str, float]:
    """A pair's numbers for the table of all pairs; names end in the unit, shares have none."""
    scores = score_points(pair.error_m, pair.true_m, pair.angle_rad)
    columns = {
        "epe3d_m": scores.epe3d_m,
        "acc3ds": scores.acc3ds,
        "acc3dr": scores.acc3dr,
        "outliers": scores.outliers,
    }
    if pair.dynamic is not None:
        for name, mask in (("epe3d_dynamic_m", pair.dynamic), ("epe3d_static_m", ~pair.dynamic)):
            if mask.any():
                columns[name] = float(pair.error_m[mask].mean())
    return columns


def _without_motion(pair: ScoredPair) -> Float:
    """(V,) metres: the errors of a flow that only knows the sensor's true motion, or nothing."""
    return pair.true_m if pair.frame_m is None else pair.frame_m * (pair.dt_s / FRAME_S)


def _charts(spread: Mapping[str, ErrorCurve], distance: RangeErrors, speed: SpeedErrors) -> list[Chart]:
    charts = [
        Chart(
            name="errors",
            title="Points with an error below t",
            x_label="t (m)",
            y_label="share of points",
            series={name: errors.curve() for name, errors in spread.items()},
            x_log=True,
        )
    ]
    motions = [motion for motion in ("dynamic", "static") if distance.mean(motion) is not None]
    by_distance = {motion: distance.curve(motion) for motion in motions or ["all"]}
    if any(len(x) for x, _ in by_distance.values()):
        charts.append(
            Chart("range", "EPE by distance from the sensor", "distance (m)", "EPE3D (m)", by_distance),
        )
    by_speed = speed.curves()
    if by_speed:
        charts.append(
            Chart("speed", "Share of the motion that is not explained", "true speed (m/s)", "EPE / speed", by_speed),
        )
    return charts
