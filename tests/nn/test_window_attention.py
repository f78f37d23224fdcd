# SPDX-License-Identifier: Apache-2.0
"""Serialized attention against a loop over patches, and the block's symmetries."""

from __future__ import annotations

import pytest
import torch
from sparse_clouds import parameters, permuted, random_cloud, shifted
from torch import nn

from vision3d.nn import PointTransformerBlock, SerializedAttention
from vision3d.nn.serialization import ORDERS, curve_order
from vision3d.sparse import SparseTensor, backend


def by_loops(layer: SerializedAttention, x: SparseTensor) -> torch.Tensor:
    """Row after row: softmax over the members of its patch, head by head."""
    feats = x.sorted_feats
    curve = curve_order(x.sites, layer.order).tolist()
    out = torch.zeros_like(feats)
    width = feats.shape[1] // layer.num_heads
    query, key, value = layer.qkv(feats).chunk(3, 1)
    for sample in range(x.batch_size):
        members = [row for row in curve if x.sites.coords[row, 0] == sample]
        for i, row in enumerate(members):
            begin = min(i // layer.patch_size * layer.patch_size, max(len(members) - layer.patch_size, 0))
            patch = members[begin : begin + layer.patch_size]
            for head in range(layer.num_heads):
                part = slice(head * width, (head + 1) * width)
                weights = (key[patch][:, part] @ query[row, part] / width**0.5).softmax(0)
                out[row, part] = weights @ value[patch][:, part]
    return layer.proj(out)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("patch_size", [1, 7, 64, 1024])
def test_equals_a_loop_over_patches(order: str, patch_size: int) -> None:
    torch.manual_seed(0)
    layer = SerializedAttention(8, 2, patch_size, order).double().eval()
    sizes = random_cloud(40, 8, dtype=torch.float64)
    x = SparseTensor(  # 2 samples of about 40 rows, and one of 3 between them.
        torch.cat([sizes.coords * torch.tensor([2, 1, 1, 1]), torch.tensor([[1, 0, 0, i] for i in range(3)])]).int(),
        torch.cat([sizes.feats, torch.randn(3, 8, dtype=torch.float64)]),
    )
    with torch.no_grad():
        assert (layer(x).sorted_feats - by_loops(layer, x)).abs().max() < 1e-12


def test_parameters_of_a_block_added_up_by_hand() -> None:
    """Position code, attention, MLP of ratio 4, three layer norms."""
    c = 64
    expected = (27 * c * c + c) + (c * c + c) + (3 * c * c + 3 * c) + (c * c + c) + (8 * c * c + 5 * c) + 3 * 2 * c
    assert parameters(PointTransformerBlock(c, 4)) == expected == 164_928


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("order", ["z-trans", "hilbert"])
def test_rows_may_come_in_any_order_and_the_cloud_may_lie_anywhere(ndim: int, order: str) -> None:
    torch.manual_seed(0)
    block = PointTransformerBlock(8, 2, 16, order, ndim=ndim).double().eval()
    x = random_cloud(70, 8, ndim=ndim, dtype=torch.float64)
    with torch.no_grad():
        y = block(x).feats
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        assert torch.equal(block(permuted(x, rows)).feats, y[rows])
        assert (block(shifted(x, (-37, 5, 1000)[:ndim])).feats - y).abs().max() < 1e-12


def test_samples_never_see_each_other() -> None:
    torch.manual_seed(0)
    block = PointTransformerBlock(8, 2, 16).double().eval()
    x = random_cloud(60, 8, samples=(0, 1, 3), dtype=torch.float64)
    with torch.no_grad():
        whole = block(x)
        for sample in range(4):
            assert (block(x[sample]).feats - whole[sample].feats).abs().max() < 1e-12 if len(x[sample]) else True
    feats = x.sorted_feats.clone().requires_grad_()
    block(x.with_sorted(feats)).sample(0).feats.sum().backward()
    other = x.sites.coords[:, 0] != 0
    assert feats.grad is not None
    assert feats.grad[other].abs().max() == 0 and feats.grad[~other].abs().min() > 0


def test_a_row_sees_its_patch_and_no_other() -> None:
    """Attention alone, on a line: patches of 4 rows; the last two rows borrow the two before them."""
    layer = SerializedAttention(4, 1, 4).double()
    x = SparseTensor(torch.tensor([[0, 0, i] for i in range(10)], dtype=torch.int32), torch.randn(10, 4).double())
    feats = x.sorted_feats.clone().requires_grad_()
    out = layer(x.with_sorted(feats)).sorted_feats.sum(1)
    sees = [
        (torch.autograd.grad(out[i], feats, retain_graph=True)[0].abs().sum(1) > 0).nonzero()[:, 0].tolist()
        for i in range(10)
    ]
    assert sees == [[0, 1, 2, 3]] * 4 + [[4, 5, 6, 7]] * 4 + [[6, 7, 8, 9]] * 2


def test_a_layout_may_be_shared() -> None:
    torch.manual_seed(0)
    first, second = SerializedAttention(8, 2, 16, "hilbert"), SerializedAttention(8, 2, 16, "hilbert")
    x = random_cloud(60, 8)
    layout = first.layout(x)
    assert torch.equal(second(x, layout).feats, second(x).feats)


def test_gradients_are_right() -> None:
    torch.manual_seed(0)
    block = PointTransformerBlock(4, 2, 8).double()
    x = random_cloud(12, 4, dtype=torch.float64, extent=6)
    feats = x.sorted_feats.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: block(x.with_sorted(f)).sorted_feats, (feats,))


def test_dropout_and_stochastic_depth_act_in_training_only() -> None:
    torch.manual_seed(0)
    block = PointTransformerBlock(8, 2, 16, attn_drop=0.3, proj_drop=0.3, drop_path=0.5)
    x = random_cloud(60, 8)
    assert not torch.equal(block(x).feats, block(x).feats)
    block.eval()
    assert torch.equal(block(x).feats, block(x).feats)


def test_backends_agree() -> None:
    torch.manual_seed(0)
    block = PointTransformerBlock(8, 2, 16).double().eval()
    found = block(random_cloud(70, 8, dtype=torch.float64)).feats
    with backend("reference"):
        expected = block(random_cloud(70, 8, dtype=torch.float64)).feats
    assert (found - expected).abs().max() < 1e-12


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="num_heads=3 must divide channels=8"):
        SerializedAttention(8, 3)
    with pytest.raises(ValueError, match="unknown order 'peano'; there are: z, z-trans, hilbert, hilbert-trans"):
        SerializedAttention(8, 2, order="peano")


def test_no_rows_and_one_row() -> None:
    block = PointTransformerBlock(8, 2, 16)
    for n in (0, 1):
        x = SparseTensor(torch.zeros(n, 4, dtype=torch.int32), torch.randn(n, 8), batch_size=2)
        y = block(x)
        assert y.feats.shape == (n, 8) and y.feats.isfinite().all()
        y.feats.sum().backward()
    assert isinstance(block.norm1, nn.LayerNorm)
