# SPDX-License-Identifier: Apache-2.0
"""Transport against a matrix in memory and closed forms; its derivative, points without a match, and memory."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from largest import LargestTensor
from torch import Tensor

from scene_flow.networks.transport import Transport

Clouds = tuple[Tensor, Tensor, Tensor, Tensor]


def clouds(n: int, m: int, channels: int = 4, size_m: float = 25.0, dtype: torch.dtype = torch.float64) -> Clouds:
    """Two clouds and features; pairs lie within the radius and beyond it."""
    generator = torch.Generator().manual_seed(n * m)

    def numbers(rows: int, columns: int, fold: Any) -> Tensor:
        return fold(rows, columns, generator=generator, dtype=torch.float64).to(dtype)[None]

    points = size_m * numbers(n, 3, torch.rand), size_m * numbers(m, 3, torch.rand)
    return *points, numbers(n, channels, torch.randn), numbers(m, channels, torch.randn)


def sctn(**options: Any) -> Transport:
    """With the temperature that SCTN starts from, 0.0317, in float64."""
    return Transport(eps_floor=0.025, eps_init=-5.0, **options).double()


def in_memory(layer: Transport, source: Tensor, target: Tensor, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The card's step 7 on one sample, as it is written: the coarse flow, and the plan."""
    f, g = (x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt() for x in (f, g))
    eps, gamma = layer.epsilon.exp() + layer.eps_floor, layer.gamma.exp()
    support = (source[:, None] - target).norm(dim=2) < layer.radius_m
    kernel = torch.exp(-(1 - f @ g.T) / eps) * support
    n, m = kernel.shape
    plan, a = kernel, torch.full((n,), 1 / n, dtype=f.dtype)
    for _ in range(layer.iterations):
        b = ((1 / m) / (kernel.T @ a + 1e-8)) ** (gamma / (gamma + eps))
        a = ((1 / n) / (kernel @ b + 1e-8)) ** (gamma / (gamma + eps))
        plan = a[:, None] * kernel * b
    return plan @ target / (plan.sum(1, keepdim=True) + 1e-8) - source, plan


@pytest.mark.parametrize("iterations", [0, 1, 4])
@pytest.mark.parametrize("tile", [7, 1000])
@pytest.mark.parametrize("local", [False, True])
def test_equals_the_matrix_in_memory(iterations: int, tile: int, local: bool) -> None:
    source, target, f, g = clouds(60, 45)
    layer = sctn(iterations=iterations, tile=tile, fallback=False)
    support = torch.arange(45).expand(1, 60, 45).flip(2) if local else None
    found = layer(source, target, f, g, support)
    flow, plan = in_memory(layer, source[0], target[0], f[0], g[0])
    assert (found.flow[0] - flow).abs().max() < 1e-10
    assert torch.equal(found.matched[0], plan.sum(1) * 60 >= layer.threshold)


@pytest.mark.parametrize("log_domain", [False, True])
def test_tiles_and_candidates_change_nothing_in_single_precision(log_domain: bool) -> None:
    source, target, f, g = clouds(700, 900, 64, dtype=torch.float32)
    found = []
    for tile in (50, 10_000):
        layer = Transport(tile=tile, log_domain=log_domain)
        for support in (None, _all_within(source[0], target[0], 10.0)[None]):
            found.append(layer(source, target, f, g, support))
    for other in found[1:]:
        assert (other.flow - found[0].flow).abs().max() < 1e-5 * 25
        assert (other.confidence - found[0].confidence).abs().max() < 1e-4
        assert torch.equal(other.matched, found[0].matched)


def _all_within(source: Tensor, target: Tensor, radius_m: float) -> Tensor:
    """(N, K) every target nearer than the radius, -1 where a row has no more."""
    near = (source[:, None] - target).norm(dim=2) < radius_m * (1 + 1e-6)
    width = int(near.sum(1).max())
    order = near.int().argsort(1, descending=True)[:, :width]
    return torch.where(near.gather(1, order), order, -1)


@pytest.mark.parametrize("k", [2, 40])
def test_scattered_candidates(k: int) -> None:
    """Two of 300 each: features are gathered; 40 each: multiplied. Against the matrix with all other entries at 0."""
    source, target, f, g = (x.requires_grad_() for x in clouds(50, 300, size_m=5.0))
    rows = torch.stack([torch.randperm(300, generator=torch.Generator().manual_seed(i))[:k] for i in range(50)])
    chosen = torch.zeros(50, 300, dtype=torch.bool).scatter_(1, rows, True)
    layer = sctn(iterations=0, fallback=False)
    support = torch.cat([rows, torch.full((50, 3), -1)], 1)[None]
    flow = layer(source, target, f, g, support).flow[0]
    unit = (x[0] / (x[0].square().sum(1, keepdim=True) + 1e-8).sqrt() for x in (f, g))
    plan = torch.exp(-(1 - next(unit) @ next(unit).T) / (layer.epsilon.exp() + 0.025)) * chosen
    expected = plan @ target[0] / (plan.sum(1, keepdim=True) + 1e-8) - source[0]
    assert (flow - expected).abs().max() < 1e-10
    for a, b in zip(*(torch.autograd.grad(x.square().sum(), (f, g, source, target)) for x in (flow, expected))):
        assert (a - b).abs().max() < 1e-9


