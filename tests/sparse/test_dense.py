# SPDX-License-Identifier: Apache-2.0
"""Dense grids and torch's COO tensors, there and back."""

from __future__ import annotations

import pytest
import torch
from grids import grid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vision3d.sparse import SparseTensor

EXAMPLES = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@EXAMPLES
@given(axes=st.integers(1, 3), fill=st.sampled_from([0.0, 0.02, 0.5, 1.0]), seed=st.integers(0, 99))
def test_there_and_back(engine: str, axes: int, fill: float, seed: int) -> None:
    found = grid(axes, 3, fill, seed=seed)
    assert torch.equal(found.x.dense(), found.values)
    assert found.x.dense().is_contiguous()
    back = SparseTensor.from_dense(found.values, found.mask)
    assert torch.equal(back.sites.coords, found.x.sites.coords)
    assert torch.equal(back.sorted_feats, found.x.sorted_feats)
    assert (back.batch_size, back.spatial_shape) == (2, found.x.spatial_shape)
    guessed = SparseTensor.from_dense(found.values)
    assert torch.equal(guessed.coords, back.coords)
    coo = found.x.to_torch_sparse()
    assert coo.is_coalesced() and torch.equal(coo.to_dense().movedim(-1, 1), found.values)
    again = SparseTensor.from_torch_sparse(coo)
    assert torch.equal(again.coords, back.coords) and torch.equal(again.feats, back.feats)


def test_a_zero_under_the_mask_is_a_site() -> None:
    mask = torch.tensor([[True, False, True]])
    x = SparseTensor.from_dense(torch.zeros(1, 2, 3), mask)
    assert x.coords.tolist() == [[0, 0], [0, 2]]
    assert len(SparseTensor.from_dense(torch.zeros(1, 2, 3))) == 0


def test_gradients_both_ways(engine: str) -> None:
    found = grid(2, 2, shape=(4, 3))

    def there(feats: torch.Tensor) -> torch.Tensor:
        return found.x.replace(feats).dense()

    def back(values: torch.Tensor) -> torch.Tensor:
        return SparseTensor.from_dense(values, found.mask).feats

    assert torch.autograd.gradcheck(there, found.x.feats.clone().requires_grad_())
    assert torch.autograd.gradcheck(back, found.values.clone().requires_grad_())


def test_unbounded_and_negative_sites() -> None:
    coords = torch.tensor([[0, -2, 3], [1, 1, 0]], dtype=torch.int32)
    x = SparseTensor(coords, torch.tensor([[1.0], [2.0]]))
    grown = x.dense()
    assert grown.shape == (2, 1, 4, 4)
    assert grown[0, 0, 0, 3] == 1 and grown[1, 0, 3, 0] == 2 and grown.sum() == 3
    placed = x.dense((5, 6), origin=(-3, -1))
    assert placed.shape == (2, 1, 5, 6) and placed[0, 0, 1, 4] == 1 and placed[1, 0, 4, 1] == 2
    positive = SparseTensor(coords.abs(), x.feats).dense()
    assert positive.shape == (2, 1, 3, 4)


def test_empty() -> None:
    x = SparseTensor(torch.zeros((0, 3), dtype=torch.int32), torch.zeros(0, 2), batch_size=2)
    assert x.dense().shape == (2, 2, 0, 0)
    assert x.dense((2, 3)).shape == (2, 2, 2, 3)


def test_sites_outside_the_grid_asked_for(engine: str) -> None:
    x = SparseTensor(torch.tensor([[0, -2, 3]], dtype=torch.int32), torch.ones(1, 1))
    with pytest.raises(
        ValueError, match=r"site \(0, -2, 3\) lies outside the dense grid \(4, 4\) that starts at \[0, 0\]"
    ):
        x.dense((4, 4))
    with pytest.raises(ValueError, match=r"lies outside the dense grid \(4, 4\) that starts at \[-2, 4\]"):
        x.dense((4, 4), origin=(-2, 4))
    with pytest.raises(ValueError, match="spatial_shape has 1 axes, the tensor 2"):
        x.dense((4,))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"values must be \(B, C, \*shape\), not of shape \(2, 3\)"):
        SparseTensor.from_dense(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"mask must be bool of shape \(1, 4\), not torch\.float32"):
        SparseTensor.from_dense(torch.zeros(1, 2, 4), torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"mask must be bool of shape \(1, 4\)"):
        SparseTensor.from_dense(torch.zeros(1, 2, 4), torch.ones((1, 5), dtype=torch.bool))
    with pytest.raises(ValueError, match="a COO tensor needs a spatial_shape"):
        SparseTensor(torch.zeros((1, 2), dtype=torch.int32), torch.ones(1, 1)).to_torch_sparse()
    for values in (torch.zeros(2, 3), torch.zeros(2, 3).to_sparse(), torch.zeros(2, 3, 4).to_sparse()):
        with pytest.raises(ValueError, match="a hybrid COO tensor"):
            SparseTensor.from_torch_sparse(values)


def test_coo_duplicates_are_summed() -> None:
    places = torch.tensor([[0, 0, 1], [2, 2, 0]])
    coo = torch.sparse_coo_tensor(places, torch.tensor([[1.0], [2.0], [5.0]]), (2, 4, 1), check_invariants=True)
    x = SparseTensor.from_torch_sparse(coo)
    assert x.coords.tolist() == [[0, 2], [1, 0]] and x.feats[:, 0].tolist() == [3, 5]
