# SPDX-License-Identifier: Apache-2.0
"""Sums, products, concatenation, unions and pruning, against the same on dense grids."""

from __future__ import annotations

import pytest
import torch
from grids import assert_close, grid, mask_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vision3d.sparse import SparseTensor, cat, intersection

EXAMPLES = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
PAIRS = {
    "axes": st.integers(1, 3),
    "fills": st.tuples(*[st.sampled_from([0.0, 0.05, 0.5, 1.0])] * 2),
    "seed": st.integers(0, 99),
}


@EXAMPLES
@given(**PAIRS)
def test_union_and_intersection(engine: str, axes: int, fills: tuple[float, float], seed: int) -> None:
    a, b = (grid(axes, 3, fill, seed=seed + i) for i, fill in enumerate(fills))
    both = a.x.union(b.x)
    assert torch.equal(mask_of(both), a.mask | b.mask)
    assert_close(both.dense(), a.values + b.values)
    common = intersection(a.x, b.x)
    assert torch.equal(mask_of(common), a.mask & b.mask)
    assert_close(common.dense(), a.values * b.mask[:, None])
    kept = [row for row in a.x.coords.tolist() if b.mask[tuple(row)]]
    assert common.coords.tolist() == kept


@EXAMPLES
@given(**PAIRS)
def test_prune_keeps_order(engine: str, axes: int, fills: tuple[float, float], seed: int) -> None:
    x = grid(axes, 3, fills[0], seed=seed).x
    keep = torch.rand(len(x), generator=torch.Generator().manual_seed(seed)) < fills[1]
    y = x.prune(keep)
    assert torch.equal(y.coords, x.coords[keep])
    assert torch.equal(y.feats, x.feats[keep])
    assert (y.batch_size, y.spatial_shape, y.stride) == (x.batch_size, x.spatial_shape, x.stride)


def test_gradients(engine: str) -> None:
    a, b = grid(2, 2, seed=1, shape=(4, 4)).x, grid(2, 2, seed=2, shape=(4, 4)).x
    keep = torch.rand(len(a)) < 0.5

    def run(f: torch.Tensor, g: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, y = a.replace(f), b.replace(g)
        return (
            x.union(y).feats,
            intersection(x, y).feats,
            x.prune(keep).feats,
            x[1].feats,
            (x * x - x / 2 + 1).feats,
            cat([x, x * 2]).feats,
            cat([x, y], 0).feats,
            x.dense(),
        )

    assert torch.autograd.gradcheck(run, (a.feats.clone().requires_grad_(), b.feats.clone().requires_grad_()))


def test_arithmetic_with_tensors_of_the_same_sites(engine: str) -> None:
    found = grid(2, 4)
    x, other = found.x, found.x.map(torch.cos)
    order = torch.randperm(len(x))
    shuffled = SparseTensor(x.coords[order], other.feats[order], x.spatial_shape, 2)
    for y in (other, shuffled):
        assert torch.equal((x + y).feats, x.feats + other.feats)
        assert torch.equal((x - y).feats, x.feats - other.feats)
        assert torch.equal((x * y).feats, x.feats * other.feats)
        assert torch.equal((x / y).feats, x.feats / other.feats)
    z = x
    z += other
    assert torch.equal(z.feats, x.feats + other.feats)
    assert torch.equal((-x).feats, -x.feats)
    assert torch.equal(sum([x, x], 0.0).feats, 2 * x.feats)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (4, 1, 1), (1, 4, 1, 1), (2, 4, 1, 1), (2, 1, 1, 1), (1, 1, 1)])
def test_arithmetic_with_plain_tensors_broadcasts_as_on_the_grid(shape: tuple[int, ...]) -> None:
    found = grid(2, 4)
    other = torch.rand(shape, dtype=torch.float64) + 0.5
    mask = found.mask[:, None]
    wide = other[:, None, None] if shape == (4,) else other
    for mine, theirs in (
        (found.x + other, found.values + wide),
        (other + found.x, wide + found.values),
        (found.x - other, found.values - wide),
        (other - found.x, wide - found.values),
        (found.x * other, found.values * wide),
        (other * found.x, wide * found.values),
        (found.x / other, found.values / wide),
        (torch.mul(other, found.x), wide * found.values),
        (torch.sub(other, found.x), wide - found.values),
    ):
        assert_close(mine.dense(), theirs * mask)
    assert_close((2 - found.x).dense(), (2 - found.values) * mask)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (3, 4, 1, 1), (1, 4, 9, 8), (1, 1, 4, 1, 1)])