@pytest.mark.parametrize("iterations", [1, 3])
def test_the_log_domain_is_equal_where_the_guards_do_not_matter(iterations: int) -> None:
    source, target, f, _ = clouds(60, 60)
    g = f + 0.05 * torch.randn(1, 60, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = [sctn(iterations=iterations, log_domain=log)(source, source + 0.5, f, g) for log in (False, True)]
    assert (found[0].flow - found[1].flow).abs().max() < 1e-3
    assert found[1].matched.all()


def test_equal_features_recover_the_shift() -> None:
    """Card check 2a: 512 orthonormal features, the target is the source in another order, shifted."""
    source = 10 * torch.rand(1, 512, 3, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(512, generator=torch.Generator().manual_seed(1))
    shift = torch.tensor([1.0, -0.3, 2.0])
    f = torch.eye(512)[None]
    found = Transport(eps_floor=0.025, eps_init=-5.0)(source, source[:, order] + shift, f, f[:, order])
    assert (found.flow - shift).norm(dim=2).max() < 1e-3
    assert found.matched.all()
    assert found.confidence.min() > 0.99


def test_equal_features_everywhere() -> None:
    """Card check 2b: N times the row sum is 1.2187, and everything goes to the centroid."""
    source, target, _, _ = clouds(512, 512, size_m=5.0)
    f = torch.ones(1, 512, 3, dtype=torch.float64)
    assert (sctn()(source, target, f, f).flow + source - target.mean(1, keepdim=True)).abs().max() < 1e-6
    for threshold, matched in ((1.2186, True), (1.2188, False)):
        assert bool(sctn(threshold=threshold)(source, target, f, f).matched.all()) is matched


def test_a_point_with_nothing_in_reach() -> None:
    """Card check 2c: flow -p as published; 0, or its neighbours', with the fallback; never confident, nor a NaN."""
    source, target, f, g = clouds(50, 50, size_m=5.0)
    source[0, 7] = torch.tensor([40.0, 1.0, -3.0])
    published, zero, lent = (sctn(fallback=x)(source, target, f, g) for x in (False, True, "neighbours"))
    assert torch.equal(published.flow[0, 7], -source[0, 7])
    assert zero.flow[0, 7].tolist() == [0, 0, 0]
    near = (source[0] - source[0, 7]).norm(dim=1).argsort()[1:9]
    assert (lent.flow[0, 7] - zero.flow[0, near].mean(0)).abs().max() < 1e-12
    for found in (published, zero, lent):
        assert found.matched[0].tolist() == [i != 7 for i in range(50)]
        assert found.confidence[0, 7] == 0
    others = [i for i in range(50) if i != 7]
    assert torch.equal(lent.flow[0, others], zero.flow[0, others])
    for log in (False, True):
        nobody = sctn(log_domain=log, fallback="neighbours")(source, target + 1000, f, g)
        assert not nobody.matched.any()
        assert not nobody.flow.any()


def test_a_point_unlike_anything_in_reach_is_unmatched() -> None:
    source, target, f, g = clouds(50, 50, size_m=5.0)
    f, g = f.abs(), g.abs()
    f[0, 3] = -f[0, 3]
    found = sctn()(source, target, f, g)
    assert found.matched[0].tolist() == [i != 3 for i in range(50)]
    assert found.flow[0, 3].tolist() == [0, 0, 0]


def test_matched_points_are_not_drawn_to_the_origin() -> None:
    """The published guard shortens a target's position by 1e-8 / row sum; far from the origin that shows."""
    n = 1000
    source = torch.rand(1, n, 3, generator=torch.Generator().manual_seed(0)).double() + 4000
    f = torch.ones(1, n, 3, dtype=torch.float64)
    exact, published = (sctn(fallback=x)(source, source, f, f).flow for x in (True, False))
    centroid = source.mean(1, keepdim=True) - source
    assert (exact - centroid).abs().max() < 1e-6
    assert 0.01 < (published - centroid).abs().max() < 0.06


def test_confidence_falls_with_spread_and_with_unlikeness() -> None:
    """Two equally good targets x apart: spread x / 2. A best cosine of c: a factor c."""
    f = torch.tensor([[[1.0, 0.0]]])
    for apart, cosine in ((0.0, 1.0), (0.6, 1.0), (0.6, 0.8)):
        target = torch.tensor([[[0.0, 0, 0], [apart, 0, 0]]])
        g = torch.tensor([cosine, (1 - cosine**2) ** 0.5]).expand(1, 2, 2)
        found = Transport()(torch.zeros(1, 1, 3), target, f, g)
        assert float(found.confidence) == pytest.approx(cosine * 2.718281828 ** (-apart / 2 / 0.5), abs=1e-3)


@pytest.mark.parametrize("log_domain", [False, True])
@pytest.mark.parametrize("iterations", [0, 2])
@pytest.mark.parametrize("local", [False, True])
def test_gradients_by_finite_differences(log_domain: bool, iterations: int, local: bool) -> None:
    """Card check 8, points included. Three tiles; some pairs are out of reach."""
    source, target, f, g = (x.requires_grad_() for x in clouds(20, 17, size_m=15.0))
    layer = sctn(iterations=iterations, log_domain=log_domain, tile=8)
    support = torch.arange(17).expand(1, 20, 17) if local else None
    near = (source[0, :, None] - target[0]).norm(dim=2) < 10
    assert near.any() and not near.all()

    def flow(f: Tensor, g: Tensor, p: Tensor, q: Tensor, epsilon: Tensor, gamma: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(
            layer, {"epsilon": epsilon, "gamma": gamma}, (p, q, f, g, support)
        ).flow
        return out

    learned = [x.detach().clone().requires_grad_() for x in (layer.epsilon, layer.gamma)]
    inputs = (f, g, source, target, *learned)
    assert torch.autograd.gradcheck(flow, inputs, fast_mode=True)
    grads = torch.autograd.grad(flow(*inputs).square().sum(), learned, allow_unused=True)
    assert float(grads[0]) != 0
    assert iterations == 0 or float(grads[1]) != 0


def test_symmetries_and_batches() -> None:
    """Card check 7: order of either cloud, and samples that do not see each other."""
    source, target, f, g = (torch.cat([a, b]) for a, b in zip(clouds(40, 30), (x + 1 for x in clouds(40, 30))))
    layer = sctn(tile=16)
    both = layer(source, target, f, g)
    for i in range(2):
        part = slice(i, i + 1)
        alone = layer(source[part], target[part], f[part], g[part])
        assert torch.equal(alone.flow[0], both.flow[i])
        assert torch.equal(alone.confidence[0], both.confidence[i])
    rows, others = torch.randperm(40), torch.randperm(30)
    moved = layer(source[:, rows], target[:, others], f[:, rows], g[:, others])
    assert (moved.flow - both.flow[:, rows]).abs().max() < 1e-11
    assert torch.equal(moved.matched, both.matched[:, rows])


def test_single_precision_whatever_autocast_says() -> None:
    source, target, f, g = clouds(50, 50, dtype=torch.float32)
    layer = Transport(eps_floor=0.025, eps_init=-5.0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer(source, target, f, g)
    assert inside.flow.dtype == torch.float32
    assert torch.equal(inside.flow, layer(source, target, f, g).flow)
    assert layer(source, target, f.bfloat16(), g.bfloat16()).flow.dtype == torch.float32


def test_the_largest_tensor_is_a_tile_with_and_without_gradients() -> None:
    source, target, f, g = clouds(1500, 1600, 8, size_m=5.0, dtype=torch.float32)
    layer = Transport(tile=16)
    with LargestTensor() as largest:
        layer(source, target, f.requires_grad_(), g.requires_grad_()).flow.sum().backward()
    assert largest.numbers == 16 * 1600


GROWTH = """
import torch
from scene_flow.networks.transport import Transport
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
def run(n):
    generator = torch.Generator().manual_seed(0)
    p, q, f, g = (100 * torch.rand(1, n, c, generator=generator) for c in (3, 3, 4, 4))
    with torch.no_grad():
        Transport()(p, q, f, g)
run(300)
before = peak()
run(20_000)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_20_000_points_in_a_tenth_of_their_matrix() -> None:
    """20,000 x 20,000 float32 are 1526 MiB."""
    run = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 150


def test_wrong_arguments_are_named() -> None:
    source, target, f, g = clouds(10, 12)
    layer = sctn()
    with pytest.raises(ValueError, match=r"features g must be \(1, 12, 4\), not \(1, 12, 3\)"):
        layer(source, target, f, g[..., :3])
    with pytest.raises(ValueError, match=r"target must be \(1, N, 3\) with N at least 1, not \(1, 0, 3\)"):
        layer(source, target[:, :0], f, g[:, :0])
    with pytest.raises(ValueError, match=r"support must be \(1, 10, 'K'\)"):
        layer(source, target, f, g, torch.zeros(1, 12, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match='fallback must be True, False or "neighbours"'):
        sctn(fallback="mean")
