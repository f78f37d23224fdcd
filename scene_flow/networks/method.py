# SPDX-License-Identifier: Apache-2.0
"""A flow network as a flow method: axes, a draw of the points, and an answer for every one of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scene_flow.networks.config import NetworkConfig
from scene_flow.networks.encoder import NEIGHBOURS, TooFewPoints, too_few
from scene_flow.networks.output import FlowOutput
from scene_flow.problem import Estimate, Float32, Problem
from vision3d.errors import DataError
from vision3d.types.clouds import Axes, CloudPair

# (x, y, z)_camera = (y, z, x)_lidar: networks are trained in camera axes.
TO_CAMERA: dict[Axes, list[int]] = {"camera": [0, 1, 2], "lidar": [1, 2, 0]}
FROM_CAMERA: dict[Axes, list[int]] = {"camera": [0, 1, 2], "lidar": [2, 0, 1]}
_NEAREST = 3  # drawn points that the flow of another one is a mean of
_SURELY = 20_000  # points of a scan that is not worth counting the voxels of; the network counts them again


class LearnedMethod:
    """A network and how it is asked. A :class:`scene_flow.problem.FlowMethod`.

    Attributes:
        deterministic: all points are taken, so the seed changes nothing.
        timing_ms: of the last ``estimate``: ``network`` and ``interpolate``.
    """

    def __init__(self, net: nn.Module, config: NetworkConfig) -> None:
        self.net = net.eval()
        self.config = config
        self.deterministic = config.points == 0
        self.timing_ms: Mapping[str, float] = {}

    def estimate(self, problem: Problem) -> Estimate:
        """The flow of every source point. Source and target are drawn from independently, by the problem's seed.

        Raises:
            TooFewPoints: a cloud fills fewer than 32 voxels.
        """
        if self.config.range_m > 0:
            return self._within_range(problem)
        return self._answer(problem)

    def _within_range(self, problem: Problem) -> Estimate:
        """The answer for what lies within ``range_m``; the rest stands still, with confidence 0."""
        near, target = (np.linalg.norm(c, axis=1) <= self.config.range_m for c in (problem.source, problem.target))
        if near.sum() < NEIGHBOURS or target.sum() < NEIGHBOURS:
            raise TooFewPoints(
                f"{near.sum()} and {target.sum()} points lie within {self.config.range_m:g} m, and the network needs "
                f"{NEIGHBOURS}; set network.range_m to 0 or more"
            )
        part = self._answer(replace(problem, source=problem.source[near], target=problem.target[target]))
        flow = np.zeros_like(problem.source)
        confidence, sampled = np.zeros(len(near), np.float32), np.zeros(len(near), dtype=bool)
        assert part.confidence is not None
        flow[near], confidence[near] = part.flow, part.confidence
        sampled[near] = True if part.sampled is None else part.sampled
        return Estimate(flow, confidence, sampled=sampled, extra={**part.extra, "within_range": int(near.sum())})

    def _answer(self, problem: Problem) -> Estimate:
        """The network's flow of every source point."""
        started = time.perf_counter()
        drawn = self._draw(len(problem.source), problem.seed, 0)
        output = self._run(problem, drawn, self._draw(len(problem.target), problem.seed, 1))
        flow = output.flow[0].cpu().numpy()[:, FROM_CAMERA[problem.axes]]
        confidence = output.confidence[0].cpu().numpy()
        extra = {"matched": round(float(output.matched.float().mean()), 4), "points": len(flow)}
        answered = time.perf_counter()
        sampled = None
        if drawn is not None:
            sampled = np.zeros(len(problem.source), dtype=bool)
            sampled[drawn] = True
            values = spread(problem.source, sampled, np.column_stack([flow, confidence]))
            flow, confidence = values[:, :3], values[:, 3]
        self.timing_ms = {
            "network": 1e3 * (answered - started),
            "interpolate": 1e3 * (time.perf_counter() - answered),
        }
        return Estimate(
            flow=np.ascontiguousarray(flow, dtype=np.float32),
            confidence=np.ascontiguousarray(confidence, dtype=np.float32),
            sampled=sampled,
            extra=extra,
        )

    def _draw(self, n: int, seed: int, cloud: int) -> NDArray[np.int64] | None:
        """Ascending rows, or None for all."""
        if self.config.points == 0 or n <= self.config.points:
            return None
        generator = np.random.default_rng([seed, cloud])
        return np.sort(generator.choice(n, self.config.points, replace=False))

    def _run(self, problem: Problem, source: NDArray[np.int64] | None, target: NDArray[np.int64] | None) -> FlowOutput:
        device = next(self.net.parameters()).device

        def cloud(points: Float32, rows: NDArray[np.int64] | None) -> Tensor:
            chosen = points if rows is None else points[rows]
            return torch.from_numpy(np.ascontiguousarray(chosen[:, TO_CAMERA[problem.axes]]))[None].to(device)

        with torch.no_grad():
            output: FlowOutput = self.net(cloud(problem.source, source), cloud(problem.target, target))
        return output


def check_size(pair: CloudPair, method: str, config: NetworkConfig) -> None:
    """Refuse a pair that no network can answer, before any work is done on it.

    Raises:
        DataError: a cloud has fewer than 32 points, or for ``sctn`` fills fewer than 32 voxels.
    """
    for which, points in (("source", pair.source), ("target", pair.target)):
        if len(points) < NEIGHBOURS:
            raise DataError(
                pair.name,
                f"the {which} cloud has {len(points)} points, and {method} needs {NEIGHBOURS}; methods without a"
                " network (nearest, icp) work on any number",
            )
        if method == "sctn" and config.features == "unet":
            cells = np.floor(points.astype(np.float64) / config.voxel_size_m)
            filled = len(np.unique(cells, axis=0)) if len(points) < _SURELY else NEIGHBOURS
            if filled < NEIGHBOURS:
                raise DataError(pair.name, f"the {which} cloud: {too_few(len(points), filled, config.voxel_size_m)}")


def spread(points: Float32, known: NDArray[np.bool_], values: NDArray[np.floating]) -> Float32:
    """Values for all points from those of some: elsewhere the mean of the 3 nearest, weighted by 1 / distance.

    Args:
        points: (N, 3) metres.
        known: (N,) which points have values, at least one.
        values: (K, C) of these, in their order.

    Returns:
        (N, C) float32; unchanged where known.
    """
    from scipy.spatial import cKDTree

    out = np.empty((len(points), values.shape[1]), dtype=np.float32)
    out[known] = values
    k = min(_NEAREST, len(values))
    distance, near = cKDTree(points[known]).query(points[~known], list(range(1, k + 1)))
    weights = 1 / (distance + 1e-8)
    weights /= weights.sum(1, keepdims=True)
    out[~known] = np.einsum("nk,nkc->nc", weights, values[near])
    return out