def test_plain_tensors_that_do_not_fit(shape: tuple[int, ...]) -> None:
    x = grid(2, 4).x
    with pytest.raises(
        ValueError, match=r"operand of \*: a tensor of shape .* fits neither \(4,\) nor \(2, 4, 1, 1\); use"
    ):
        x * torch.zeros(shape)
    with pytest.raises(ValueError, match=r"operand of \+: a tensor of shape"):
        torch.zeros(shape) + x


def test_one_factor_per_channel_even_with_as_many_rows() -> None:
    """(4,) means channels, though the tensor has four rows as well."""
    coords = torch.tensor([[0, i] for i in range(4)], dtype=torch.int32)
    x = SparseTensor(coords, torch.ones(4, 4))
    assert (x * torch.arange(4.0)).feats[0].tolist() == [0, 1, 2, 3]


def test_different_sites_are_an_error_that_names_one(engine: str) -> None:
    a = SparseTensor(torch.tensor([[0, 1], [0, 5]], dtype=torch.int32), torch.ones(2, 1))
    b = SparseTensor(torch.tensor([[0, 1], [0, 6]], dtype=torch.int32), torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"operand of \+: the site sets differ \(2 and 2 sites.*\(0, 6\)\); use union"):
        a + b
    with pytest.raises(ValueError, match=r"2 and 1 sites.*\(0, 5\)"):
        b.prune(torch.tensor([True, False])) + a
    with pytest.raises(ValueError, match=r"operand of \*: stride \(2,\) and \(1,\) differ"):
        a * SparseTensor(a.coords, a.feats, stride=2)
    with pytest.raises(ValueError, match=r"operand of \+: axes 2 and 1 differ"):
        a + grid(2, 1).x
    with pytest.raises(ValueError, match="union: channels 2 and 1 differ"):
        a.union(cat([b, b]))
    with pytest.raises(ValueError, match=r"operand of -: 2 and 3 channels do not fit"):
        cat([a, a, a]) - cat([a, a])


def test_concatenation_of_channels_and_of_samples(engine: str) -> None:
    a, b = grid(2, 3, seed=1), grid(2, 5, seed=1)
    both = cat([a.x, b.x.map(torch.sin)])
    assert both.n_channels == 8 and torch.equal(both.coords, a.x.coords)
    assert_close(both.dense(), torch.cat([a.values, b.values.sin()], 1))
    c = grid(2, 3, seed=2, batch=3)
    rows = cat([a.x, c.x], 0)
    assert rows.batch_size == 5
    assert_close(rows.dense(), torch.cat([a.values, c.values]))
    assert torch.equal(rows.feats, torch.cat([a.x.feats, c.x.feats]))
    assert torch.equal(torch.cat([a.x, b.x], 1).feats, cat([a.x, b.x]).feats)
    assert cat([a.x]) is a.x
    back = [rows[0:2], rows[2:5]]
    assert torch.equal(back[1].coords, c.x.coords) and torch.equal(back[1].feats, c.x.feats)


def test_concatenation_errors() -> None:
    a = grid(2, 3).x
    with pytest.raises(ValueError, match="at least one tensor"):
        cat([])
    with pytest.raises(ValueError, match=r"dim must be 0 \(samples\) or 1 \(channels\), not 2"):
        cat([a, a], 2)
    with pytest.raises(ValueError, match="cat: tensor 2: the site sets differ"):
        cat([a, a, grid(2, 3, seed=9).x])
    for other, name in (
        (grid(3, 3).x, "axes"),
        (grid(2, 4).x, "channels"),
        (grid(2, 3, shape=(5, 5)).x, "spatial_shape"),
    ):
        with pytest.raises(ValueError, match=rf"cat: tensor 1 has {name}"):
            cat([a, other], 0)


def test_mask_errors() -> None:
    x = grid(1).x
    with pytest.raises(TypeError, match=r"mask must be bool, not torch\.int64"):
        x.prune(torch.ones(len(x), dtype=torch.int64))
    with pytest.raises(ValueError, match=rf"mask must be of shape \({len(x)},\)"):
        x.prune(torch.ones(len(x) + 1, dtype=torch.bool))
