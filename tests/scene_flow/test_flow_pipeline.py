# SPDX-License-Identifier: Apache-2.0
"""What the pipeline does around a method: ground, the sensor's motion, the gate, and putting it all together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scene_flow.classical.config import EgoConfig, GroundConfig
from scene_flow.config import METHODS, FlotConfig, FlowConfig
from scene_flow.methods import make_method
from scene_flow.pipeline import FlowPipeline
from scene_flow.plugin import default_model
from scene_flow.problem import Estimate, FlowMethod, Problem
from vision3d.errors import ConfigError, DataError, UserError
from vision3d.geometry.se3 import from_rt, rotvec_to_rotation
from vision3d.types import CloudPair

T = from_rt(rotvec_to_rotation(np.array([0.0, 0.0, 0.03])), np.array([-0.8, 0.1, 0.02]))


def moved(points: np.ndarray, by: np.ndarray = T) -> np.ndarray:
    return (points.astype(np.float64) @ by[:3, :3].T + by[:3, 3]).astype(np.float32)


@pytest.fixture
def pair() -> CloudPair:
    """A street whose first 400 points are ground, and whose last 50 also move by 1 m along x."""
    rng = np.random.default_rng(0)
    ground = rng.uniform([-20, -10, -1.6], [20, 10, -1.55], (400, 3))
    walls = rng.uniform([-20, 8, -1.5], [20, 9, 1], (500, 3))
    car = rng.uniform([5, -2, -1.4], [9, 0, 0], (50, 3))
    source = np.concatenate([ground, walls, car]).astype(np.float32)
    target = moved(source)
    target[-50:] += np.float32([1, 0, 0])
    mask = np.arange(len(source)) < 400
    return CloudPair("street", source, target, T_target_source=T, source_ground=mask, target_ground=mask)


class Known(FlowMethod):
    """Answers with rows of a known flow, and remembers what it was asked."""

    deterministic = True

    def __init__(self, flow: np.ndarray) -> None:
        self.flow = flow
        self.asked: list[Problem] = []

    def estimate(self, problem: Problem) -> Estimate:
        self.asked.append(problem)
        return Estimate(self.flow.astype(np.float32), confidence=np.full(len(self.flow), 0.5, np.float32))


def step(monkeypatch: pytest.MonkeyPatch, method: Known, pair: CloudPair, config: FlowConfig):  # type: ignore[no-untyped-def]
    monkeypatch.setattr("scene_flow.pipeline.make_method", lambda *_: method)
    return FlowPipeline(config).step(None, pair)


def test_what_stands_still_moves_with_the_sensor(pair: CloudPair) -> None:
    result = FlowPipeline(FlowConfig(method="zero-flow")).step(None, pair)
    assert np.abs(result.flow - (moved(pair.source) - pair.source)).max() < 1e-5
    assert result.flow.dtype == np.float32
    assert (result.ground == pair.source_ground).all()
    assert not result.dynamic.any()
    assert (result.T_target_source == T).all()


def test_a_method_sees_no_ground_and_no_sensor_motion(pair: CloudPair, monkeypatch: pytest.MonkeyPatch) -> None:
    residual = np.zeros((550, 3))
    residual[-50:, 0] = 1.0
    method = Known(residual)
    result = step(monkeypatch, method, pair, FlowConfig(method="nearest"))
    (problem,) = method.asked
    assert problem.compensated
    assert np.abs(problem.source - moved(pair.source[400:])).max() < 1e-5
    assert np.array_equal(problem.target, pair.target[400:])
    assert np.abs(pair.source + result.flow - pair.target).max() < 1e-4
    assert result.dynamic.nonzero()[0].tolist() == list(range(900, 950))
    assert (result.confidence[:400] == 1).all()
    assert (result.confidence[400:] == 0.5).all()


def test_small_residuals_are_taken_for_none(pair: CloudPair, monkeypatch: pytest.MonkeyPatch) -> None:
    residual = np.zeros((550, 3))
    residual[:250, 1], residual[250:, 1] = 0.019, 0.021
    for dt_s, expected in ((0.1, 300), (0.2, 0)):  # the gate is a speed: at half the rate it is twice as wide
        config = FlowConfig(method="nearest", ego=EgoConfig(gate_m=0.02))
        result = step(monkeypatch, Known(residual), replace(pair, dt_s=dt_s), config)
        off = np.linalg.norm(result.flow - (moved(pair.source) - pair.source), axis=1)
        assert (off > 0.01).sum() == expected


def test_nothing_is_undone_when_that_is_asked_for(pair: CloudPair, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = np.random.default_rng(1).normal(size=(950, 3))
    method = Known(flow)
    config = FlowConfig(method="nearest", ego=EgoConfig(mode="none"), ground=GroundConfig(mode="none"))
    result = step(monkeypatch, method, pair, config)
    assert np.array_equal(method.asked[0].source, pair.source)
    assert not method.asked[0].compensated
    assert np.array_equal(result.flow, flow.astype(np.float32))
    assert result.T_target_source is None
    assert result.dynamic is None


def test_the_ground_gets_the_estimated_motion_even_if_nothing_is_undone(
    pair: CloudPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Known(np.zeros((550, 3)))
    config = FlowConfig(method="nearest", ego=EgoConfig(mode="none"))
    result = step(monkeypatch, method, replace(pair, T_target_source=None), config)
    assert not method.asked[0].compensated
    assert (result.flow[400:] == 0).all()
    wanted = moved(pair.source[:400]) - pair.source[:400]
    assert np.linalg.norm(result.flow[:400] - wanted, axis=1).mean() < 0.3
    assert result.extra["ego"] == "icp"


def test_camera_clouds_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).uniform([-5, -1, 4], [5, 1, 20], (300, 3)).astype(np.float32)
    method = Known(np.ones((300, 3)))
    step(monkeypatch, method, CloudPair("c", points, points, axes="camera"), FlowConfig(method="nearest"))
    assert len(method.asked[0].source) == 300
    assert not method.asked[0].compensated


def test_a_cloud_of_nothing_but_ground_still_has_a_flow(pair: CloudPair) -> None:
    everything = np.ones(len(pair.source), bool)
    result = FlowPipeline(FlowConfig(method="nearest")).step(None, replace(pair, source_ground=everything))
    assert result.status == "ok"
    assert np.abs(result.flow - (moved(pair.source) - pair.source)).max() < 1e-5


def test_odd_pairs_are_refused_unless_told_otherwise(pair: CloudPair) -> None:
    huge = replace(pair, source=1000 * pair.source, target=1000 * pair.target)
    with pytest.raises(DataError, match="millimetres"):
        FlowPipeline(FlowConfig(method="zero-flow")).check(huge)
    FlowPipeline(FlowConfig(method="zero-flow", checks=False)).check(huge)
    few = replace(pair, source=pair.source[:20])
    FlowPipeline(FlowConfig(method="nearest")).check(few)
    for method in ("sctn", "flot"):
        with pytest.raises(DataError, match="20 points"):
            FlowPipeline(FlowConfig(method=method)).check(few)


def test_a_batch_of_equal_points_fills_too_few_voxels(pair: CloudPair) -> None:
    close = replace(pair, source=pair.source * np.float32(1e-3), target=pair.target * np.float32(1e-3))
    with pytest.raises(DataError, match=r"32"):
        FlowPipeline(FlowConfig(method="sctn", checks=False)).check(close)


def test_every_method_can_be_made_and_knows_whether_it_draws() -> None:
    for name in METHODS:
        if name in ("auto", "sctn", "flot"):
            continue
        assert make_method(name, FlowConfig()).deterministic == FlowPipeline(FlowConfig(method=name)).deterministic
    with pytest.raises(UserError, match="needs a network"):
        make_method("sctn", FlowConfig())
    with pytest.raises(UserError, match="unknown flow method"):
        make_method("magic", FlowConfig())


def test_baselines_leave_out_the_method_itself() -> None:
    assert list(FlowPipeline(FlowConfig(method="icp")).baselines()) == ["zero-flow", "nearest", "cluster-icp"]
    with pytest.raises(ConfigError, match="baseline_methods: 'sctn'"):
        FlowConfig(baseline_methods=("sctn",))


def test_a_network_is_found_or_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("VISION3D_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=r"flot needs --model.*flot/model_2048.tar.*VISION3D_WEIGHTS"):
        default_model(FlotConfig())
    (tmp_path / "flot").mkdir()
    (tmp_path / "flot/model_2048.tar").write_bytes(b"x")
    assert default_model(FlotConfig()) == tmp_path / "flot/model_2048.tar"
    assert default_model(FlowConfig(method="cluster-icp")) is None


def test_a_motion_that_fits_nothing_is_not_used(pair: CloudPair) -> None:
    other = np.random.default_rng(9).uniform([-20, -10, -2], [20, 10, 2], (900, 3)).astype(np.float32)
    unknown = replace(pair, target=other, target_ground=None, T_target_source=None)
    result = FlowPipeline(FlowConfig(method="zero-flow", checks=False)).step(None, unknown)
    assert result.T_target_source is None
    assert result.extra["ego_fitness"] < 0.5
    assert "not trusted" in result.extra["ego"]
    assert (result.flow == 0).all()
