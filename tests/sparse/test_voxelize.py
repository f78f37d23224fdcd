# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vision3d.sparse.backends import backend
from vision3d.sparse.voxelize import REDUCTIONS, voxelize


@pytest.fixture(params=["native", "reference"])
def each_backend(request: pytest.FixtureRequest) -> str:
    if request.param == "native":
        pytest.importorskip("vision3d.sparse._native")
    return str(request.param)


def cloud(n: int, ndim: int = 3, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(n, ndim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_dictionary(
    points: Tensor, feats: Tensor, size: list[float], origin: list[float], batch: list[int], reduce: str
) -> dict[tuple[int, ...], list[float]]:
    """Voxel (batch, ..., y, x) -> features, from columns (x, y, ...)."""
    cells: dict[tuple[int, ...], list[list[float]]] = defaultdict(list)
    for row, point in enumerate(points.tolist()):
        place = [math.floor((p - o) / s) for p, o, s in zip(point, origin, size)]
        cells[batch[row], *reversed(place)].append(feats[row].tolist())
    how: dict[str, Any] = {
        "sum": lambda c: math.fsum(c),
        "mean": lambda c: math.fsum(c) / len(c),
        "max": max,
        "first": lambda c: c[0],
    }
    return {site: [how[reduce](column) for column in zip(*rows)] for site, rows in cells.items()}


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_equals_a_dictionary(each_backend: str, reduce: str, ndim: int) -> None:
    points, feats = cloud(300, ndim), cloud(300, 5, torch.float64, seed=1)
    size, origin = [0.5, 0.7, 0.9, 1.3][:ndim], [-0.1, 0.2, 0.0, 3.0][:ndim]
    batch = torch.randint(0, 3, (300,), generator=torch.Generator().manual_seed(2))
    with backend(each_backend):
        found = voxelize(points, feats, size, origin=origin, batch_index=batch, reduce=reduce)
    expected = by_dictionary(points, feats, size, origin, batch.tolist(), reduce)
    coords = [tuple(row) for row in found.tensor.coords.tolist()]
    assert coords == sorted(expected)
    values = torch.tensor([expected[site] for site in coords], dtype=torch.float64)
    assert torch.allclose(found.tensor.feats, values, rtol=1e-13, atol=1e-13)
    assert found.tensor.batch_size == 3 and found.tensor.sites.order is None and found.tensor.stride == (1,) * ndim
    place = ((points.double() - torch.tensor(origin)) / torch.tensor(size, dtype=torch.float64)).floor().flip(1).int()
    assert torch.equal(found.tensor.coords[found.index], torch.cat([batch[:, None].int(), place], 1))


def test_columns_of_points_are_x_first_unless_said_otherwise() -> None:
    points = torch.tensor([[10.5, 1.5, 0.25]])
    assert voxelize(points, None, 1.0).tensor.coords.tolist() == [[0, 0, 1, 10]]
    assert voxelize(points, None, 1.0, axes="zyx").tensor.coords.tolist() == [[0, 10, 1, 0]]
    # Sizes and origins go with the columns of the points.
    assert voxelize(points, None, [0.5, 1.0, 2.0], origin=[0.0, 1.0, 0.0]).tensor.coords.tolist() == [[0, 0, 0, 21]]
    zyx = voxelize(points.flip(1), None, [2.0, 1.0, 0.5], origin=[0.0, 1.0, 0.0], axes="zyx")
    assert zyx.tensor.coords.tolist() == [[0, 0, 0, 21]]
    # The spatial shape is always (z, y, x).
    assert voxelize(points, None, 1.0, spatial_shape=(1, 2, 11)).tensor.spatial_shape == (1, 2, 11)


def test_a_voxel_covers_its_lower_edge_and_not_its_upper_one() -> None:
    points = torch.tensor([[0.0], [0.99], [1.0], [-0.01], [-1.0], [-1.01]])
    found = voxelize(points, None, 1.0)
    assert found.tensor.coords[found.index][:, 1].tolist() == [0, 0, 1, -1, -1, -2]


def test_the_division_is_done_in_float64() -> None:
    # The float32 nearest to 0.9 is below it; in float32 the quotient rounds up to 9.
    point = torch.tensor([[0.9]])
    assert float(point / torch.tensor(0.1)) == 9.0
    assert voxelize(point, None, 0.1).tensor.coords.tolist() == [[0, 8]]
    multiples = torch.arange(-500, 500, dtype=torch.float32)[:, None] * 0.125
    found = voxelize(multiples, None, 0.125)
    assert found.tensor.coords[found.index][:, 1].tolist() == list(range(-500, 500))


def test_features_default_to_the_mean_position() -> None:
    points = torch.tensor([[0.2, 0.0, 0.0], [0.4, 0.5, 0.5], [1.5, 0.5, 0.5]], dtype=torch.float64)
    found = voxelize(points, None, 1.0)
    assert torch.allclose(found.tensor.feats, torch.tensor([[0.3, 0.25, 0.25], [1.5, 0.5, 0.5]], dtype=torch.float64))
    tensor, index = found
    assert tensor is found.tensor and index.tolist() == [0, 0, 1]


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_the_order_of_points_does_not_matter(each_backend: str, reduce: str) -> None:
    points, feats = cloud(500), cloud(500, 4, seed=1)
    shuffle = torch.randperm(500, generator=torch.Generator().manual_seed(3))
    with backend(each_backend):
        once = voxelize(points, feats, 0.4, reduce=reduce)
        again = voxelize(points[shuffle], feats[shuffle], 0.4, reduce=reduce)
    assert torch.equal(once.tensor.coords, again.tensor.coords)
    assert torch.equal(once.index[shuffle], again.index)
    if reduce == "max":
        assert torch.equal(once.tensor.feats, again.tensor.feats)
    assert torch.allclose(once.tensor.feats, again.tensor.feats, rtol=1e-5, atol=1e-6)


def test_first_is_the_first_point_given() -> None:
    points = torch.tensor([[0.5], [3.5], [0.1], [3.1]])
    feats = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    assert voxelize(points, feats, 1.0, reduce="first").tensor.feats.tolist() == [[1], [2]]
    assert voxelize(points.flip(0), feats.flip(0), 1.0, reduce="first").tensor.feats.tolist() == [[3], [4]]


def test_samples_stay_apart(each_backend: str) -> None:
    first, second = cloud(100), cloud(150, seed=1)
    with backend(each_backend):
        alone = [voxelize(points, None, 0.5) for points in (first, second)]
        both = voxelize(torch.cat([first, second]), None, 0.5, lengths=[100, 0, 150, 0])
        index = torch.repeat_interleave(torch.tensor([0, 2]), torch.tensor([100, 150]))
        again = voxelize(torch.cat([first, second]), None, 0.5, batch_index=index.int(), batch_size=4)
    assert both.tensor.batch_size == 4
    for sample, single in ((0, alone[0]), (2, alone[1])):
        part = both.tensor.sample(sample)
        assert torch.equal(part.coords, single.tensor.coords) and torch.equal(part.feats, single.tensor.feats)
    assert len(both.tensor.sample(1)) == 0 == len(both.tensor.sample(3))
    assert torch.equal(both.index[100:] - len(alone[0].tensor), alone[1].index)
    assert torch.equal(again.tensor.feats, both.tensor.feats) and again.tensor.batch_size == 4


def test_no_points(each_backend: str) -> None:
    with backend(each_backend):
        found = voxelize(torch.empty(0, 3), torch.empty(0, 7, requires_grad=True), 0.1)
        assert len(found.tensor) == 0 and found.tensor.n_channels == 7 and found.tensor.batch_size == 1
        found.tensor.feats.sum().backward()
        assert found.index.shape == (0,) and found.index.dtype == torch.int64
        assert voxelize(torch.empty(0, 3), None, 0.1, lengths=[0, 0]).tensor.batch_size == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_features_keep_their_dtype(dtype: torch.dtype) -> None:
    points, feats = cloud(50), cloud(50, 3, dtype)
    found = voxelize(points, feats, 1.0)
    assert found.tensor.dtype == dtype
    expected = voxelize(points, feats.double(), 1.0).tensor.feats
    assert torch.allclose(found.tensor.feats.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-3)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradients_are_those_of_finite_differences(each_backend: str, reduce: str) -> None:
    points, feats = cloud(15, 2), cloud(15, 2, torch.float64, seed=1).requires_grad_()
    with backend(each_backend):
        assert torch.autograd.gradcheck(lambda f: voxelize(points, f, 1.0, reduce=reduce).tensor.feats, (feats,))


def test_positions_take_gradients_as_features_only() -> None:
    points = torch.tensor([[0.2, 0.3], [0.4, 0.1]], requires_grad=True)
    voxelize(points, None, 1.0).tensor.feats.sum().backward()
    assert points.grad is not None and points.grad.tolist() == [[0.5, 0.5], [0.5, 0.5]]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2), min_size=1, max_size=30),
    st.floats(0.01, 1e3),
    st.floats(-10, 10),
)
def test_every_point_lies_in_its_voxel(rows: list[tuple[float, float]], size: float, origin: float) -> None:
    points = torch.tensor(rows)
    tensor, index = voxelize(points, None, size, origin=origin)
    expected = [[0, *(math.floor((p - origin) / size) for p in reversed(row))] for row in points.tolist()]
    assert tensor.coords[index].tolist() == expected
    assert torch.equal(index.unique(), torch.arange(len(tensor)))


