# SPDX-License-Identifier: Apache-2.0
"""A flow as it lies in a file: the vectors, the points they start from, and what frame and time they are in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vision3d.types import CloudPair, Float, FlowResult
from vision3d.types.clouds import Axes, Bool, Float32

AXES = {"lidar": "x forward, y left, z up", "camera": "x left, y up, z forward"}
MASKS = ("dynamic", "ground", "sampled")


@dataclass(frozen=True)
class FlowRecord:
    """The flow of one pair with all that is needed to use it without its data.

    Attributes:
        name: the pair's name.
        method: what found the flow; empty when not stated.
        flow: (N, 3) float32 metres from the first scan to the second, the sensor's motion included.
        source: (N, 3) float32 metres, the points of the first scan in its sensor's frame; None where not stored.
        confidence: (N,) float32 0 to 1, or None.
        dynamic, ground, sampled: (N,) as in FlowResult, or None.
        T_target_source: (4, 4) the sensor's motion that was used, or None.
        axes: a key of AXES.
        dt_s: seconds between the scans; None when not stated.
    """

    name: str
    method: str
    flow: Float32
    source: Float32 | None = None
    confidence: Float32 | None = None
    dynamic: Bool | None = None
    ground: Bool | None = None
    sampled: Bool | None = None
    T_target_source: Float | None = None
    axes: Axes = "lidar"
    dt_s: float | None = None

    @property
    def frame(self) -> str:
        """What the numbers mean, in a sentence that is written into the file."""
        return (
            f"metres; {AXES[self.axes]}; source is in the first scan's sensor frame; source + flow lies on the second "
            "scan in its own sensor frame, so the flow holds the sensor's motion"
        )

    def residual(self) -> Float32 | None:
        """(N, 3) float32 metres: the flow without the sensor's motion, zero for what stands still. None if unknown.

        It is a vector in the second scan's frame, like the flow's end.
        """
        if self.T_target_source is None or self.source is None:
            return None
        T, p = self.T_target_source, self.source.astype(np.float64)
        return (self.flow - (p @ T[:3, :3].T + T[:3, 3] - p)).astype(np.float32)

    def facts(self) -> dict[str, Any]:
        """What is said in words and numbers beside the arrays; JSON-able."""
        T = self.T_target_source
        return {
            "name": self.name,
            "method": self.method,
            "axes": self.axes,
            "dt_s": self.dt_s,
            "T_target_source": None if T is None else T.tolist(),
            "frame": self.frame,
        }

    @classmethod
    def of(
        cls,
        result: FlowResult,
        points: CloudPair | NDArray[Any] | None = None,
        method: str = "",
        dt_s: float | None = None,
    ) -> FlowRecord:
        """The record of a result that is ok.

        Args:
            points: the pair, or the (N, 3) source points, where the result does not hold them itself.
            method: read from ``result.extra`` when empty.
            dt_s: read from the pair, or from ``result.extra``, when None.

        Raises:
            ValueError: the result has no flow, or another number of points than it is given.
        """
        if result.status != "ok" or result.flow is None:
            raise ValueError(f"{result.name}: there is no flow to write ({result.status}: {result.reason})")
        source: NDArray[Any] | None = result.points
        if isinstance(points, CloudPair):
            source, dt_s = points.source, points.dt_s if dt_s is None else dt_s
        elif points is not None:
            source = points
        if source is not None and np.shape(source) != result.flow.shape:
            raise ValueError(f"{result.name}: points have shape {np.shape(source)}, the flow {result.flow.shape}")
        return cls(
            name=result.name,
            method=method or str(result.extra.get("method", "")),
            flow=np.ascontiguousarray(result.flow, dtype=np.float32),
            source=None if source is None else np.ascontiguousarray(source, dtype=np.float32),
            confidence=None if result.confidence is None else result.confidence.astype(np.float32),
            **{name: getattr(result, name) for name in MASKS},
            T_target_source=result.T_target_source,
            axes=result.axes,
            dt_s=result.extra.get("dt_s") if dt_s is None else dt_s,
        )

    def result(self) -> FlowResult:
        """The record as a result that can be scored or drawn again."""
        facts = {"method": self.method} if self.method else {}
        return FlowResult(
            name=self.name,
            status="ok",
            points=self.source,
            flow=self.flow,
            confidence=self.confidence,
            **{name: getattr(self, name) for name in MASKS},
            T_target_source=self.T_target_source,
            axes=self.axes,
            extra={**facts, **({} if self.dt_s is None else {"dt_s": self.dt_s})},
        )
