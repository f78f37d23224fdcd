# SPDX-License-Identifier: Apache-2.0
"""Layers under ``torch.compile``: one whole graph, maps included, that serves any number of sites."""

from __future__ import annotations

import pytest
import torch
from grids import assert_close, grid
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from vision3d import sparse
from vision3d.sparse import CoordinateSet, SparseTensor

pytest.importorskip("vision3d.sparse._native")
# Dynamo makes an instance of every autograd function it meets, which torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


class UNet(nn.Module):
    """Two levels, training-mode batch norm, torch functions and operators in the forward code."""

    def __init__(self) -> None:
        super().__init__()
        self.first = sparse.SubMConv3d(4, 8, 3)
        self.norm = sparse.SparseBatchNorm(8)
        self.down = sparse.SparseConv3d(8, 16, 3, 2, 1)
        self.middle = nn.Sequential(sparse.SubMConv3d(16, 16, 3, groups=2), sparse.SparseBatchNorm(16))
        self.pool = sparse.SparseMaxPool3d(2)
        self.up = sparse.SparseInverseConv3d(16, 8, like=self.down)
        self.head = sparse.SparseLinear(16, 3)

    def forward(self, x: SparseTensor) -> SparseTensor:
        x = F.relu(self.norm(self.first(x)))
        y = self.middle(self.down(x))
        y += self.pool(y).sorted_feats.mean()
        return self.head(torch.cat([self.up(y), x], 1) * 0.5)


NETS = {
    "u_net": UNet,
    "norms": lambda: nn.Sequential(
        sparse.SparseLayerNorm(4), sparse.SparseGroupNorm(2, 4), sparse.SparseInstanceNorm(4), sparse.SparseGRN(4)
    ),
    "pools": lambda: nn.Sequential(
        sparse.SparseMaxPool3d(2), sparse.SparseAvgPool3d(3, 2, 1), sparse.SparseUpsample(2), sparse.SparseGlobalPool()
    ),
    "transposed": lambda: nn.Sequential(
        sparse.SparseConv3d(4, 4, 2, 2, out_rule="floor"),
        sparse.SparseConvTranspose3d(4, 4, 3, 2, 1, 1),
        sparse.SubMConv3d(4, 2, 1),
        sparse.SparseGELU(),
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_one_graph_for_every_number_of_sites(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]()

    def run(coords: Tensor, keys: Tensor, layout: Tensor, feats: Tensor) -> Tensor:
        y = net(SparseTensor.on(CoordinateSet(coords, keys, layout, 2, (1, 1, 1)), feats))
        return y.sorted_feats if isinstance(y, SparseTensor) else y

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(run, backend=counter, fullgraph=True, dynamic=True)
    frames = []
    for seed, fill in enumerate((0.3, 0.6, 0.1)):
        x = grid(3, 4, fill, dtype=torch.float32, seed=seed).x
        results = []
        for function in (run, compiled):
            feats = x.sorted_feats.clone().requires_grad_()
            net.zero_grad()
            sites = x.sites
            y = function(sites.coords, sites.keys, sites.layout, feats)
            y.square().sum().backward()
            results.append((y.detach(), feats.grad, *(p.grad for p in net.parameters())))
        for mine, theirs in zip(*results):
            assert (mine - theirs).abs().max() <= 1e-4 * max(1.0, theirs.abs().max().item())
        frames.append(counter.frame_count)
    # The first call may trace twice, where torch decides that an eps is a constant; later sizes need nothing new.
    assert frames[0] == frames[1] == frames[2] <= 2


@pytest.mark.parametrize("sites", [0, 1, 5])
def test_traced_batch_norm_is_the_eager_one(sites: int) -> None:
    """The traced form has no branch on the number of rows, and yet the same rule for fewer than two."""
    from vision3d.sparse.functional import batch_norm
    from vision3d.sparse.functional.normalization import _traced_batch_norm

    torch.manual_seed(0)
    feats = torch.randn(sites, 3, dtype=torch.float64)
    weight, bias = torch.randn(2, 3, dtype=torch.float64)
    for tracked in (True, False):
        results = []
        for function in (batch_norm, _traced_batch_norm):
            mean, var = torch.full((2, 3), 0.5, dtype=torch.float64) if tracked else (None, None)
            out = function(feats, mean, var, weight, bias, training=True, momentum=0.3, eps=1e-5)
            results.append((out, mean, var) if tracked else (out,))
        for a, b in zip(*results):
            assert_close(a, b)
