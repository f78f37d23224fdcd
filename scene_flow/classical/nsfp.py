# SPDX-License-Identifier: Apache-2.0
"""A network fitted to each pair: NSFP (Li, Pontes, Lucey, NeurIPS 2021) and FastNSF (Li et al., ICCV 2023).

Coordinates are raw metres in the problem's frame, as in the papers: nothing is centred or scaled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scene_flow.classical.chamfer import Standing, chamfer
from scene_flow.classical.coordinate_network import CoordinateNetwork, fit
from scene_flow.classical.distance_field import DistanceField
from scene_flow.classical.nsfp_config import NsfpConfig
from scene_flow.problem import Estimate, Problem

Float32 = NDArray[np.float32]
Distance = Callable[[Tensor], Tensor]


class Nsfp:
    """A coordinate network as the only prior: near points get alike flow. No training data, a minute a pair.

    ``nsfp``: truncated Chamfer distance from the moved source to the target, plus from the source that a second network
    carries back to the source itself. ``fast``: mean distance of the moved source's points to the target, by a grid.
    Standing still is the answer where the fitted flow brings the clouds no nearer to each other than that.

    The same problem gives the same bytes for the same number of threads.
    """

    deterministic = False

    def __init__(self, config: NsfpConfig) -> None:
        self.config = config

    def estimate(self, problem: Problem) -> Estimate:
        """The fitted flow at every source point. ``extra``: variant, points, iterations, loss, still, cell_m."""
        config = self.config
        generator = torch.Generator().manual_seed(problem.seed)
        source = drawn(problem.source, config.points, problem.seed, 0)
        facts: dict[str, Any] = {"variant": config.variant, "points": len(source)}
        distance: Distance
        if config.variant == "fast":
            field = DistanceField(problem.target, problem.source, config.cell_m, config.field_mb)
            facts |= {"cell_m": round(field.cell_m, 4), "coarsened": field.cell_m > config.cell_m}
            distance = lambda moved: field(moved).mean()  # noqa: E731
            net, loss, iterations = self._fit_one(source, distance, generator)
        else:
            target = Standing(drawn(problem.target, config.points, problem.seed, 1))
            facts["target_points"] = len(target.points)
            distance = lambda moved: chamfer(moved, target, config.truncate_m2)  # noqa: E731
            net, loss, iterations = self._fit_both(source, distance, generator)
        flow = net.answer(problem.source)
        still = not np.isfinite(flow).all() or stands_still(source, net, distance)
        if still:
            flow = np.zeros_like(flow)
        # JSON knows no infinity: a loss that never was a number is left out.
        known = {"loss": loss} if math.isfinite(loss) else {}
        return Estimate(flow, extra={**facts, "iterations": iterations, **known, "still": still})

    def _fit_one(
        self, source: Float32, distance: Distance, generator: torch.Generator
    ) -> tuple[CoordinateNetwork, float, int]:
        """FastNSF: one network, forward."""
        config, points = self.config, torch.from_numpy(source)
        net = CoordinateNetwork(generator, xavier=True)
        done = fit(
            lambda: distance(points + net(points)),
            [net],
            config.learning_rate,
            config.iterations,
            config.steps_without_gain,
        )
        return net, done.loss, done.iterations

    def _fit_both(
        self, source: Float32, distance: Distance, generator: torch.Generator
    ) -> tuple[CoordinateNetwork, float, int]:
        """NSFP: forward, and back again."""
        config, points, home = self.config, torch.from_numpy(source), Standing(source)
        net, back = CoordinateNetwork(generator), CoordinateNetwork(generator)

        def objective() -> Tensor:
            moved = points + net(points)
            return distance(moved) + chamfer(moved + back(moved), home, config.truncate_m2)

        done = fit(objective, [net, back], config.learning_rate, config.iterations, config.steps_without_gain)
        return net, done.loss, done.iterations


def drawn(cloud: Float32, points: int, seed: int, part: int) -> Float32:
    """``points`` rows of the cloud in its order, or all where it has no more or ``points`` is 0."""
    if not points or len(cloud) <= points:
        return np.array(cloud, dtype=np.float32, order="C")
    rows = np.random.default_rng([seed, part]).choice(len(cloud), points, replace=False)
    return np.ascontiguousarray(cloud[np.sort(rows)], dtype=np.float32)


@torch.no_grad()
def stands_still(source: Float32, net: CoordinateNetwork, distance: Distance) -> bool:
    """Whether the cloud is no farther from the target where it stands than where the network moves it."""
    points = torch.from_numpy(source)
    return not distance(points + net(points)).item() < distance(points).item()
