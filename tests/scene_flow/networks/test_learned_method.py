# SPDX-License-Identifier: Apache-2.0
"""A network as a flow method: axes, the draw, the points that were not drawn. Nets of known answer stand for SCTN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scene_flow.networks.config import NetworkConfig
from scene_flow.networks.encoder import TooFewPoints
from scene_flow.networks.method import LearnedMethod, check_size, spread
from scene_flow.networks.output import FlowOutput
from scene_flow.networks.sctn import Sctn
from scene_flow.problem import Problem
from vision3d.errors import DataError
from vision3d.types.clouds import Axes, CloudPair


class Known(nn.Module):
    """Flow = a matrix times the point, plus a vector; remembers what it was shown."""

    def __init__(self, matrix: list[list[float]], vector: list[float]) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor(matrix))
        self.vector = nn.Parameter(torch.tensor(vector))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, source: Tensor, target: Tensor) -> FlowOutput:
        assert not self.training and not torch.is_grad_enabled()
        self.seen.append((source, target))
        flow = source @ self.matrix.T + self.vector
        ones = torch.ones(source.shape[:2])
        return FlowOutput(flow, flow, flow, 0.5 * ones, ones.bool())


def constant() -> Known:
    return Known([[0.0] * 3] * 3, [1.0, 2.0, 3.0])


def problem(n: int, m: int, axes: Axes = "camera", seed: int = 0) -> Problem:
    rng = np.random.default_rng(7)
    source, target = (rng.uniform(-5, 5, (k, 3)).astype(np.float32) for k in (n, m))
    return Problem(source, target, axes, seed=seed)


def test_lidar_axes_are_turned_to_the_cameras_and_back() -> None:
    asked = problem(40, 50, "lidar")
    net = constant()
    found = LearnedMethod(net, NetworkConfig(points=0)).estimate(asked)
    source, target = net.seen[0]
    assert np.array_equal(source[0].numpy(), asked.source[:, [1, 2, 0]])  # x left, y up, z forward
    assert np.array_equal(target[0].numpy(), asked.target[:, [1, 2, 0]])
    assert np.array_equal(found.flow, np.tile(np.float32([3, 1, 2]), (40, 1)))
    assert found.sampled is None and found.confidence is not None and (found.confidence == 0.5).all()
    assert found.flow.dtype == found.confidence.dtype == np.float32


def test_camera_axes_stay() -> None:
    asked = problem(40, 50)
    net = constant()
    found = LearnedMethod(net, NetworkConfig(points=0)).estimate(asked)
    assert np.array_equal(net.seen[0][0][0].numpy(), asked.source)
    assert np.array_equal(found.flow, np.tile(np.float32([1, 2, 3]), (40, 1)))


def test_so_many_points_are_drawn_from_each_cloud_on_its_own() -> None:
    asked = problem(300, 300)
    net = constant()
    method = LearnedMethod(net, NetworkConfig(points=64))
    found = method.estimate(asked)
    source, target = (cloud[0].numpy() for cloud in net.seen[0])
    assert source.shape == target.shape == (64, 3) and found.sampled is not None
    assert np.array_equal(source, asked.source[found.sampled])
    of_target = {tuple(p): i for i, p in enumerate(asked.target.tolist())}
    rows = [of_target[tuple(p)] for p in target.tolist()]
    assert len(set(rows)) == 64 and rows != np.flatnonzero(found.sampled).tolist()
    assert not method.deterministic and LearnedMethod(net, NetworkConfig(points=0)).deterministic


def test_the_seed_decides_the_draw() -> None:
    method = LearnedMethod(Known([[0.1, 0, 0], [0, -0.2, 0], [0, 0, 0.3]], [0.0, 0, 0]), NetworkConfig(points=64))
    first, again, other = (method.estimate(problem(300, 300, seed=seed)) for seed in (1, 1, 2))
    assert first.flow.tobytes() == again.flow.tobytes() and np.array_equal(first.sampled, again.sampled)
    assert not np.array_equal(first.sampled, other.sampled)


def test_a_small_cloud_is_taken_whole() -> None:
    net = constant()
    found = LearnedMethod(net, NetworkConfig(points=64)).estimate(problem(64, 65))
    assert found.sampled is None and [len(cloud[0]) for cloud in net.seen[0]] == [64, 64]


def test_points_that_were_not_drawn_get_the_flow_of_their_neighbours() -> None:
    asked = problem(2000, 300)
    matrix = [[0.1, 0, 0.05], [0, -0.2, 0], [0, 0, 0.3]]
    found = LearnedMethod(Known(matrix, [1.0, 0, 0]), NetworkConfig(points=1000)).estimate(asked)
    wanted = asked.source @ np.float32(matrix).T + np.float32([1, 0, 0])
    error = np.linalg.norm(found.flow - wanted, axis=1)
    assert found.sampled is not None and found.sampled.sum() == 1000
    assert error[found.sampled].max() < 1e-5 and 0 < error[~found.sampled].mean() < 0.1
    assert found.confidence is not None and np.allclose(found.confidence, 0.5)


def test_the_spread_is_the_mean_of_three_by_inverse_distance() -> None:
    points = np.float32([[0, 0, 0], [1, 0, 0], [0, 2, 0], [9, 9, 9], [0.5, 0, 0], [0, 0, 0]])
    known = np.array([True, True, True, True, False, False])
    found = spread(points, known, np.float32([[1], [2], [4], [100]]))
    weights = np.array([2, 2, 1 / np.sqrt(0.25 + 4)])
    assert found[4, 0] == pytest.approx((weights * [1, 2, 4]).sum() / weights.sum(), abs=1e-6)
    assert found[5, 0] == pytest.approx(1, abs=1e-6)  # where a known point lies
    assert found[:4, 0].tolist() == [1, 2, 4, 100]


def test_two_known_points_are_enough() -> None:
    found = spread(np.float32([[0, 0, 0], [2, 0, 0], [1, 0, 0]]), np.array([True, True, False]), np.float32([[1], [3]]))
    assert found[2, 0] == pytest.approx(2)


def test_time_is_told_and_not_kept_in_the_result() -> None:
    method = LearnedMethod(constant(), NetworkConfig(points=64))
    found = method.estimate(problem(200, 200))
    assert set(method.timing_ms) == {"network", "interpolate"} and min(method.timing_ms.values()) > 0
    assert found.extra == {"matched": 1.0, "points": 64}


def test_a_cloud_that_is_too_small_is_told_before_and_by_the_network() -> None:
    def pair(source: np.ndarray) -> CloudPair:
        return CloudPair("one", source, rng.uniform(-5, 5, (100, 3)).astype(np.float32))

    rng = np.random.default_rng(0)
    few, flat = rng.uniform(-5, 5, (31, 3)).astype(np.float32), rng.uniform(0.3, 0.4, (100, 3)).astype(np.float32)
    config = NetworkConfig(size="small")
    with pytest.raises(DataError, match="one: the source cloud has 31 points, and flot needs 32"):
        check_size(pair(few), "flot", config)
    with pytest.raises(DataError, match=r"the source cloud: 100 points fill \d voxels of 0\.07 m"):
        check_size(pair(flat), "sctn", config)
    check_size(pair(flat), "flot", config)
    check_size(pair(flat), "sctn", NetworkConfig(size="small", voxel_size_m=0.001))
    with pytest.raises(TooFewPoints, match=r"100 points fill \d voxels"):
        LearnedMethod(Sctn(config), config).estimate(Problem(flat, flat))


def test_sctn_answers_the_same_bytes_for_the_same_seed() -> None:
    torch.manual_seed(0)
    config = NetworkConfig(size="small", voxel_size_m=0.2, points=128)
    method = LearnedMethod(Sctn(config), config)
    first, again = (method.estimate(problem(400, 300, "lidar", seed=3)) for _ in range(2))
    assert first.flow.tobytes() == again.flow.tobytes() and first.flow.shape == (400, 3)
    assert np.isfinite(first.flow).all()