def test_points_at_the_ends_of_32_bits() -> None:
    points = torch.tensor([[-(2.0**31)], [2.0**31 - 1]], dtype=torch.float64)
    assert voxelize(points, None, 1.0).tensor.coords[:, 1].tolist() == [-(2**31), 2**31 - 1]
    with pytest.raises(ValueError, match=r"points row 1 = .* voxel \(2147483648,\), beyond 32 bits"):
        voxelize(points + 1, None, 1.0)
    with pytest.raises(ValueError, match=r"points row 0 = .* beyond 32 bits"):
        voxelize(points - 1, None, 1.0)


GOOD: dict[str, Any] = {"points": torch.zeros(3, 3), "feats": torch.zeros(3, 2), "voxel_size": 0.1}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"points": torch.zeros(3)}, ValueError, r"points must be \(P, D\)"),
        ({"points": torch.zeros(3, 5)}, ValueError, r"D from 1 to 4"),
        ({"points": torch.zeros(3, 3).int()}, TypeError, "points must be floating"),
        ({"points": torch.tensor([[0.0, 0.0], [0.0, torch.nan], [0.0, 0.0]])}, ValueError, "row 1 is not finite"),
        ({"points": torch.tensor([[0.0], [0.0], [-torch.inf]])}, ValueError, "row 2 is not finite"),
        ({"feats": torch.zeros(2, 2)}, ValueError, r"feats must be \(3, C\)"),
        ({"feats": torch.zeros(3)}, ValueError, r"feats must be \(3, C\)"),
        ({"feats": torch.zeros(3, 2).long()}, TypeError, "feats must be floating"),
        ({"voxel_size": 0.0}, ValueError, "voxel_size must be positive"),
        ({"voxel_size": -1.0}, ValueError, "voxel_size must be positive"),
        ({"voxel_size": torch.nan}, ValueError, "voxel_size must be finite"),
        ({"voxel_size": [0.1, 0.1]}, ValueError, "one number or 3"),
        ({"origin": [0.0] * 4}, ValueError, "one number or 3"),
        ({"origin": torch.inf}, ValueError, "origin must be finite"),
        ({"axes": "yxz"}, ValueError, 'axes must be "xyz"'),
        ({"reduce": "median"}, ValueError, "unknown reduction 'median'"),
        ({"batch_index": torch.zeros(2).long()}, ValueError, r"batch_index must be \(3,\)"),
        ({"batch_index": torch.zeros(3)}, TypeError, "batch_index must be integer"),
        ({"batch_index": torch.tensor([0, -1, 0])}, ValueError, "batch_index row 1 is negative: -1"),
        ({"batch_index": torch.tensor([0, 2, 1]), "batch_size": 2}, ValueError, "batch_size is 2, but batch_index"),
        ({"batch_index": torch.tensor([0, 2**40, 1])}, ValueError, "does not fit 32 bits"),
        ({"lengths": [1, 1]}, ValueError, "sum to the 3 points"),
        ({"lengths": [4, -1]}, ValueError, "sum to the 3 points"),
        ({"lengths": [3], "batch_index": torch.zeros(3).long()}, ValueError, "batch_index or lengths, not both"),
        ({"lengths": [1, 2], "batch_size": 1}, ValueError, "batch_size is 1, but lengths"),
        ({"points": torch.tensor([[0.0] * 3, [0.0, 0.0, 0.25], [0.0] * 3]), "spatial_shape": 2}, ValueError,
         r"points row 1 = .* voxel \(2, 0, 0\), outside spatial_shape \(2, 2, 2\); crop"),
        ({"points": -torch.ones(3, 3), "spatial_shape": 2}, ValueError, "points row 0 .* outside"),
    ],
)  # fmt: skip
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        voxelize(**{**GOOD, **change})
