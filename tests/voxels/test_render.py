# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from vision3d.voxels.marching import Marching
from vision3d.voxels.render import ray_weights, render
from vision3d.voxels.trilinear import interpolate

F64 = torch.float64


def random_rays(n: int, seed: int = 0, spread: float = 0.6, shape: tuple[int, ...] = ()) -> list[torch.Tensor]:
    """Rays from outside aimed near the centre; with a large spread many miss."""
    generator = torch.Generator().manual_seed(seed)
    away = torch.nn.functional.normalize(torch.randn(n, *shape, 3, generator=generator, dtype=F64), dim=-1)
    aim = spread * torch.randn(n, *shape, 3, generator=generator, dtype=F64)
    return [3 * away, torch.nn.functional.normalize(aim - 3 * away, dim=-1)]


def random_grids(n: int, resolution: int = 3, channels: int = 5, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cube = (resolution, resolution, resolution)
    density = 6 * torch.randn(n, *cube, generator=generator, dtype=F64) + 2
    return [density, torch.randn(n, *cube, channels, generator=generator, dtype=F64)]


def march_by_hand(density: torch.Tensor, values: torch.Tensor, origin: list[float], direction: list[float]) -> tuple:
    """One ray, one sample after another, in plain Python: the oracle."""
    b = math.log(1 / 0.99 - 1)
    low, high = 0.0, math.inf
    for o, d in zip(origin, direction):
        ends = sorted(((-1 - o) / d, (1 - o) / d))
        low, high = max(low, ends[0]), min(high, ends[1])
    out, light, k = torch.zeros(values.shape[-1], dtype=F64), 1.0, 0
    delta = 0.1 * 2 / density.shape[0]
    while low < high and low + k * delta < high - 1e-5:
        point = torch.tensor([o + (low + k * delta) * d for o, d in zip(origin, direction)], dtype=F64)
        sigma = interpolate(density[None, ..., None], point[None, None]).item()
        alpha = 1 - (1 + math.exp(sigma + b)) ** -0.1
        out += light * alpha * interpolate(values[None], point[None, None])[0, 0]
        light *= 1 - alpha
        k += 1
    return out, light


@pytest.mark.parametrize("resolution", [2, 3, 5])
def test_batch_equals_a_python_loop(resolution: int) -> None:
    n = 12
    density, values = random_grids(n, resolution)
    origins, directions = random_rays(n)
    out = render(density, values, origins, directions, background=0.7)
    for i in range(n):
        colour, light = march_by_hand(density[i], values[i], origins[i].tolist(), directions[i].tolist())
        assert (out[i] - colour - 0.7 * light).abs().max() < 1e-9


def test_float32_agrees_with_float64() -> None:
    density, values = random_grids(200)
    rays = random_rays(200)
    exact = render(density, values, *rays)
    single = render(density.float(), values.float(), rays[0].float(), rays[1].float())
    assert (exact - single).abs().quantile(0.99) < 1e-5


def test_rendering_is_linear_in_the_values() -> None:
    density, values = random_grids(30)
    rays = random_rays(30)
    background = torch.arange(5, dtype=F64)
    weights, remaining = ray_weights(density, *rays)
    by_hand = torch.einsum("nv,nvc->nc", weights, values.reshape(30, 27, 5)) + remaining[:, None] * background
    assert (render(density, values, *rays, background=background) - by_hand).abs().max() < 1e-12


@pytest.mark.parametrize("marching", [Marching(), Marching(samples=30), Marching(step=0.37), Marching(early_stop=1e-3)])
def test_weights_and_the_remaining_light_sum_to_one(marching: Marching) -> None:
    density, _ = random_grids(500)
    rays = [r.float() for r in random_rays(500, spread=1.0)]
    weights, remaining = ray_weights(density.float(), *rays, marching=marching)
    assert weights.min() >= 0
    assert (weights.sum(-1) + remaining - 1).abs().max() < 1e-6


@pytest.mark.parametrize("sigma", [0.0, 3.0, -2.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_homogeneous_box_on_an_axis(sigma: float, axis: int) -> None:
    direction = torch.zeros(1, 3)
    direction[0, axis] = 1.0
    value = torch.tensor([1.0, -2.0])
    density = torch.full((1, 3, 3, 3), sigma)
    for origin in (-3 * direction, -direction, -250 * direction):  # 30 samples wherever the ray starts
        _, remaining = ray_weights(density, origin, direction)
        expected = (1 + math.exp(sigma + Marching().shift)) ** -3
        assert remaining.item() == pytest.approx(expected, abs=1e-6)
        out = render(density, value.expand(1, 3, 3, 3, 2), origin, direction)
        assert torch.allclose(out[0], (1 - remaining) * value, atol=1e-6)
    if sigma == 0.0:
        assert remaining.item() == pytest.approx(0.97030, abs=5e-6)


def test_the_paper_form_of_equal_steps_per_chord() -> None:
    """With N steps a homogeneous box absorbs by its chord alone, on the diagonal too."""
    direction = torch.full((1, 3), 3**-0.5)
    density = torch.full((1, 3, 3, 3), 1.0)
    _, remaining = ray_weights(density, -3 * direction, direction, marching=Marching(samples=17))
    chord_voxels = math.sqrt(3) * 3
    assert remaining.item() == pytest.approx((1 + math.exp(1 + Marching().shift)) ** -chord_voxels, rel=1e-5)


def test_two_samples_by_hand() -> None:
    """Step of 1.5 voxels = the box's half: samples at the entry face (x = -1) and in the middle (x = 0)."""
    density = torch.zeros(1, 3, 3, 3, dtype=F64)
    density[0, 0], density[0, 1], density[0, 2] = 2.0, 5.0, 9.0
    values = torch.zeros(1, 3, 3, 3, 1, dtype=F64)
    values[0, 0], values[0, 1], values[0, 2] = 10.0, 20.0, 40.0
    origin, direction = torch.tensor([[-2.0, 0, 0]], dtype=F64), torch.tensor([[1.0, 0, 0]], dtype=F64)
    b = math.log(1 / 0.99 - 1)
    a0, a1 = (1 - (1 + math.exp(s + b)) ** -1.5 for s in (2.0, 5.0))
    out = render(density, values, origin, direction, background=100.0, marching=Marching(step=1.5))
    assert out.item() == pytest.approx(a0 * 10 + (1 - a0) * a1 * 20 + (1 - a0) * (1 - a1) * 100, rel=1e-12)


def test_a_missing_ray_weighs_nothing_and_has_no_gradient() -> None:
    density, values = random_grids(3)
    density.requires_grad_()
    values.requires_grad_()
    origins = torch.tensor([[-3.0, 1.5, 0.0], [3.0, 0.0, 0.0], [0.0, 5.0, -5.0]], dtype=F64)
    directions = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=F64)
    weights, remaining = ray_weights(density, origins, directions)
    assert not weights.any()
    assert torch.equal(remaining, torch.ones(3, dtype=F64))
    (render(density, values, origins, directions).sum() + remaining.sum()).backward()
    assert not density.grad.any()
    assert not values.grad.any()


@pytest.mark.parametrize("marching", [Marching(step=0.5), Marching(samples=7)])
def test_gradients_are_those_of_finite_differences(marching: Marching) -> None:
    density, values = random_grids(3, channels=2)
    rays = random_rays(3, shape=(2,))
    inputs = (density.requires_grad_(), values.requires_grad_())
    assert torch.autograd.gradcheck(lambda s, v: render(s, v, *rays, marching=marching), inputs, rtol=1e-5)
    assert torch.autograd.gradcheck(lambda s: ray_weights(s, *rays, marching=marching)[1], inputs[:1], rtol=1e-5)


def test_rays_in_any_arrangement_give_the_same() -> None:
    density, values = random_grids(4)
    origins, directions = random_rays(4, shape=(6,))
    per_box = render(density, values, origins, directions)
    index = torch.arange(4).repeat_interleave(6)
    flat = render(density, values, origins.reshape(24, 3), directions.reshape(24, 3), index)
    assert (per_box.reshape(24, -1) - flat).abs().max() < 1e-12
    shared = render(density[:1], values, origins, directions)
    copied = render(density[:1].expand(4, -1, -1, -1), values, origins, directions)
    assert (shared - copied).abs().max() < 1e-12


def test_the_early_stop_changes_no_more_than_the_light_it_drops() -> None:
    density, values = random_grids(100)
    rays = random_rays(100)
    difference = render(density + 5, values, *rays) - render(
        density + 5, values, *rays, marching=Marching(early_stop=1e-3)
    )
    assert 0 < difference.abs().max() <= 1e-3 * values.abs().max()


def test_no_rays_give_no_rows() -> None:
    density, values = random_grids(0)
    assert render(density, values, torch.zeros(0, 3, dtype=F64), torch.zeros(0, 3, dtype=F64)).shape == (0, 5)
