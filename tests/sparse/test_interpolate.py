# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from vision3d.sparse import SparseTensor, backend
from vision3d.sparse.interpolate import devoxelize, interpolate, weighted_rows
from vision3d.sparse.voxelize import voxelize


@pytest.fixture(params=["native", "reference"])
def each_backend(request: pytest.FixtureRequest) -> str:
    if request.param == "native":
        pytest.importorskip("vision3d.sparse._native")
    return str(request.param)


def tensor(n: int, span: int, ndim: int = 3, batch: int = 1, channels: int = 4, seed: int = 0) -> SparseTensor:
    """Voxels in no order, float64."""
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randint(0, batch, (n, 1), generator=generator)
    coords = torch.cat([sample, torch.randint(-span, span, (n, ndim), generator=generator)], 1).unique(dim=0).int()
    coords = coords[torch.randperm(len(coords), generator=generator)]
    feats = torch.randn(len(coords), channels, generator=generator, dtype=torch.float64)
    return SparseTensor(coords, feats, batch_size=batch)


def full_grid(side: int, ndim: int, feats: Tensor | None = None) -> SparseTensor:
    axis = torch.arange(side)
    coords = torch.cartesian_prod(torch.tensor([0]), *[axis] * ndim).int()
    return SparseTensor(coords, coords[:, 1:].double() if feats is None else feats)


