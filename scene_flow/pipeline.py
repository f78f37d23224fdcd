# SPDX-License-Identifier: Apache-2.0
"""Scene flow as a pipeline of the runner: checks, ground, the sensor's motion, a method, all put together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scene_flow.checks import check_finite, check_plausible
from scene_flow.config import LEARNED, FlowConfig
from scene_flow.methods import make_method
from scene_flow.motion import SensorMotion, find_ground, sensor_motion, transformed
from scene_flow.problem import Estimate, FlowMethod, Problem
from vision3d.contracts import FitContext, Reader
from vision3d.types import CloudPair, CloudView, Exhibit, FlowResult, FlowTruth, Metric

if TYPE_CHECKING:
    from torch import nn

Bool = NDArray[np.bool_]

# What moves faster than this against the static world counts as moving: 0.5 m/s (Argoverse 2).
DYNAMIC_M_PER_S = 0.5


class FlowPipeline:
    """The motion of every point of a scan, by one of the methods of ``scene_flow.config.METHODS``."""

    samples: type = CloudPair
    result_type: type = FlowResult

    def __init__(self, config: FlowConfig) -> None:
        self.config = config
        self._methods: dict[tuple[str, int], FlowMethod] = {}

    @property
    def deterministic(self) -> bool:
        """Whether the seed changes nothing, so that several seeds need one run."""
        return self.config.method in ("zero-flow", "nearest", "icp", "cluster-icp")

    def fit(self, train: Reader, out: Path, context: FitContext) -> None:
        """Train the network on all pairs of ``train`` and write it to the folder ``out``."""
        from scene_flow.networks.store import build_network, save_network
        from scene_flow.training.loop import train_network

        net = build_network(self.config.method, self.config.network)
        facts = train_network(net, train, self.config.train, context)
        # How long it took is not part of a model: a fit that was killed and resumed must end with the same bytes.
        lasting = {name: value for name, value in facts.items() if name not in ("seconds", "steps_per_second")}
        save_network(out, net, lasting)

    def load(self, model: Path) -> nn.Module:
        """The network of a folder that :meth:`fit` wrote, or of a file of FLOT's published weights.

        Raises:
            DataError: it is damaged or holds another network.
        """
        from scene_flow.networks.store import load_network

        method = self.config.method if self.config.method in LEARNED else "sctn"
        return load_network(model, method, self.config.network)

    def check(self, sample: CloudPair) -> None:
        """Raises:
        DataError: the pair cannot be worked on, or (with ``checks``) looks wrong.
        """
        check_finite(sample)
        if self.config.checks:
            check_plausible(sample)
        if self.config.method in LEARNED:
            from scene_flow.networks.method import check_size

            check_size(sample, self.config.method, self.config.network)

    def step(self, model: nn.Module | None, sample: CloudPair, previous: FlowResult | None = None) -> FlowResult:
        """Flow of one pair: ground off, sensor's motion undone, the method, and all of it put back together."""
        self.check(sample)
        clock = _Clock()
        source_ground, target_ground = find_ground(sample, self.config.ground)
        clock.lap("ground")
        motion = sensor_motion(sample, source_ground, target_ground, self.config)
        clock.lap("ego")
        kept = np.ones(len(sample.source), bool) if source_ground is None else ~source_ground
        others = np.ones(len(sample.target), bool) if target_ground is None else ~target_ground
        problem = Problem(
            source=transformed(sample.source[kept], motion.T if motion.compensates else None),
            target=np.ascontiguousarray(sample.target[others]),
            axes=sample.axes,
            dt_s=sample.dt_s,
            compensated=motion.compensates,
            seed=int(np.random.randint(2**31 - 1)),  # noqa: NPY002 - the runner seeds this generator per sample
        )
        estimate, facts = self._estimate(model, problem)
        clock.lap("method")
        return self._assembled(sample, motion, kept, source_ground, estimate, facts, clock)

    def failure(self, name: str, reason: str) -> FlowResult:
        """The result of a pair that could not be read, or whose step raised."""
        return FlowResult(name=name, status="bad_input", reason=reason)

    def score(self, results: Sequence[FlowResult], truths: Sequence[FlowTruth]) -> list[Metric]:
        """Every metric that the truths allow, per pair and then averaged; failures are infinitely wrong."""
        from scene_flow.metrics.table import score_flow

        return score_flow(results, truths)

    def draw(
        self, model: nn.Module | None, sample: CloudPair, result: FlowResult, truth: FlowTruth | None = None
    ) -> NDArray[np.uint8]:
        """Both clouds and the warped one from above and as the sensor sees them, flow colours, errors where known."""
        from scene_flow.drawing.sheet import flow_sheet

        return flow_sheet(sample, result, truth)

    def cloud_view(
        self, model: nn.Module | None, sample: CloudPair, result: FlowResult, truth: FlowTruth | None = None
    ) -> CloudView | None:
        """The clouds of one pair, to be turned around."""
        from scene_flow.drawing.clouds import flow_cloud_view

        return flow_cloud_view(sample, result, truth)

    def baselines(self) -> Mapping[str, FlowPipeline]:
        """The methods without training, on the same pairs with the same ground and sensor motion."""
        names = [name for name in self.config.baseline_methods if name != self.config.method]
        return {name: FlowPipeline(replace(self.config, method=name)) for name in names}

    def export(self, results: Sequence[FlowResult], folder: Path) -> None:
        """One file per pair and format in ``flow/``, and Argoverse 2 submissions where asked for."""
        from scene_flow.export.writers import write_results

        write_results(results, folder, self.config.write, self.config.method)

    def exhibit(self, model: nn.Module | None, results: Sequence[FlowResult], truths: Sequence[FlowTruth]) -> Exhibit:
        """Errors as curves and as a table of all pairs; nothing where there is no truth."""
        from scene_flow.metrics.charts import flow_exhibit

        return flow_exhibit(results, truths, self.config.method)

    def describe(self, model: nn.Module) -> Mapping[str, Any]:
        """Facts about a network for ``vision3d inspect``."""
        from scene_flow.networks.store import describe_network

        return describe_network(model)

    def _estimate(self, model: nn.Module | None, problem: Problem) -> tuple[Estimate, dict[str, Any]]:
        """The method's answer, and which method that was."""
        name: str = self.config.method
        facts: dict[str, Any] = {}
        if name == "auto":
            from scene_flow.classical.auto import choose

            name, why = choose(problem.axes)
            facts["picked"] = f"{name}: {why}"
        if not len(problem.source) or not len(problem.target):
            return Estimate(np.zeros_like(problem.source)), {**facts, "empty": "nothing is left beside the ground"}
        key = (name, id(model))
        if key not in self._methods:
            self._methods[key] = make_method(name, self.config, model)
        return self._methods[key].estimate(problem), facts

    def _assembled(
        self,
        sample: CloudPair,
        motion: SensorMotion,
        kept: Bool,
        ground: Bool | None,
        estimate: Estimate,
        facts: Mapping[str, Any],
        clock: _Clock,
    ) -> FlowResult:
        """The estimate of the kept points as a result for all points, in their order."""
        # What stands still moves with the sensor. With no motion known, it does not move.
        flow = transformed(sample.source, motion.T) - sample.source
        residual = estimate.flow
        if motion.compensates:
            slow = np.linalg.norm(residual, axis=1) < self.config.ego.gate_m * sample.dt_s / 0.1
            residual = np.where(slow[:, None], np.float32(0), residual)
            flow[kept] += residual
        else:
            flow[kept] = residual
        dynamic = None
        if motion.compensates:
            speed = np.linalg.norm(residual, axis=1) / sample.dt_s
            dynamic = _spread(speed > DYNAMIC_M_PER_S, kept, False)
        elif estimate.dynamic is not None:
            dynamic = _spread(estimate.dynamic, kept, False)
        confidence = None if estimate.confidence is None else _spread(estimate.confidence, kept, 1.0)
        return FlowResult(
            name=sample.name,
            status="ok",
            points=sample.source,
            flow=np.ascontiguousarray(flow, dtype=np.float32),
            confidence=confidence,
            dynamic=dynamic,
            ground=ground,
            sampled=None if estimate.sampled is None else _spread(estimate.sampled, kept, False),
            T_target_source=motion.T,
            axes=sample.axes,
            timing_ms=clock.laps_ms,
            extra={"method": self.config.method, "dt_s": sample.dt_s, **facts, **motion.facts, **estimate.extra},
        )


def _spread(values: NDArray[Any], kept: Bool, rest: Any) -> NDArray[Any]:
    """``values`` of the kept points at their places, ``rest`` elsewhere."""
    out = np.full(len(kept), rest, dtype=values.dtype)
    out[kept] = values
    return out


class _Clock:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def lap(self, name: str) -> None:
        now_s = time.perf_counter()
        self.laps_ms[name] = (now_s - self._last_s) * 1e3
        self._last_s = now_s
