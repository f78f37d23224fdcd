# SPDX-License-Identifier: Apache-2.0
"""Small truths and results for the tests of the metrics."""

from __future__ import annotations

from typing import Any

import numpy as np

from vision3d.types import FlowResult, FlowTruth, Metric


def truth_of(flow: Any, **given: Any) -> FlowTruth:
    """A truth whose points are all valid and lie along x unless given otherwise."""
    flow = np.asarray(flow)
    given.setdefault("valid", np.ones(len(flow), dtype=bool))
    given.setdefault("points", np.stack([np.arange(1, len(flow) + 1), *np.zeros((2, len(flow)))], axis=1) * 1.0)
    return FlowTruth(flow=flow, **given)


def result_of(flow: Any, name: str = "pair", **given: Any) -> FlowResult:
    return FlowResult(name=name, status="ok", flow=np.asarray(flow), **given)


def failure(name: str = "lost") -> FlowResult:
    return FlowResult(name=name, status="failed", reason="nothing found")


def values(metrics: list[Metric]) -> dict[str, float]:
    out = {m.name: m.value for m in metrics}
    assert len(out) == len(metrics), "two metrics of one name"
    return out


def counts(metrics: list[Metric]) -> dict[str, int]:
    return {m.name: m.n for m in metrics}


def turn(angle_rad: float, shift: tuple[float, float, float]) -> np.ndarray:
    """(4, 4) a turn about z and a shift."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    T = np.eye(4)
    T[:3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    T[:3, 3] = shift
    return T


def street(seed: int, n: int = 400, **given: Any) -> tuple[FlowTruth, np.ndarray]:
    """A random truth with everything known, and (n, 3) a flow that is wrong by centimetres to metres."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-80, 80, (n, 3)) * [1, 1, 0.05]
    T = turn(0.03, (0.9, -0.1, 0.02))
    ego = points @ T[:3, :3].T + T[:3, 3] - points
    speed = rng.choice([0, 0, 0, 0, 0.01, 0.03, 0.06, 0.5, 1.4, 2.5], n) * rng.uniform(0.5, 1, n)
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    flow = ego + speed[:, None] * direction
    truth = truth_of(
        flow,
        points=points,
        valid=rng.random(n) > 0.1,
        ground=rng.random(n) < 0.2,
        classes=rng.choice([0, 0, 1, 1, 2, 3, 4, 255], n).astype(np.uint8),
        T_target_source=T,
        **given,
    )
    return truth, flow + rng.normal(0, 0.2, (n, 3)) * rng.choice([0.02, 0.2, 1.0], (n, 1))
