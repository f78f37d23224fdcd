# SPDX-License-Identifier: Apache-2.0
"""FLOT: its size, symmetries, bad input, and on real pairs the error that its authors' weights are known to have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kitti_pair import draw, load_pair
from torch import Tensor

from scene_flow.networks.config import NetworkConfig, TransportConfig
from scene_flow.networks.flot import Flot, Refinement
from scene_flow.networks.neighbours import knn_graph
from scene_flow.networks.transport import Transport
from vision3d.errors import DataError


def pair(n: int, m: int, samples: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return tuple(8 * torch.rand(samples, k, 3, generator=generator, dtype=torch.float64) for k in (n, m))  # type: ignore[return-value]


def untrained(config: NetworkConfig | None = None) -> Flot:
    torch.manual_seed(0)
    return Flot(config).double().eval()


def test_parameters_and_the_first_temperature() -> None:
    net = Flot()
    assert sum(p.numel() for p in net.parameters()) == 111_109
    assert sum(p.numel() for p in Refinement().parameters()) == 55_747
    assert float(net.transport.epsilon.detach().exp()) + net.transport.eps_floor == pytest.approx(1.03)
    assert float(net.transport.gamma.detach().exp()) == 1


def test_order_of_points_and_batches() -> None:
    """Card check 7."""
    net = untrained()
    source, target = pair(90, 75, samples=2)
    rows, others = torch.randperm(90), torch.randperm(75)
    with torch.no_grad():
        both = net(source, target)
        moved = net(source[:, rows], target[:, others])
        for name, a, b in zip(both._fields, both, moved):
            assert (b.double() - a[:, rows].double()).abs().max() < 1e-9, name
        for i in range(2):
            for a, b in zip(both, net(source[i : i + 1], target[i : i + 1])):
                assert (a[i].double() - b[0].double()).abs().max() < 1e-9
    assert both.flow.shape == both.coarse.shape == (2, 90, 3)
    assert both.features.shape == (2, 90, 128)
    assert both.confidence.shape == both.matched.shape == (2, 90)
    assert (both.confidence >= 0).all() and (both.confidence <= 1).all()


def test_candidates_that_are_all_targets_change_nothing() -> None:
    source, target = pair(60, 50)
    local = NetworkConfig(local="on", cell_m=0.001, neighbours=100)
    with torch.no_grad():
        dense = untrained()(source, target)
        assert (untrained(local)(source, target).flow - dense.flow).abs().max() < 1e-9
        few = untrained(NetworkConfig(local="on", cell_m=0.001, neighbours=3))(source, target)
    assert (few.flow - dense.flow).abs().max() > 1e-3


def test_options_reach_the_transport() -> None:
    source, target = pair(60, 50)
    net = untrained(NetworkConfig(transport=TransportConfig(radius_m=1.0, fallback=False)))
    with torch.no_grad():
        found = net(source, target + 100)
    assert torch.equal(found.coarse, -source)
    assert not found.matched.any()


def test_gradients_through_transport_and_refinement_by_finite_differences() -> None:
    """Card check 8: 20 points, double precision; eps and gamma are reached."""
    torch.manual_seed(0)
    transport, refinement = Transport(0.025, -5.0).double(), Refinement().double()
    source, target = pair(20, 20)
    graph = knn_graph(source, 8)
    generator = torch.Generator().manual_seed(3)
    f, g = (torch.randn(1, 20, 6, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))

    def flow(f: Tensor, g: Tensor) -> Tensor:
        coarse = transport(source, target, f, g).flow
        out: Tensor = coarse + refinement(coarse, graph)
        return out

    assert torch.autograd.gradcheck(flow, (f, g), fast_mode=True, eps=1e-7, atol=1e-4)
    flow(f, g).square().sum().backward()
    for parameter in transport.parameters():
        before, step, values = float(parameter.detach()), 1e-6, []
        for sign in (1, -1):
            parameter.data.fill_(before + sign * step)
            values.append(float(flow(f, g).detach().square().sum()))
        parameter.data.fill_(before)
        assert parameter.grad is not None
        assert abs(float(parameter.grad)) > 1e-6
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(parameter.grad), rel=1e-4)


def test_every_parameter_is_trained() -> None:
    net = untrained()
    source, target = pair(64, 64)
    net(source, target).flow.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_clouds_that_are_too_small_or_not_finite() -> None:
    source, target = pair(40, 31)
    with pytest.raises(ValueError, match="at least 32 points in a cloud; the target has 31"):
        untrained()(source, target)
    with pytest.raises(ValueError, match="the source has 5"):
        untrained()(source[:, :5], target)
    with pytest.raises(ValueError, match=r"must be \(1, N, 3\), not \(1, 40, 2\)"):
        untrained()(source[..., :2], source)
    source[0, 3] = torch.nan
    with pytest.raises(ValueError, match="row 3 of sample 0 is not finite"):
        untrained()(source, source)


def test_files_of_other_networks(weights: Path, tmp_path: Path) -> None:
    foreign = next((weights / "alike").glob("*.pth"))
    with pytest.raises(DataError, match=f"{foreign.name}.*weights of another network than FLOT"):
        Flot.from_weights(foreign)
    state = torch.load(weights / "flot" / "model_2048.tar", map_location="cpu", weights_only=True)["model"]
    torch.save({**state, "fc.weight": torch.zeros(3, 64)}, tmp_path / "narrow.tar")
    with pytest.raises(DataError, match=r"'refinement.fc.weight' is \(3, 64\) instead of \(3, 128\) \(1 differences\)"):
        Flot.from_weights(tmp_path / "narrow.tar")
    del state["gamma"]
    torch.save({"model": state}, tmp_path / "part.tar")
    with pytest.raises(DataError, match=r"'transport\.gamma' is missing"):
        Flot.from_weights(tmp_path / "part.tar")


def errors_m(net: Flot, folder: Path, frame: str, points: int, seed: int) -> np.ndarray:
    """End point errors of one independent draw from each cloud."""
    first, second = load_pair(folder, frame)
    rng = np.random.default_rng(seed)
    rows, others = draw(first, points, rng), draw(second, points, rng)
    with torch.no_grad():
        found = net(torch.from_numpy(first[rows])[None], torch.from_numpy(second[others])[None])
    return np.linalg.norm(found.flow[0].numpy() - (second - first)[rows], axis=1)


@pytest.mark.parametrize(("frame", "known"), [("000002", 0.120), ("000003", 0.077)])
def test_the_published_weights_on_real_pairs(shared_data: Path, weights: Path, frame: str, known: float) -> None:
    """Published EPE of one draw of 2048 points: 0.120 and 0.077 m; zero flow has 0.37 and 0.46 m."""
    net = Flot.from_weights(weights / "flot" / "model_2048.tar").eval()
    folder = shared_data / "kitti_scene_flow" / "training"
    mean = np.mean([errors_m(net, folder, frame, 2048, seed).mean() for seed in range(3)])
    assert mean == pytest.approx(known, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("frame", ["000002", "000003"])
def test_the_weights_for_8192_points_do_better_than_their_papers_mean(
    shared_data: Path, weights: Path, frame: str
) -> None:
    """The paper's mean over 142 scenes is 0.056 m."""
    folder = shared_data / "kitti_scene_flow" / "training"
    net = Flot.from_weights(weights / "flot" / "model_8192.tar").eval()
    assert np.mean([errors_m(net, folder, frame, 8192, seed).mean() for seed in range(3)]) < 0.056


def test_confidence_tells_points_without_counterpart(shared_data: Path, weights: Path) -> None:
    """A box is cut out of the second cloud: points that were in it are ranked below the others."""
    net = Flot.from_weights(weights / "flot" / "model_2048.tar").eval()
    first, second = load_pair(shared_data / "kitti_scene_flow" / "training", "000003")
    rng = np.random.default_rng(5)
    rows, others = draw(first, 2048, rng), draw(second, 2048, rng)
    middle = np.median(second[others], 0)

    def cut(cloud: np.ndarray) -> np.ndarray:
        inside: np.ndarray = (np.abs(cloud - middle)[:, [0, 2]] < [2.5, 4.0]).all(1)
        return inside

    with torch.no_grad():
        target = torch.from_numpy(second[others][~cut(second[others])])[None]
        confidence = net(torch.from_numpy(first[rows])[None], target).confidence[0].numpy()
    gone, there = confidence[cut(second[rows])], confidence[~cut(second[rows])]
    assert 50 < len(gone) < 500
    assert (there[:, None] > gone).mean() > 0.9
