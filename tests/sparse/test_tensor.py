# SPDX-License-Identifier: Apache-2.0
"""SparseTensor and its coordinate set: what they accept, what they show, in whose order."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from grids import grid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vision3d.sparse import CoordinateSet, SparseTensor
from vision3d.sparse.permutation import permute

EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ENDS = [-(2**31), -(2**31) + 1, -7, -1, 0, 1, 5, 2**31 - 2, 2**31 - 1]


def coords(*rows: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32)


def tensor(*rows: tuple[int, ...], **options: object) -> SparseTensor:
    return SparseTensor(coords(*rows), torch.arange(len(rows), dtype=torch.float32)[:, None], **options)


@st.composite
def row_sets(draw: st.DrawFn) -> list[tuple[int, ...]]:
    axes = draw(st.integers(1, 4))
    value = st.integers(-20, 20) if axes > 1 or draw(st.booleans()) else st.sampled_from(ENDS)
    row = st.tuples(st.integers(0, 3), *[value] * axes)
    return draw(st.lists(row, min_size=1, max_size=40, unique=True))


@EXAMPLES
@given(rows=row_sets())
def test_user_order_outside_sorted_order_inside(engine: str, rows: list[tuple[int, ...]]) -> None:
    x = tensor(*rows)
    assert x.coords.tolist() == [list(row) for row in rows]
    assert x.feats[:, 0].tolist() == list(range(len(rows)))
    assert x.sites.coords.tolist() == sorted([list(row) for row in rows])
    assert x.sorted_feats[:, 0].tolist() == sorted(range(len(rows)), key=rows.__getitem__)
    assert x.batch_size == max(row[0] for row in rows) + 1
    ptr = x.sites.sample_ptr().tolist()
    assert ptr == [sum(row[0] < b for row in rows) for b in range(x.batch_size + 1)]
    found = x.sites.rows_of(x.sites.coords)
    assert found.tolist() == list(range(len(rows)))


@EXAMPLES
@given(rows=row_sets(), others=row_sets())
def test_lookup_finds_what_is_there_and_nothing_else(engine: str, rows, others) -> None:
    axes = len(rows[0])
    others = [(*row, 0, 0, 0, 0)[:axes] for row in others] + [
        tuple(v + 1 for v in row) for row in rows if max(row) < 99
    ]
    x = tensor(*rows)
    known = {row: index for index, row in enumerate(sorted(rows))}
    assert x.sites.rows_of(coords(*others)).tolist() == [known.get(row, -1) for row in others]


def test_gradients_go_through_the_order_and_back(engine: str) -> None:
    x = grid(2, 2).x
    feats = x.feats.clone().requires_grad_()

    def run(values: torch.Tensor) -> torch.Tensor:
        return x.replace(values).map(torch.sin).feats

    assert torch.autograd.gradcheck(run, feats)
    assert torch.autograd.gradgradcheck(run, feats)
    assert permute(feats, None, None) is feats


def test_properties_and_repr() -> None:
    x = SparseTensor(coords((0, 1, 2), (1, 3, 0)), torch.zeros(2, 5), (4, 5), 3, (2, 1))
    assert (x.ndim, x.n_channels, len(x), x.batch_size) == (2, 5, 2, 3)
    assert (x.stride, x.spatial_shape, x.dtype, x.device.type) == ((2, 1), (4, 5), torch.float32, "cpu")
    assert x.root is x.sites
    assert repr(x) == (
        "SparseTensor(N=2, C=5, batch_size=3, stride=(2, 1), spatial_shape=(4, 5), fill=3.33 %, dtype=float32, "
        "device=cpu, maps=0 (0.00 MiB))"
    )
    x.sites.subm_map((3, 3), (1, 1))
    assert "maps=1 (0.00 MiB)" in repr(x)
    assert "stride=1, dtype" in repr(tensor((0, 0)))


def test_empty_tensors(engine: str) -> None:
    x = SparseTensor(torch.zeros((0, 4), dtype=torch.int32), torch.zeros(0, 2))
    assert (len(x), x.batch_size, x.n_channels) == (0, 0, 2)
    x = SparseTensor(torch.zeros((0, 4), dtype=torch.int32), torch.zeros(0, 2), (3, 3, 3), 2)
    assert x.sites.sample_ptr().tolist() == [0, 0, 0]
    assert x.dense().shape == (2, 2, 3, 3, 3)
    assert "fill=0.00 %" in repr(x)
    assert len(x[1]) == 0 and x[0:2].batch_size == 2


def test_conversions_share_sites() -> None:
    x = tensor((0, 3), (0, 1))
    for y in (x.double(), x.to(torch.float64), x.detach(), x.clone(), x.cpu(), x.to("cpu")):
        assert y.sites is x.sites
    assert x.double().dtype == torch.float64 and x.double().float().dtype == torch.float32
    assert x.clone().sorted_feats.data_ptr() != x.sorted_feats.data_ptr()
    moved = x.to("meta")
    assert moved.device.type == "meta" and moved.sites.coords.device.type == "meta"
    assert x.requires_grad_().requires_grad and not x.detach().requires_grad


def test_deepcopy_and_gradient_of_features() -> None:
    x = tensor((0, 3), (0, 1))
    twin = copy.deepcopy(x)
    assert twin.sites is not x.sites and torch.equal(twin.coords, x.coords) and torch.equal(twin.feats, x.feats)
    x.requires_grad_()
    (x * 3).feats.sum().backward()
    assert x.sorted_feats.grad.tolist() == [[3], [3]]


def test_samples(engine: str) -> None:
    x = tensor((2, 5), (0, 1), (2, 4), (0, 0), spatial_shape=8, batch_size=4)
    first = x[2]
    assert (first.batch_size, first.spatial_shape) == (1, (8,))
    assert first.coords.tolist() == [[0, 5], [0, 4]]
    assert first.feats[:, 0].tolist() == [0, 2]
    assert len(x[1]) == 0 and len(x[-1]) == 0 and x[-2].feats.tolist() == first.feats.tolist()
    several = x[1:]
    assert several.batch_size == 3 and several.coords.tolist() == [[1, 5], [1, 4]]
    assert x[3:1].batch_size == 0
    for bad in (4, -5):
        with pytest.raises(IndexError):
            x.sample(bad)
    with pytest.raises(ValueError, match="step 1 only, not 2"):
        x[::2]


BAD = [
    ({"coords": torch.zeros(2, 2)}, TypeError, "coords must be int32, not torch.float32"),
    ({"coords": torch.zeros((2, 2), dtype=torch.int64)}, TypeError, "coords must be int32, not torch.int64"),
    ({"coords": torch.zeros((2, 1), dtype=torch.int32)}, ValueError, r"coords must be \(N, 1 \+ D\)"),
    ({"coords": torch.zeros((2, 6), dtype=torch.int32)}, ValueError, r"coords must be \(N, 1 \+ D\)"),
    ({"coords": torch.zeros(2, dtype=torch.int32)}, ValueError, r"coords must be \(N, 1 \+ D\)"),
    ({"coords": coords((0, 1), (0, 1))}, ValueError, r"coords rows 0 and 1 are both \(0, 1\); merge duplicates"),
    ({"coords": coords((0, 1), (-1, 2))}, ValueError, "negative"),
    ({"feats": torch.zeros(2)}, ValueError, r"feats must be \(N, C\), not of shape \(2,\)"),
    ({"feats": torch.zeros(3, 1)}, ValueError, "feats has 3 rows, coords 2"),
    ({"feats": torch.zeros((2, 1), dtype=torch.int32)}, TypeError, "feats must be floating, not torch.int32"),
    ({"feats": torch.zeros((2, 1), device="meta")}, ValueError, "feats is on meta, coords on cpu"),
    ({"batch_size": 1}, ValueError, r"batch index 1 of site \(1, 2\) is not below batch_size 1"),
    ({"batch_size": -1}, ValueError, "is not below batch_size -1"),
    ({"spatial_shape": 2}, ValueError, r"site \(1, 2\) \(batch first\) lies outside spatial_shape \(2,\)"),
    ({"coords": coords((0, 1), (0, -1)), "spatial_shape": 2}, ValueError, r"site \(0, -1\) .* lies outside"),
    ({"spatial_shape": (4, 4)}, ValueError, "spatial_shape has 2 values for 1 axes"),
    ({"spatial_shape": 4.0}, TypeError, "spatial_shape must be an integer"),
    ({"stride": 0}, ValueError, "stride must be positive, not 0"),
    ({"stride": True}, TypeError, "stride must be an integer"),
    ({"coords": coords((1, 0), (0, 1)), "assume_sorted_unique": True}, ValueError, "promised to ascend strictly"),
    ({"coords": coords((0, 1), (0, 1)), "assume_sorted_unique": True}, ValueError, "promised to ascend strictly"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), BAD)
def test_bad_input(engine: str, changes: dict[str, object], kind: type[Exception], message: str) -> None:
    arguments = {"coords": coords((0, 1), (1, 2)), "feats": torch.zeros(2, 1), **changes}
    with pytest.raises(kind, match=message):
        SparseTensor(**arguments)


def test_extent_too_large_for_the_keys(engine: str) -> None:
    low, high = -(2**31), 2**31 - 1
    with pytest.raises(ValueError, match=re.compile("extent|too large|64", re.IGNORECASE)):
        tensor((0, low, low, low), (1, high, high, high))
    two = tensor((0, low, 5), (1, high, 5))
    assert two.sites.rows_of(coords((0, low, 5), (1, high, 5), (1, low, 5))).tolist() == [0, 1, -1]


def test_non_contiguous_coordinates(engine: str) -> None:
    wide = coords((0, 3, 9, 9), (0, 1, 9, 9))
    x = SparseTensor(wide[:, :2], torch.zeros(2, 1))
    assert x.coords.tolist() == [[0, 3], [0, 1]]
    columns = coords((0, 0), (3, 1)).t()
    assert SparseTensor(columns, torch.zeros(2, 1)).coords.tolist() == [[0, 3], [0, 1]]


def test_mutating_the_input_later_changes_nothing() -> None:
    given = coords((0, 3), (0, 1))
    x = SparseTensor(given, torch.zeros(2, 1))
    given[0, 1] = 1
    assert x.coords.tolist() == [[0, 3], [0, 1]]


def test_subsets_keep_the_users_relative_order(engine: str) -> None:
    x = tensor((0, 9), (0, 2), (0, 7), (0, 4))
    rows = torch.tensor([0, 2, 3])
    sites = x.sites.subset(rows)
    assert SparseTensor.on(sites, x.sorted_feats[rows]).feats[:, 0].tolist() == [0, 1, 2]
    assert SparseTensor.on(sites, x.sorted_feats[rows]).coords.tolist() == [[0, 9], [0, 2], [0, 7]]


def test_same_sites() -> None:
    a, b = tensor((0, 3), (0, 1)), tensor((0, 1), (0, 3))
    assert a.sites.same_sites(b.sites) and a.sites.same_sites(a.sites)
    assert not a.sites.same_sites(tensor((0, 3), (0, 2)).sites)
    assert not a.sites.same_sites(tensor((0, 3)).sites)
    assert not a.sites.same_sites(tensor((0, 3), (0, 1), stride=2).sites)


def test_set_on_another_device_starts_without_maps() -> None:
    sites = CoordinateSet.from_coords(coords((0, 3), (0, 1)), 5, 2)
    sites.subm_map((3,), (1,))
    moved = sites.to("meta")
    assert (moved.batch_size, moved.spatial_shape, moved.cached_maps()) == (2, (5,), [])
    assert moved.order.device.type == "meta"