def points_for(n: int, span: float, ndim: int = 3, seed: int = 1) -> Tensor:
    return span * (2 * torch.rand(n, ndim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1)


def trilinear_by_hand(x: SparseTensor, points: Tensor, batch: Tensor) -> Tensor:
    """Columns of the points in the order of the coordinates, voxel size 1."""
    values = {tuple(site): x.feats[row] for row, site in enumerate(x.coords.tolist())}
    out = torch.zeros(len(points), x.n_channels, dtype=torch.float64)
    for row, point in enumerate(points.tolist()):
        total = 0.0
        for corner in product((0, 1), repeat=x.ndim):
            cell = [math.floor(p - 0.5) + bit for p, bit in zip(point, corner)]
            weight = math.prod(1 - abs(p - 0.5 - c) for p, c in zip(point, cell))
            found = values.get((int(batch[row]), *cell))
            if found is not None:
                out[row] += weight * found
                total += weight
        if total > 0:
            out[row] /= total
    return out


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_trilinear_equals_the_corner_formula(each_backend: str, ndim: int) -> None:
    x = tensor(120, 4, ndim, batch=2)
    points = points_for(100, 5.0, ndim)
    batch = torch.randint(0, 2, (100,), generator=torch.Generator().manual_seed(2))
    expected = trilinear_by_hand(x, points, batch)
    with backend(each_backend):
        assert torch.allclose(devoxelize(x, points, axes="zyx", batch_index=batch), expected, atol=1e-13)
        assert torch.allclose(devoxelize(x, points.flip(1), batch_index=batch), expected, atol=1e-13)


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_affine_field_is_reproduced_between_the_centres(ndim: int) -> None:
    slope = torch.randn(ndim, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = full_grid(5, ndim)
    x = x.replace((x.coords[:, 1:].double() + 0.5) @ slope + 2)
    points = 2.5 + points_for(200, 2.0, ndim)
    assert torch.allclose(devoxelize(x, points, axes="zyx"), points @ slope + 2, atol=1e-12)


def test_at_centres_and_far_away() -> None:
    x = tensor(50, 3)
    centres = x.coords[:, 1:].double() + 0.5
    for mode in ("trilinear", "nearest", "idw"):
        assert torch.allclose(devoxelize(x, centres, mode, axes="zyx"), x.feats, atol=1e-6), mode
    far = torch.full((1, 3), 1e9, dtype=torch.float64)
    assert devoxelize(x, far).abs().sum() == 0 == devoxelize(x, far, "nearest").abs().sum()


def test_a_lonely_voxel_fills_the_reach_of_its_weights() -> None:
    x = SparseTensor(torch.tensor([[0, 0, 0]]).int(), torch.tensor([[7.0]]))
    points = torch.tensor([[0.5, 0.5], [1.4, -0.4], [1.49, 0.5], [1.5, 0.5], [2.0, 0.5]])
    assert devoxelize(x, points)[:, 0].tolist() == [7, 7, 7, 0, 0]
    assert devoxelize(x, points, "nearest")[:, 0].tolist() == [7, 0, 0, 0, 0]


def test_nearest_is_the_voxel_that_contains_the_point(each_backend: str) -> None:
    points, feats = points_for(200, 3.0), points_for(200, 1.0, 5)
    with backend(each_backend):
        x, index = voxelize(points, feats, [0.5, 0.6, 0.7], origin=[0.1, 0.2, 0.3])
        found = devoxelize(x, points, "nearest", voxel_size=[0.5, 0.6, 0.7], origin=[0.1, 0.2, 0.3])
        assert torch.equal(found, x.feats[index])
        assert torch.equal(devoxelize(x, index, "index"), found)


def test_index_reads_rows_in_the_users_order() -> None:
    x = tensor(20, 3).replace(torch.arange(len(tensor(20, 3)))[:, None].double())
    assert x.sites.order is not None
    assert devoxelize(x, torch.tensor([3, 0, 3, -1]), "index")[:, 0].tolist() == [3, 0, 3, 0]
    assert devoxelize(x, torch.tensor([], dtype=torch.int32), "index").shape == (0, 1)


def test_idw_equals_the_formula(each_backend: str) -> None:
    x = tensor(60, 3, batch=2)
    points = points_for(30, 4.0)
    batch = torch.randint(0, 2, (30,), generator=torch.Generator().manual_seed(2))
    with backend(each_backend):
        found = devoxelize(x, points, "idw", k=5, batch_index=batch, axes="zyx")
    for row, point in enumerate(points):
        mine = x.coords[:, 0] == batch[row]
        squared = (x.coords[mine, 1:].double() + 0.5 - point).square().sum(1)
        near = squared.argsort()[:5]
        weights = 1 / (squared[near] + 1e-8)
        expected = (weights[:, None] * x.feats[mine][near]).sum(0) / weights.sum()
        assert torch.allclose(found[row], expected, atol=1e-12)


def test_idw_measures_metres() -> None:
    """Voxels twice as long in x: the neighbour in y is nearer."""
    x = SparseTensor(torch.tensor([[0, 0, 1], [0, 1, 0]]).int(), torch.tensor([[1.0], [2.0]]))
    point = torch.tensor([[1.0, 0.5]])
    assert float(devoxelize(x, point, "idw", voxel_size=[2.0, 1.0], k=1)) == 2.0
    assert float(devoxelize(x, point, "idw", voxel_size=[0.5, 1.0], k=1)) == 1.0


@pytest.mark.parametrize("mode", ["trilinear", "nearest", "idw"])
def test_gradients_are_those_of_finite_differences(each_backend: str, mode: str) -> None:
    x = tensor(40, 2, 2, channels=2)
    # Away from voxel faces and from the bisectors where neighbours change.
    points = (points_for(12, 2.0, 2) * 4).round() / 4 + 0.087
    feats = x.feats.clone().requires_grad_()
    points.requires_grad_(mode != "nearest")

    def run(feats: Tensor, points: Tensor) -> Tensor:
        return devoxelize(x.replace(feats), points, mode, voxel_size=[0.9, 1.1], axes="zyx")

    with backend(each_backend):
        assert torch.autograd.gradcheck(run, (feats, points), eps=1e-7, atol=1e-5)


def test_the_slope_along_a_ramp_is_the_gradient() -> None:
    x = full_grid(6, 3)
    points = (3.0 + points_for(10, 1.5)).requires_grad_()
    # Feature 2 is x in voxels of 0.25 m: 4 per metre along the first point column.
    devoxelize(x, points * 0.25, voxel_size=0.25)[:, 2].sum().backward()
    assert points.grad is not None
    assert torch.allclose(points.grad, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(10, 3), atol=1e-10)


def test_missing_voxels_fall_back_to_their_parents(each_backend: str) -> None:
    fine = SparseTensor(torch.tensor([[0, 0], [0, 5]]).int(), torch.tensor([[1.0], [2.0]]))
    parent = SparseTensor(torch.tensor([[0, 0], [0, 1]]).int(), torch.tensor([[10.0], [20.0]]), stride=4)
    top = SparseTensor(torch.tensor([[0, 0]]).int(), torch.tensor([[100.0]]), stride=16).requires_grad_()
    points = torch.tensor([[0.5], [2.5], [5.5], [7.0], [8.5], [20.0]])
    with backend(each_backend):
        found = devoxelize(fine, points, fallback=[parent, top])
        assert found[:, 0].tolist() == [1, 10, 2, 20, 100, 0]
        found.sum().backward()
        assert top.sorted_feats.grad is not None and top.sorted_feats.grad.tolist() == [[1]]
        assert devoxelize(fine, points, "nearest", fallback=parent)[:, 0].tolist() == [1, 10, 2, 20, 0, 0]


def test_what_a_missing_voxel_holds_does_not_leak() -> None:
    x = SparseTensor(torch.tensor([[0, 0], [0, 9]]).int(), torch.tensor([[torch.nan], [3.0]]))
    for mode in ("trilinear", "nearest"):
        assert devoxelize(x, torch.tensor([[9.2], [30.0]]), mode)[:, 0].tolist() == [3, 0]


def test_coordinates_at_the_ends_of_32_bits() -> None:
    ends = torch.tensor([[0, -(2**31)], [0, 2**31 - 1]]).int()
    x = SparseTensor(ends, torch.tensor([[1.0], [2.0]]))
    points = torch.tensor([[-(2.0**31) - 0.2], [2.0**31 + 0.2], [-(2.0**31) + 0.5]], dtype=torch.float64)
    assert devoxelize(x, points)[:, 0].tolist() == [1, 2, 1]
    assert devoxelize(x, points, "nearest")[:, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_results_have_the_dtype_of_the_tensor(dtype: torch.dtype) -> None:
    x = tensor(60, 3)
    points = points_for(40, 3.0)
    for mode in ("trilinear", "nearest", "idw"):
        found = devoxelize(x.to(dtype), points.float(), mode)
        assert found.dtype == dtype
        assert torch.allclose(found.double(), devoxelize(x, points, mode), atol=20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("mode", ["trilinear", "nearest", "idw"])
def test_rows_of_either_may_be_in_any_order(mode: str) -> None:
    x = tensor(60, 3)
    points = points_for(40, 3.0)
    shuffle = torch.randperm(len(x), generator=torch.Generator().manual_seed(5))
    other = SparseTensor(x.coords[shuffle], x.feats[shuffle])
    assert torch.equal(devoxelize(x, points, mode), devoxelize(other, points, mode))
    turned = devoxelize(x, points.flip(0), mode).flip(0)
    assert torch.allclose(devoxelize(x, points, mode), turned, rtol=1e-14)


@pytest.mark.parametrize("mode", ["trilinear", "idw"])
def test_the_same_bits_for_every_number_of_threads(mode: str) -> None:
    x = tensor(3000, 10, channels=19).float()
    points = points_for(5000, 10.0)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            feats = x.feats.clone().requires_grad_()
            out = devoxelize(x.replace(feats), points, mode)
            results.append((out.detach(), torch.autograd.grad(out.square().sum(), feats)[0]))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0]) and torch.equal(results[0][1], other[1])


@pytest.mark.parametrize("mode", ["trilinear", "nearest", "idw"])
def test_nothing_to_read_and_nothing_to_ask(mode: str) -> None:
    nothing = SparseTensor(torch.empty(0, 4, dtype=torch.int32), torch.empty(0, 2), batch_size=1)
    assert torch.equal(devoxelize(nothing, torch.zeros(3, 3), mode), torch.zeros(3, 2))
    assert devoxelize(tensor(5, 3), torch.empty(0, 3), mode).shape == (0, 4)
    assert len(interpolate(tensor(5, 3), SparseTensor(nothing.coords, nothing.feats, batch_size=1), mode)) == 0


def test_interpolate_brings_the_parents_features(each_backend: str) -> None:
    with backend(each_backend):
        fine = tensor(200, 6, batch=2)
        coarse, _ = fine.sites.strided((2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1))
        feats = torch.randn(len(coarse), 3, generator=torch.Generator().manual_seed(6), requires_grad=True)
        x = SparseTensor.on(coarse, feats)
        out = interpolate(x, fine)
    parents = {tuple(site): row for row, site in enumerate(coarse.coords.tolist())}
    rows = [parents[b, z // 2, y // 2, x // 2] for b, z, y, x in fine.coords.tolist()]
    assert out.sites is fine.sites and torch.equal(out.feats, feats[rows])
    out.feats.sum().backward()
    assert feats.grad is not None
    assert torch.equal(feats.grad[:, 0], torch.bincount(torch.tensor(rows), minlength=len(feats)).float())


def test_interpolate_is_devoxelize_at_the_centres() -> None:
    fine = tensor(100, 6)
    coarse, _ = fine.sites.strided((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1))
    x = SparseTensor.on(coarse, torch.randn(len(coarse), 3, generator=torch.Generator().manual_seed(7)))
    centres = fine.coords[:, 1:].double() + 0.5
    for mode in ("nearest", "trilinear", "idw"):
        assert torch.equal(interpolate(x, fine, mode).feats, devoxelize(x, centres, mode, axes="zyx")), mode
    # A set instead of a tensor: rows in sorted order, and the maps of x stay reachable.
    on_set = interpolate(x, fine.sites, "trilinear")
    assert on_set.sites is fine.sites and on_set.root is x.root


def test_interpolate_to_the_same_sites_changes_nothing() -> None:
    x = tensor(60, 4, batch=2)
    for mode in ("nearest", "trilinear"):
        assert torch.equal(interpolate(x, x, mode).feats, x.feats)


def test_interpolate_between_strides_that_do_not_divide() -> None:
    x = SparseTensor(torch.tensor([[0, -1], [0, 0], [0, 1]]).int(), torch.tensor([[1.0], [2.0], [3.0]]), stride=3)
    target = SparseTensor(torch.tensor([[0, i] for i in range(-3, 4)]).int(), torch.zeros(7, 1), stride=2)
    # Centres at -5, -3, -1, 1, 3, 5, 7 in cells of 3.
    assert interpolate(x, target).feats[:, 0].tolist() == [0, 1, 1, 2, 3, 3, 0]


def test_weighted_rows_skips_missing_rows() -> None:
    feats = torch.tensor([[1.0], [10.0]])
    rows = torch.tensor([[0, 1, -1], [-1, -1, -1]])
    assert weighted_rows(feats, rows, torch.tensor([[2.0, 0.5, 9.0], [1.0, 1.0, 1.0]])).tolist() == [[7], [0]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mode": "cubic"}, ValueError, "unknown mode 'cubic'"),
        ({"points": torch.zeros(2, 2)}, ValueError, "points have 2 columns, the tensor 3 axes"),
        ({"points": torch.zeros(2, 3).int()}, TypeError, "points must be floating"),
        ({"points": torch.tensor([[0.0] * 3, [torch.inf] * 3])}, ValueError, "points row 1 is not finite"),
        ({"batch_index": None}, ValueError, "the tensor has 2 samples; say by batch_index"),
        ({"batch_index": torch.tensor([0, 2])}, ValueError, "batch_size is 2"),
        ({"mode": "index"}, TypeError, "must be integer rows"),
        ({"mode": "index", "points": torch.tensor([0, 99])}, IndexError, "index row 1 is 99"),
        ({"mode": "index", "points": torch.tensor([-2])}, IndexError, "index row 0 is -2"),
        ({"mode": "index", "points": torch.zeros(2, 3).int()}, ValueError, r"must be \(P,\)"),
        ({"mode": "idw", "k": 0}, ValueError, "k must be at least 1"),
        ({"fallback": tensor(5, 2)}, ValueError, "fallback 0 is"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"points": torch.zeros(2, 3), "batch_index": torch.zeros(2).long()}
    with pytest.raises(error, match=message):
        devoxelize(tensor(20, 3, batch=2), **{**good, **change})


def test_bad_targets() -> None:
    with pytest.raises(ValueError, match="target has 2 axes and batch size 1"):
        interpolate(tensor(9, 3), tensor(9, 3, 2))
    with pytest.raises(ValueError, match="batch size 2"):
        interpolate(tensor(9, 3), tensor(9, 3, batch=2))
    with pytest.raises(ValueError, match="unknown mode 'index'; there are: trilinear, nearest, idw"):
        interpolate(tensor(9, 3), tensor(9, 3), "index")
