# SPDX-License-Identifier: Apache-2.0
"""Point Transformer V3: parameters of the published net, pooling and unpooling, and the whole stack."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sparse_clouds import parameters, permuted, random_cloud, shifted

from vision3d.nn import GridPooling, GridUnpooling, PointTransformer
from vision3d.sparse import SparseTensor, backend


def small(**options: Any) -> PointTransformer:
    torch.manual_seed(0)
    plan: dict[str, Any] = {
        "stride": (2, 2),
        "enc_depths": (1, 1, 2),
        "enc_channels": (8, 8, 12),
        "enc_num_head": (1, 2, 2),
        "enc_patch_size": (32, 16, 16),
        "dec_depths": (1, 1),
        "dec_channels": (8, 12),
        "dec_num_head": (2, 2),
        "dec_patch_size": (16, 16),
    }
    return PointTransformer(4, **{**plan, **options})


def test_parameters_are_those_of_the_published_net() -> None:
    """Counted on PointTransformerV3's model.py with 6 input channels; the paper says 46.2 M."""
    with torch.device("meta"):
        assert parameters(PointTransformer(6)) == 46_166_272
        assert parameters(PointTransformer(6, dec_depths=())) == 38_672_640


def test_pooling_takes_the_maximum_of_each_cell() -> None:
    torch.manual_seed(0)
    pooling = GridPooling(4, 5, 2, norm="none", activation="none").double()
    x = random_cloud(90, 4, dtype=torch.float64)
    y = pooling(x)
    rows = pooling.proj(x.feats)
    for site, feats in zip(y.coords, y.feats):
        inside = (x.coords[:, 0] == site[0]) & (x.coords[:, 1:] // 2 == site[1:]).all(1)
        assert torch.equal(feats, rows[inside].amax(0))
    assert y.stride == (2, 2, 2) and len(y) < len(x)


def test_unpooling_copies_each_cell_to_its_sites() -> None:
    torch.manual_seed(0)
    pooling = GridPooling(4, 5, 2)
    unpooling = GridUnpooling(5, 4, 6, 2, norm="none", activation="none")
    x = random_cloud(90, 4)
    coarse = pooling(x)
    y = unpooling(coarse, x)
    cells = {tuple(site): row for site, row in zip(coarse.coords.tolist(), unpooling.proj(coarse.feats))}
    assert torch.equal(y.coords, x.coords)
    for site, feats, side in zip(x.coords.tolist(), y.feats, unpooling.proj_skip(x.feats)):
        parent = (site[0], *(c // 2 for c in site[1:]))
        assert torch.allclose(feats, side + cells[parent], atol=1e-6)


@pytest.mark.parametrize("ndim", [2, 3])
def test_output_has_the_sites_of_the_input_in_the_users_order(ndim: int) -> None:
    net = small(ndim=ndim).eval()
    x = random_cloud(90, 4, ndim=ndim, extent=20)
    with torch.no_grad():
        y = net(x)
        rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        assert torch.equal(y.coords, x.coords) and y.n_channels == net.num_features == 8
        assert torch.equal(net(permuted(x, rows)).feats, y.feats[rows])


def test_moves_with_the_cloud_by_multiples_of_the_total_stride() -> None:
    net = small().double().eval()
    x = random_cloud(90, 4, dtype=torch.float64)
    with torch.no_grad():
        assert (net(shifted(x, (8, -4, 16))).feats - net(x).feats).abs().max() < 1e-10


def test_without_decoder_the_coarsest_stage_comes_out() -> None:
    y = small(dec_depths=())(random_cloud(90, 4))
    assert y.stride == (4, 4, 4) and y.n_channels == 12


def test_curves_are_shuffled_in_training_only_from_torchs_generator() -> None:
    net = small(drop_path=0.0, norm="layer")
    x = random_cloud(300, 4)

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        with torch.no_grad():
            return net(x).feats

    assert torch.equal(run(1), run(1))
    assert any(not torch.equal(run(1), run(seed)) for seed in range(2, 6))
    net.eval()
    assert torch.equal(run(1), run(2))


def test_backends_agree() -> None:
    net = small().double().eval()
    with torch.no_grad():
        found = net(random_cloud(90, 4, dtype=torch.float64)).feats
        with backend("reference"):
            expected = net(random_cloud(90, 4, dtype=torch.float64)).feats
    assert (found - expected).abs().max() < 1e-10


def test_sites_beyond_the_last_full_window_keep_their_rows() -> None:
    coords = torch.tensor([[0, 0, 0, 0], [0, 4, 4, 4]], dtype=torch.int32)
    y = small().eval()(SparseTensor(coords, torch.ones(2, 4), spatial_shape=5))
    assert torch.equal(y.coords, coords) and y.feats.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enc_channels": (8, 8)}, r"enc_channels has 2 entries where 3 are needed: \(8, 8\)"),
        ({"stride": (2,)}, "stride has 1 entries where 2 are needed"),
        ({"dec_channels": (8,)}, "dec_channels has 1 entries where 2 are needed"),
        ({"drop_path": 1.5}, "in \\[0, 1\\]"),
    ],
)
def test_arguments_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
