# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from vision3d.voxels.grids import VoxelGrids, box_half_sizes
from vision3d.voxels.render import render
from vision3d.voxels.trilinear import node_positions


def make_grids(n: int, shared_density: bool = False, resolution: int = 3) -> VoxelGrids:
    generator = torch.Generator().manual_seed(0)
    cube = (resolution, resolution, resolution)
    return VoxelGrids(
        centers=torch.randn(n, 3, generator=generator, dtype=torch.float64),
        half_sizes=0.01 + 0.1 * torch.rand(n, generator=generator, dtype=torch.float64),
        density=torch.full((1, *cube), 10.0) if shared_density else 3 * torch.randn(n, *cube, generator=generator),
        values=torch.randn(n, *cube, 8, generator=generator),
    )


@pytest.mark.parametrize("shared", [False, True])
def test_one_camera_equals_rays_in_box_coordinates(shared: bool) -> None:
    grids = make_grids(300, shared)
    camera = torch.tensor([0.5, -4.0, 1.0], dtype=torch.float64)
    origins = (camera - grids.centers) / grids.half_sizes[:, None]
    directions = -torch.nn.functional.normalize(origins, dim=-1)
    expected = render(grids.density.double(), grids.values, origins, directions)
    # A shared density is looked up in a table of directions, which is not quite exact.
    assert (grids.render_from(camera, chunk=64) - expected).abs().max() < (2e-3 if shared else 1e-4)
    index = torch.tensor([7, 3, 3, 299])
    assert torch.allclose(grids.render_from(camera, index), grids.render_from(camera)[index], atol=1e-6)
    assert torch.allclose(grids.subset(index).render_from(camera), grids.render_from(camera)[index], atol=1e-6)


def test_rendering_follows_a_moved_and_scaled_world() -> None:
    """Move everything by 1 km and double the scale: boxes go along, nothing else changes."""
    grids = make_grids(200)
    camera = torch.tensor([0.5, -4.0, 1.0], dtype=torch.float64)
    shift = torch.tensor([1000.0, 250.0, -1000.0], dtype=torch.float64)
    moved = VoxelGrids(2 * grids.centers + shift, 2 * grids.half_sizes, grids.density, grids.values)
    assert (moved.render_from(2 * camera + shift) - grids.render_from(camera)).abs().max() < 1e-4


def test_half_precision_is_close() -> None:
    grids = make_grids(100)
    half = VoxelGrids(grids.centers, grids.half_sizes, grids.density.half(), grids.values.half())
    camera = torch.tensor([0.0, 0.0, -6.0], dtype=torch.float64)
    assert torch.nn.functional.cosine_similarity(half.render_from(camera), grids.render_from(camera)).min() > 0.9999


def test_ten_thousand_boxes_have_the_resolution_they_were_given() -> None:
    """Coordinates up to 1 km: R is an integer and stays one, and the outermost nodes lie on the box's surface."""
    generator = torch.Generator().manual_seed(3)
    centers = 1000 * (2 * torch.rand(10_000, 3, generator=generator, dtype=torch.float64) - 1)
    distance = 0.3 + 80 * torch.rand(10_000, generator=generator, dtype=torch.float64)
    halves = box_half_sizes(distance, 525.0, 12.0)
    grids = VoxelGrids(centers, halves, torch.zeros(1, 3, 3, 3), torch.zeros(1, 1).expand(10_000, 3, 3, 3, 1))
    assert grids.resolution == 3
    nodes = centers[:, None] + halves[:, None, None] * node_positions(3)
    assert nodes.shape == (10_000, 27, 3)
    side = nodes.amax(1) - nodes.amin(1)
    assert ((side - 12.0 * distance[:, None] / 525.0).abs() / side).max() < 1e-9


def test_box_sizes_are_pixels_at_the_nearest_view() -> None:
    """A box 12 px wide at 2 m with f = 500: a side of 48 mm."""
    assert box_half_sizes(torch.tensor([2.0]), 500.0, 12.0).item() == pytest.approx(0.024)


def test_shapes_and_types_are_checked() -> None:
    good = make_grids(2)
    with pytest.raises(ValueError, match="density"):
        VoxelGrids(good.centers, good.half_sizes, torch.zeros(2, 2, 2, 2), good.values)
    with pytest.raises(ValueError, match="float64"):
        VoxelGrids(good.centers.float(), good.half_sizes, good.density, good.values)
    with pytest.raises(ValueError, match="centers"):
        VoxelGrids(good.centers[:1], good.half_sizes, good.density, good.values)


def test_an_empty_map_renders_nothing() -> None:
    assert make_grids(0).render_from(torch.zeros(3, dtype=torch.float64)).shape == (0, 8)
