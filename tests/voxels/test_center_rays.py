# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import pytest
import torch

from vision3d.voxels.center_rays import CenterRays, center_rays
from vision3d.voxels.grids import VoxelGrids
from vision3d.voxels.marching import Marching
from vision3d.voxels.render import ray_weights


def all_kinds_of_directions(n: int = 2000, seed: int = 0) -> torch.Tensor:
    """Random ones, and those where faces, edges and corners of the cube meet."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    special = [d for d in itertools.product((-1.0, 0.0, 1.0), repeat=3) if any(d)]
    special += list(itertools.product((-1.0, -0.999999, 0.5, 1e-9), repeat=3))
    return torch.cat([random, torch.tensor(special, dtype=torch.float64)])


def exact(density: torch.Tensor, directions: torch.Tensor, marching: Marching) -> torch.Tensor:
    unit = torch.nn.functional.normalize(directions, dim=1)
    return ray_weights(density[None].double(), -4 * unit, unit, marching=marching)[0].float()


@pytest.mark.parametrize("resolution", [1, 3, 5])
@pytest.mark.parametrize("sigma", [0.0, 10.0])
def test_looked_up_weights_are_the_exact_ones(resolution: int, sigma: float) -> None:
    """Measured on descriptors whose nodes are unrelated, the worst case for a weight that is a little off."""
    marching = Marching()
    density = torch.full((resolution,) * 3, sigma)
    directions = all_kinds_of_directions()
    found, wanted = CenterRays(density, marching).weights(directions), exact(density, directions, marching)
    generator = torch.Generator().manual_seed(1)
    nodes = torch.nn.functional.normalize(torch.randn(resolution**3, 64, generator=generator), dim=1)
    cosine = torch.nn.functional.cosine_similarity(found @ nodes, wanted @ nodes)
    assert cosine.min() > 0.995
    assert cosine.median() > 0.9999
    assert (found - wanted).abs().max() < (0.02 if resolution < 5 else 0.03)
    assert (found.sum(1) - wanted.sum(1)).abs().max() < 0.01


@pytest.mark.parametrize("marching", [Marching(samples=20), Marching(step=0.3, alpha0=0.1)])
def test_table_follows_density_and_marching(marching: Marching) -> None:
    generator = torch.Generator().manual_seed(2)
    density = 4 * torch.randn(3, 3, 3, generator=generator) + 6
    directions = all_kinds_of_directions(500)
    error = (CenterRays(density, marching).weights(directions) - exact(density, directions, marching)).abs()
    assert error.max() < 0.05
    assert error.mean() < 2e-3


def test_grid_directions_are_met_exactly_and_length_does_not_matter() -> None:
    density, marching = torch.full((3, 3, 3), 10.0), Marching()
    table = CenterRays(density, marching)
    on_grid = torch.tensor([[1, 0, 0], [-1, 1, 0], [0.5, -1, 0.25], [1, 1, 1], [-0.0625, 0.5, 1]], dtype=torch.float64)
    assert torch.allclose(table.weights(on_grid), exact(density, on_grid, marching), atol=1e-5)
    directions = all_kinds_of_directions(100)
    lengths = torch.logspace(-6, 6, len(directions), dtype=torch.float64)[:, None]
    assert torch.allclose(table.weights(lengths * directions), table.weights(directions), atol=1e-5)


def test_a_camera_in_the_centre_of_a_box_gives_finite_numbers() -> None:
    table = CenterRays(torch.full((3, 3, 3), 10.0), Marching())
    assert torch.isfinite(table.weights(torch.zeros(2, 3, dtype=torch.float64))).all()
    assert table.weights(torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 27)


def test_tables_are_made_once_and_told_apart() -> None:
    density = torch.full((1, 3, 3, 3), 10.0)
    assert center_rays(density, Marching()) is center_rays(density.half(), Marching())
    assert center_rays(density, Marching(step=0.2)) is not center_rays(density, Marching())
    assert center_rays(density + 1, Marching()) is not center_rays(density, Marching())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_boxes_with_a_shared_density_render_as_boxes_with_their_own(turned: bool, half: bool) -> None:
    """The same boxes twice: looked up, and marched ray by ray."""
    n, channels = 700, 16
    generator = torch.Generator().manual_seed(3)
    centers = 1000 + 3 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    values = torch.nn.functional.normalize(torch.randn(n, 3, 3, 3, channels, generator=generator), dim=-1)
    values = values.half() if half else values
    axes = None
    if turned:
        turn, _ = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator))
        axes = torch.diag(torch.tensor([1.0, 1.0, 0.2])) @ turn
    density = torch.full((1, 3, 3, 3), 10.0)
    sizes = 0.05 * torch.ones(n, dtype=torch.float64)
    shared = VoxelGrids(centers, sizes, density, values, axes)
    own = VoxelGrids(centers, sizes, density.repeat(n, 1, 1, 1), values, axes)
    camera = torch.tensor([1000.0, 1000.0, 990.0], dtype=torch.float64)
    index = torch.randperm(n, generator=generator)[:600]
    for rows in (None, index, index[:0]):
        one, other = (g.render_from(camera, rows, Marching()) for g in (shared, own))
        assert one.shape == other.shape == (n if rows is None else len(rows), channels)
        assert one.dtype == torch.float32
        if len(one):
            cosine = torch.nn.functional.cosine_similarity(one, other)
            assert cosine.min() > 0.995
            assert cosine.median() > 0.9999
    assert torch.equal(shared.render_from(camera, index), shared.render_from(camera)[index])
    assert torch.equal(shared.render_from(camera, chunk=7), shared.render_from(camera))
